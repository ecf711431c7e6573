"""The kernel compiles: by nvcc for each architecture, within its budget, and by NVRTC as at its first use."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from gpupipe.cuda import kernel
from gpupipe.cuda.tables import THREADS

# Turing is the oldest that today's compiler takes; A100; H100 and H200; B200.
ARCHITECTURES = ("75", "80", "90", "100")
BLOCKS = 6  # of a multiprocessor, kBlocks in csrc/frames.cu
REGISTERS = 65536 // (BLOCKS * THREADS) // 8 * 8  # of a thread: they are given out in eights
SHARED_NBYTES = 48 << 10  # more would have to be asked for


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "frames.cu"
    path.write_text(kernel.source(), encoding="utf-8")
    return path


def test_the_source_is_whole():
    text = kernel.source()
    assert '#include "plane.h"' not in text and "#pragma once" not in text
    assert text.index("colour_channel(const") < text.index(f"{kernel.NAME}(const")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvcc(file, architecture):
    """Without a warning, and without values that spill out of registers."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine")
    command = ["nvcc", *kernel.OPTIONS, "-ftz=true", f"-arch=sm_{architecture}", "-Werror", "all-warnings"]
    command += ["-Xptxas", "-v", "-cubin", "-o", str(file.with_suffix(".cubin")), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", said), said
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= REGISTERS
    assert int(re.search(r"(\d+) bytes smem", said)[1]) <= SHARED_NBYTES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvrtc(architecture):
    """With what CuPy adds to the options."""
    try:
        from cupy.cuda import nvrtc

        nvrtc.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"CuPy and NVRTC are not here: {error}")
    if int(architecture) not in nvrtc.getSupportedArchs():
        pytest.skip(f"NVRTC {nvrtc.getVersion()} does not compile for sm_{architecture}")
    program = nvrtc.createProgram(kernel.source(), "frames.cu", (), ())
    added = ("-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{architecture}")
    try:
        nvrtc.compileProgram(program, (*kernel.OPTIONS, *added))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert "warning" not in nvrtc.getProgramLog(program)
    assert kernel.NAME.encode() in nvrtc.getCUBIN(program)

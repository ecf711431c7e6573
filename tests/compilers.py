"""The compilers of cards: what they say of the package's kernels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

# Turing is the oldest that today's compiler takes; A100; H100 and H200; B200.
ARCHITECTURES = ("75", "80", "90", "100")


def nvcc(source: str, file: Path, options: Sequence[str], architecture: str) -> str:
    """What nvcc says of a source, registers and spills included; there is no warning. `file` is written."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine")
    file.write_text(source, encoding="utf-8")
    command = ["nvcc", *options, "-ftz=true", f"-arch=sm_{architecture}", "-Werror", "all-warnings"]
    command += ["-Xptxas", "-v", "-cubin", "-o", str(file.with_suffix(".cubin")), str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def nvrtc(source: str, name: str, options: Sequence[str], architecture: str) -> bytes:
    """What NVRTC makes of a source, with what CuPy adds to the options; there is no warning."""
    try:
        from cupy.cuda import nvrtc as compiler

        compiler.getVersion()
    except (ImportError, RuntimeError, OSError) as error:
        pytest.skip(f"CuPy and NVRTC are not here: {error}")
    if int(architecture) not in compiler.getSupportedArchs():
        pytest.skip(f"NVRTC {compiler.getVersion()} does not compile for sm_{architecture}")
    program = compiler.createProgram(source, name, (), ())
    added = ("-ftz=true", "--device-as-default-execution-space", f"-arch=sm_{architecture}")
    try:
        compiler.compileProgram(program, (*options, *added))
    except compiler.NVRTCError:
        pytest.fail(compiler.getProgramLog(program))
    assert "warning" not in compiler.getProgramLog(program)
    return compiler.getCUBIN(program)

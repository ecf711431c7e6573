"""The kernel compiles: by nvcc for each architecture, within its budget, and by NVRTC as at its first use."""

from __future__ import annotations

import re

import pytest
from compilers import ARCHITECTURES, nvcc, nvrtc

from gpupipe.cuda import kernel
from gpupipe.cuda.tables import THREADS

BLOCKS = 6  # of a multiprocessor, kBlocks in csrc/frames.cu
REGISTERS = 65536 // (BLOCKS * THREADS) // 8 * 8  # of a thread: they are given out in eights
SHARED_NBYTES = 48 << 10  # more would have to be asked for


def test_the_source_is_whole():
    text = kernel.source()
    assert '#include "plane.h"' not in text and "#pragma once" not in text
    assert text.index("colour_channel(const") < text.index(f"{kernel.NAME}(const")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvcc(tmp_path, architecture):
    """Without a warning, and without values that spill out of registers."""
    said = nvcc(kernel.source(), tmp_path / "frames.cu", kernel.OPTIONS, architecture)
    assert re.search(r"0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads", said), said
    assert int(re.search(r"Used (\d+) registers", said)[1]) <= REGISTERS
    assert int(re.search(r"(\d+) bytes smem", said)[1]) <= SHARED_NBYTES


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_by_nvrtc(architecture):
    assert kernel.NAME.encode() in nvrtc(kernel.source(), "frames.cu", kernel.OPTIONS, architecture)

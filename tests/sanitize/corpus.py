"""What ``make sanitize`` runs besides the suite: real files through the native code, at every level of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gpupipe import _native, decode
from gpupipe.errors import DecodeError
from gpupipe.transform import Resizer
from gpupipe.types import Surface

MEDIA = Path(__file__).parents[2].parent / "shared" / "media"
FILES = sorted(path for path in MEDIA.glob("*") if path.suffix not in (".md", ".csv"))
SIZES = ((160, 256), (37, 61), (1, 1))


def test_the_build_is_the_sanitized_one():
    """Else all of this would pass for nothing."""
    assert b"__asan_init" in Path(_native.__file__).read_bytes()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_real_files(path):
    """Some frames of each, at several sizes, by every instruction set of this machine."""
    resizers = [(Resizer(size), np.empty((*size, 3), np.uint8)) for size in SIZES]
    taken = 0

    def put(position: int, surface: Surface) -> None:
        nonlocal taken
        for level in _native.simd_levels():
            _native.set_simd(level)
            for resizer, out in resizers:
                resizer.resize(surface, out)
        taken += 1

    try:
        with decode.open(path) as decoder:
            decoder.read(lambda index: np.unique(np.linspace(0, len(index) - 1, 4, dtype=np.int64)), put)
        assert taken
    except DecodeError as error:  # some are damaged, and say so
        assert path.name in str(error)
    finally:
        _native.set_simd(None)

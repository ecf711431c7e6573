"""Frames in memory, one or many of one size, as array libraries take them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.decode.index import Bools, Int64s

Pixels = npt.NDArray[np.uint8]
_CACHE_LINE = 64


class _Pixels:
    """Hands ``data`` to array libraries without a copy."""

    data: Pixels

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if dtype is None or np.dtype(dtype) == self.data.dtype:
            return self.data.copy() if copy else self.data
        if copy is False:
            raise ValueError(f"uint8 frames as {np.dtype(dtype)} need a copy, and copy=False forbids one")
        return self.data.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.data.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        kind, number = self.data.__dlpack_device__()
        return int(kind), int(number)


@dataclass(frozen=True, eq=False, repr=False)
class Frame(_Pixels):
    """One picture. NumPy, torch, JAX and others take it as it is (``__array__``, ``__dlpack__``).

    Attributes
    ----------
    data : ndarray
        uint8 [H, W, 3], upright RGB, full range; the caller's own.
    index : int
        Number in presentation order, from 0.
    pts_seconds : float
        See :attr:`gpupipe.Video.pts_seconds`.
    """

    data: Pixels
    index: int
    pts_seconds: float

    def __repr__(self) -> str:
        return f"Frame(index={self.index}, pts_seconds={self.pts_seconds:.6g}, data={_shape(self.data)})"


@dataclass(frozen=True, eq=False, repr=False)
class FrameBatch(_Pixels):
    """Pictures of one size. NumPy, torch, JAX and others take it as it is (``__array__``, ``__dlpack__``).

    Attributes
    ----------
    data : ndarray
        uint8 [T, H, W, 3], upright RGB, full range, C-contiguous; the caller's own.
    index : ndarray
        int64 [T], numbers in presentation order, from 0.
    pts_seconds : ndarray
        float64 [T], see :attr:`gpupipe.Video.pts_seconds`.
    valid : ndarray
        bool [T]. False where a picture stands in for one that there is not: see :meth:`gpupipe.Video.frames`.
    """

    data: Pixels
    index: Int64s
    pts_seconds: npt.NDArray[np.float64]
    valid: Bools

    def __len__(self) -> int:
        return len(self.data)

    def __repr__(self) -> str:
        held = f", {np.count_nonzero(~self.valid)} not valid" if not self.valid.all() else ""
        numbers = np.array2string(self.index, threshold=8, edgeitems=3, separator=", ")
        return f"FrameBatch(index={numbers}{held}, data={_shape(self.data)})"


def empty_pixels(*shape: int) -> Pixels:
    """Make an array that starts at a cache line; JAX copies what does not."""
    raw = np.empty(math.prod(shape) + _CACHE_LINE, np.uint8)
    start = -raw.ctypes.data % _CACHE_LINE
    return raw[start : start + math.prod(shape)].reshape(shape)


def _shape(data: Pixels) -> str:
    return f"{data.dtype} {list(data.shape)}"

"""What becomes of the bytes: kept, or normalised to floating point, channels last or first; on either device alike.

A normalised element is a function of a byte and its colour, so it is looked up in a table of 3 times 256 elements that
is made here, once. That is why a card and a CPU give the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import isfinite

import numpy as np
import numpy.typing as npt

from gpupipe.errors import UsageError

_NBYTES = {"uint8": 1, "float16": 2, "bfloat16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """The elements of a picture.

    Attributes
    ----------
    dtype : str
        ``"uint8"``: the levels themselves; or ``"float16"``, ``"bfloat16"``, ``"float32"``:
        ``(level / 255 - mean) / std``, computed as float64, rounded to float32 and from that to the type, to
        nearest, ties to even.
    channels_first : bool
        ``[3, H, W]`` instead of ``[H, W, 3]``.
    mean, std : (float, float, float)
        Of R, G, B, in units of white; only where the type is a floating one.

    Raises
    ------
    UsageError
        Another type, a mean or std of uint8, a std of zero, or a number that is not finite.
    """

    dtype: str = "uint8"
    channels_first: bool = False
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.dtype not in _NBYTES:
            raise UsageError(f"pixel type {self.dtype}: expected one of {', '.join(_NBYTES)}")
        plain = not any(self.mean) and set(self.std) == {1}
        if self.dtype == "uint8" and not plain:
            raise UsageError("uint8 pixels are not normalised; leave mean and std out, or ask for float32")
        if not all(map(isfinite, (*self.mean, *self.std))) or 0 in self.std:
            raise UsageError(f"mean {self.mean}, std {self.std}: expected finite numbers, std other than zero")

    @property
    def element_nbytes(self) -> int:
        """Bytes an element."""
        return _NBYTES[self.dtype]


@lru_cache(maxsize=32)
def level_bits(format: PixelFormat) -> npt.NDArray[np.uint32]:
    """Return the bits of every element there is, ``[3, 256]`` by colour and level, in the low bytes.

    Parameters
    ----------
    format : PixelFormat
        Of a floating type.
    """
    levels = np.arange(256, dtype=np.float64) / 255
    bits: npt.NDArray[np.uint32]
    exact = (levels - np.array(format.mean)[:, None]) / np.array(format.std)[:, None]
    with np.errstate(over="ignore"):  # beyond the type's range is infinity, as it is on a card
        single = exact.astype(np.float32)
        if format.dtype == "float16":
            bits = single.astype(np.float16).view(np.uint16).astype(np.uint32)
        else:
            bits = single.view(np.uint32).copy()
    if format.dtype == "bfloat16":
        odd = bits >> np.uint32(16) & np.uint32(1)
        bits = (bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)
    bits.flags.writeable = False
    return bits


def convert(rgb: npt.NDArray[np.uint8], format: PixelFormat) -> npt.NDArray[np.generic]:
    """Return pictures in another format; the bits are those the card's kernel writes.

    Parameters
    ----------
    rgb : ndarray
        uint8 ``[..., H, W, 3]``.
    format : PixelFormat
        What is wanted.

    Returns
    -------
    ndarray
        C-contiguous, ``[..., H, W, 3]`` or ``[..., 3, H, W]``; bfloat16 as uint16, since NumPy has no such type.
    """
    if format.dtype == "uint8":
        result: npt.NDArray[np.generic] = rgb
    else:
        bits = level_bits(format)
        if format.dtype == "float32":
            tables: npt.NDArray[np.generic] = bits.view(np.float32)
        else:
            tables = bits.astype(np.uint16)
            tables = tables.view(np.float16) if format.dtype == "float16" else tables
        result = tables[np.arange(3), rgb]
    if format.channels_first:
        result = np.moveaxis(result, -1, -3)
    return np.ascontiguousarray(result)

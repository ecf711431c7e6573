"""From a decoder's planes to upright 8-bit RGB at the wanted size, in one pass of integer arithmetic.

The arithmetic is defined at the top of ``csrc/plane.h``: antialiased triangle filter by plane, then colour. It gives
the same bytes on every machine and instruction set; :data:`ARITHMETIC_VERSION` is part of every plan's hash.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from math import floor
from threading import Lock

import numpy as np
import numpy.typing as npt

from gpupipe import _native
from gpupipe.errors import InputError, UnsupportedError, UsageError
from gpupipe.layouts import Layout, layout_of, native_layout
from gpupipe.types import Colour, Size, Surface, SurfaceFormat

__all__ = ["ARITHMETIC_VERSION", "Crop", "Resizer", "colour_coefficients", "native_layout"]

ARITHMETIC_VERSION: int = _native.ARITHMETIC_VERSION
"""Version of the definition in ``csrc/plane.h``; another version may give other bytes."""

Crop = tuple[int, int, int, int]
"""``(top, left, bottom, right)`` in samples of the first plane, in the decoded orientation, ends excluded."""

_PLANS_KEPT = 32
MAX_SIDE = 65536


class Resizer:
    """Resizes surfaces of any format to one size.

    Plans (filter weights, colour coefficients) are made once per :class:`~gpupipe.types.SurfaceFormat` and kept, the
    last 32 of them. Threads may share a Resizer; the GIL is free while pixels are worked.

    Parameters
    ----------
    size : (int, int) or None
        ``(height, width)`` of the upright result in pixels; None keeps each surface's (or the crop's) own size.
    crop : (int, int, int, int), optional
        ``(top, left, bottom, right)`` in luma samples of the surface as decoded, before rotation; default all of it.

    Raises
    ------
    UsageError
        A size outside 1..65536 or an empty crop.

    Examples
    --------
    >>> resizer = Resizer((160, 256))
    >>> out = np.empty((160, 256, 3), np.uint8)
    >>> resizer.resize(surface, out)  # doctest: +SKIP
    """

    def __init__(self, size: Size | None, crop: Crop | None = None) -> None:
        if size is not None and not all(1 <= side <= MAX_SIDE for side in size):
            raise UsageError(f"size {size}: expected (height, width) of 1 to {MAX_SIDE} pixels each")
        if crop is not None and not (0 <= crop[0] < crop[2] and 0 <= crop[1] < crop[3]):
            raise UsageError(
                f"crop {crop}: expected (top, left, bottom, right) with 0 <= top < bottom, 0 <= left < right"
            )
        self.size = size
        self.crop = crop
        self._plans: OrderedDict[SurfaceFormat, _native.Resize] = OrderedDict()
        self._lock = Lock()

    def out_size(self, format: SurfaceFormat) -> Size:
        """Return ``(height, width)`` of the upright result for a surface of this format."""
        if self.size is not None:
            return self.size
        if self.crop is None:
            return format.upright
        top, left, bottom, right = self.crop
        return (right - left, bottom - top) if format.rotation in (90, 270) else (bottom - top, right - left)

    def resize(self, surface: Surface, out: npt.NDArray[np.uint8]) -> None:
        """Write one surface, upright, into ``out``.

        Parameters
        ----------
        surface : Surface
            Planes in host memory; they are read in place.
        out : ndarray
            uint8 ``[H, W, 3]``, C-contiguous, of :meth:`out_size`; R'G'B', full range 0..255.

        Raises
        ------
        UnsupportedError
            A pixel format or colour matrix that is not read; see :func:`native_layout`.
        InputError
            A plane smaller than its format says, or a crop outside the picture.
        UsageError
            ``out`` has another shape, type or memory order.
        """
        height, width = self.out_size(surface.format)
        if out.shape != (height, width, 3) or out.dtype != np.uint8 or not out.flags.c_contiguous:
            raise UsageError(
                f"out is {out.dtype} {list(out.shape)}{'' if out.flags.c_contiguous else ', not contiguous'}; "
                f"expected C-contiguous uint8 [{height}, {width}, 3]"
            )
        try:
            self.plan(surface.format).run(surface.planes, surface.strides, out)
        except ValueError as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{_describe(surface.format)}: {error}") from error

    def resize_all(self, surfaces: Iterable[Surface], out: npt.NDArray[np.uint8]) -> int:
        """Write surfaces one after the other into ``out``, uint8 ``[T, H, W, 3]``; return how many there were.

        Raises
        ------
        UsageError
            More surfaces than ``out`` has rows; otherwise as :meth:`resize`.
        """
        count = 0
        for surface in surfaces:
            if count == len(out):
                raise UsageError(f"more surfaces than the {len(out)} rows of out")
            self.resize(surface, out[count])
            count += 1
        return count

    def plan(self, format: SurfaceFormat) -> _native.Resize:
        """What is done to pictures of this format, with its tables of weights; made once and kept."""
        with self._lock:
            plan = self._plans.get(format)
            if plan is not None:
                self._plans.move_to_end(format)
                return plan
        plan = _compile(format, self.crop, self.out_size(format))
        with self._lock:
            self._plans[format] = plan
            while len(self._plans) > _PLANS_KEPT:
                self._plans.popitem(last=False)
        return plan


Coefficients = tuple[tuple[tuple[int, int, int], int], ...]


@lru_cache(maxsize=256)
def colour_coefficients(family: str, matrix: str, full_range: bool, depth: int) -> Coefficients:
    """Return the integers of point 5 of the definition in ``csrc/plane.h``.

    Parameters
    ----------
    family : str
        ``"yuv"``, ``"rgb"`` or ``"gray"``; only ``"yuv"`` looks at the matrix.
    matrix : str
        FFmpeg's name.
    full_range : bool
        True where code 0 is black and the highest code is white.
    depth : int
        Bits a sample, 8 to 16.

    Returns
    -------
    tuple
        For R, G and B: ``((c0, c1, c2), bias)``, the level being
        ``(c0 Y + c1 (U - 16384) + c2 (V - 16384) + bias) >> 20`` of 15-bit samples.

    Raises
    ------
    UnsupportedError
        A matrix that is not a fixed linear map of R'G'B' (constant luminance, ICtCp, ...) or not known.

    Notes
    -----
    ITU-T H.273 (equations 38 to 76): Kr and Kb by matrix; limited range is 219 steps of luma from 16 and 224 of
    chroma, both times 2**(depth - 8).
    """
    # Levels per 15-bit unit, times 2**7: an 8-bit full-range code is 2**7 units.
    if full_range:
        luma = chroma = Fraction(255 << (depth - 8), (1 << depth) - 1)
        black = 0
    else:
        luma, chroma = Fraction(255, 219), Fraction(255, 224)
        black = 16 << 7
    difference = [True, True]  # U and V are colour differences, not colours with a black of their own
    zero = Fraction(0)
    if family == "gray":
        rows = [[luma, zero, zero]] * 3
    elif family == "rgb":
        rows = [[luma if row == column else zero for column in range(3)] for row in range(3)]
        difference = [False, False]
    elif matrix == "gbr":
        rows = [[zero, zero, luma], [luma, zero, zero], [zero, luma, zero]]
        difference = [False, False]
    elif matrix == "ycgco":
        rows = [[luma, -chroma, chroma], [luma, chroma, zero], [luma, -chroma, -chroma]]
    elif matrix in _KR_KB:
        kr, kb = (Fraction(k, 10000) for k in _KR_KB[matrix])
        kg = 1 - kr - kb
        rows = [
            [luma, zero, 2 * (1 - kr) * chroma],
            [luma, -2 * kb * (1 - kb) / kg * chroma, -2 * kr * (1 - kr) / kg * chroma],
            [luma, 2 * (1 - kb) * chroma, zero],
        ]
    else:
        raise UnsupportedError(
            f"colour matrix {matrix} is not converted; expected one of {', '.join(sorted([*_KR_KB, 'gbr', 'ycgco']))}. "
            "Retag or convert the file first: ffmpeg -i IN -vf zscale=m=709 OUT"
        )
    half = 1 << (_native.COLOUR_SHIFT - 1)
    neutral = 1 << (_native.MID_BITS - 1)
    result = []
    for row in rows:
        c0, c1, c2 = (floor(value * 8192 + Fraction(1, 2)) for value in row)
        bias = half - c0 * black
        for coefficient, is_difference in zip((c1, c2), difference, strict=True):
            if not is_difference:
                bias += coefficient * (neutral - black)
        result.append(((c0, c1, c2), bias))
    return tuple(result)


def _compile(format: SurfaceFormat, crop: Crop | None, out: Size) -> _native.Resize:
    layout = layout_of(format.layout)
    height, width = format.height, format.width
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"{_describe(format)}: expected 1 to {MAX_SIDE} samples a side")
    if crop is not None and (crop[2] > height or crop[3] > width):
        raise InputError(f"{_describe(format)}: crop {crop} reaches outside the picture")
    if format.rotation not in (0, 90, 180, 270):
        raise InputError(f"{_describe(format)}: rotation {format.rotation}, expected 0, 90, 180 or 270")
    full_range = layout.full_range or format.colour.full_range
    return _native.Resize(
        size=(height, width),
        crop=crop or (0, 0, height, width),
        out=(out[1], out[0]) if format.rotation in (90, 270) else out,
        subsampling=layout.subsampling,
        siting=_siting(layout, format.colour),
        sample=(layout.word_bytes, layout.shift, layout.depth),
        components=[
            (component.plane, component.offset, component.step, layout.family == "yuv" and index > 0)
            for index, component in enumerate(layout.components)
        ],
        colour=colour_coefficients(layout.family, format.colour.matrix, full_range, layout.depth),
        rotation=format.rotation,
        mirrored=format.mirrored,
    )


def _siting(layout: Layout, colour: Colour) -> tuple[int, int]:
    if colour.siting in ("unknown", "unspecified"):
        return (0, 0) if layout.name.startswith("yuvj") else (0, -1)
    try:
        return _SITING[colour.siting]
    except KeyError:
        raise UnsupportedError(
            f"chroma siting {colour.siting} is not known; expected one of {', '.join(_SITING)}"
        ) from None


def _describe(format: SurfaceFormat) -> str:
    return f"surface {format.layout} {format.height}x{format.width}"


_SITING = {
    # (vertical, horizontal): -1 on the first luma sample, 0 in the middle, +1 on the last
    "left": (0, -1),
    "center": (0, 0),
    "topleft": (-1, -1),
    "top": (-1, 0),
    "bottomleft": (1, -1),
    "bottom": (1, 0),
}
_BT601 = (2990, 1140)
_KR_KB = {  # ten thousandths
    "unknown": _BT601,
    "unspecified": _BT601,
    "bt470bg": _BT601,
    "smpte170m": _BT601,
    "bt709": (2126, 722),
    "bt2020nc": (2627, 593),
    "fcc": (3000, 1100),
    "smpte240m": (2120, 870),
}

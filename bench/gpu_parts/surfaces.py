"""Random surfaces of every layout, for the kernel and the CPU alike; their padding and unused bits are noise too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpupipe import layouts
from gpupipe.cuda.pixels import PixelFormat
from gpupipe.errors import GpupipeError
from gpupipe.layouts import Layout
from gpupipe.transform import Crop, Resizer
from gpupipe.types import Colour, Size, Surface, SurfaceFormat

LAYOUTS: dict[str, Layout] = layouts._LAYOUTS
"""All that are read as they are."""

PIXELS = (
    PixelFormat(),
    PixelFormat("uint8", True),
    *(
        PixelFormat(dtype, first, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        for dtype in ("float16", "bfloat16", "float32")
        for first in (False, True)
    ),
)
_MATRICES = ("unknown", "smpte170m", "bt709", "bt2020nc", "fcc", "smpte240m", "ycgco", "gbr")
_SITINGS = ("left", "center", "topleft", "top", "bottomleft", "bottom", "unknown")
_LARGE = ((1080, 1920), (2160, 3840), (1, 4097), (3001, 2))


@dataclass(frozen=True)
class Drawn:
    """A surface that lies in one piece, and how it is resized.

    Attributes
    ----------
    format : SurfaceFormat
    memory : ndarray
        uint8; planes in it one after the other.
    offsets, strides : list of int
        Of the planes, bytes.
    resizer : Resizer
    truth : ndarray
        uint8 ``[H, W, 3]``: what the CPU makes of it.
    """

    format: SurfaceFormat
    memory: np.ndarray
    offsets: list[int]
    strides: list[int]
    resizer: Resizer
    truth: np.ndarray

    def describe(self) -> str:
        format, resizer = self.format, self.resizer
        return (
            f"{format.layout} {format.height}x{format.width} strides {self.strides} offsets {self.offsets} "
            f"{format.colour} turned {format.rotation}{' mirrored' if format.mirrored else ''}, crop {resizer.crop} "
            f"to {resizer.out_size(format)}"
        )


def draw(layout: str, random: np.random.Generator, large: bool = False) -> Drawn:
    """A surface of this layout, everything else at random; one that the CPU refuses is not drawn."""
    while True:
        try:
            return _draw(layout, random, large)
        except GpupipeError:
            continue


def _draw(layout: str, random: np.random.Generator, large: bool) -> Drawn:
    size = _LARGE[random.integers(len(_LARGE))] if large else _size(random, 320)
    colour = Colour(str(random.choice(_MATRICES)), bool(random.integers(2)), str(random.choice(_SITINGS)))
    rotation = int(random.choice([0, 0, 0, 90, 180, 270]))
    format = SurfaceFormat(*size, layout, colour, rotation, bool(random.integers(4) == 0))
    offsets, strides, end = [], [], int(random.integers(16)) if random.integers(4) == 0 else 0
    for rows, row_bytes in _planes(LAYOUTS[layout], size):
        stride = row_bytes + int(random.integers(40)) if random.integers(2) else -(-row_bytes // 256) * 256
        if LAYOUTS[layout].word_bytes == 2:
            stride += stride & 1
            end += end & 1
        offsets.append(end)
        strides.append(stride)
        end += stride * rows
    memory = random.integers(0, 256, end, np.uint8)
    if random.integers(3) == 0:
        memory = (memory & 1) * np.uint8(255)  # black and white only: the largest sums
    crop = _crop(random, size) if random.integers(4) == 0 else None
    own = random.integers(8) == 0 and not large
    resizer = Resizer(None if own else _size(random, 260), crop)
    truth = np.empty((*resizer.out_size(format), 3), np.uint8)
    resizer.resize(Surface(format, [memory[offset:] for offset in offsets], strides), truth)
    return Drawn(format, memory, offsets, strides, resizer, truth)


def _size(random: np.random.Generator, most: int) -> Size:
    height, width = (int(side) for side in random.integers(1, most, 2))
    return height, width


def _crop(random: np.random.Generator, size: Size) -> Crop:
    (top, bottom), (left, right) = (sorted(int(each) for each in random.integers(0, side + 1, 2)) for side in size)
    top, left = min(top, size[0] - 1), min(left, size[1] - 1)
    return top, left, max(bottom, top + 1), max(right, left + 1)


def _planes(layout: Layout, size: Size) -> list[tuple[int, int]]:
    """Rows and bytes a row of each plane that is read; those between them have what the first has."""
    found: dict[int, tuple[int, int]] = {}
    for index, component in enumerate(layout.components):
        down, across = layout.subsampling if layout.family == "yuv" and index else (0, 0)
        rows, samples = -(-size[0] >> down), -(-size[1] >> across)
        words = component.offset + (samples - 1) * component.step + 1
        before = found.get(component.plane, (0, 0))
        found[component.plane] = (max(before[0], rows), max(before[1], words * layout.word_bytes))
    return [found.get(plane, found[min(found)]) for plane in range(max(found) + 1)]

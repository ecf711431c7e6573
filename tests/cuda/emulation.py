"""The kernel on a CPU: ``csrc/frames.cu`` behind the headers of this folder, as a Runtime; and surfaces to try it on.

Run as a program, it is built with a sanitizer around it: ``emulation.py LIBRARY SEED TRIALS``, see test_kernel.py.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpupipe import layouts
from gpupipe.cuda.card import DeviceBuffer, Target
from gpupipe.cuda.kernel import BYTES, FrameKernel, Runtime
from gpupipe.cuda.pixels import PixelFormat, convert
from gpupipe.transform import Resizer
from gpupipe.types import Colour, DeviceSurface, Surface, SurfaceFormat

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
COMPILER = (os.environ.get("CXX") or "g++").split()[0]

MATRICES = ("unknown", "smpte170m", "bt709", "bt2020nc", "fcc", "smpte240m", "gbr", "ycgco")
SITINGS = ("left", "center", "topleft", "top", "bottomleft", "bottom", "unknown")
PIXELS = (
    BYTES,
    PixelFormat(channels_first=True),
    PixelFormat("float16", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    PixelFormat("bfloat16", channels_first=True, mean=(0.5, 0.5, 0.5), std=(0.5, 0.25, 0.125)),
    PixelFormat("float32", channels_first=True, std=(-1.0, 2.0, 3.0)),
    PixelFormat("float32"),
)


def compiled(folder: Path, *flags: str, planted: tuple[str, str] | None = None) -> Path:
    """Build the emulation; `planted` is one text of the kernel and what stands there instead."""
    text = (CSRC / "frames.cu").read_text(encoding="utf-8")
    if planted:
        assert text.count(planted[0]) == 1, planted
        text = text.replace(*planted)
    (folder / "frames.cu").write_text(text, encoding="utf-8")
    library = folder / "emulation.so"
    command = [COMPILER, "-std=c++17", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", *flags]
    command += ["-shared", "-fPIC", f"-I{folder}", f"-I{HERE}", f"-I{CSRC}", str(HERE / "emulate.cpp")]
    done = subprocess.run([*command, "-o", str(library)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return library


def missing() -> str | None:
    return None if shutil.which(COMPILER) else f"no compiler {COMPILER} to build the emulation with"


class BarrierError(Exception):
    """Threads of a block met different barriers."""


class Emulation(Runtime):
    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.emulate.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]

    def upload(self, table):
        copy = np.zeros(-(-table.nbytes // 16) + 1, "V16").view(np.uint8)  # room to align in
        start = -copy.ctypes.data % 16
        copy[start : start + table.nbytes] = np.ascontiguousarray(table).reshape(-1).view(np.uint8)
        return DeviceBuffer(copy.ctypes.data + start, table.nbytes, copy)

    def launch(self, launch, stream, keep):
        assert launch.tiles.flags.c_contiguous and launch.pictures.flags.c_contiguous
        self.run(launch.tiles.ctypes.data, launch.pictures.ctypes.data, len(launch.tiles), launch.threads)

    def run(self, tiles: int, pictures: int, blocks: int, threads: int) -> None:
        if self._library.emulate(tiles, pictures, blocks, threads):
            raise BarrierError


@dataclass
class Case:
    """One picture: what it is, and the memory it lies in."""

    format: SurfaceFormat
    resizer: Resizer
    planes: list[np.ndarray]
    strides: list[int]

    def expected(self, pixels: PixelFormat) -> np.ndarray:
        rgb = np.empty((*self.resizer.out_size(self.format), 3), np.uint8)
        self.resizer.resize(Surface(self.format, self.planes, self.strides), rgb)
        return convert(rgb, pixels)

    @property
    def surface(self) -> DeviceSurface:
        return DeviceSurface(self.format, [plane.ctypes.data for plane in self.planes], self.strides)


def plane_shapes(format: SurfaceFormat) -> list[tuple[int, int]]:
    """Rows and bytes a row of each plane that is read; (0, 0) for one that is not."""
    layout = layouts.layout_of(format.layout)
    shapes = [(0, 0)] * (1 + max(component.plane for component in layout.components))
    for index, component in enumerate(layout.components):
        sy, sx = layout.subsampling if layout.family == "yuv" and index else (0, 0)
        rows, samples = -(-format.height >> sy), -(-format.width >> sx)
        words = component.offset + (samples - 1) * component.step + 1
        shapes[component.plane] = (rows, max(shapes[component.plane][1], words * layout.word_bytes))
    return shapes


def case(rng, format, size, crop=None, aligned=True, extremes=False) -> Case:
    """Random bytes, in all bits of every word. A plane ends where its memory ends."""
    planes, strides = [], []
    for rows, row_bytes in plane_shapes(format):
        stride = -(-row_bytes // 16) * 16 if aligned else row_bytes + int(rng.integers(0, 40))
        start = 0 if aligned else int(rng.integers(0, 16))
        nbytes = max(rows - 1, 0) * stride + row_bytes
        memory = np.empty(start + nbytes, np.uint8)
        memory[:] = rng.integers(0, 2, start + nbytes) * 255 if extremes else rng.integers(0, 256, start + nbytes)
        planes.append(memory[start:])
        strides.append(stride)
    return Case(format, Resizer(size, crop), planes, strides)


def random_case(rng, most=160) -> Case:
    names = list(layouts._LAYOUTS)
    height, width = (int(side) for side in rng.integers(1, most, 2))
    format = SurfaceFormat(
        height,
        width,
        str(rng.choice(names)),
        Colour(str(rng.choice(MATRICES)), bool(rng.integers(2)), str(rng.choice(SITINGS))),
        int(rng.choice([0, 90, 180, 270])),
        bool(rng.integers(2)),
    )
    crop = None
    if rng.integers(2):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        crop = (top, left, int(rng.integers(top, height)) + 1, int(rng.integers(left, width)) + 1)
    size = None if rng.integers(8) == 0 else tuple(int(side) for side in rng.integers(1, most // 2, 2))
    return case(rng, format, size, crop, bool(rng.integers(2)), bool(rng.integers(3) == 0))


def differing(runtime: Runtime, cases: list[Case], pixels: PixelFormat = BYTES, tile_rows: int = 8) -> list[Case]:
    """Resize all in one launch; return those whose bytes are not the CPU's. Outputs are poisoned before."""
    expected = [each.expected(pixels) for each in cases]
    outs = [np.full(want.nbytes, 0xA5, np.uint8) for want in expected]
    pictures = [
        (each.surface, each.resizer, Target(DeviceBuffer(out.ctypes.data, out.nbytes, out), 0))
        for each, out in zip(cases, outs, strict=True)
    ]
    FrameKernel(runtime, tile_rows).resize(pictures, 0, pixels)
    return [
        each
        for each, out, want in zip(cases, outs, expected, strict=True)
        if out.tobytes() != want.tobytes()  # bits, so that NaN and zeros of either sign count
    ]


def storm(runtime: Runtime, seed: int, trials: int) -> list[Case]:
    """Mixed batches; the first ones that differ."""
    rng = np.random.default_rng(seed)
    for trial in range(trials):
        cases = [random_case(rng) for _ in range(int(rng.integers(1, 6)))]
        wrong = differing(runtime, cases, PIXELS[trial % len(PIXELS)], int(rng.integers(1, 20)))
        if wrong:
            return wrong
    return []


if __name__ == "__main__":
    found = storm(Emulation(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3]))
    sys.exit(f"differs: {found[0].format} {found[0].resizer.size} {found[0].resizer.crop}" if found else 0)

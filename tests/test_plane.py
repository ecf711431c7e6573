"""The pixel arithmetic against a float64 reference of the same definition, written here from the formulas alone."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from gpupipe import _native
from gpupipe.transform import Resizer
from gpupipe.types import Colour, Surface, SurfaceFormat

# An integer result may lie half a level off by its own rounding, and the quantised weights and coefficients of the
# definition may move it across that border: one level, everywhere.
TOLERANCE = 1.0

# name: (order of the components by plane and word, chroma subsampling (y, x), depth, shift). Written by hand, not
# taken from gpupipe.layouts, so that an error there shows. "a" is alpha or padding: noise that must not matter.
LAYOUTS: dict[str, tuple[list[str], tuple[int, int], int, int]] = {
    "yuv420p": (["y", "u", "v"], (2, 2), 8, 0),
    "yuv422p": (["y", "u", "v"], (1, 2), 8, 0),
    "yuv444p": (["y", "u", "v"], (1, 1), 8, 0),
    "yuv440p": (["y", "u", "v"], (2, 1), 8, 0),
    "yuv411p": (["y", "u", "v"], (1, 4), 8, 0),
    "yuv410p": (["y", "u", "v"], (4, 4), 8, 0),
    "yuvj420p": (["y", "u", "v"], (2, 2), 8, 0),
    "yuva420p": (["y", "u", "v", "a"], (2, 2), 8, 0),
    "yuv420p9le": (["y", "u", "v"], (2, 2), 9, 0),
    "yuv420p10le": (["y", "u", "v"], (2, 2), 10, 0),
    "yuv422p12le": (["y", "u", "v"], (1, 2), 12, 0),
    "yuv420p14le": (["y", "u", "v"], (2, 2), 14, 0),
    "yuv444p16le": (["y", "u", "v"], (1, 1), 16, 0),
    "nv12": (["y", "uv"], (2, 2), 8, 0),
    "nv21": (["y", "vu"], (2, 2), 8, 0),
    "nv16": (["y", "uv"], (1, 2), 8, 0),
    "nv24": (["y", "uv"], (1, 1), 8, 0),
    "p010le": (["y", "uv"], (2, 2), 10, 6),
    "p012le": (["y", "uv"], (2, 2), 12, 4),
    "p016le": (["y", "uv"], (2, 2), 16, 0),
    "p210le": (["y", "uv"], (1, 2), 10, 6),
    "p410le": (["y", "uv"], (1, 1), 10, 6),
    "yuyv422": (["yuyv"], (1, 2), 8, 0),
    "uyvy422": (["uyvy"], (1, 2), 8, 0),
    "y210le": (["yuyv"], (1, 2), 10, 6),
    "gray": (["y"], (1, 1), 8, 0),
    "gray10le": (["y"], (1, 1), 10, 0),
    "gray16le": (["y"], (1, 1), 16, 0),
    "ya8": (["ya"], (1, 1), 8, 0),
    "gbrp": (["g", "b", "r"], (1, 1), 8, 0),
    "gbrap12le": (["g", "b", "r", "a"], (1, 1), 12, 0),
    "rgb24": (["rgb"], (1, 1), 8, 0),
    "bgr24": (["bgr"], (1, 1), 8, 0),
    "rgba": (["rgba"], (1, 1), 8, 0),
    "bgra": (["bgra"], (1, 1), 8, 0),
    "argb": (["argb"], (1, 1), 8, 0),
    "abgr": (["abgr"], (1, 1), 8, 0),
    "rgb0": (["rgba"], (1, 1), 8, 0),
    "0bgr": (["abgr"], (1, 1), 8, 0),
    "rgb48le": (["rgb"], (1, 1), 16, 0),
}
KR_KB = {
    "unknown": (0.299, 0.114),
    "smpte170m": (0.299, 0.114),
    "bt470bg": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "bt2020nc": (0.2627, 0.0593),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
}


class Picture:
    """Random codes by component, and the same as a padded surface."""

    def __init__(self, name, height, width, colour=None, crop=None, seed=0, padding=7, poison=0xA5, content="noise"):
        self.colour = colour or Colour()
        self.planes, (self.sy, self.sx), self.depth, shift = LAYOUTS[name]
        rng = np.random.default_rng(seed)
        self.codes = {}
        for letter in dict.fromkeys("".join(self.planes)):
            ph, pw = (-(-height // self.sy), -(-width // self.sx)) if letter in "uv" else (height, width)
            top = (1 << self.depth) - 1
            extremes = rng.integers(0, 2, (ph, pw)) * top  # black and white only: the largest sums
            self.codes[letter] = extremes if content == "extremes" else rng.integers(0, top + 1, (ph, pw))
        buffers, strides = [], []
        dtype = np.dtype("<u2") if self.depth + shift > 8 else np.dtype("u1")
        for letters in self.planes:
            step = {letter: len(letters) // letters.count(letter) for letter in letters}
            words = max(letters.index(c) + (self.codes[c].shape[1] - 1) * step[c] + 1 for c in letters)
            plane = np.zeros((self.codes[letters[0]].shape[0], words), dtype)
            for c in set(letters):
                count = self.codes[c].shape[1]
                plane[:, letters.index(c) :: step[c]][:, :count] = self.codes[c] << shift
            raw = plane.view(np.uint8)
            padded = np.full((raw.shape[0], raw.shape[1] + padding), poison, np.uint8)
            padded[:, : raw.shape[1]] = raw
            flat = padded.reshape(-1)
            buffers.append(flat[: flat.size - padding].tobytes())  # the last row is short of a full stride
            strides.append(padded.shape[1])
        self.crop = crop or (0, 0, height, width)
        self.surface = Surface(SurfaceFormat(height, width, name, self.colour), buffers, strides)

    def resized(self, out_height, out_width):
        out = np.full((out_height, out_width, 3), 77, np.uint8)
        Resizer((out_height, out_width), self.crop).resize(self.surface, out)
        return out

    def reference(self, out_height, out_width):
        """float64 ``[H, W, 3]``, levels before rounding, clipped to 0..255."""
        top, left, bottom, right = self.crop
        vertical = {"left": "center", "center": "center", "top": "top", "topleft": "top"}.get(
            self.colour.siting, "bottom"
        )
        horizontal = "left" if "left" in self.colour.siting else "center"
        small = {}
        for letter, codes in self.codes.items():
            sy, sx = (self.sy, self.sx) if letter in "uv" else (1, 1)
            rows = filter_matrix(top, bottom, out_height, sy, vertical, codes.shape[0])
            columns = filter_matrix(left, right, out_width, sx, horizontal, codes.shape[1])
            small[letter] = rows @ codes.astype(np.float64) @ columns.T
        return np.clip(255 * self.colours(small), 0, 255)

    def colours(self, small):
        scale = 2.0 ** (self.depth - 8)
        name = self.surface.format.layout
        if "r" in small:
            return np.stack([small[c] / (2**self.depth - 1) for c in "rgb"], -1)
        if self.colour.full_range or name.startswith("yuvj"):
            black, luma, chroma = 0.0, 2.0**self.depth - 1, 2.0**self.depth - 1
        else:
            black, luma, chroma = 16 * scale, 219 * scale, 224 * scale
        y = (small["y"] - black) / luma
        if "u" not in small:
            return np.stack([y, y, y], -1)
        if self.colour.matrix == "gbr":
            return np.stack([(small["v"] - black) / luma, y, (small["u"] - black) / luma], -1)
        u, v = ((small[c] - 128 * scale) / chroma for c in "uv")
        if self.colour.matrix == "ycgco":
            return np.stack([y - u + v, y + u, y - u - v], -1)
        kr, kb = KR_KB[self.colour.matrix]
        red, blue = y + 2 * (1 - kr) * v, y + 2 * (1 - kb) * u
        return np.stack([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], -1)


@lru_cache(maxsize=256)
def filter_matrix(begin, end, outputs, subsampling, siting, samples):
    """Exact triangle weights as float64 ``[outputs, samples]``; distances in units of 1 / (2 outputs) luma samples."""
    length, unit = end - begin, 2 * outputs
    support = max(unit * subsampling, 2 * length)
    twice_place = {"left": 1, "top": 1, "center": subsampling}.get(siting, 2 * subsampling - 1)
    place = (2 * subsampling * np.arange(samples, dtype=np.int64) + twice_place) * outputs
    centre = unit * begin + (2 * np.arange(outputs, dtype=np.int64) + 1) * length
    weights = np.maximum(0, support - np.abs(place - centre[:, None]))
    weights[:, : begin // subsampling] = 0
    weights[:, -(-end // subsampling) :] = 0
    return weights / weights.sum(1, keepdims=True)


def check(picture, height, width):
    difference = np.abs(picture.resized(height, width) - picture.reference(height, width))
    assert difference.max() <= TOLERANCE


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("full_range", [False, True])
def test_every_layout_and_range(name, full_range):
    check(Picture(name, 37, 53, Colour("bt709", full_range), seed=1), 11, 23)
    check(Picture(name, 37, 53, Colour("bt709", full_range), seed=2, content="extremes"), 41, 60)


@pytest.mark.parametrize("source", [(1, 1), (1, 7), (5, 1), (2, 3), (33, 65), (64, 130), (90, 17)])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (33, 65), (40, 16), (7, 100)])
def test_sizes(source, size):
    for name in ("yuv420p", "nv12", "yuv420p10le", "rgb24", "yuv410p", "yuyv422"):
        check(Picture(name, *source, seed=3), *size)


@pytest.mark.parametrize("matrix", [*KR_KB, "gbr", "ycgco"])
@pytest.mark.parametrize("full_range", [False, True])
@pytest.mark.parametrize("name", ["yuv444p", "yuv420p10le", "yuv444p16le"])
def test_matrices(matrix, full_range, name):
    check(Picture(name, 24, 40, Colour(matrix, full_range), seed=4), 24, 40)
    check(Picture(name, 24, 40, Colour(matrix, full_range), seed=4, content="extremes"), 9, 17)


@pytest.mark.parametrize("siting", ["left", "center", "topleft", "top", "bottomleft", "bottom"])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv411p", "yuv410p", "nv12"])
def test_sitings(siting, name):
    for size in ((30, 50), (13, 19), (61, 77)):
        check(Picture(name, 30, 50, Colour(siting=siting), seed=5), *size)


@pytest.mark.parametrize("crop", [(0, 0, 1, 1), (3, 5, 20, 38), (1, 1, 2, 40), (29, 49, 31, 51), (7, 0, 31, 51)])
@pytest.mark.parametrize("name", ["yuv420p", "nv12", "yuv410p", "yuyv422", "uyvy422", "rgb24", "p010le", "yuv411p"])
def test_crops(crop, name):
    for size in ((8, 12), (crop[2] - crop[0], crop[3] - crop[1])):
        check(Picture(name, 31, 51, crop=crop, seed=6), *size)


@pytest.mark.parametrize(
    ("source", "size"), [((9, 7680), (3, 256)), ((4320, 10), (240, 5)), ((3, 7680), (3, 1)), ((8, 8192), (2, 1280))]
)
def test_8k(source, size):
    for name in ("yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p16le"):
        for content in ("noise", "extremes"):
            check(Picture(name, *source, seed=7, content=content), *size)


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv422p12le", "yuv444p16le", "nv12", "yuv411p"])
def test_a_constant_stays_constant(name):
    for code in (0, 1, 77, 128, 200, 254, 255):
        levels = set()
        for source, size in (((1, 1), (1, 1)), ((37, 53), (5, 7)), ((16, 700), (3, 64)), ((5, 3), (50, 61))):
            picture = Picture(name, *source, Colour("bt709", True))
            top = (1 << picture.depth) - 1
            value = code * top // 255
            word = value.to_bytes(2, "little") if picture.depth > 8 else bytes([value])
            flat = [word * (len(p) // len(word) + 1) for p in picture.surface.planes]
            strides = [s + s % len(word) for s in picture.surface.strides]
            flat = [p * 2 for p in flat]
            surface = Surface(picture.surface.format, flat, strides)
            out = np.empty((*size, 3), np.uint8)
            Resizer(size).resize(surface, out)
            levels |= {tuple(pixel) for pixel in out.reshape(-1, 3)}
        assert len(levels) == 1


def test_grey_of_full_range_is_the_identity():
    codes = np.arange(256, dtype=np.uint8).reshape(16, 16)
    neutral = np.full((16, 16), 128, np.uint8).tobytes()
    out = np.empty((16, 16, 3), np.uint8)
    for matrix in (*KR_KB, "ycgco"):
        form = SurfaceFormat(16, 16, "yuv444p", Colour(matrix, full_range=True))
        Resizer(None).resize(Surface(form, [codes.tobytes(), neutral, neutral], [16] * 3), out)
        assert (out == codes[..., None]).all()


def test_black_and_white_of_limited_range():
    out = np.empty((1, 2, 3), np.uint8)
    for depth, name in ((8, "yuv444p"), (10, "yuv444p10le"), (16, "yuv444p16le")):
        kind = "u1" if depth == 8 else "<u2"
        luma = (np.array([16, 235]) << (depth - 8)).astype(kind).tobytes()
        neutral = (np.array([128, 128]) << (depth - 8)).astype(kind).tobytes()
        form = SurfaceFormat(1, 2, name, Colour("bt2020nc"))
        Resizer(None).resize(Surface(form, [luma, neutral, neutral], [4] * 3), out)
        assert out.tolist() == [[[0] * 3, [255] * 3]]


@pytest.mark.parametrize("name", LAYOUTS)
def test_padding_is_never_read(name):
    results = [Picture(name, 21, 45, poison=poison, padding=9).resized(10, 20) for poison in (0x00, 0xFF)]
    assert (results[0] == results[1]).all()


@pytest.fixture
def restore_simd():
    yield
    _native.set_simd(None)


def test_every_simd_level_gives_the_same_bytes(restore_simd):
    levels = _native.simd_levels()
    assert levels[0] == "scalar"
    rng = np.random.default_rng(8)
    names = list(LAYOUTS)
    for trial in range(150):
        source = tuple(int(side) for side in rng.integers(1, 200, 2))
        size = tuple(int(side) for side in rng.integers(1, 120, 2))
        colour = Colour(str(rng.choice([*KR_KB, "gbr", "ycgco"])), bool(rng.integers(2)))
        content = "noise" if trial % 3 else "extremes"
        picture = Picture(names[trial % len(names)], *source, colour, seed=trial, content=content)
        results = []
        for level in levels:
            _native.set_simd(level)
            assert _native.simd_level() == level
            results.append(picture.resized(*size).tobytes())
        assert len(set(results)) == 1, (trial, picture.surface.format, size)


def test_wide_rows_cross_blocks_alike(restore_simd):
    for name in ("yuv420p", "nv12", "rgb24", "yuv420p10le", "yuyv422", "rgba"):
        picture = Picture(name, 12, 1801, seed=9)
        check(picture, 5, 333)
        results = []
        for level in _native.simd_levels():
            _native.set_simd(level)
            results.append(picture.resized(5, 333).tobytes())
        assert len(set(results)) == 1


def test_an_unknown_simd_level_is_refused():
    with pytest.raises(ValueError, match="no SIMD level"):
        _native.set_simd("mmx")


GUARDED = """
import ctypes, mmap, sys
import numpy as np
from gpupipe import _native
from gpupipe.transform import Resizer
from gpupipe.types import Surface, SurfaceFormat

libc = ctypes.CDLL(None, use_errno=True)
page = mmap.PAGESIZE

def guarded(nbytes, at_end):
    # Bytes that end (or begin) exactly where a page without access begins (or ends).
    pages = -(-nbytes // page)
    area = mmap.mmap(-1, (pages + 2) * page)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    for address in (base, base + (pages + 1) * page):
        assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(page), 0) == 0
    start = page + (pages * page - nbytes if at_end else 0)
    keep.append(area)
    return np.frombuffer(area, np.uint8)[start : start + nbytes]

keep = []
for level in _native.simd_levels():
    _native.set_simd(level)
    for height, width in ((1, 1), (3, 31), (5, 32), (7, 65), (9, 130), (4, 515), (6, 1040)):
        ch, cw = -(-height // 2), -(-width // 2)
        shapes = {
            "yuv420p": [(height, width), (ch, cw), (ch, cw)],
            "nv12": [(height, width), (ch, 2 * cw)],
            "yuv420p10le": [(height, 2 * width), (ch, 2 * cw), (ch, 2 * cw)],
            "rgb24": [(height, 3 * width)],
            "yuyv422": [(height, 4 * cw)],
        }
        for name, planes in shapes.items():
            for at_end in (True, False):
                for size in ((4, 17), (11, 48)):
                    views = [guarded(h * w, at_end) for h, w in planes]
                    out = guarded(size[0] * size[1] * 3, at_end).reshape(*size, 3)
                    surface = Surface(SurfaceFormat(height, width, name), views, [w for _, w in planes])
                    Resizer(size).resize(surface, out)
                    crop = (0, width // 2, height, width)
                    Resizer(size, crop).resize(surface, out)
print("untouched")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
def test_nothing_outside_the_buffers_is_touched():
    done = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "untouched", f"exit {done.returncode}: {done.stderr[-500:]}"


def test_the_arithmetic_compiles_as_cuda_too(tmp_path):
    """One header for both devices: nvcc takes it inside a kernel, where there is an nvcc."""
    if shutil.which("nvcc") is None:
        pytest.skip("no nvcc on this machine")
    source = tmp_path / "kernel.cu"
    source.write_text(
        '#include "plane.h"\n'
        "using namespace gpupipe;\n"
        "__global__ void kernel(const int32_t* c, int32_t* sums, uint8_t* out) {\n"
        "  int32_t y = horizontal_round(vertical_round(sums[0], 8) * 16384 + sample_code(sums[1], 6, 10));\n"
        "  out[0] = colour_channel(c, c[3], y, y, y);\n"
        "  Placement at = place(4, 6, 90, true);\n"
        "  out[1] = static_cast<uint8_t>(at.origin);\n"
        "}\n"
    )
    csrc = Path(__file__).parents[1] / "csrc"
    command = ["nvcc", "-std=c++17", "-Werror", "all-warnings", "-I", str(csrc), "-c", str(source)]
    done = subprocess.run([*command, "-o", str(tmp_path / "kernel.o")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

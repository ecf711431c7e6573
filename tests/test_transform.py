"""The Resizer: orientation, crops, errors, formats, and how it compares with Pillow on real content."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import numpy as np
import pytest

from gpupipe.errors import InputError, UnsupportedError, UsageError
from gpupipe.transform import ARITHMETIC_VERSION, Resizer, colour_coefficients, native_layout
from gpupipe.types import Colour, Surface, SurfaceFormat

MEDIA = Path(__file__).resolve().parents[2] / "shared" / "media"
PSNR_FLOOR_DB = 38.0  # against a filter of the same shape that works in another order, on rounded RGB


def noise(height, width, rotation=0, mirrored=False, seed=0, colour=None):
    """A yuv420p surface of random codes."""
    rng = np.random.default_rng(seed)
    chroma = (-(-height // 2), -(-width // 2))
    planes = [rng.integers(16, 236, shape, np.uint8).tobytes() for shape in ((height, width), chroma, chroma)]
    form = SurfaceFormat(height, width, "yuv420p", colour or Colour(), rotation, mirrored)
    return Surface(form, planes, [width, chroma[1], chroma[1]])


def natural(height, width):
    """Smooth shading, soft and hard edges and fine texture, as float R'G'B' 0..255."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    shade = 120 + 80 * np.sin(5 * x + 3 * y) * np.cos(4 * y - x)
    disc = 1 / (1 + np.exp(120 * (np.hypot(x - 0.4, y - 0.3) - 0.15)))
    stripes = 12 * np.sin(160 * x * (1 + y)) * (y > 0.35)
    wall = 45 * ((x + 0.3 * y) > 0.7)
    red, green = shade + 60 * disc + stripes, 0.8 * shade + stripes + wall
    return np.clip(np.stack([red, green, 200 - 0.6 * shade - 50 * disc + wall], -1), 0, 255)


def run(surface, size=None, crop=None):
    resizer = Resizer(size, crop)
    out = np.zeros((*resizer.out_size(surface.format), 3), np.uint8)
    resizer.resize(surface, out)
    return out


class TestOrientation:
    @pytest.mark.parametrize("rotation", [0, 90, 180, 270])
    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("size", [(9, 14), (32, 17), None])
    def test_it_equals_turning_the_decoded_picture(self, rotation, mirrored, size):
        plain, turned = noise(22, 34), noise(22, 34, rotation, mirrored)
        decoded = size[::-1] if size and rotation in (90, 270) else size
        expected = run(plain, decoded)
        if mirrored:
            expected = expected[:, ::-1]
        expected = np.rot90(expected, -rotation // 90)
        assert (run(turned, size) == expected).all()

    def test_native_size_is_upright(self):
        assert run(noise(22, 34, 90)).shape == (34, 22, 3)
        assert run(noise(22, 34, 270), crop=(2, 3, 12, 30)).shape == (27, 10, 3)

    def test_a_crop_is_of_the_decoded_picture(self):
        crop = (4, 6, 20, 30)
        assert (run(noise(22, 34, 180), (8, 12), crop) == run(noise(22, 34), (8, 12), crop)[::-1, ::-1]).all()


class TestOutput:
    def test_rows_of_a_larger_array_and_nothing_else(self):
        out = np.full((5, 8, 12, 3), 9, np.uint8)
        surfaces = [noise(20, 30, seed=seed) for seed in range(3)]
        assert Resizer((8, 12)).resize_all(surfaces, out[1:4]) == 3
        assert all((out[i + 1] == run(surface, (8, 12))).all() for i, surface in enumerate(surfaces))
        assert (out[[0, 4]] == 9).all()

    def test_more_surfaces_than_rows(self):
        with pytest.raises(UsageError, match="more surfaces than the 1 rows"):
            Resizer((8, 12)).resize_all([noise(20, 30)] * 2, np.empty((1, 8, 12, 3), np.uint8))

    @pytest.mark.parametrize(
        "out",
        [
            np.empty((8, 12, 4), np.uint8),
            np.empty((12, 8, 3), np.uint8),
            np.empty((8, 12, 3), np.int8),
            np.empty((8, 24, 3), np.uint8)[:, ::2],
            np.empty((8, 12, 3), np.uint8, order="F"),
        ],
    )
    def test_an_output_of_another_kind(self, out):
        with pytest.raises(UsageError, match=r"expected C-contiguous uint8 \[8, 12, 3\]"):
            Resizer((8, 12)).resize(noise(20, 30), out)

    def test_a_read_only_output_is_left_alone(self):
        out = np.zeros((8, 12, 3), np.uint8)
        out.flags.writeable = False
        with pytest.raises((ValueError, BufferError)):
            Resizer((8, 12)).resize(noise(20, 30), out)
        assert not out.any()


class TestBadInput:
    def test_a_plane_that_is_too_short(self):
        surface = noise(20, 30)
        for index in range(3):
            planes = list(surface.planes)
            planes[index] = planes[index][:-1]
            with pytest.raises(InputError, match=rf"yuv420p 20x30: plane {index} holds \d+ bytes, expected \d+"):
                run(Surface(surface.format, planes, surface.strides), (8, 12))

    def test_a_stride_shorter_than_a_row(self):
        surface = noise(20, 30)
        with pytest.raises(InputError, match="stride of 29 bytes, its rows are 30"):
            run(Surface(surface.format, surface.planes, [29, 15, 15]), (8, 12))
        with pytest.raises(InputError, match="stride of -30"):
            run(Surface(surface.format, surface.planes, [-30, 15, 15]), (8, 12))

    def test_too_few_planes(self):
        surface = noise(20, 30)
        with pytest.raises(InputError, match="2 planes, expected 3"):
            run(Surface(surface.format, surface.planes[:2], surface.strides), (8, 12))

    def test_a_crop_outside(self):
        with pytest.raises(InputError, match="reaches outside"):
            run(noise(20, 30), (8, 12), (0, 0, 21, 30))

    @pytest.mark.parametrize("crop", [(0, 0, 0, 5), (3, 3, 2, 5), (-1, 0, 5, 5)])
    def test_an_empty_crop(self, crop):
        with pytest.raises(UsageError, match="crop"):
            Resizer((8, 12), crop)

    @pytest.mark.parametrize("size", [(0, 5), (5, -1), (70000, 5)])
    def test_an_impossible_size(self, size):
        with pytest.raises(UsageError, match="size"):
            Resizer(size)

    def test_a_rotation_that_is_no_right_angle(self):
        with pytest.raises(InputError, match="rotation 45"):
            run(noise(20, 30, 45), (8, 12))


class TestFormats:
    @pytest.mark.parametrize(
        "matrix", ["bt2020c", "ictcp", "chroma-derived-nc", "chroma-derived-c", "smpte2085", "ycgco-re", "ipt-c2"]
    )
    def test_matrices_that_are_not_converted_are_named(self, matrix):
        with pytest.raises(UnsupportedError, match=matrix):
            run(noise(20, 30, colour=Colour(matrix)), (8, 12))

    def test_rgb_and_gray_look_at_no_matrix(self):
        for layout, step in (("rgb24", 3), ("gray", 1)):
            form = SurfaceFormat(4, 4, layout, Colour("ictcp", full_range=True))
            codes = np.arange(16 * step, dtype=np.uint8)
            out = run(Surface(form, [codes.tobytes()], [4 * step]))
            assert (out == codes.reshape(4, 4, step)).all()

    def test_rgb_is_full_range_whatever_the_tag(self):
        codes = np.arange(48, dtype=np.uint8)
        for full_range in (False, True):
            surface = Surface(SurfaceFormat(4, 4, "rgb24", Colour("gbr", full_range)), [codes.tobytes()], [12])
            assert (run(surface).reshape(-1) == codes).all()

    def test_a_siting_nobody_states(self):
        same = [run(noise(20, 30, colour=Colour(siting=siting))).tobytes() for siting in ("unspecified", "left")]
        assert same[0] == same[1]
        with pytest.raises(UnsupportedError, match="siting"):
            run(noise(20, 30, colour=Colour(siting="elsewhere")))

    @pytest.mark.parametrize(
        ("name", "native"),
        [
            ("yuv420p", "yuv420p"),
            ("yuv420p10be", "yuv420p10le"),
            ("gbrp12be", "gbrp12le"),
            ("pal8", "rgb24"),
            ("monow", "rgb24"),
            ("rgb555le", "rgb24"),
            ("x2rgb10le", "gbrp10le"),
            ("uyyvyy411", "yuv411p"),
        ],
    )
    def test_native_layouts(self, name, native):
        assert native_layout(name) == native
        assert native_layout(native) == native

    @pytest.mark.parametrize(
        "name", ["gbrpf32le", "grayf32le", "xyz12le", "bayer_rggb8", "cuda", "vaapi", "rgb565be", "nonsense"]
    )
    def test_what_cannot_be_converted_without_loss(self, name):
        with pytest.raises(UnsupportedError, match=name):
            native_layout(name)

    def test_a_format_to_convert_first_names_its_target(self):
        with pytest.raises(UnsupportedError, match="convert it to rgb24"):
            run(Surface(SurfaceFormat(2, 2, "pal8"), [bytes(4)], [2]))

    def test_the_table_agrees_with_ffmpeg(self):
        av = pytest.importorskip("av")
        from gpupipe.layouts import _LAYOUTS

        seen = 0
        for name, layout in _LAYOUTS.items():
            form = av.VideoFormat(name, 16, 16)
            assert (form.chroma_height(16), form.chroma_width(16)) == tuple(16 >> s for s in layout.subsampling), name
            for ours, theirs in zip(layout.components, form.components, strict=False):
                assert (ours.plane, layout.depth) == (theirs.plane, theirs.bits), name
                seen += 1
        assert seen > 300

    @pytest.mark.parametrize(
        ("name", "word", "pixel"),
        [
            ("rgb565le", b"\xff\xff", (255, 255, 255)),
            ("rgb565le", b"\x00\xf8", (255, 0, 0)),
            ("bgr555le", b"\x1f\x00", (255, 0, 0)),
            ("monob", b"\xff\xff", (255, 255, 255)),
            ("monow", b"\xff\xff", (0, 0, 0)),
            ("rgb48be", b"\x80\x12", (128, 128, 128)),
            ("gray16be", b"\x80\x00", (130, 130, 130)),  # (128 - 16) / 219 * 255 = 130.4, limited range
        ],
    )
    def test_what_swscale_makes_of_the_others_is_read_right(self, name, word, pixel):
        av = pytest.importorskip("av")
        frame = av.VideoFrame(32, 8, name)
        for plane in frame.planes:
            plane.update(word * (plane.buffer_size // 2))
        native = frame.reformat(format=native_layout(name))
        strides = [plane.line_size for plane in native.planes]
        out = run(Surface(SurfaceFormat(8, 32, native.format.name), list(native.planes), strides))
        assert (out == pixel).all()


class TestColour:
    def test_coefficients_stay_inside_what_int32_was_proven_for(self):
        for family, matrix in (
            *(("yuv", m) for m in ("unknown", "bt709", "bt2020nc", "fcc", "smpte240m", "gbr", "ycgco")),
            ("rgb", "gbr"),
            ("gray", "unknown"),
        ):
            for depth in range(8, 17):
                for full_range in (False, True):
                    for (c0, c1, c2), bias in colour_coefficients(family, matrix, full_range, depth):
                        assert max(abs(c0), abs(c1), abs(c2)) <= 18000
                        assert abs(c0) * 32767 + (abs(c1) + abs(c2)) * 16384 + abs(bias) < 2**31

    def test_bt601_full_range_by_hand(self):
        red, green, blue = colour_coefficients("yuv", "unknown", True, 8)
        assert red == ((8192, 0, 11485), 1 << 19)  # 1.402 * 8192 = 11485.2
        assert green[0] == (8192, -2819, -5850)  # 0.344136 * 8192 = 2819.2, 0.714136 * 8192 = 5850.2
        assert blue[0] == (8192, 14516, 0)  # 1.772 * 8192 = 14516.2


class TestPillow:
    """An independent implementation: Pillow's bilinear (antialiased) of a full-size RGB with interpolated chroma."""

    @staticmethod
    def psnr(surface, size):
        image = pytest.importorskip("PIL.Image")
        form = surface.format
        planes = []
        for index, (raw, stride) in enumerate(zip(surface.planes, surface.strides, strict=True)):
            height, width = (form.height, form.width) if index == 0 else (-(-form.height // 2), -(-form.width // 2))
            flat = np.frombuffer(raw, np.uint8)
            flat = np.concatenate([flat, np.zeros(max(0, stride * height - flat.size), np.uint8)])
            planes.append(flat[: stride * height].reshape(height, stride)[:, :width].astype(np.float64))
        luma = planes[0]
        # Sited left: horizontally on every second luma sample, vertically between two.
        rows = np.clip((np.arange(form.height) + 0.5) / 2 - 0.5, 0, planes[1].shape[0] - 1)
        columns = np.clip(np.arange(form.width) / 2, 0, planes[1].shape[1] - 1)
        cb, cr = (interpolate(interpolate(plane, rows).T, columns).T - 128 for plane in planes[1:])
        y = (luma - 16) * 255 / 219
        cb, cr = cb * 255 / 224, cr * 255 / 224
        rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], -1)
        full = image.fromarray(np.clip(np.rint(rgb), 0, 255).astype(np.uint8))
        expected = np.asarray(full.resize(size[::-1], image.Resampling.BILINEAR)).astype(np.float64)
        return 10 * np.log10(255**2 / np.mean((expected - run(surface, size)) ** 2))

    @pytest.mark.parametrize("size", [(160, 256), (224, 224), (97, 131)])
    def test_procedural(self, size):
        rgb = natural(360, 480)
        y = 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]
        chroma = [(rgb[..., 2] - y) / 1.772, (rgb[..., 0] - y) / 1.402]
        planes = [np.rint(16 + y * 219 / 255)]
        for c in chroma:  # low-passed as an encoder would, centred on the even columns
            wide = np.pad(c, ((0, 0), (1, 1)), mode="edge")
            level = (wide[:, :-2] + 2 * wide[:, 1:-1] + wide[:, 2:])[:, ::2] / 4
            planes.append(np.rint(128 + (level[::2] + level[1::2]) / 2 * 224 / 255))
        buffers = [np.clip(plane, 0, 255).astype(np.uint8).tobytes() for plane in planes]
        surface = Surface(SurfaceFormat(360, 480, "yuv420p"), buffers, [480, 240, 240])
        assert self.psnr(surface, size) >= PSNR_FLOOR_DB

    @pytest.mark.parametrize(
        "name",
        ["dog_720p_h264_bf.mp4", "blocks_720p_h264_bf.mp4", "driving_720p_24fps.mp4", "squats_portrait_5fps_cbp.mp4"],
    )
    def test_natural(self, name):
        av = pytest.importorskip("av")
        if not (MEDIA / name).exists():
            pytest.skip(f"{name} is not in ../shared/media")
        with av.open(str(MEDIA / name)) as container:
            frame = next(container.decode(video=0))
            form = SurfaceFormat(frame.height, frame.width, "yuv420p")
            assert frame.format.name == "yuv420p"
            surface = Surface(form, list(frame.planes), [plane.line_size for plane in frame.planes], owner=frame)
            assert self.psnr(surface, (160, 256)) >= PSNR_FLOOR_DB


def interpolate(plane, at):
    """Linear interpolation along the first axis at fractional sample positions."""
    low = np.minimum(at.astype(int), plane.shape[0] - 1)
    high = np.minimum(low + 1, plane.shape[0] - 1)
    part = (at - low)[:, None]
    return plane[low] * (1 - part) + plane[high] * part


def test_plans_are_kept_and_bounded():
    resizer = Resizer((4, 6))
    out = np.empty((4, 6, 3), np.uint8)
    for height in range(8, 60):
        resizer.resize(noise(height, 20), out)
    assert len(resizer._plans) == 32
    plan = resizer._plans[noise(59, 20).format]
    resizer.resize(noise(59, 20), out)
    assert resizer._plans[noise(59, 20).format] is plan


def test_threads_share_a_resizer_and_the_gil_is_free():
    resizer = Resizer((160, 256))
    surfaces = [noise(720, 1280, seed=seed) for seed in range(2)]
    expected = [run(surface, (160, 256)) for surface in surfaces]
    outs = [np.zeros((160, 256, 3), np.uint8) for _ in surfaces]

    def work(index):
        for _ in range(20):
            resizer.resize(surfaces[index], outs[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((out == wanted).all() for out, wanted in zip(outs, expected, strict=True))


def test_golden():
    """Version 1, byte for byte. If this changes, raise the version: existing datasets depend on it."""
    y, x = np.mgrid[0:90, 0:122]
    planes = [(x * 7 + y * 13 + (x * y) // 5) % 256, (x * 3 + y) % 251, (255 - x + 2 * y) % 253]
    sizes = [(90, 122), (45, 61), (45, 61)]
    buffers = [p[:h, :w].astype(np.uint8).tobytes() for p, (h, w) in zip(planes, sizes, strict=True)]
    form = SurfaceFormat(90, 122, "yuv420p", Colour("bt709"), rotation=90)
    digest = hashlib.blake2b(digest_size=16)
    for size, crop in (((64, 48), None), ((31, 17), (3, 5, 80, 101)), (None, None), ((200, 150), None)):
        digest.update(run(Surface(form, buffers, [122, 61, 61]), size, crop).tobytes())
    assert (ARITHMETIC_VERSION, digest.hexdigest()) == (1, "12b74a0e12186a6f6ca80a9d18228d06")

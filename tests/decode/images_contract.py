"""What every decoder of still pictures must do; a backend's tests inherit :class:`ImageTests`."""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from pictures import (
    chunk,
    flipped,
    interlaced,
    pillow,
    png,
    png_of,
    resized,
    saved,
    scene,
    segments,
    turned,
    without,
)
from PIL import Image

from gpupipe.decode.images import ImageDecoder, ImageInfo, Still
from gpupipe.errors import (
    CorruptError,
    DecodeError,
    InputError,
    MissingInputError,
    TruncatedError,
    UnsupportedError,
)
from gpupipe.transform import Resizer

IMAGES = Path(__file__).parents[2].parent / "shared" / "images"
SCENE = scene()
GRAY = SCENE[..., 0]
ALPHA = np.dstack([SCENE, np.tile(np.arange(160, dtype=np.uint8), (120, 1))])
_RANDOM = np.random.default_rng(5)
WIDE = _RANDOM.integers(0, 65536, (31, 43, 4), dtype=np.uint16)

JPEG = saved(SCENE, "JPEG", quality=90)
PNG = saved(SCENE, "PNG")

LIKE_PILLOW: dict[str, Callable[[], bytes]] = {
    "jpeg 4:2:0": lambda: JPEG,
    "jpeg 4:2:2": lambda: saved(SCENE, "JPEG", subsampling=1),
    "jpeg 4:4:4": lambda: saved(SCENE, "JPEG", subsampling=0),
    "jpeg of low quality": lambda: saved(SCENE, "JPEG", quality=10),
    "jpeg progressive": lambda: saved(SCENE, "JPEG", progressive=True),
    "jpeg with restarts": lambda: saved(SCENE, "JPEG", restart_marker_blocks=3),
    "jpeg gray": lambda: saved(GRAY, "JPEG"),
    "jpeg rgb": lambda: saved(SCENE, "JPEG", keep_rgb=True),
    "jpeg of odd size": lambda: saved(scene(37, 53), "JPEG"),
    "jpeg 1x1": lambda: saved(scene(1, 1), "JPEG"),
    "jpeg with a profile": lambda: saved(SCENE, "JPEG", icc_profile=b"any" * 100),
    "jpeg of a JFIF to come": lambda: JPEG.replace(b"JFIF\0\1", b"JFIF\0\x09", 1),
    "jpeg with a broken profile": lambda: saved(SCENE, "JPEG", icc_profile=b"any" * 100).replace(
        b"LE\0\1", b"LE\0\5", 1
    ),
    "jpeg of an unknown transform": lambda: JPEG[:2] + b"\xff\xee\0\x0eAdobe\0d\0\0\0\0\7" + JPEG[20:],
    "jpeg cmyk": lambda: saved(Image.fromarray(SCENE).convert("CMYK"), "JPEG"),
    "jpeg cmyk without Adobe": lambda: without(saved(Image.fromarray(SCENE).convert("CMYK"), "JPEG"), 0xEE),
    "jpeg ycck": lambda: _ycck(),
    "jpeg without Huffman tables": lambda: without(saved(SCENE, "JPEG"), 0xC4),  # the standard ones are meant
    "jpeg trailing": lambda: JPEG + b"\xff\xd8 more\0" * 50,
    "png": lambda: PNG,
    "png gray": lambda: saved(GRAY, "PNG"),
    "png gray+alpha": lambda: saved(Image.fromarray(ALPHA).convert("LA"), "PNG"),
    "png rgb+alpha": lambda: saved(ALPHA, "PNG"),
    "png with a transparent colour": lambda: saved(SCENE, "PNG", transparency=tuple(map(int, SCENE[3, 4]))),
    "png palette": lambda: saved(Image.fromarray(SCENE).quantize(200), "PNG"),
    "png palette of 4 bits": lambda: saved(Image.fromarray(SCENE).quantize(13), "PNG", bits=4),
    "png palette, one transparent": lambda: saved(Image.fromarray(SCENE).quantize(64), "PNG", transparency=3),
    "png 1 bit": lambda: saved(Image.fromarray(SCENE).convert("1"), "PNG"),
    "png 2 bits": lambda: png(GRAY[:, :, None] >> 6, 2, 0),
    "png 4 bits": lambda: png(GRAY[:, :, None] >> 4, 4, 0),
    "png interlaced": lambda: interlaced(SCENE),
    "png interlaced, tiny": lambda: interlaced(scene(3, 2)),
    "png in many chunks": lambda: png_of(b"".join(b"\0" + row.tobytes() for row in SCENE), 120, 160, split=100),
    "png 1x1": lambda: saved(scene(1, 1), "PNG"),
    "png with text": lambda: png(SCENE, 8, 2, chunk(b"tEXt", b"Comment\0words") + chunk(b"gAMA", bytes(4))),
    "png trailing": lambda: PNG + b"garbage" * 50,
    "bmp": lambda: saved(SCENE, "BMP"),
    "bmp gray": lambda: saved(GRAY, "BMP"),
    "bmp 1 bit": lambda: saved(Image.fromarray(SCENE).convert("1"), "BMP"),
    "bmp palette": lambda: saved(Image.fromarray(SCENE).quantize(64), "BMP"),
    "gif": lambda: saved(Image.fromarray(SCENE).quantize(64), "GIF"),
    "gif of two": lambda: _two("GIF"),
    "webp": lambda: saved(SCENE, "WEBP"),
    "webp lossless with alpha": lambda: saved(ALPHA, "WEBP", lossless=True, exact=True),
    "webp of two": lambda: _two("WEBP"),
    "tiff": lambda: saved(SCENE, "TIFF"),
    "tiff deflate": lambda: saved(SCENE, "TIFF", compression="tiff_deflate"),
    "tiff cmyk": lambda: saved(Image.fromarray(SCENE).convert("CMYK"), "TIFF"),
    "tiff turned": lambda: saved(SCENE, "TIFF", tiffinfo={0x0112: 6}),
    "tiff of two": lambda: _two("TIFF"),
}

CUT = (
    "jpeg 4:2:0", "jpeg progressive", "jpeg gray", "jpeg cmyk", "png", "png palette", "png 1 bit", "bmp", "gif", "webp",
    "tiff", "tiff deflate",
)  # fmt: skip

SHARES = (0.1, 0.5, 0.9, 0.99, -1, -2)

_DEFLATED = zlib.compress(b"".join(b"\0" + row.tobytes() for row in SCENE))
DAMAGED = {
    "jpeg ended in the midst": JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    "jpeg with flipped bits": flipped(JPEG, 0.5),
    "jpeg with flipped bits, of a JFIF to come": flipped(JPEG.replace(b"JFIF\0\1", b"JFIF\0\x09", 1), 0.5),
    "jpeg higher than its data": resized(JPEG, 400, 160),
    "jpeg without quantisation": without(JPEG, 0xDB),
    "png with a flipped bit": flipped(PNG, 0.5, 1),
    "png with a wrong checksum": PNG.replace(b"IDAT", b"IDAT", 1)[:-16] + b"oops" + PNG[-12:],
    "png of too few rows": png_of(b"".join(b"\0" + row.tobytes() for row in SCENE[:60]), 120, 160),
    "png of half its stream": png_of(b"", 120, 160, packed=_DEFLATED[: len(_DEFLATED) // 2]),
    "png with a wrong sum of its stream": png_of(b"", 120, 160, packed=_DEFLATED[:-4] + b"oops"),
    "png of an unknown filter": png_of(b"".join(b"\7" + row.tobytes() for row in SCENE), 120, 160),
    "png of a forbidden depth": png_of(b"", 120, 160, bits=3),
    "png with words inside its picture": png_of(b"", 120, 160, packed=_DEFLATED[:99], between=b"").replace(
        chunk(b"IEND", b""), chunk(b"tEXt", b"a\0b") + chunk(b"IDAT", _DEFLATED[99:]) + chunk(b"IEND", b"")
    ),
    "png without rows": PNG[:33] + chunk(b"IEND", b""),
    "png without a palette": png_of(bytes(161 * 120), 120, 160, colour=3),
    "png of an index beyond its palette": png(
        np.full((4, 4, 1), 9, np.uint8), 8, 3, chunk(b"PLTE", bytes(range(24)))
    ),
    "png of no size": png_of(b"", 0, 160),
    "bmp of no size": b"BM" + bytes(60),
}  # fmt: skip

STRANGE = {
    "text": b"hello, this is no picture\n" * 10,
    "a page": b"<!DOCTYPE html><html><body>404</body></html>",
    "one byte": b"\xff",
    "a playlist": b"#EXTM3U\n",
    "a film": b"\0\0\0\x18ftypmp42" + bytes(100),
    "only zeros": bytes(1000),
}
UNREAD = {
    "heic": b"\0\0\0\x18ftypheic" + bytes(100),
    "avif": b"\0\0\0\x18ftypavif" + bytes(100),
    "jpeg xl": b"\xff\x0a" + bytes(100),
    "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(100),
    "photoshop": b"8BPS" + bytes(100),
    "lossless jpeg": JPEG.replace(b"\xff\xc0", b"\xff\xc3", 1),
    "12-bit jpeg": JPEG.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c", 1),
    "jpeg of two components": b"\xff\xd8\xff\xc0\0\x0e\x08\0\x10\0\x10\x02\1\x11\0\2\x11\0\xff\xda\0\x02",
    "floating tiff": saved(Image.fromarray(GRAY.astype(np.float32)), "TIFF"),
}


def _ycck() -> bytes:
    import simplejpeg

    inverted = 255 - np.array(Image.fromarray(SCENE).convert("CMYK"))
    inverted[..., 3] = 255 - GRAY // 3
    return simplejpeg.encode_jpeg(np.ascontiguousarray(inverted), colorspace="CMYK", colorsubsampling="444")


def _two(kind: str) -> bytes:
    pictures = [Image.fromarray(picture).quantize(32).convert("RGB") for picture in (SCENE, SCENE[::-1])]
    return saved(pictures[0], kind, save_all=True, append_images=pictures[1:])


class ImageTests:
    """The contract."""

    @staticmethod
    def open(**more: int) -> ImageDecoder:
        raise NotImplementedError

    def most(self, decoder: ImageDecoder, info: ImageInfo) -> int:
        """Largest difference of a sample that is allowed, in levels."""
        return 0

    def check(self, decoder: ImageDecoder, data: bytes, expected: np.ndarray) -> None:
        """Decode, or see that the backend refuses what it says it does."""
        info = decoder.load(data).info
        reason = decoder.refuses(info)
        if reason is not None:
            with pytest.raises(UnsupportedError, match="--backend auto") as caught:
                decoder.decode(data)
            assert reason in str(caught.value)
            return
        still = decoder.decode(data)
        assert still.info == info
        assert still.pixels.shape[:2] == (info.height, info.width)
        assert still.pixels.flags.c_contiguous
        assert still.rgb.shape == (*info.upright, 3) == expected.shape
        assert still.rgb.dtype == np.uint8
        assert still.rgb.flags.c_contiguous
        assert apart(still.rgb, expected) <= self.most(decoder, info)

    def fails(self, decoder: ImageDecoder, data: bytes, *kinds: type[DecodeError]) -> DecodeError:
        """Decode a bad file; give back its error, of exactly one of these kinds, which names file and next step."""
        with pytest.raises(DecodeError) as caught:
            decoder.decode(data)
        refused = "--backend auto" in str(caught.value)
        assert type(caught.value) in (kinds if not refused else (UnsupportedError,)), caught.value
        assert str(caught.value).startswith("<bytes>: ")
        return caught.value

    # -- what comes out ----------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("name", LIKE_PILLOW)
    def test_like_pillow(self, name: str) -> None:
        data = LIKE_PILLOW[name]()
        with self.open() as decoder:
            self.check(decoder, data, pillow(data))

    @pytest.mark.parametrize("colour", [0, 2, 4, 6])
    def test_16_bits(self, colour: int) -> None:
        """The high byte: as OpenCV has it, and Pillow where it does not clip."""
        count = {0: 1, 2: 3, 4: 2, 6: 4}[colour]
        high = (WIDE[..., : 3 if count > 2 else 1] >> 8).astype(np.uint8)
        with self.open() as decoder:
            data = png(WIDE[..., :count], 16, colour)
            self.check(decoder, data, np.broadcast_to(high, (31, 43, 3)))
            assert decoder.load(data).info.bits == 16

    def test_16_bit_tiff(self) -> None:
        with self.open() as decoder:
            expected = np.broadcast_to((WIDE[..., :1] >> 8).astype(np.uint8), (31, 43, 3))
            self.check(decoder, saved(Image.fromarray(np.ascontiguousarray(WIDE[..., 0])), "TIFF"), expected)

    def test_alpha_is_dropped(self) -> None:
        """Colours under full transparency are kept."""
        clear = np.dstack([SCENE, np.zeros((120, 160), np.uint8)])
        with self.open() as decoder:
            self.check(decoder, saved(clear, "PNG"), SCENE)
            self.check(decoder, saved(clear, "WEBP", lossless=True, exact=True), SCENE)

    def test_animated_png(self) -> None:
        """The picture that a reader without animation shows; the others are not even looked at."""
        control = chunk(b"acTL", struct.pack(">II", 2, 0)) + chunk(
            b"fcTL", struct.pack(">5I2H2B", 0, 160, 120, *[0] * 6)
        )
        data = png(SCENE, 8, 2, control)
        second = chunk(b"fdAT", struct.pack(">I", 1) + b"not even compressed")
        data = data[:-12] + second + data[-12:]
        with self.open() as decoder:
            self.check(decoder, data, SCENE)
            assert decoder.load(data).info.animated

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_orientation(self, kind: str, orientation: int) -> None:
        data = turned(scene(40, 56), kind, orientation, **({"lossless": True} if kind == "WEBP" else {}))
        with self.open() as decoder:
            assert decoder.load(data).info.orientation == orientation
            self.check(decoder, data, pillow(data))

    @pytest.mark.parametrize("value", [0, 9, 65535])
    def test_senseless_orientation(self, value: int) -> None:
        with self.open() as decoder:
            self.check(decoder, turned(SCENE, "PNG", value), SCENE)

    def test_exif_in_big_endian_and_in_shreds(self) -> None:
        directory = struct.pack(">HHHIHH", 1, 0x0112, 3, 1, 6, 0)
        whole = b"MM\0*" + struct.pack(">I", 8) + directory
        with self.open() as decoder:
            self.check(decoder, png(SCENE, 8, 2, chunk(b"eXIf", whole)), np.rot90(SCENE, -1))
            for stop in range(len(whole) - 4):
                assert decoder.load(png(SCENE, 8, 2, chunk(b"eXIf", whole[:stop]))).info.orientation == 1

    def test_facts(self) -> None:
        with self.open() as decoder:
            found = {name: decoder.load(data()).info for name, data in LIKE_PILLOW.items()}
        facts = {name: (info.format, info.mode, info.bits, info.coding) for name, info in found.items()}
        assert facts["jpeg 4:2:0"] == ("jpeg", "ycbcr", 8, "baseline")
        assert facts["jpeg progressive"] == ("jpeg", "ycbcr", 8, "progressive")
        assert facts["jpeg rgb"] == ("jpeg", "rgb", 8, "baseline")
        assert facts["jpeg gray"] == ("jpeg", "gray", 8, "baseline")
        assert facts["jpeg ycck"] == facts["jpeg cmyk without Adobe"] == ("jpeg", "cmyk", 8, "baseline")
        assert facts["png interlaced"] == ("png", "rgb", 8, "interlaced")
        assert facts["png palette of 4 bits"] == ("png", "palette", 4, "plain")
        assert facts["gif"][0], facts["bmp 1 bit"] == ("gif", ("bmp", "1", 1, ""))
        assert {name for name, info in found.items() if info.animated} == {"gif of two", "webp of two", "tiff of two"}
        assert {(info.path, info.height, info.width) for name, info in found.items() if name.startswith("webp")} == {
            ("<bytes>", 120, 160)
        }

    def test_surface(self) -> None:
        """Through the shared transform: the same pixels at the same size, the same picture when it is made smaller.

        A turned one is resized as it is stored, columns before rows: a level apart from one turned before.
        """
        with self.open() as decoder:
            for data in (JPEG, saved(GRAY, "PNG"), turned(SCENE, "JPEG", 6), turned(SCENE, "PNG", 7)):
                still = decoder.decode(data)
                same = np.empty_like(still.rgb)
                Resizer(None).resize(still.surface, same)
                assert np.array_equal(same, still.rgb)
                small, again = np.empty((24, 40, 3), np.uint8), np.empty((24, 40, 3), np.uint8)
                Resizer((24, 40)).resize(still.surface, small)
                upright = Still(ImageInfo("", "png", *still.rgb.shape[:2], "rgb"), still.rgb, "")
                Resizer((24, 40)).resize(upright.surface, again)
                assert apart(small, again) <= (still.info.orientation != 1)

    def test_large(self) -> None:
        """8K, of both bulk formats."""
        with self.open() as decoder:
            for data, expected in eight_k():
                self.check(decoder, data, expected)

    def test_photographs(self) -> None:
        """Every 13th of the shop's."""
        paths = sorted(IMAGES.rglob("*.jpg"))[::13]
        if not paths:
            pytest.skip("no shared images beside the checkout")
        with self.open() as decoder:
            for path, outcome in zip(paths, decoder.decode_all([decoder.load(path) for path in paths]), strict=True):
                assert isinstance(outcome, Still), outcome
                assert apart(outcome.rgb, pillow(path.read_bytes())) <= self.most(decoder, outcome.info), path
                assert outcome.info.path == str(path)

    # -- bad input ---------------------------------------------------------------------------------------------------

    @pytest.mark.parametrize(("name", "share"), [(name, share) for name in CUT for share in SHARES])
    def test_truncated(self, name: str, share: float) -> None:
        """At the last byte too; two bytes more of GIF, whose last is a mark without meaning."""
        data = LIKE_PILLOW[name]()
        cut = data[: int(len(data) * share)] if share > 0 else data[: int(share) - 2 * (name == "gif")]
        with self.open() as decoder:
            strict = name.startswith(("jpeg", "png", "webp"))
            self.fails(decoder, cut, TruncatedError, *(() if strict else (CorruptError,)))

    @pytest.mark.parametrize("name", DAMAGED)
    def test_damaged(self, name: str) -> None:
        with self.open() as decoder:
            self.fails(decoder, DAMAGED[name], CorruptError, *([TruncatedError] if "higher" in name else []))

    @pytest.mark.parametrize("name", STRANGE)
    def test_no_picture(self, name: str) -> None:
        with self.open() as decoder:
            error = self.fails(decoder, STRANGE[name], DecodeError)
            assert "is no picture" in str(error)

    @pytest.mark.parametrize("name", UNREAD)
    def test_unread_kinds(self, name: str) -> None:
        with self.open() as decoder:
            self.fails(decoder, UNREAD[name], UnsupportedError)

    def test_files(self, tmp_path: Path) -> None:
        path = tmp_path / "影 %d.jpg"
        path.write_bytes(PNG)  # what it is called matters to nobody
        (tmp_path / "empty.png").touch()
        os.mkfifo(tmp_path / "pipe.png")
        (tmp_path / "text.jpg").write_text("words")
        with self.open() as decoder:
            still = decoder.decode(path)
            assert np.array_equal(still.rgb, SCENE)
            assert still.info.path == str(path)
            for missing in (tmp_path / "none.png", tmp_path, tmp_path / "pipe.png", path / "below.png", "nul\0.png"):
                with pytest.raises(MissingInputError):
                    decoder.decode(missing)
            with pytest.raises(DecodeError, match=r"empty\.png: the file is empty"):
                decoder.decode(tmp_path / "empty.png")
            with pytest.raises(DecodeError, match=r"text\.jpg: is no picture"):
                decoder.decode(tmp_path / "text.jpg")

    @pytest.mark.parametrize("name", ["jpeg", "png", "bmp", "gif", "tiff", "tiff of a huge tile", "webp"])
    def test_too_many_pixels(self, name: str) -> None:
        """Refused by the header; the rows need not even be there."""
        data = {
            "jpeg": resized(JPEG, 60000, 60000),
            "png": png_of(bytes(100), 60000, 60000),
            "bmp": _patched(saved(SCENE, "BMP"), 18, "<ii", 60000, 60000),
            "gif": _patched(saved(Image.fromarray(SCENE).quantize(4), "GIF"), 6, "<HH", 60000, 60000),
            "tiff": _tiff({256: (256, 60000), 257: (257, 60000)}),
            "tiff of a huge tile": _tiff({284: (322, 1 << 30)}),
            "webp": _patched(saved(SCENE, "WEBP"), 26, "<HH", 16000, 16000),
        }[name]
        with self.open() as decoder:
            with pytest.raises(InputError, match="max_pixels") as caught:
                decoder.load(data)
            assert not isinstance(caught.value, DecodeError)
        with self.open(max_pixels=120 * 160) as decoder:
            decoder.decode(JPEG)
        with self.open(max_pixels=120 * 160 - 1) as decoder, pytest.raises(InputError, match="120 x 160"):
            decoder.decode(JPEG)

    def test_too_large_a_file(self, tmp_path: Path) -> None:
        """A terabyte is not read to find out that it is no picture."""
        with (tmp_path / "huge.jpg").open("wb") as file:
            file.truncate(1 << 40)
        with self.open() as decoder, pytest.raises(InputError, match="1,099,511,627,776 bytes"):
            decoder.load(tmp_path / "huge.jpg")

    def test_bomb_of_text(self) -> None:
        """What a PNG carries beside its picture is never inflated: 200 MB of words here."""
        words = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(200 << 20), 9))
        with self.open() as decoder:
            self.check(decoder, png(SCENE, 8, 2, words), SCENE)

    def test_bomb_of_scans(self) -> None:
        data = saved(SCENE, "JPEG", progressive=True)
        scan = data.rindex(b"\xff\xda")
        with self.open() as decoder:
            error = self.fails(decoder, data[:-2] + data[scan:-2] * 600 + data[-2:], CorruptError)
            assert "scans" in str(error)

    def test_bad_ones_among_good(self) -> None:
        """A bad picture costs no other, and none changes its place."""
        with self.open() as decoder:
            data = [JPEG, DAMAGED["jpeg with flipped bits"], PNG, DAMAGED["png of too few rows"], JPEG] * 5
            outcomes = decoder.decode_all([decoder.load(each) for each in data])
            kinds = [isinstance(outcome, Still) for outcome in outcomes]
            assert kinds == [True, False, True, False, True] * 5
            assert all(isinstance(outcome, CorruptError) for outcome in outcomes if not isinstance(outcome, Still))
            assert decoder.decode_all([]) == []
            for outcome in outcomes[2::5]:
                assert isinstance(outcome, Still)
                assert np.array_equal(outcome.rgb, SCENE)

    def test_batch_changes_nothing(self) -> None:
        with self.open() as decoder:
            data = [saved(scene(20 + seed, 90 - seed, seed), ("JPEG", "PNG")[seed % 2]) for seed in range(70)]
            files = [decoder.load(each) for each in data]
            together = decoder.decode_all(files)
            for file, outcome in zip(files, together, strict=True):
                (alone,) = decoder.decode_all([file])
                assert isinstance(outcome, Still) and isinstance(alone, Still)
                assert np.array_equal(outcome.rgb, alone.rgb)

    def test_nothing_is_said(self, capfd: pytest.CaptureFixture[str]) -> None:
        """Libraries do not print what is an error here."""
        with self.open() as decoder:
            for data in (*DAMAGED.values(), JPEG[:1000], PNG[:1000], LIKE_PILLOW["tiff deflate"]()[:-3000]):
                with pytest.raises(DecodeError):
                    decoder.decode(data)
        assert capfd.readouterr() == ("", "")

    def test_identity(self) -> None:
        with self.open() as one, self.open() as other:
            assert one.identity() == other.identity()
            assert any(letter.isdigit() for letter in one.identity())


@lru_cache(maxsize=1)
def eight_k() -> list[tuple[bytes, np.ndarray]]:
    """A PNG and a JPEG of 4320 x 7680, and what is in them."""
    picture = np.tile(scene(432, 768), (10, 10, 1))
    jpeg = saved(picture, "JPEG")
    return [(saved(picture, "PNG", compress_level=1), picture), (jpeg, pillow(jpeg))]


def apart(one: np.ndarray, other: np.ndarray) -> int:
    """Largest difference of a sample."""
    return int(np.maximum(one - np.minimum(one, other), other - np.minimum(one, other)).max())


def _patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    return data[:at] + struct.pack(form, *values) + data[at + struct.calcsize(form) :]


def _tiff(entries: dict[int, tuple[int, int]]) -> bytes:
    """A TIFF with entries of its directory replaced by others, one LONG each."""
    data = saved(SCENE, "TIFF")
    with Image.open(io.BytesIO(data)) as image:
        offset = image.tag_v2.offset
    for entry in range(struct.unpack_from("<H", data, offset)[0]):
        at = offset + 2 + 12 * entry
        tag = struct.unpack_from("<H", data, at)[0]
        if tag in entries:
            data = _patched(data, at, "<HHII", entries[tag][0], 4, 1, entries[tag][1])
    return data


assert segments(JPEG)  # the helpers read what Pillow writes

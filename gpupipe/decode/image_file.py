"""A file that should hold a still picture: its bytes, and its facts from the header. Nothing is decoded here."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gpupipe.decode.png import SIGNATURE as PNG
from gpupipe.decode.png import PngHeader
from gpupipe.errors import (
    CorruptError,
    DecodeError,
    InputError,
    MissingInputError,
    TruncatedError,
    UnsupportedError,
)
from gpupipe.types import Size

_TURNS = {
    1: (0, False), 2: (0, True), 3: (180, False), 4: (180, True),
    5: (270, True), 6: (90, False), 7: (90, True), 8: (270, False),
}  # fmt: skip
_MOST_SCANS = 500
"""Of a progressive JPEG; each costs the time of the whole picture, and real ones have about ten."""
_READ_MORE = 64 << 20
"""Bytes that a file may have beside 8 a pixel of the largest picture."""


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """Facts of one still picture, as its header gives them.

    Attributes
    ----------
    path : str
        ``"<bytes>"`` where it came from memory.
    format : str
        ``"jpeg"``, ``"png"``, ``"bmp"``, ``"gif"``, ``"tiff"`` or ``"webp"``.
    height, width : int
        As stored, before the orientation.
    mode : str
        JPEG: ``"gray"``, ``"ycbcr"``, ``"rgb"``, ``"cmyk"`` (YCCK too). PNG: ``"gray"``, ``"gray+alpha"``, ``"rgb"``,
        ``"rgb+alpha"``, ``"palette"``. Else Pillow's word for what it makes of it.
    bits : int
        A sample (of a palette: an index), as stored; 8 where the format has no other.
    orientation : int
        EXIF's, 1 to 8; 1 where nothing valid is said, and for TIFF, which is turned as it is read.
    animated : bool
        True if there are more pictures than the first.
    coding : str
        How JPEG is coded: ``"baseline"``, ``"progressive"`` or ``"arithmetic"``; PNG: ``"plain"`` or
        ``"interlaced"``; else empty.
    """

    path: str
    format: str
    height: int
    width: int
    mode: str
    bits: int = 8
    orientation: int = 1
    animated: bool = False
    coding: str = ""

    @property
    def turn(self) -> tuple[int, bool]:
        """Clockwise degrees that make the picture upright, and whether it is flipped left to right before."""
        return _TURNS[self.orientation]

    @property
    def upright(self) -> Size:
        """``(height, width)`` as shown."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A still picture that is read and not yet decoded; with its chunks if it is a PNG."""

    info: ImageInfo
    data: bytes
    png: PngHeader | None = None


def read_image(source: str | os.PathLike[str] | bytes, max_pixels: int) -> ImageFile:
    """Read a file, or take its bytes, and look at its header.

    Raises
    ------
    MissingInputError
        No such file, or not a regular one.
    DecodeError
        Empty, or not a picture.
    UnsupportedError
        A kind of picture that is not read.
    TruncatedError, CorruptError
        The header is cut off, or makes no sense.
    InputError
        It cannot be read, or has more than ``max_pixels``.
    """
    if isinstance(source, bytes):
        name, data = "<bytes>", source
    else:
        name = os.fspath(source)
        data = _read(name, 8 * max_pixels + _READ_MORE)
    if not data:
        raise DecodeError(f"{name}: the file is empty (0 bytes). Copy or download it again")
    if data.startswith(PNG):
        header = PngHeader(name, data)
        _check_size(name, header.height, header.width, max_pixels)
        return ImageFile(_png(name, header), data, header)
    return ImageFile(_info(name, data, max_pixels), data)


def open_with_pillow(kind: str, data: bytes) -> Any:
    """Make Pillow's picture of one of the formats that it reads for us; nothing is decoded.

    The plugin is called by its name: ``Image.open`` would try others, and would warn of sizes that are checked here.

    Raises
    ------
    SyntaxError, OSError, ValueError, and whatever else a plugin raises of bad bytes
    """
    from PIL import BmpImagePlugin, GifImagePlugin, TiffImagePlugin, WebPImagePlugin

    plugins: dict[str, Any] = {
        "bmp": BmpImagePlugin.BmpImageFile,
        "gif": GifImagePlugin.GifImageFile,
        "tiff": TiffImagePlugin.TiffImageFile,
        "webp": WebPImagePlugin.WebPImageFile,
    }
    return plugins[kind](io.BytesIO(data))


def _read(name: str, most: int) -> bytes:
    # Plain calls of the system: pathlib and file objects would take three times as long, 950,000 times.
    try:
        found = os.stat(name)  # noqa: PTH116
        if not stat.S_ISREG(found.st_mode):
            kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
            raise MissingInputError(f"{name}: is {kind}; expected a picture")
        if found.st_size > most:
            raise InputError(
                f"{name}: {found.st_size:,} bytes; the largest picture that is read takes no more than {most:,}. Raise "
                "max_pixels if it is one"
            )
        descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = os.read(descriptor, found.st_size + 1)
            while len(data) <= most and (piece := os.read(descriptor, 1 << 24)):  # one call gives no more than 2 GiB
                data += piece
        finally:
            os.close(descriptor)
    except InputError:
        raise
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise MissingInputError(f"{name!r}: there is no such file. Check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}. Check the path and its permissions") from error
    return data


def _info(name: str, data: bytes, max_pixels: int) -> ImageInfo:
    if data.startswith(b"\xff\xd8\xff"):
        info = _jpeg(name, data)
    elif data.startswith(b"BM"):
        info = _other(name, data, "bmp", max_pixels)
    elif data.startswith((b"GIF87a", b"GIF89a")):
        info = _other(name, data, "gif", max_pixels)
    elif data.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")):
        info = _other(name, data, "tiff", max_pixels)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        _check_webp(name, data, max_pixels)
        info = _other(name, data, "webp", max_pixels)
    else:
        raise _stranger(name, data)
    _check_size(name, info.height, info.width, max_pixels)
    return info


def _check_size(name: str, height: int, width: int, max_pixels: int) -> None:
    if not (height and width):
        raise CorruptError(f"{name}: {height} x {width} pixels by its header; expected at least 1 x 1. Get it again", 0)
    if height * width > max_pixels:
        raise InputError(
            f"{name}: {height} x {width} pixels by its header, more than max_pixels = {max_pixels:,}; not decoded. "
            "Raise max_pixels if the file is to be trusted"
        )


def _stranger(name: str, data: bytes) -> DecodeError:
    for kind, begin in _STRANGERS.items():
        if any(data.startswith(word, at) for at, word in begin):
            return UnsupportedError(
                f"{name}: is {kind}, which is not read; expected JPEG, PNG, BMP, GIF, TIFF or WebP. Convert it first"
            )
    if len(data) < 8 and PNG.startswith(data[:8]):
        return TruncatedError(f"{name}: ends after {len(data)} bytes. Get the whole file", 0)
    return DecodeError(
        f"{name}: is no picture: it begins with {data[:8]!r}; expected JPEG, PNG, BMP, GIF, TIFF or WebP. "
        "Check where it came from"
    )


_STRANGERS = {
    "HEIC or AVIF": [(4, b"ftyp" + brand) for brand in (b"heic", b"heix", b"mif1", b"msf1", b"avif", b"avis")],
    "JPEG XL": [(0, b"\xff\x0a"), (0, b"\0\0\0\x0cJXL ")],
    "JPEG 2000": [(0, b"\0\0\0\x0cjP  "), (0, b"\xff\x4f\xff\x51")],
    "a Photoshop file": [(0, b"8BPS")],
    "an OpenEXR file": [(0, b"\x76\x2f\x31\x01")],
}


def _png(name: str, header: PngHeader) -> ImageInfo:
    return ImageInfo(
        name, "png", header.height, header.width, header.mode, header.bits, _orientation(header.exif), header.animated,
        "interlaced" if header.interlaced else "plain",
    )  # fmt: skip


_CODINGS = {0xC0: "baseline", 0xC1: "baseline", 0xC2: "progressive", 0xC9: "arithmetic", 0xCA: "arithmetic"}
_OTHER_FRAMES = {0xC3, 0xC5, 0xC6, 0xC7, 0xCB, 0xCD, 0xCE, 0xCF, 0xF7}
_ALONE = {0x01, *range(0xD0, 0xD8)}  # markers without a length


def _jpeg(name: str, data: bytes) -> ImageInfo:
    """Walk the segments up to the first scan (ITU-T T.81 annex B)."""
    orientation, transform = 1, None
    frame: tuple[str, int, int, int, list[int]] | None = None
    for marker, start, stop in _segments(name, data):
        if marker == 0xE1 and orientation == 1 and data.startswith(b"Exif\0\0", start):
            orientation = _orientation(data[start + 6 : stop])
        elif marker == 0xEE and data.startswith(b"Adobe", start) and stop - start >= 12:
            transform = data[start + 11]
        elif marker in _CODINGS and frame is None:
            if stop - start < 6 or stop - start < 6 + 3 * data[start + 5]:
                raise CorruptError(f"{name}: byte {start}: the JPEG frame header is cut short. Get it again", 0)
            bits, height, width, count = struct.unpack_from(">BHHB", data, start)
            frame = _CODINGS[marker], bits, height, width, [data[start + 6 + 3 * i] for i in range(count)]
        elif marker in _OTHER_FRAMES:
            raise UnsupportedError(
                f"{name}: JPEG of process SOF{marker - 0xC0} (lossless, hierarchical or JPEG-LS) is not read; expected "
                "baseline or progressive. Convert it first"
            )
    if frame is None:
        raise CorruptError(f"{name}: a JPEG scan without a frame header before it. Get it again", 0)
    coding, bits, height, width, names = frame
    modes = {1: "gray", 3: "ycbcr", 4: "cmyk"}
    if bits != 8 or len(names) not in modes:
        raise UnsupportedError(
            f"{name}: JPEG of {len(names)} components of {bits} bits is not read; expected 1, 3 or 4 of 8. "
            "Convert it first"
        )
    mode = modes[len(names)]
    if mode == "ycbcr" and (transform == 0 or (transform is None and bytes(names) == b"RGB")):
        mode = "rgb"
    # FF DA is a marker wherever it stands in coded data; what other segments hold of it is a few at most.
    if coding != "baseline" and (scans := data.count(b"\xff\xda")) > _MOST_SCANS:
        raise CorruptError(f"{name}: {scans} scans in a progressive JPEG; no more than {_MOST_SCANS} are decoded", 0)
    return ImageInfo(name, "jpeg", height, width, mode, bits, orientation, False, coding)


def bare_jpeg(file: ImageFile) -> bytes:
    """The same JPEG without what libjpeg may warn of though no pixel depends on it: profiles, odd version numbers."""
    data, parts, start = bytearray(file.data), [], 0
    for marker, at, stop in _segments(file.info.path, file.data):
        if marker == 0xE0 and file.data.startswith(b"JFIF\0", at):
            data[at + 5 : at + 7] = b"\1\1"
        elif marker == 0xEE and file.data.startswith(b"Adobe", at) and file.data[at + 11 : at + 12] > b"\2":
            data[at + 11] = 2 if file.info.mode == "cmyk" else 1  # what libjpeg assumes
        elif 0xE1 <= marker <= 0xEF and marker != 0xEE:
            parts.append(data[start : at - 4])
            start = stop
    return b"".join([*parts, data[start:]])


def _segments(name: str, data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment's content, up to the first scan."""
    at = 2
    while True:
        at = data.find(b"\xff", at)
        while 0 <= at < len(data) and data[at] == 0xFF:
            at += 1
        if at < 0 or at + 3 > len(data):
            raise TruncatedError(f"{name}: the JPEG file ends before its first scan. Get the whole file", 0)
        marker = data[at]
        at += 1
        if marker == 0xD9:
            raise CorruptError(f"{name}: byte {at}: the JPEG file is at its end marker before any scan", 0)
        if marker == 0 or marker in _ALONE:
            continue
        stop = at + struct.unpack_from(">H", data, at)[0]
        if stop < at + 2:
            raise CorruptError(f"{name}: byte {at}: a JPEG segment of {stop - at} bytes. Get it again", 0)
        if stop > len(data):
            raise TruncatedError(f"{name}: the JPEG file ends before its first scan. Get the whole file", 0)
        yield marker, at + 2, stop
        if marker == 0xDA:
            return
        at = stop


def _orientation(exif: bytes) -> int:
    """The orientation in a TIFF header as EXIF has it; 1 where nothing valid is said."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, at)
        for number in range(count):
            tag, kind, values, value = struct.unpack_from(order + "HHIH", exif, at + 2 + 12 * number)
            if tag == 0x0112:
                return value if kind == 3 and values == 1 and value in _TURNS else 1
    except struct.error:  # it points out of itself: nothing valid is said
        return 1
    return 1


def _check_webp(name: str, data: bytes, max_pixels: int) -> None:
    """Look at length and size, for libwebp takes memory for a canvas as soon as it is shown a header."""
    (length,) = struct.unpack_from("<I", data, 4)
    if len(data) < max(length + 8, 30):
        raise TruncatedError(f"{name}: {len(data)} of {length + 8} bytes of a WebP file. Get the whole file", 0)
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    elif kind == b"VP8L":
        packed = int.from_bytes(data[21:25], "little")
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    else:
        raise CorruptError(f"{name}: a WebP file that begins with chunk {kind!r}. Get it again", 0)
    _check_size(name, height, width, max_pixels)


def _other(name: str, data: bytes, kind: str, max_pixels: int) -> ImageInfo:
    from PIL import Image

    try:
        picture = open_with_pillow(kind, data)
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: {error}; max_pixels = {max_pixels:,}. Not decoded") from error
    except MemoryError:
        raise
    except Exception as error:  # plugins raise a dozen kinds; whichever, the header was not understood
        raise CorruptError(f"{name}: {kind.upper()} header: {error}. Get it again", 0) from error
    with picture:
        width, height = picture.size
        mode, animated = picture.mode, bool(getattr(picture, "is_animated", False))
        bits = 16 if mode.startswith("I;16") else 1 if mode == "1" else 8
        exif = picture.info.get("exif", b"") if kind == "webp" else b""
        if kind == "tiff":  # libtiff takes memory for a whole tile, which may be larger than the picture
            tile = [picture.tag_v2.get(tag, 1) for tag in (323, 322)]
            if all(isinstance(side, int) and side > 0 for side in tile):
                _check_size(name, tile[0], tile[1], max_pixels)
    return ImageInfo(name, kind, height, width, mode, bits, _orientation(exif.removeprefix(b"Exif\0\0")), animated)

"""Still pictures on the CPU: JPEG by libjpeg-turbo (simplejpeg), PNG by libavcodec, the rest by Pillow.

Chosen by measurement (one core, ms a picture; bytes equal but for libavcodec's JPEG):

==============================  ==========  ======  ======  ==========
picture                         simplejpeg  OpenCV  Pillow  libavcodec
==============================  ==========  ======  ======  ==========
JPEG, shop photo 348 x 348            0.34    0.40    0.55        0.78
JPEG, frame 260 x 210                 0.22    0.21    0.32        0.49
PNG, frame 260 x 210                     -    1.38    1.74        1.04
==============================  ==========  ======  ======  ==========

Of these only simplejpeg says that a JPEG is damaged: the others hand out what libjpeg filled in.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import Any

import numpy as np

from gpupipe.decode.image_base import ImageDecoder, Outcome, Pixels, Still
from gpupipe.decode.image_file import ImageFile, bare_jpeg, open_with_pillow
from gpupipe.decode.png import PngHeader
from gpupipe.errors import CorruptError, InputError, TruncatedError, UnsupportedError

logging.getLogger("libav").addHandler(logging.NullHandler())  # what FFmpeg says never goes to stderr

_FRAMES = {
    ("gray", 1): "monob", ("gray", 2): "gray", ("gray", 4): "gray", ("gray", 8): "gray", ("gray", 16): "gray16be",
    ("gray+alpha", 8): "ya8", ("gray+alpha", 16): "ya16be", ("rgb", 8): "rgb24", ("rgb", 16): "rgb48be",
    ("rgb+alpha", 8): "rgba", ("rgb+alpha", 16): "rgba64be",
}  # fmt: skip
"""Pixel formats that libavcodec makes of PNG; of palettes it makes pal8."""


class CpuImages(ImageDecoder):
    """The reference: holds every line of the contract.

    Memory beside the result: the file, and for PNG three times the pixels.
    """

    backend = "cpu"
    batch = 8  # so that handing small pictures from thread to thread costs nothing beside decoding them

    def identity(self) -> str:
        """Names and versions of what determines the pixels."""
        return _identity()

    def decode_all(self, files: Sequence[ImageFile]) -> list[Outcome]:
        """Decode pictures one after the other."""
        outcomes: list[Outcome] = []
        for file in files:
            try:
                outcomes.append(Still(file.info, self._pixels(file), self.backend))
            except InputError as error:
                outcomes.append(error)
        return outcomes

    def _pixels(self, file: ImageFile) -> Pixels:
        if file.info.format == "jpeg":
            return _jpeg(file)
        if file.png is not None:
            return _png(file.info.path, file.png)
        return _other(file)


def check_jpeg(file: ImageFile) -> None:
    """Walk all coded data of a JPEG, at an eighth of its size: half the time of decoding it, the same errors.

    Raises
    ------
    TruncatedError, CorruptError
    """
    _libjpeg(file, colorspace="GRAY", fastdct=True, fastupsample=True, min_height=1, min_width=1, min_factor=8)


@lru_cache(maxsize=1)
def _identity() -> str:
    import av
    from PIL import __version__ as pillow
    from PIL import features

    codec = ".".join(str(part) for part in av.library_versions["libavcodec"])
    others = ", ".join(f"{name} {features.version(name)}" for name in ("webp", "libtiff"))
    return f"simplejpeg {version('simplejpeg')}; libavcodec {codec}; Pillow {pillow} ({others})"


def _jpeg(file: ImageFile) -> Pixels:
    info = file.info
    space = {"gray": "GRAY", "cmyk": "CMYK"}.get(info.mode, "RGB")
    pixels = _libjpeg(file, colorspace=space)
    if pixels.shape[:2] != (info.height, info.width):
        raise CorruptError(
            f"{info.path}: the JPEG decodes to {pixels.shape[0]} x {pixels.shape[1]} pixels; {info.height} x "
            f"{info.width} by its header. Get it again",
            0,
        )
    if space == "GRAY":
        return pixels[:, :, 0]
    return _from_inverted_cmyk(pixels) if space == "CMYK" else pixels


def _libjpeg(file: ImageFile, **options: Any) -> Pixels:
    import simplejpeg

    try:
        try:
            pixels: Pixels = simplejpeg.decode_jpeg(file.data, strict=True, **options)
        except ValueError as error:
            if not any(word in str(error) for word in _HARMLESS):
                raise
            pixels = simplejpeg.decode_jpeg(bare_jpeg(file), strict=True, **options)
    except ValueError as error:
        where = f"{file.info.path}: libjpeg: {error}"
        if "Premature end of JPEG file" in str(error):
            raise TruncatedError(f"{where}. Get the whole file", 0) from error
        raise CorruptError(f"{where}. Get it again", 0) from error
    return pixels


_HARMLESS = ("unknown JFIF revision", "bad ICC marker", "Unknown Adobe color transform")
"""Of libjpeg's warnings those of segments that no pixel depends on."""


def _from_inverted_cmyk(pixels: Pixels) -> Pixels:
    """``round(C K / 255)`` of inverted values, exactly, as Pillow does it."""
    product = pixels[..., :3].astype(np.uint16) * pixels[..., 3:]
    product += 128
    product += product >> 8
    return (product >> 8).astype(np.uint8)


def _png(name: str, header: PngHeader) -> Pixels:
    import av

    from gpupipe.decode.packets import packet_of

    codec = av.CodecContext.create("png", "r")
    codec.thread_count = 1  # frame threads would hold the picture back
    try:
        frames = codec.decode(packet_of(header.stored())) or codec.decode(None)
    except av.FFmpegError as error:
        if isinstance(error, MemoryError):  # no fault of the file
            raise
        raise CorruptError(f"{name}: libavcodec: {error.strerror}. Get it again", 0) from error
    expected = _FRAMES.get((header.mode, header.bits), "pal8")
    if len(frames) != 1 or frames[0].format.name != expected:
        found = [frame.format.name for frame in frames]
        raise UnsupportedError(f"{name}: libavcodec makes {found} of a PNG; expected one picture of {expected}")
    plane = frames[0].planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)[: header.height]
    if expected == "monob":
        return np.unpackbits(rows, axis=1, count=header.width) * np.uint8(255)
    if expected == "pal8":
        palette, indices = header.palette(), rows[:, : header.width]
        if indices.max() >= len(palette):
            raise CorruptError(f"{name}: damaged PNG: index {indices.max()} in a palette of {len(palette)}", 0)
        colours: Pixels = palette[indices]
        return colours
    step = 2 if header.bits == 16 else 1  # the first byte of 16 bits is the high one
    pixels = rows[:, : header.width * header.samples * step].reshape(header.height, header.width, -1)
    if header.mode.startswith("gray"):
        return np.ascontiguousarray(pixels[:, :, 0])
    return np.ascontiguousarray(pixels[:, :, : 3 * step : step])


def _other(file: ImageFile) -> Pixels:
    from PIL import Image

    info = file.info
    try:
        with open_with_pillow(info.format, file.data) as picture:
            picture.load()
            mode = picture.mode
            if mode.startswith("I;16"):
                return (np.asarray(picture) >> 8).astype(np.uint8)
            if mode in _LIKE_RGB:
                return np.array(picture.convert("L" if mode in ("1", "L", "LA") else "RGB"))
    except MemoryError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(f"{info.path}: {error}. Not decoded") from error
    except Exception as error:  # plugins raise a dozen kinds; whichever, the picture is not to be had
        words = f"{info.path}: {info.format.upper()}: {error or type(error).__name__}"
        if "truncated" in str(error):
            raise TruncatedError(f"{words}. Get the whole file", 0) from error
        raise CorruptError(f"{words}. Get it again", 0) from error
    raise UnsupportedError(
        f"{info.path}: {info.format.upper()} of Pillow's mode {mode} is not read; expected one of "
        f"{', '.join(_LIKE_RGB)}, I;16. Convert it first"
    )


_LIKE_RGB = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")
"""Pillow's modes of 8 bits or less that its ``convert`` makes RGB of without choosing anything but to drop alpha."""

"""Still pictures made for tests: files of every kind, sound, damaged and cut."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageOps

ORIENTATION = 0x0112
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def scene(height: int = 120, width: int = 160, seed: int = 0) -> np.ndarray:
    """A picture with gradients, noise and no symmetry, uint8 [H, W, 3]."""
    y, x = np.mgrid[:height, :width]
    planes = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), (x + y) * 255 // max(height + width - 2, 1)
    noise = np.random.default_rng(seed).normal(0, 6, (height, width, 3))
    return np.clip(np.stack(planes, -1) + noise, 0, 255).astype(np.uint8)


def saved(picture: np.ndarray | Image.Image, kind: str, **options: Any) -> bytes:
    """The bytes of a file that Pillow writes."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(picture: np.ndarray, kind: str, orientation: int, **options: Any) -> bytes:
    """A file with this orientation in its EXIF."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return saved(picture, kind, exif=exif, **options)


def pillow(data: bytes) -> np.ndarray:
    """What a script gets from Pillow, upright, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(samples: np.ndarray, bits: int, colour: int, between: bytes = b"", **more: Any) -> bytes:
    """A PNG of samples [H, W, C] of any depth, each row with a filter of its own (0 and 1 by turns)."""
    height, width = samples.shape[:2]
    step = max(1, _SAMPLES[colour] * bits // 8)
    rows = []
    for y, row in enumerate(samples.reshape(height, -1)):
        if bits == 16:
            line = row.astype(">u2").tobytes()
        else:
            line = np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - bits :]).tobytes()
        if y % 2:
            values = np.frombuffer(line, np.uint8)
            line = (values - np.concatenate([np.zeros(step, np.uint8), values[:-step]])).astype(np.uint8).tobytes()
        rows.append(bytes([y % 2]) + line)
    return png_of(b"".join(rows), height, width, bits, colour, between, **more)


def png_of(
    rows: bytes, height: int, width: int, bits: int = 8, colour: int = 2, between: bytes = b"", interlace: int = 0,
    packed: bytes | None = None, split: int = 0,
) -> bytes:  # fmt: skip
    """A PNG of filtered rows; `packed` replaces what they are compressed to, `split` cuts it into chunks of so many."""
    data = zlib.compress(rows) if packed is None else packed
    pieces = [data[at : at + split] for at in range(0, len(data), split)] if split else [data]
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace)
    body = b"".join(chunk(b"IDAT", piece) for piece in pieces)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + body + chunk(b"IEND", b"")


def interlaced(picture: np.ndarray) -> bytes:
    """An interlaced PNG of uint8 [H, W, 3]."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    rows = b"".join(
        b"\0" + row.tobytes()
        for top, left, down, right in passes
        for row in picture[top::down, left::right]
        if row.size
    )
    return png_of(rows, *picture.shape[:2], interlace=1)


def segments(data: bytes) -> list[tuple[int, int, int]]:
    """Marker, start (of its FF) and end of each JPEG segment up to the first scan's header."""
    found, at = [], 2
    while True:
        marker, length = data[at + 1], struct.unpack_from(">H", data, at + 2)[0]
        found.append((marker, at, at + 2 + length))
        if marker == 0xDA:
            return found
        at += 2 + length


def without(data: bytes, marker: int) -> bytes:
    """A JPEG without its segments of that marker."""
    for kind, start, stop in reversed(segments(data)):
        if kind == marker:
            data = data[:start] + data[stop:]
    return data


def resized(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose frame header tells another size."""
    for kind, start, _ in segments(data):
        if kind in (0xC0, 0xC1, 0xC2):
            return data[: start + 5] + struct.pack(">HH", height, width) + data[start + 9 :]
    raise AssertionError("no frame header")


def mended(data: bytes) -> bytes:
    """A PNG with right checksums for the chunks that it has, as far as they can be followed."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        stop = at + 8 + struct.unpack_from(">I", out, at)[0]
        if stop + 4 > len(out):
            break
        struct.pack_into(">I", out, stop, zlib.crc32(out[at + 4 : stop]))
        at = stop + 4
    return bytes(out) if data.startswith(b"\x89PNG") else data


def flipped(data: bytes, share: float, count: int = 20) -> bytes:
    """Bytes damaged from that share of the file on."""
    at = int(len(data) * share)
    return data[:at] + bytes(value ^ 0x55 for value in data[at : at + count]) + data[at + count :]

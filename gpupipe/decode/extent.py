"""Does a file end before its own structure says so? Read from the container's boxes, never from its durations."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from gpupipe.errors import InputError, MissingInputError

_MEDIA_BOXES = (b"mdat", b"free", b"skip", b"wide", b"uuid", b"mfra", b"sidx")
_BOXES = (*_MEDIA_BOXES, b"ftyp", b"styp", b"moov", b"moof", b"meta", b"udta", b"pdin", b"emsg", b"prft", b"pnot")
_SEGMENT = b"\x18\x53\x80\x67"
_ELEMENTS = {b"\x1a\x45\xdf\xa3": "header", _SEGMENT: "segment", b"\x1f\x43\xb6\x75": "last cluster"}
_MAX_BOXES = 1_000_000


def shortfall(path: Path) -> str | None:
    """Say what shows that a file ends early; None if nothing does.

    Knows ISO base media (MP4, MOV), Matroska and WebM, AVI, and MPEG transport streams.

    Parameters
    ----------
    path : Path
        A regular file.

    Raises
    ------
    MissingInputError, InputError
        It was there when it was opened, and is no more, or cannot be read now.
    """
    try:
        return _shortfall(path)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path}: went away while it was read. Put it back") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}. Check its storage") from error


def _shortfall(path: Path) -> str | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"):
            return _boxes(file, size)
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return _ebml(file, size)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return _riff(file, size)
        if head[:1] == b"\x47":
            return _transport(file, size)
    return None


def _boxes(file: BinaryIO, size: int) -> str | None:
    """Walk the top-level boxes (ISO/IEC 14496-12, 4.2)."""
    at = 0
    seen: set[bytes] = set()
    for _ in range(_MAX_BOXES):
        if at >= size:
            break
        file.seek(at)
        head = file.read(16)
        if len(head) < 8 or head[4:8] not in _BOXES:
            break  # bytes that somebody appended
        length, kind = struct.unpack(">I4s", head[:8])
        if length == 1:
            length = struct.unpack(">Q", head[8:])[0] if len(head) == 16 else size
        elif length == 0:
            length = size - at
        seen.add(kind)
        if length < 8:
            break
        if at + length > size and (kind not in _MEDIA_BOXES or b"moof" in seen or b"moov" not in seen):
            return f"its box {kind.decode()!r} at byte {at} goes on to byte {at + length}, the file ends at {size}"
        at += length
    if b"moov" not in seen:
        return "it has no moov box (the sample tables, written last)"
    return None


def _ebml(file: BinaryIO, size: int) -> str | None:
    """Compare the size of the Segment element, or of what is in it, with the file (RFC 8794, RFC 9559)."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(12)
        if len(head) < 2 or head[0] == 0:
            return None
        id_bytes = 9 - head[0].bit_length()
        if id_bytes >= len(head) or head[id_bytes] == 0:
            return None
        size_bytes = 9 - head[id_bytes].bit_length()
        raw = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big") & ((1 << 7 * size_bytes) - 1)
        body = at + id_bytes + size_bytes
        if raw == (1 << 7 * size_bytes) - 1:  # a segment or cluster of unknown size: look into it
            at = body
            continue
        if body + raw > size:
            name = _ELEMENTS.get(head[:id_bytes], "last element")
            return f"its {name} goes on to byte {body + raw}, the file ends at {size}"
        if head[:id_bytes] == _SEGMENT:
            return None
        at = body + raw
    return None


def _riff(file: BinaryIO, size: int) -> str | None:
    """Find the list of frames of an AVI file."""
    at = 12
    for _ in range(1000):
        file.seek(at)
        head = file.read(12)
        if len(head) < 12:
            return "it has no list of frames (movi)" if at >= size else None
        length = struct.unpack("<I", head[4:8])[0]
        if head[:4] == b"LIST" and head[8:12] == b"movi":
            if length and at + 8 + length > size:
                return f"its frames go on to byte {at + 8 + length}, the file ends at {size}"
            return None
        at += 8 + length + (length & 1)
    return None


def _transport(file: BinaryIO, size: int) -> str | None:
    """A transport stream consists of whole packets (ISO/IEC 13818-1, 2.4.3.2)."""
    file.seek(0)
    head = file.read(188 * 5)
    if len(head) == 188 * 5 and all(head[188 * i] == 0x47 for i in range(5)) and size % 188:
        return f"its last transport packet has {size % 188} of 188 bytes"
    return None

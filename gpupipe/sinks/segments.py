"""Tar segments: the consecutive members of one item in a tar of ours, found again also where the tar is damaged."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO

BLOCK = 512
_CHUNK = 1 << 22
_MAX_DIGITS = 18  # of an ordinal


def header(name: str, nbytes: int) -> bytes:
    """The header of a member, one block or, where the name is long, several; constant but for name and length."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = nbytes, 0o644, 0
    # GNU format: names of any length and members over 8 GiB, and no time or owner creeps in.
    return info.tobuf(format=tarfile.GNU_FORMAT, errors="surrogateescape")


def padding(nbytes: int) -> int:
    """Zero bytes after a member's data."""
    return -nbytes % BLOCK


def chunks(file: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` up to `stop`, a few megabytes at a time."""
    for offset in range(start, stop, _CHUNK):
        yield os.pread(file.fileno(), min(_CHUNK, stop - offset), offset)


@dataclass
class Segment:
    """Where one item lies in a tar.

    Attributes
    ----------
    ordinal : int
    start, stop : int
        Byte offsets.
    sound : bool
        True where each header and padding is, byte for byte, what this package writes for such a member.
    torn : bool
        True where something that is no member follows it: a member of its own may be lost in there.
    behind_gap : bool
        The same of what is before it, where that is not the rest of a damaged one.
    places : dict of str to (int, int)
        Offset and length of each member's data, by its name.
    """

    ordinal: int
    start: int
    stop: int
    sound: bool = True
    torn: bool = False
    behind_gap: bool = False
    places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def pieces(self, file: IO[bytes]) -> Iterator[bytes]:
        """All of its bytes."""
        return chunks(file, self.start, self.stop)

    def members(self, file: IO[bytes]) -> Mapping[str, Iterator[bytes]]:
        """The data of each member."""
        return {name: chunks(file, start, start + nbytes) for name, (start, nbytes) in self.places.items()}


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    start: int
    data: int
    nbytes: int

    @property
    def stop(self) -> int:
        return self.data + self.nbytes + padding(self.nbytes)


def segments(file: IO[bytes]) -> Iterator[Segment]:
    """The segments in their order. Past a damaged header the next sound one is looked for."""
    size = os.fstat(file.fileno()).st_size
    segment: Segment | None = None
    offset = 0
    while offset < size:
        member = _member(file, offset)
        if member is None or member.stop > size:
            if segment is not None:
                segment.torn = segment.torn or not _zero(file, offset, min(size, offset + BLOCK))
            offset += BLOCK
            continue
        ordinal = int(member.name.partition(".")[0])
        if segment is None or segment.ordinal != ordinal:
            gap = member.start != 0
            if segment is not None:
                gap = member.start != segment.stop and segment.sound and not segment.torn
                yield segment
            segment = Segment(ordinal, member.start, member.start, behind_gap=gap)
        segment.sound = (
            segment.sound
            and member.start == segment.stop
            and member.name not in segment.places
            and os.pread(file.fileno(), member.data - offset, offset) == header(member.name, member.nbytes)
            and _zero(file, member.data + member.nbytes, member.stop)
        )
        segment.places[member.name] = (member.data, member.nbytes)
        offset = segment.stop = member.stop
    if segment is not None:
        yield segment


def _member(file: IO[bytes], offset: int) -> _Member | None:
    """The member whose header begins at `offset`; None where none of ours does."""
    info = _parse(file, offset)
    start = offset
    name = None
    if info is not None and info.type == tarfile.GNUTYPE_LONGNAME and info.size < 1 << 16:
        name = os.pread(file.fileno(), info.size, offset + BLOCK).rstrip(b"\0").decode(errors="surrogateescape")
        offset += BLOCK + info.size + padding(info.size)
        info = _parse(file, offset)
    if info is None or info.type != tarfile.REGTYPE:
        return None
    name = info.name if name is None else name
    key, dot, _ = name.partition(".")
    ours = dot and key.isascii() and key.isdigit() and len(key) <= _MAX_DIGITS
    return _Member(name, start, offset + BLOCK, info.size) if ours else None


def _parse(file: IO[bytes], offset: int) -> tarfile.TarInfo | None:
    try:
        info = tarfile.TarInfo.frombuf(os.pread(file.fileno(), BLOCK, offset), "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return None
    return info if info.size >= 0 else None  # the format has negative numbers


def _zero(file: IO[bytes], start: int, stop: int) -> bool:
    return not os.pread(file.fileno(), stop - start, start).strip(b"\0")

"""NAL units of H.264 and H.265: in length-prefixed packets (MP4, Matroska) and in byte streams (Annex B)."""

from __future__ import annotations

from collections.abc import Iterator

from gpupipe.decode.headers.bits import HeaderError


def annexb(data: bytes) -> Iterator[bytes]:
    """Yield the NAL units of a byte stream."""
    start = data.find(b"\0\0\1")
    while start >= 0:
        start += 3
        end = data.find(b"\0\0\1", start)
        unit = data[start:] if end < 0 else data[start:end]
        if unit:
            yield unit
        start = end


def prefixed(data: bytes, width: int) -> Iterator[bytes]:
    """Yield NAL units that carry their length in ``width`` bytes.

    Raises
    ------
    HeaderError
        A length goes beyond the packet.
    """
    at = 0
    end = len(data)
    while at < end:
        if at + width > end:
            raise HeaderError("a packet ends inside a NAL unit length")
        length = int.from_bytes(data[at : at + width], "big")
        at += width
        if at + length > end:
            raise HeaderError("a NAL unit goes beyond its packet")
        if length:
            yield data[at : at + length]
        at += length


def units(data: bytes, width: int) -> Iterator[bytes]:
    """Yield NAL units; ``width`` 0 means a byte stream."""
    return prefixed(data, width) if width else annexb(data)


def avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Length width and parameter sets of H.264 extradata (ISO/IEC 14496-15, 5.3.3.1, or Annex B)."""
    if not extradata or extradata[0] != 1:
        return 0, list(annexb(extradata))
    if len(extradata) < 7:
        raise HeaderError("the avcC record is too short")
    sets = []
    at = 5
    for mask in (0x1F, 0xFF):
        if at >= len(extradata):
            break
        count = extradata[at] & mask
        at += 1
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
            if at > len(extradata):
                raise HeaderError("the avcC record ends early")
    return (extradata[4] & 3) + 1, [s for s in sets if s]


def hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Length width and parameter sets of H.265 extradata (ISO/IEC 14496-15, 8.3.3.1, or Annex B)."""
    if not extradata or extradata[:3] in (b"\0\0\0", b"\0\0\1"):
        return 0, list(annexb(extradata))
    if len(extradata) < 23:
        raise HeaderError("the hvcC record is too short")
    sets = []
    at = 23
    for _ in range(extradata[22]):
        count = int.from_bytes(extradata[at + 1 : at + 3], "big")
        at += 3
        for _ in range(count):
            length = int.from_bytes(extradata[at : at + 2], "big")
            sets.append(extradata[at + 2 : at + 2 + length])
            at += 2 + length
            if at > len(extradata):
                raise HeaderError("the hvcC record ends early")
    return (extradata[21] & 3) + 1, [s for s in sets if s]

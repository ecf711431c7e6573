"""Frame headers of VP8 and VP9: the size of the pictures, and the colours they name."""

from __future__ import annotations

from collections.abc import Iterator

from gpupipe.decode.bits import Bits
from gpupipe.decode.packets import Packet

_VP9_HEADER = 32  # bytes that hold what is read of one
_VP9_MATRICES = (2, 5, 1, 6, 7, 9, 3, 0)


def vp8_facts(packet: Packet) -> tuple[tuple[int, int], bool] | None:
    """(height, width), and whether samples are of limited range; None of what is no keyframe (RFC 6386, 9.1, 9.2)."""
    data = bytes(memoryview(packet)[:11])
    if len(data) < 11 or data[0] & 1:
        return None
    size = int.from_bytes(data[8:10], "little") & 0x3FFF, int.from_bytes(data[6:8], "little") & 0x3FFF
    return size, data[10] < 64  # the first two bools, each as likely


def vp9_frames(packet: Packet) -> Iterator[bytes]:
    """The headers of the frames in a packet (VP9, annex B)."""
    data = memoryview(packet)
    mark = data[-1]
    width, count = (mark >> 3 & 3) + 1, (mark & 7) + 1
    index = 2 + width * count
    if mark & 0xE0 != 0xC0 or len(data) < index or data[-index] != mark:
        yield bytes(data[:_VP9_HEADER])
        return
    at = 0
    for number in range(count):
        place = len(data) - index + 1 + number * width
        yield bytes(data[at : at + _VP9_HEADER])
        at += int.from_bytes(data[place : place + width], "little")


def vp9_facts(data: bytes) -> tuple[tuple[int, int], tuple[int, int] | None] | None:
    """(height, width) and colours that a frame names; None where they are those of another (VP9, 6.2)."""
    bits = Bits(data)
    bits.take(2)
    profile = bits.take(1) | bits.take(1) << 1
    if profile == 3:
        bits.take(1)
    if bits.take(1):  # shows an older frame
        return None
    inter, shown, resilient = bits.take(1), bits.take(1), bits.take(1)
    colours = None
    if not inter:
        bits.take(24)
        colours = _vp9_colours(bits, profile)
    else:
        alone = not shown and bits.take(1)
        if not resilient:
            bits.take(2)
        if alone:
            bits.take(24)
            if profile:
                colours = _vp9_colours(bits, profile)
            bits.take(8)
        else:
            bits.take(8 + 3 * 4)
            if any(bits.take(1) for _ in range(3)):
                return None
    width, height = bits.take(16) + 1, bits.take(16) + 1
    return None if bits.over else ((height, width), colours)


def _vp9_colours(bits: Bits, profile: int) -> tuple[int, int]:
    """VP9, 6.2.2."""
    if profile >= 2:
        bits.take(1)
    space = bits.take(3)
    full = 1
    if space != 7:
        full = bits.take(1)
        if profile & 1:
            bits.take(3)
    elif profile & 1:
        bits.take(1)
    return _VP9_MATRICES[space], 1 + full

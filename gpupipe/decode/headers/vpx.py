"""VP8 (RFC 6386, 9.1) and VP9 (bitstream specification, 6.2 and annex B)."""

from __future__ import annotations

from gpupipe.decode.headers.bits import Bits, HeaderError
from gpupipe.decode.headers.picture import Picture, PictureList


class Vp8Scanner(PictureList):
    """Scanner of VP8 packets: a frame each, in output order, some hidden."""

    skips = False  # a frame that nothing refers to may still move the segment map that persists
    restarts = True

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        if len(data) < 3:
            raise HeaderError("a VP8 packet is too short")
        key = not data[0] & 1
        if key and data[3:6] != b"\x9d\x01\x2a":
            raise HeaderError("a VP8 key frame has no start code")
        self.found.append(Picture(bool(data[0] & 0x10), len(self.found), entry=key))


class Vp9Scanner(PictureList):
    """Scanner of VP9 packets: a frame or a superframe each, at most one of its frames shown.

    A frame that replaces no reference still leaves its motion, probabilities, filter deltas and segments to the next
    one, unless that is error resilient and forgets them (setup_past_independence, 7.2). So frames are droppable only in
    streams that are error resilient throughout, as those with temporal layers are made.
    """

    skips = False
    restarts = True

    def __init__(self) -> None:
        super().__init__()
        self._resilient = True

    def lose(self) -> None:
        """Take a packet that cannot be read."""
        self._resilient = False
        super().lose()

    def pictures(self, delay: int = 0) -> list[Picture]:
        """All packets taken."""
        if not self._resilient:
            for picture in self.found:
                picture.droppable = False
        return self.found

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        shown = 0
        entry = False
        droppable = True
        for i, frame in enumerate(_superframe(data)):
            bits = Bits(frame[:4])
            if bits.u(2) != 2:
                raise HeaderError("a VP9 frame has no marker")
            if bits.u(1) + 2 * bits.u(1) == 3:
                bits.u(1)
            if bits.flag():
                shown += 1
                droppable = False
                continue
            key = not bits.flag()
            visible = bits.flag()
            resilient = bits.flag()
            self._resilient &= key or resilient
            # An error resilient frame that is shown goes on with the flags of the references that it replaces (7.2).
            droppable &= not key and visible and resilient and bits.u(8) == 0
            shown += visible
            entry |= i == 0 and key and visible
        if shown > 1:
            raise HeaderError("a packet shows several pictures")
        self.found.append(Picture(shown == 1, len(self.found), entry=entry, droppable=droppable))


def _superframe(data: bytes) -> list[bytes]:
    """Split a packet into its frames (annex B)."""
    if not data:
        raise HeaderError("an empty VP9 packet")
    last = data[-1]
    if last & 0xE0 == 0xC0:
        count = (last & 7) + 1
        width = (last >> 3 & 3) + 1
        size = 2 + count * width
        if len(data) >= size and data[-size] == last:
            frames = []
            at = 0
            for i in range(count):
                index = len(data) - size + 1 + i * width
                length = int.from_bytes(data[index : index + width], "little")
                if at + length > len(data) - size:
                    raise HeaderError("a VP9 superframe is longer than its packet")
                if length:
                    frames.append(data[at : at + length])
                at += length
            return frames
    return [data]

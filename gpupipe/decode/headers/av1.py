"""AV1 (bitstream and decoding process specification, 5.3 to 5.9)."""

from __future__ import annotations

from gpupipe.decode.headers.bits import Bits, HeaderError
from gpupipe.decode.headers.picture import Picture, PictureList

_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6


class Av1Scanner(PictureList):
    """Scanner of AV1 temporal units: each shows at most one frame.

    Parameters
    ----------
    extradata : bytes
        The container's av1C record, or OBUs; empty where the stream carries the sequence header alone.
    """

    skips = False  # libdav1d reads what to skip when it is opened
    restarts = True

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._still: bool | None = None
        self._header = b""  # as the stream sends it; the container's copy may differ
        start = 4 if extradata[:1] == b"\x81" else 0
        for kind, payload in _units(extradata[start:]):
            if kind == _SEQUENCE:
                self._sequence(payload)
        self._header = b""

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        shown = frames = 0
        sequence = entry = False
        for kind, payload in _units(data):
            if kind == _SEQUENCE:
                self._sequence(payload)
                sequence = True
            elif kind in (_FRAME_HEADER, _FRAME):
                if self._still is None:
                    raise HeaderError("a frame comes before any sequence header")
                if self._still:
                    shown, entry = shown + 1, sequence and frames == 0
                else:
                    bits = Bits(payload[:1])
                    if bits.flag():
                        shown += 1
                    else:
                        key = bits.u(2) == 0
                        visible = bits.flag()
                        shown += visible
                        entry |= sequence and frames == 0 and key and visible
                frames += 1
        if shown > 1:
            raise HeaderError("a packet shows several pictures")
        self.found.append(Picture(shown == 1, len(self.found), entry=entry))

    def _sequence(self, payload: bytes) -> None:
        if self._header and payload != self._header:
            raise HeaderError("the sequence header changes in mid-stream")
        self._header = payload
        bits = Bits(payload)
        bits.u(4)
        self._still = bits.flag()
        if self._still:
            return
        if bits.flag():  # timing
            bits.u(64)
            if bits.flag():
                bits.ue()
            if bits.flag():
                bits.u(47)
        bits.u(1)
        bits.u(5)
        layers = bits.u(12)
        if (layers >> 8).bit_count() > 1:
            raise HeaderError("spatial layers")


def _units(data: bytes) -> list[tuple[int, bytes]]:
    """Split a temporal unit into OBUs: type and payload (5.3)."""
    found = []
    at = 0
    end = len(data)
    while at < end:
        head = data[at]
        at += 1
        if head & 0x80:
            raise HeaderError("an OBU header is damaged")
        if head & 4:
            if at >= end:
                raise HeaderError("an OBU header ends early")
            if data[at] >> 3 & 3:
                raise HeaderError("spatial layers")
            at += 1
        size = end - at
        if head & 2:
            size = shift = 0
            while True:
                if at >= end or shift > 49:
                    raise HeaderError("an OBU size is damaged")
                byte = data[at]
                at += 1
                size |= (byte & 0x7F) << shift
                shift += 7
                if not byte & 0x80:
                    break
        if at + size > end:
            raise HeaderError("an OBU is longer than its packet")
        kind = head >> 3 & 15
        if size or kind == 2:
            found.append((kind, data[at : at + min(size, 256)]))
        at += size
    return found

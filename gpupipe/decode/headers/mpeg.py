"""MPEG-1 and MPEG-2 video (ISO/IEC 11172-2, 13818-2) and MPEG-4 part 2 (ISO/IEC 14496-2)."""

from __future__ import annotations

from gpupipe.decode.headers.bits import Bits, HeaderError
from gpupipe.decode.headers.picture import Picture, PictureList

_I, _P, _B = 1, 2, 3
_ANCHOR = 1 << 20


class _Reordered(PictureList):
    """B pictures are shown at once, the others when the next one that is not B arrives."""

    def __init__(self) -> None:
        super().__init__()
        self._anchors = 0
        self._since = 0

    def lose(self) -> None:
        """Give up: without a picture's type those around it cannot be put in order."""
        raise HeaderError("a picture's type is unknown")

    def _add(self, b: bool, entry: bool, leading: bool) -> None:
        if b:
            self._since += 1
            order = (self._anchors - 1) * _ANCHOR + self._since
        else:
            self._anchors += 1
            self._since = 0
            order = self._anchors * _ANCHOR
        self.found.append(Picture(True, order, entry, leading, droppable=b))


class Mpeg2Scanner(_Reordered):
    """Scanner of MPEG-1 and MPEG-2 packets: one frame picture each."""

    skips = True
    restarts = True

    def __init__(self, extended: bool) -> None:
        super().__init__()
        self._extended = extended
        self._closed = False
        self._fresh = False  # the last picture that is not B was an entry
        self._sequence = b""

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        at = data.find(b"\0\0\1")
        kind = 0
        sequence = structure = False
        closed = False
        while at >= 0 and at + 3 < len(data):
            code = data[at + 3]
            body = data[at + 4 : at + 144]
            if code == 0xB3:
                sequence = True
                self._same(body[:8])
            elif code == 0xB8:
                closed = len(body) > 3 and bool(body[3] & 0x40)
            elif code == 0xB5 and body[:1] and body[0] >> 4 == 8:
                structure = len(body) > 2 and body[2] & 3 == 3
            elif code == 0xB5 and body[:1] and body[0] >> 4 in (5, 9, 10):
                raise HeaderError("scalable MPEG-2")
            elif code == 0xB7:
                raise HeaderError("an end of sequence in mid-stream")
            elif code == 0:
                if kind:
                    raise HeaderError("a packet holds several pictures")
                kind = Bits(body[:2]).u(13) & 7
            elif 1 <= code <= 0xAF:
                break
            at = data.find(b"\0\0\1", at + 3)
        if at >= 0 and data.find(b"\0\0\1\0", at) >= 0:
            raise HeaderError("a packet holds several pictures")
        if kind not in (_I, _P, _B) or (self._extended and not structure):
            raise HeaderError("field pictures, or none")
        if kind == _B:
            self._add(True, False, self._fresh and not self._closed)
            return
        self._fresh = kind == _I and sequence
        self._closed = closed
        self._add(False, self._fresh, False)

    def _same(self, header: bytes) -> None:
        """Size and rate must stay: a decoder starts anew where they change."""
        size = header[:3]
        if self._sequence and self._sequence != size:
            raise HeaderError("the sequence header changes in mid-stream")
        self._sequence = size


class Mpeg4Scanner(_Reordered):
    """Scanner of MPEG-4 part 2 packets: one coded rectangular frame each.

    Decoding starts at the first packet only: which bugs of its encoder libavcodec works round is told by user data that
    may come once.

    Parameters
    ----------
    extradata : bytes
        Headers from the container, may be empty.
    """

    skips = True
    restarts = False

    def __init__(self, extradata: bytes) -> None:
        super().__init__()
        self._time_bits = 0
        self._headers(extradata)

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        at = self._headers(data)
        if at < 0 or not self._time_bits:
            raise HeaderError("a packet holds no coded frame")
        if data.find(b"\0\0\1\xb6", at) >= 0:
            raise HeaderError("a packet holds several frames")
        bits = Bits(data[at : at + 32])
        kind = bits.u(2)
        while bits.flag():
            pass
        bits.u(1 + self._time_bits + 1)
        if not bits.flag():
            raise HeaderError("frames that are not coded")
        first = not self.found
        self._add(kind == 2, first and kind == 0, leading=kind == 2 and self._anchors < 2)

    def _headers(self, data: bytes) -> int:
        """Read what comes before the frame; return where the frame begins, -1 if there is none."""
        at = data.find(b"\0\0\1")
        while at >= 0 and at + 3 < len(data):
            code = data[at + 3]
            if code == 0xB6:
                return at + 4
            if 0x20 <= code <= 0x2F:
                self._layer(data[at + 4 : at + 68])
            elif code == 0xB2 and data[at + 4 : at + 8] == b"DivX" and b"p" in data[at + 8 : at + 24]:
                raise HeaderError("packed frames")
            at = data.find(b"\0\0\1", at + 3)
        return -1

    def _layer(self, body: bytes) -> None:
        """VideoObjectLayer (6.2.3), as far as the width of the time field."""
        bits = Bits(body)
        bits.u(9)
        version = 1
        if bits.flag():
            version = bits.u(4)
            bits.u(3)
        if bits.u(4) == 15:
            bits.u(16)
        if bits.flag():
            bits.u(3)
            if bits.flag():
                bits.u(79)
        if bits.u(2) != 0 or version > 5:
            raise HeaderError("shapes that are not rectangular")
        bits.u(1)
        resolution = bits.u(16)
        width = max(1, (resolution - 1).bit_length())
        if self._time_bits not in (0, width):
            raise HeaderError("the layer changes in mid-stream")
        self._time_bits = width

"""AV1 (bitstream and decoding process specification, 5.3 to 5.9)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from gpupipe.decode.headers.bits import Bits, HeaderError
from gpupipe.decode.headers.picture import Picture, PictureList

_SEQUENCE, _FRAME_HEADER, _TILES, _FRAME, _COPY, _PADDING = 1, 3, 4, 6, 7, 15
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_HEADER_BYTES = 256
_SLOTS = [tuple(slot for slot in range(8) if mask >> slot & 1) for mask in range(256)]
_MASKS = [1 << (three >> 6) | 1 << (three >> 3 & 7) | 1 << (three & 7) for three in range(512)]
"""The slots that three numbers of three bits name."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """Fields of a sequence header that the start of a frame header needs."""

    still: bool
    time_bits: int  # of the presentation time in a frame header; 0 where it is not sent
    removal_bits: tuple[int, tuple[int, ...]] | None  # of the buffer removal times; layers of the operating points
    id_bits: int
    choose_screen: int  # 0, 1; 2 where frames choose
    choose_integer: int
    order_bits: int


@dataclass(frozen=True, slots=True)
class _Frame:
    shown: bool
    again: bool  # shows what was decoded before
    key: bool
    refreshes: int  # slots of references that are replaced; -1 where that is not known
    refers: tuple[int, ...] | None  # slots that it may refer to; None where that is not known


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
        self._sequence: Sequence | None = None
        self._header = b""  # as the stream sends it; the container's copy may differ
        self._slots: list[int | None] = [None] * 8  # packets whose frames are the references
        self._keys = [True] * 8  # that may be key frames: shown again, such a one replaces all references (7.21)
        start = 4 if extradata[:1] == b"\x81" else 0
        for kind, _, _, payload in _units(extradata[start:]):
            if kind == _SEQUENCE:
                self._take_sequence(payload)
        self._header = b""

    def scan(self, data: bytes) -> None:
        """Take the next packet.

        A frame that replaces no reference leaves nothing behind: all that later frames take over (probabilities,
        motion, segments, filter deltas, grain) is saved with the references (7.20) and read from them (7.21).
        """
        frames: list[_Frame] = []
        needs: set[int | None] = set()
        begins = 0  # where the last frame begins
        sequence = False
        tail = False  # behind the last frame comes what is not part of it
        for kind, layer, at, payload in _units(data):
            if kind == _SEQUENCE:
                self._take_sequence(payload)
                sequence = True
                tail = True
            elif kind in (_FRAME_HEADER, _FRAME):
                if self._sequence is None:
                    raise HeaderError("a frame comes before any sequence header")
                frame = parse_frame(payload, self._sequence, layer)
                if frame.again and (frame.refers is None or self._keys[frame.refers[0]]):
                    frame = replace(frame, refreshes=0xFF)
                frames.append(frame)
                self._refer(frame, needs)
                begins, tail = at, False
            else:
                tail |= kind not in (_TILES, _COPY, _PADDING)
        shown = sum(frame.shown for frame in frames)
        if shown > 1:
            raise HeaderError("a packet shows several pictures")
        picture = Picture(shown == 1, len(self.found))
        needs.discard(len(self.found))
        picture.needs = None if None in needs else tuple(needs)  # type: ignore[arg-type]
        if frames:
            first, last = frames[0], frames[-1]
            picture.entry = sequence and first.key and first.shown and not first.again
            picture.droppable = all(frame.refreshes == 0 for frame in frames)
            if len(frames) > 1 and not picture.droppable and last.shown and last.refreshes == 0 and not tail:
                picture.prefix = begins
        self.found.append(picture)

    def lose(self) -> None:
        """Take a packet that cannot be read."""
        self._slots, self._keys = [None] * 8, [True] * 8
        super().lose()

    def _refer(self, frame: _Frame, needs: set[int | None]) -> None:
        """Note the packets that a frame refers to, and put it in its slots; None stands for what is not known."""
        if frame.refers is None:
            needs.add(None)
        else:
            needs.update([self._slots[slot] for slot in frame.refers])
        if frame.refreshes:
            for slot in _SLOTS[frame.refreshes & 0xFF]:
                self._slots[slot] = len(self.found)
                self._keys[slot] = frame.key or frame.again

    def _take_sequence(self, payload: bytes) -> None:
        if self._header and payload != self._header:
            raise HeaderError("the sequence header changes in mid-stream")
        self._header = payload
        self._sequence = parse_sequence(payload)


def parse_sequence(payload: bytes) -> Sequence:
    """Read a sequence header (5.5) as far as the bits of the order hint."""
    bits = Bits(payload)
    bits.u(3)
    still = bits.flag()
    if bits.flag():  # reduced: one still picture
        bits.u(5)
        return Sequence(True, 0, None, 0, 2, 2, 0)
    time_bits = 0
    removal = 0
    delay_bits = 0
    even = False
    if bits.flag():
        bits.u(64)
        even = bits.flag()
        if even:
            bits.ue()
        if bits.flag():
            delay_bits = bits.u(5) + 1
            bits.u(32)
            removal = bits.u(5) + 1
            time_bits = 0 if even else bits.u(5) + 1
            if even:
                bits.u(5)
    display_delay = bits.flag()
    layers = []
    for _ in range(bits.u(5) + 1):
        layer = bits.u(12)
        if (layer >> 8).bit_count() > 1:
            raise HeaderError("spatial layers")
        if bits.u(5) > 7:
            bits.u(1)
        if delay_bits and bits.flag():
            layers.append(layer)
            bits.u(2 * delay_bits + 1)
        if display_delay and bits.flag():
            bits.u(4)
    width_bits, height_bits = bits.u(4) + 1, bits.u(4) + 1
    bits.u(width_bits + height_bits)
    id_bits = 0
    if bits.flag():
        delta_bits = bits.u(4) + 2
        id_bits = bits.u(3) + delta_bits + 1
    bits.u(3 + 4)  # superblocks, filters; compound tools
    ordered = bits.flag()
    if ordered:
        bits.u(2)
    screen = 2 if bits.flag() else bits.u(1)
    integer = 2
    if screen:
        integer = 2 if bits.flag() else bits.u(1)
    order_bits = bits.u(3) + 1 if ordered else 0
    removals = (removal, tuple(layers)) if removal else None
    return Sequence(still, time_bits, removals, id_bits, screen, integer, order_bits)


def parse_frame(payload: bytes, sequence: Sequence, layer: int) -> _Frame:
    """Read a frame header (5.9.2) as far as what it replaces; ``layer`` is the extension of its OBU's header."""
    if sequence.still:
        return _Frame(True, False, True, -1, None)
    bits = Bits(payload if sequence.removal_bits else payload[:32])
    if bits.flag():
        return _Frame(True, True, False, 0, (bits.u(3),))
    kind = bits.u(2)
    shown = bits.flag()
    if shown:
        bits.u(sequence.time_bits)
    else:
        bits.u(1)
    if kind == _SWITCH or (kind == _KEY and shown):
        return _Frame(shown, False, kind == _KEY, 0xFF, () if kind == _KEY else None)
    if bits.flag():  # error resilient: repeats what the references should be, which may void some
        return _Frame(shown, False, kind == _KEY, -1, None)
    bits.u(1)
    if (bits.flag() if sequence.choose_screen == 2 else sequence.choose_screen) and sequence.choose_integer == 2:
        bits.u(1)
    bits.u(sequence.id_bits + 1 + sequence.order_bits)
    if kind not in (_KEY, _INTRA_ONLY):
        bits.u(3)
    if sequence.removal_bits and bits.flag():
        width, points = sequence.removal_bits
        for point in points:
            if not point or (point >> (layer >> 5) & 1 and point >> (8 + (layer >> 3 & 3)) & 1):
                bits.u(width)
    refreshes = bits.u(8)
    refers: tuple[int, ...] | None
    if kind in (_KEY, _INTRA_ONLY):
        refers = ()
    elif sequence.id_bits:
        refers = None
    elif sequence.order_bits and bits.flag():
        refers = _SLOTS[0xFF]  # which ones follows from the order of all
    else:
        seven = bits.u(21)
        refers = _SLOTS[_MASKS[seven >> 12] | _MASKS[seven >> 3 & 0x1FF] | 1 << (seven & 7)]
    return _Frame(shown, False, kind == _KEY, refreshes, refers)


def _units(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield the OBUs of a temporal unit: type, extension, where it begins, start of its payload (5.3)."""
    at = 0
    end = len(data)
    while at < end:
        begins = at
        extension = 0
        head = data[at]
        at += 1
        if head & 0x80:
            raise HeaderError("an OBU header is damaged")
        if head & 4:
            if at >= end:
                raise HeaderError("an OBU header ends early")
            extension = data[at]
            if extension >> 3 & 3:
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
        yield kind, extension, begins, data[at : at + min(size, _HEADER_BYTES)]
        at += size

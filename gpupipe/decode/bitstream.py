"""A stream as a video engine takes it: Annex B, parameter sets first, and nothing in it that the engine would show
otherwise than FFmpeg does.

An engine's own parser and post-processing decide some things otherwise than FFmpeg, without a word: interlaced pictures
are deinterlaced, a crop at the top or left moves, film grain is not the decoder's, pictures that change their size come
out scaled. Such streams are found here by their headers and left to FFmpeg.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import av

Packet = Any  # av.Packet, generic in its stub only

START = b"\0\0\0\1"
_H264_SPS, _H264_PPS, _H264_SEI = 7, 8, 6
_HEVC_SETS, _HEVC_SPS, _HEVC_SEI = (32, 33, 34), 33, 39
_VP9_HEADER = 32  # bytes that hold what is read of one
_VP9_MATRICES = (2, 5, 1, 6, 7, 9, 3, 0)
_ORIENTATION = 47  # SEI payload type, in both
_HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


class Unfit(Exception):
    """The engine would not show what FFmpeg shows; says why."""


class EngineStream:
    """Makes what a video engine is fed of a stream's packets.

    Parameters
    ----------
    codec : str
        FFmpeg's name: h264, hevc, vp8, vp9 or av1.
    extradata : bytes
        The container's codec header.
    size : (int, int)
        (height, width) of the stream's pictures.

    Attributes
    ----------
    matrix, colour_range : int or None
        AVColorSpace and AVColorRange that FFmpeg's decoder takes from the stream whatever its container says; None
        where it leaves the container's, and before the first packet of VP9.

    Raises
    ------
    Unfit
    """

    matrix: int | None = None
    colour_range: int | None = None

    def __init__(self, codec: str, extradata: bytes, size: tuple[int, int]) -> None:
        self._codec, self._size = codec, size
        self._length_bytes = 0  # of the sizes before NAL units; 0 is Annex B
        self._prefix = b""
        self._known: set[bytes] = set()
        if codec in ("h264", "hevc"):
            sets = self._sets(extradata)
            for unit in sets:
                if self._kind(unit[0]) == self._sps:
                    self.matrix, self.colour_range = _check_sps(codec, unit)
                    self._known.add(unit)
            if not self._known:
                raise Unfit("its header holds no parameter sets")
            self._prefix = b"".join(START + unit for unit in sets)
        elif codec == "vp8":
            self.matrix, self.colour_range = 5, 1
        elif codec == "av1":
            header = next(_sequence_headers(extradata[4:] if extradata[:1] == b"\x81" else extradata), None)
            if header is not None:  # else the first packet holds it
                self.matrix, self.colour_range = _check_av1(header)
                self._prefix = bytes((0x0A, *_leb128(len(header)))) + header

    def packet(self, packet: Packet, first: bool, entry: bool) -> Packet:
        """What the engine is fed of a packet.

        Parameters
        ----------
        packet : av.Packet
            As it was demuxed; it is not altered.
        first : bool
            Nothing was fed before it.
        entry : bool
            Decoding may start here; only here parameters may change.

        Raises
        ------
        Unfit
            From here on the engine would not show what FFmpeg shows, or the packet is not what it should be.
        """
        if self._codec == "vp9":
            self._check_vp9(packet)
            return packet
        if self._codec == "vp8":
            if entry:
                self._check_vp8(packet)
            return packet
        if self._codec == "av1":
            return self._av1(packet, first) if first or entry else packet
        fed = self._annex_b(packet, entry) if self._length_bytes else packet
        if entry and not self._length_bytes:
            self._check_units(_units(bytes(packet)))
        return _with_prefix(fed, self._prefix) if first else fed

    # -- H.264 and H.265 ---------------------------------------------------------------------------------------------

    @property
    def _sps(self) -> int:
        return _H264_SPS if self._codec == "h264" else _HEVC_SPS

    def _kind(self, byte: int) -> int:
        return byte & 31 if self._codec == "h264" else byte >> 1 & 63

    def _sets(self, extradata: bytes) -> list[bytes]:
        """Parameter sets of avcC (ISO/IEC 14496-15, 5.3.3), hvcC (8.3.3) or Annex B."""
        if extradata[:1] != b"\1":
            wanted = (_H264_SPS, _H264_PPS) if self._codec == "h264" else _HEVC_SETS
            return [unit for unit in _units(extradata) if self._kind(unit[0]) in wanted]
        sets: list[bytes] = []
        try:
            if self._codec == "h264":
                self._length_bytes = (extradata[4] & 3) + 1
                at = 5
                for mask in (31, 255):
                    count, at = extradata[at] & mask, at + 1
                    for _ in range(count):
                        at = _take(extradata, at, sets)
            else:
                self._length_bytes = (extradata[21] & 3) + 1
                arrays, at = extradata[22], 23
                for _ in range(arrays):
                    kind, count = extradata[at] & 63, int.from_bytes(extradata[at + 1 : at + 3])
                    at += 3
                    units: list[bytes] = []
                    for _ in range(count):
                        at = _take(extradata, at, units)
                    sets += units if kind in _HEVC_SETS else ()
        except IndexError:
            raise Unfit("its header is damaged") from None
        return sets

    def _annex_b(self, packet: Packet, entry: bool) -> Packet:
        """A copy with start codes in place of sizes."""
        width = self._length_bytes
        if width != 4:
            return self._rewritten(packet, entry)
        data: Any = bytearray(packet)
        at, end = 0, len(data)
        while at < end:
            size = int.from_bytes(data[at : at + 4])
            data[at : at + 4] = START
            if entry and size and at + 4 < end:
                self._check_units((bytes(data[at + 4 : at + 4 + size]),))
            at += 4 + size
        if at != end:
            raise Unfit("the sizes in a packet do not add up")
        made: Packet = av.Packet(data)  # refers to it
        made.pts = packet.pts
        return made

    def _rewritten(self, packet: Packet, entry: bool) -> Packet:
        data, width = bytes(packet), self._length_bytes
        units: list[bytes] = []
        at = 0
        while at < len(data):
            size = int.from_bytes(data[at : at + width])
            units.append(data[at + width : at + width + size])
            at += width + size
        if at != len(data):
            raise Unfit("the sizes in a packet do not add up")
        if entry:
            self._check_units(unit for unit in units if unit)
        made: Packet = av.Packet(b"".join(START + unit for unit in units))
        made.pts = packet.pts
        return made

    def _check_units(self, units: Any) -> None:
        """Raise where the units of an entry alter how the stream is shown."""
        sei = _H264_SEI if self._codec == "h264" else _HEVC_SEI
        for unit in units:
            kind = self._kind(unit[0])
            if kind == self._sps and unit.rstrip(b"\0") not in self._known:
                raise Unfit("its parameters change in mid-stream")
            if kind == sei and _ORIENTATION in _payloads(unit[1 if self._codec == "h264" else 2 :]):
                raise Unfit("its pictures carry an orientation of their own")

    # -- the others --------------------------------------------------------------------------------------------------

    def _av1(self, packet: Packet, first: bool) -> Packet:
        data = bytes(packet)
        headers = list(_sequence_headers(data))
        if headers and not self._known:  # encoders write others into the container's header
            self.matrix, self.colour_range = _check_av1(headers[0])
            self._known.add(headers[0])
        if any(header not in self._known for header in headers):
            raise Unfit("its parameters change in mid-stream")
        if not first or headers:
            return packet
        if not self._prefix:
            raise Unfit("it does not begin with a sequence header")
        return _with_prefix(packet, self._prefix)

    def _check_vp8(self, packet: Packet) -> None:
        """RFC 6386, 9.1 and 9.2."""
        data = bytes(memoryview(packet)[:11])
        if len(data) < 11 or data[0] & 1:
            return
        size = int.from_bytes(data[8:10], "little") & 0x3FFF, int.from_bytes(data[6:8], "little") & 0x3FFF
        if size != self._size:
            raise Unfit("its pictures change their size")
        if data[10] >= 64:  # the first two bools, each as likely
            raise Unfit("its samples are not of limited range")

    def _check_vp9(self, packet: Packet) -> None:
        for frame in _vp9_frames(packet):
            facts = _vp9_facts(frame)
            if facts is None:
                continue
            size, colour = facts
            if size != self._size:
                raise Unfit("its pictures change their size")
            if colour is not None and self.matrix is None:
                self.matrix, self.colour_range = colour
            if colour is not None and colour != (self.matrix, self.colour_range):
                raise Unfit("its parameters change in mid-stream")


def _with_prefix(packet: Packet, prefix: bytes) -> Packet:
    made: Packet = av.Packet(prefix + bytes(packet))
    made.pts = packet.pts
    return made


def _take(data: bytes, at: int, into: list[bytes]) -> int:
    size = int.from_bytes(data[at : at + 2])
    if not size or at + 2 + size > len(data):
        raise IndexError
    into.append(data[at + 2 : at + 2 + size])
    return at + 2 + size


def _units(data: bytes) -> Iterator[bytes]:
    """NAL units of Annex B, without the zeros behind them."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        at = following


def _payloads(data: bytes) -> set[int]:
    """Types of the messages in a SEI unit behind its header (H.264, 7.3.2.3.1)."""
    data = data.replace(b"\0\0\3", b"\0\0")
    found: set[int] = set()
    at = 0
    while at + 2 < len(data):
        values = [0, 0]
        for place in (0, 1):
            while at < len(data) and data[at] == 255:
                values[place] += 255
                at += 1
            values[place] += data[at] if at < len(data) else 0
            at += 1
        found.add(values[0])
        at += values[1]
    return found


class _Bits:
    """Reads bits, most significant first; behind the end they are zeros, and `over` says so."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    @property
    def over(self) -> bool:
        return self._left < 0

    def take(self, count: int) -> int:
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def ue(self) -> int:
        """Exp-Golomb (H.264, 9.1)."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise Unfit("its header is damaged")
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        value = self.ue()
        return (value + 1) // 2 if value % 2 else -(value // 2)


_Colours = tuple[int | None, int | None]
"""Matrix and range as FFmpeg numbers them."""


def _check_sps(codec: str, unit: bytes) -> _Colours:
    bits = _Bits(unit.replace(b"\0\0\3", b"\0\0"))
    colours = _check_h264(bits) if codec == "h264" else _check_hevc(bits)
    if bits.over:
        raise Unfit("its header is damaged")
    return colours


def _colours(bits: _Bits) -> _Colours:
    """The beginning of the video usability information, which both have alike (H.264, E.1.1; H.265, E.2.1)."""
    matrix = colour_range = None
    if not bits.take(1):
        return None, None
    if bits.take(1) and bits.take(8) == 255:
        bits.take(32)
    if bits.take(1):
        bits.take(1)
    if bits.take(1):
        bits.take(3)
        colour_range = 1 + bits.take(1)
        if bits.take(1):
            bits.take(16)
            matrix = bits.take(8)
    return matrix, colour_range


def _check_h264(bits: _Bits) -> _Colours:
    """H.264, 7.3.2.1.1."""
    bits.take(8)
    profile = bits.take(8)
    bits.take(16)
    bits.ue()
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3 and bits.take(1):
            raise Unfit("its colour planes are coded apart")
        _check_depths(bits.ue(), bits.ue(), chroma)
        bits.take(1)
        if bits.take(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if number < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.take(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()
    bits.take(1)
    bits.ue()
    bits.ue()
    if not bits.take(1):
        raise Unfit("it may be interlaced")
    bits.take(1)
    _check_window(bits)
    return _colours(bits)


def _pass_scaling_list(bits: _Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _check_hevc(bits: _Bits) -> _Colours:
    """H.265, 7.3.2.2 and 7.3.3."""
    bits.take(16 + 4)
    layers = bits.take(3)
    bits.take(1 + 8 + 32)
    progressive, interlaced = bits.take(1), bits.take(1)
    if interlaced and not progressive:
        raise Unfit("it is interlaced")
    bits.take(2 + 43 + 1 + 8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3 and bits.take(1):
        raise Unfit("its colour planes are coded apart")
    bits.ue()
    bits.ue()
    _check_window(bits)
    _check_depths(bits.ue(), bits.ue(), chroma)
    order_bits = bits.ue() + 4
    for _ in range(layers + 1 if bits.take(1) else 1):
        for _ in range(3):
            bits.ue()
    for _ in range(6):
        bits.ue()
    if bits.take(1) and bits.take(1):
        _pass_hevc_scaling_lists(bits)
    bits.take(2)
    if bits.take(1):
        bits.take(8)
        bits.ue()
        bits.ue()
        bits.take(1)
    _pass_reference_sets(bits)
    if bits.take(1):
        for _ in range(min(bits.ue(), 32)):
            bits.take(order_bits + 1)
    bits.take(2)
    matrix, colour_range = _colours(bits)
    return 2 if matrix is None else matrix, colour_range or 1


def _pass_hevc_scaling_lists(bits: _Bits) -> None:
    """H.265, 7.3.4."""
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.take(1):
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 16 << 2 * size)):
                bits.se()


def _pass_reference_sets(bits: _Bits) -> None:
    """H.265, 7.3.7."""
    pictures = 0
    for number in range(min(bits.ue(), 64)):
        if number and bits.take(1):
            bits.take(1)
            bits.ue()
            pictures = sum(bits.take(1) or bits.take(1) for _ in range(pictures + 1))
        else:
            pictures = min(bits.ue() + bits.ue(), 32)
            for _ in range(pictures):
                bits.ue()
                bits.take(1)


def _check_window(bits: _Bits) -> None:
    if bits.take(1):
        left, _, top, _ = (bits.ue() for _ in range(4))
        if left or top:
            raise Unfit("it is cropped at the left or the top")


def _check_depths(luma: int, chroma: int, format: int) -> None:
    if not format:
        raise Unfit("it is monochrome")
    if luma != chroma:
        raise Unfit("luma and chroma differ in depth")


def _check_av1(header: bytes) -> _Colours:
    """AV1, 5.5."""
    bits = _Bits(header)
    profile = bits.take(3)
    bits.take(1)
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _pass_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits)
    bits.take(height_bits)
    if not reduced and bits.take(1):
        bits.take(7)
    bits.take(3)
    if not reduced:
        bits.take(4)
        hints = bits.take(1)
        if hints:
            bits.take(2)
        tools = 2 if bits.take(1) else bits.take(1)
        if tools and not bits.take(1):
            bits.take(1)
        if hints:
            bits.take(3)
    bits.take(3)
    colours = _av1_colours(bits, profile)
    if bits.take(1):
        raise Unfit("it asks for film grain")
    if bits.over:
        raise Unfit("its header is damaged")
    return colours


def _pass_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    model = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.ue()  # uvlc() is Exp-Golomb
        model = bits.take(1)
        if model:
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    displayed = bits.take(1)
    for _ in range(bits.take(5) + 1):
        layers = bits.take(12)
        if (layers >> 8).bit_count() > 1:
            raise Unfit("it has spatial layers")
        if bits.take(5) > 7:
            bits.take(1)
        if model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if displayed and bits.take(1):
            bits.take(4)


def _av1_colours(bits: _Bits, profile: int) -> _Colours:
    """AV1, 5.5.2."""
    deep = bits.take(1)
    twelve = profile == 2 and deep and bits.take(1)
    gray = profile != 1 and bits.take(1)
    described = tuple(bits.take(8) for _ in range(3)) if bits.take(1) else (2, 2, 2)
    if gray:
        raise Unfit("it is monochrome")
    full = 1
    if described != (1, 13, 0):
        full = bits.take(1)
        across = down = profile == 0
        if profile == 2:
            across = bool(bits.take(1)) if twelve else True
            down = bool(twelve and across and bits.take(1))
        if across and down:
            bits.take(2)
    bits.take(1)
    return described[2], 1 + full


def _sequence_headers(data: bytes) -> Iterator[bytes]:
    """Payloads of the sequence header OBUs (AV1, 5.3)."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        if not head & 2:
            size = len(data) - at
        else:
            size = shift = 0
            while at < len(data):
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        if head >> 3 & 15 == 1:
            yield data[at : at + size]
        at += size


def _leb128(value: int) -> Iterator[int]:
    while value > 127:
        yield value & 127 | 128
        value >>= 7
    yield value


def _vp9_frames(packet: Packet) -> Iterator[bytes]:
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


def _vp9_facts(data: bytes) -> tuple[tuple[int, int], tuple[int, int] | None] | None:
    """(height, width) and colours that a frame names; None where they are those of another (VP9, 6.2)."""
    bits = _Bits(data)
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


def _vp9_colours(bits: _Bits, profile: int) -> tuple[int, int]:
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

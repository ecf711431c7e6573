"""A stream as a video engine takes it: Annex B, parameter sets first, and nothing in it that the engine would show
otherwise than FFmpeg does.

An engine's own parser and post-processing decide some things otherwise than FFmpeg, without a word: interlaced pictures
are deinterlaced, a crop at the top or left moves, film grain is not the decoder's, pictures that change their size come
out scaled. Such streams are found here by their headers and left to FFmpeg.
"""

from __future__ import annotations

from typing import Any

from gpupipe.decode.bits import Unfit
from gpupipe.decode.frame_headers import vp8_facts, vp9_facts, vp9_frames
from gpupipe.decode.nal_units import ORIENTATION, SEI, SPS, START, annex_b_units, messages, parameter_sets, unit_kind
from gpupipe.decode.packets import Packet, packet_of
from gpupipe.decode.parameter_sets import check_sps
from gpupipe.decode.sequence_headers import check_sequence_header, sequence_header_unit, sequence_headers


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
            self._length_bytes, sets = parameter_sets(codec, extradata)
            for unit in sets:
                if unit_kind(codec, unit[0]) == SPS[codec]:
                    self.matrix, self.colour_range = check_sps(codec, unit)
                    self._known.add(unit)
            if not self._known:
                raise Unfit("its header holds no parameter sets")
            self._prefix = b"".join(START + unit for unit in sets)
        elif codec == "vp8":
            self.matrix, self.colour_range = 5, 1
        elif codec == "av1":
            header = next(sequence_headers(extradata[4:] if extradata[:1] == b"\x81" else extradata), None)
            if header is not None:  # else the first packet holds it
                self.matrix, self.colour_range = check_sequence_header(header)
                self._prefix = sequence_header_unit(header)

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
            self._check_units(annex_b_units(bytes(packet)))
        return _with_prefix(fed, self._prefix) if first else fed

    # -- H.264 and H.265 ---------------------------------------------------------------------------------------------

    def _annex_b(self, packet: Packet, entry: bool) -> Packet:
        """A copy with start codes in place of sizes."""
        width = self._length_bytes
        if width != 4:
            return self._rewritten(packet, entry)
        made = packet_of(memoryview(packet), packet.pts)
        data: Any = memoryview(made)
        at, end = 0, len(data)
        while at < end:
            size = int.from_bytes(data[at : at + 4])
            data[at : at + 4] = START
            if entry and size and at + 4 < end:
                self._check_units((bytes(data[at + 4 : at + 4 + size]),))
            at += 4 + size
        if at != end:
            raise Unfit("the sizes in a packet do not add up")
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
        return packet_of(b"".join(START + unit for unit in units), packet.pts)

    def _check_units(self, units: Any) -> None:
        """Raise where the units of an entry alter how the stream is shown."""
        codec = self._codec
        for unit in units:
            kind = unit_kind(codec, unit[0])
            if kind == SPS[codec] and unit.rstrip(b"\0") not in self._known:
                raise Unfit("its parameters change in mid-stream")
            if kind == SEI[codec] and ORIENTATION in messages(codec, unit):
                raise Unfit("its pictures carry an orientation of their own")

    # -- the others --------------------------------------------------------------------------------------------------

    def _av1(self, packet: Packet, first: bool) -> Packet:
        data = bytes(packet)
        headers = list(sequence_headers(data))
        if headers and not self._known:  # encoders write others into the container's header
            self.matrix, self.colour_range = check_sequence_header(headers[0])
            self._known.add(headers[0])
        if any(header not in self._known for header in headers):
            raise Unfit("its parameters change in mid-stream")
        if not first or headers:
            return packet
        if not self._prefix:
            raise Unfit("it does not begin with a sequence header")
        return _with_prefix(packet, self._prefix)

    def _check_vp8(self, packet: Packet) -> None:
        facts = vp8_facts(packet)
        if facts is None:
            return
        size, limited = facts
        if size != self._size:
            raise Unfit("its pictures change their size")
        if not limited:
            raise Unfit("its samples are not of limited range")

    def _check_vp9(self, packet: Packet) -> None:
        for frame in vp9_frames(packet):
            facts = vp9_facts(frame)
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
    return packet_of(prefix + bytes(packet), packet.pts)

"""MPEG-4 in which a packet holds a P frame and the B frame that is shown before it ("packed B-frames", DivX and XviD).

libavcodec shows the second frame of a packet when it is given the next one, and keeps that one's own frame in turn;
at last comes a packet whose frame is not coded. Taken apart, each packet holds the frame that comes out of it, and
those that are not wanted can be skipped.
"""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction

import numpy as np

from gpupipe.decode.headers import HeaderError
from gpupipe.decode.index import NO_PTS, PacketTable, counted_index, exact_index
from gpupipe.decode.packets import Packet, like

_START = b"\0\0\1"
_FRAME = _START + b"\xb6"
_SEQUENCE = _START + b"\xb0"
_WRITER = re.compile(rb"\x00\x00\x01\xb2DivX\d+(?:Build|b)\d+(p?)")
_PLACEHOLDER = 19  # bytes; the longest of frames that are not coded, as libavcodec has it
_SHORTEST = 8  # bytes; libavcodec takes no notice of a second frame of fewer
_FORWARD = 0x40  # of vop_coding_type: P and S frames


class PackedFrames:
    """Takes the packets of a stream apart, one after the other from the first on.

    Parameters
    ----------
    extradata : bytes
        The container's codec header, may be empty.

    Attributes
    ----------
    used : bool
        True once a packet was taken apart.
    """

    def __init__(self, extradata: bytes) -> None:
        self.used = False
        self._packed = False
        self._held = b""
        self._notice(extradata)

    def apart(self, packet: Packet) -> Packet:
        """Give the packet with the frame in it that libavcodec shows when it is given this one.

        Raises
        ------
        HeaderError
            There are more frames than can be told apart.
        """
        data = bytes(packet)
        first = data.find(_FRAME)
        if not self._held:
            self._notice(data[: max(first, 0)])
            if not self._packed:
                return packet
        # libavcodec drops the frame that it holds where the first start code is that of a sequence.
        if self._held and data[data.find(_START) :].startswith(_SEQUENCE):
            raise HeaderError("a packed frame is left out")
        if self._held:
            shown, self._held = self._held, b""
            if _is_held(data, first):
                self._held = data
            elif len(data) > _PLACEHOLDER:
                raise HeaderError("a packed frame is left out")
        else:
            second = data.find(_FRAME, first + len(_FRAME)) if first >= 0 else -1
            if second < 0:
                return packet
            if not _is_held(data, second) or len(data) - second < _SHORTEST:
                raise HeaderError("a packet holds several frames")
            shown, self._held = data[:second], data[second:]
        self.used = True
        return like(packet, shown)

    def _notice(self, head: bytes) -> None:
        """Look for what the writer said of itself."""
        if b"DivX" in head:
            for packed in _WRITER.findall(head):
                self._packed = bool(packed)


def _is_held(data: bytes, frame: int) -> bool:
    """True if libavcodec keeps what begins with this frame for the next packet: I and B frames."""
    return 0 <= frame < len(data) - len(_FRAME) and len(data) >= _SHORTEST and not data[frame + len(_FRAME)] & _FORWARD


def timed(table: PacketTable, time_base: Fraction, step: int) -> PacketTable:
    """Give packets the timestamps under which their pictures are counted: the container's are those of packed frames.

    Parameters
    ----------
    table : PacketTable
        Of packets that were taken apart.
    time_base : Fraction
        Seconds of one unit.
    step : int
        See :func:`gpupipe.decode.index.counted_index`.

    Raises
    ------
    HeaderError
        They do not determine the index all the same.
    """
    if table.discard.any():
        raise HeaderError("packed frames that are not shown")
    # A B frame comes out at once, another when the next one that is no B frame is given to the codec.
    given = np.where(table.droppable, table.dts, NO_PTS)
    anchors = np.flatnonzero(~table.droppable)
    given[anchors[:-1]] = table.dts[anchors[1:]]
    shown = np.argsort(table.order, kind="stable")
    own, last = (
        [None if stamp == NO_PTS else stamp for stamp in stamps[shown].tolist()] for stamps in (table.pts, given)
    )
    pts = np.empty_like(table.pts)
    pts[shown] = counted_index(list(zip(own, last, strict=True)), time_base, step, None, None).pts
    made = replace(table, pts=pts)
    exact_index(made, time_base, None)
    return made

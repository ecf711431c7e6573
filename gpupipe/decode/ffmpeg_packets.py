"""The packets of a stream: read once into a table, fed from memory or by reading the file again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np

from gpupipe.decode.base import IndexMismatch
from gpupipe.decode.extent import shortfall
from gpupipe.decode.ffmpeg_file import MediaFile
from gpupipe.decode.headers import HeaderError, Scanner, scanner_for
from gpupipe.decode.index import NO_PTS, PacketTable
from gpupipe.decode.planner import Run

Packet = Any  # av.Packet, generic in its stub only
Row = tuple[int, int, int, int, bool, bool]

_CHANGES = ("new_extradata", "param_change", "palette")
_MOST_BROKEN = 32  # more than that is no damage but a kind of stream that is not understood
_DAMAGED_ANYWHERE = (
    "mpegts",
)  # lost transport packets; elsewhere the flag means that the file ended inside the packet


class PacketSource:
    """The packets of one stream in decode order.

    Parameters
    ----------
    media : MediaFile
        Just opened.
    cache_bytes : int
        Keep the packets if all of them are no larger.

    Attributes
    ----------
    table : PacketTable
    reason : str or None
        Why headers alone do not say what the packets show.
    doubt : str or None
        Why some packets are taken for broken, which decoding has to confirm.
    fault : str or None
        What shows that the file ends early.
    """

    def __init__(self, media: MediaFile, cache_bytes: int) -> None:
        self._media = media
        self._kept: list[Packet] | None = []
        self._trust_seeks = True
        self.reason: str | None = None
        self.doubt: str | None = None
        self._broken = 0
        rows: list[Row] = []
        scanner = self._scanner()
        fault = None
        total = 0
        packets = _demux(media)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                fault = f"reading stops after packet {len(rows)}: {error.strerror}"
                break
            if packet is None:
                break
            rows.append(_row(packet))
            if scanner is not None and self.reason is None:
                self.reason = self._scan(scanner, packet)
            total += packet.size
            if self._kept is not None:
                self._kept.append(packet)
                if total > cache_bytes:
                    self._kept = None
        pictures = None
        if scanner is not None and self.reason is None:
            try:
                pictures = scanner.pictures(media.delay)
            except HeaderError as error:
                self.reason = str(error)
        self.table = (
            PacketTable.make(rows, None)
            if scanner is None
            else PacketTable.make(rows, pictures, scanner.skips, scanner.restarts, scanner.reach)
        )
        self.fault = fault or self._cut_short()

    def feed(self, run: Run) -> Iterator[tuple[int, Packet]]:
        """Yield the packets of a run with their numbers.

        Raises
        ------
        IndexMismatch
            The file gives other packets than before.
        """
        if self._kept is not None:
            for number in range(run.start, run.stop):
                yield number, self._kept[number]
            return
        for seek in (True, False):
            if seek and not (run.start and self._trust_seeks):
                continue
            with self._media.again() as other:
                if seek and not self._seek(other, run.start):
                    continue
                number = -1 if seek else 0
                for packet in _demux(other):
                    if number < 0:
                        number = self._locate(packet, run.start)
                        if number < 0:
                            break
                    if _row(packet) != self._row(number):
                        self._trust_seeks = False
                        raise IndexMismatch(f"{self._media.name}: packet {number} is not the one that was indexed")
                    if number >= run.start:
                        yield number, packet
                    number += 1
                    if number >= run.stop:
                        return

    def _scanner(self) -> Scanner | None:
        try:
            return scanner_for(self._media.facts.codec, self._media.codec.extradata or b"")
        except HeaderError as error:
            self.reason = str(error)
            return None

    def _scan(self, scanner: Scanner, packet: Packet) -> str | None:
        """Show a packet to the scanner; return why its headers do not suffice, None if they do."""
        if not packet.size:
            return "empty packets"
        if any(data.data_type in _CHANGES for data in packet.iter_sidedata()):
            return "codec parameters change in mid-stream"
        try:
            scanner.scan(bytes(packet))
        except HeaderError as error:
            self.doubt = self.doubt or str(error)
            self._broken += 1
            if self._broken > _MOST_BROKEN:
                return self.doubt
            try:
                scanner.lose()
            except HeaderError:
                return self.doubt
        return None

    def _cut_short(self) -> str | None:
        count = len(self.table)
        container = self._media.facts.container
        partial = np.flatnonzero(self.table.corrupt)
        if len(partial) and container not in _DAMAGED_ANYWHERE:
            return f"packet {partial[0]} of {count} is not whole"
        if "mp4" in container and (named := len(self._media.stream.index_entries)) > count:
            return f"its sample table names {named} samples, {count} are there"
        return shortfall(Path(self._media.name))

    def _seek(self, other: MediaFile, target: int) -> bool:
        """Seek to a packet or before it; False if that cannot be done."""
        dts = int(self.table.dts[target])
        if dts == NO_PTS:
            return False
        try:
            other.container.seek(dts, stream=other.stream)
        except av.FFmpegError:
            return False
        return True

    def _locate(self, packet: Packet, target: int) -> int:
        """Number of a packet that came after a seek; -1 if it is unknown, ambiguous or behind the target."""
        pts, dts, pos, size, _, _ = _row(packet)
        table = self.table
        found = np.flatnonzero((table.pts == pts) & (table.dts == dts) & (table.pos == pos) & (table.size == size))
        return int(found[0]) if len(found) == 1 and found[0] <= target else -1

    def _row(self, i: int) -> Row | None:
        table = self.table
        if i >= len(table):
            return None
        return (
            int(table.pts[i]),
            int(table.dts[i]),
            int(table.pos[i]),
            int(table.size[i]),
            bool(table.discard[i]),
            bool(table.corrupt[i]),
        )


def beginning(packet: Packet, nbytes: int) -> Packet:
    """The packet without what comes behind its first bytes."""
    cut = av.Packet(bytes(packet)[:nbytes])
    cut.pts, cut.dts, cut.time_base = packet.pts, packet.dts, packet.time_base
    return cut


def _demux(media: MediaFile) -> Iterator[Packet]:
    for packet in media.container.demux(media.stream):
        if packet.size or packet.dts is not None or packet.pts is not None:  # not PyAV's mark of the end
            yield packet


def _row(packet: Packet) -> Row:
    pts, dts, pos = packet.pts, packet.dts, packet.pos
    return (
        NO_PTS if pts is None else pts,
        NO_PTS if dts is None else dts,
        -1 if pos is None else pos,
        packet.size,
        packet.is_discard,
        packet.is_corrupt,
    )

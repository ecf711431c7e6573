"""The packets of a stream: read once into a table, fed from memory or by reading the file again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from gpupipe._native import PacketRows
from gpupipe.decode.base import IndexMismatch
from gpupipe.decode.extent import shortfall
from gpupipe.decode.ffmpeg_file import MediaFile
from gpupipe.decode.headers import HeaderError, Scanner, scanner_for
from gpupipe.decode.index import NO_PTS, PacketTable, Row
from gpupipe.decode.packed_frames import PackedFrames, timed
from gpupipe.decode.packets import Packet, like
from gpupipe.decode.planner import Run

_CHANGES = frozenset(av.Packet().get_sidedata(kind).data_desc for kind in ("new_extradata", "param_change", "palette"))
"""What FFmpeg calls side data that changes the codec's parameters; a packet's kinds are slower to ask for."""
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
        rows = PacketRows()
        scanner = self._scanner()
        packed = self._packed_frames()
        fault = None
        total = 0
        try:
            for packet in _packets(media):
                size = rows.add(packet)
                if size < 0:
                    continue
                if scanner is not None and self.reason is None:
                    try:
                        packet = packed.apart(packet) if packed is not None and size else packet  # noqa: PLW2901
                        self.reason = self._scan(scanner, packet, size)
                    except HeaderError as error:
                        self.reason = str(error)
                total += size
                if self._kept is not None:
                    self._kept.append(packet)
                    if total > cache_bytes:
                        self._kept = None
        except av.FFmpegError as error:
            fault = f"reading stops after packet {len(rows)}: {error.strerror}"
        pictures = None
        if scanner is not None and self.reason is None:
            try:
                pictures = scanner.pictures(media.delay)
            except HeaderError as error:
                self.reason = str(error)
        columns = np.frombuffer(rows.taken(), np.int64)
        self.table = (
            PacketTable.make(columns, None)
            if scanner is None
            else PacketTable.make(columns, pictures, scanner.skips, scanner.restarts, scanner.reach)
        )
        self._demuxed = self.table
        self._packed = packed is not None and packed.used
        if self._packed:
            self._settle()
        self.fault = fault or self._cut_short()

    def _settle(self) -> None:
        """Give packets that were taken apart timestamps of their own; as they were if that does not do."""
        try:
            if self.reason is not None:
                raise HeaderError(self.reason)
            self.table = timed(self._demuxed, self._media.facts.time_base, self._media.step)
        except HeaderError as error:
            self.reason = str(error)
            self.put_together()
        for number, packet in enumerate(self._kept or ()):
            packet.pts = int(self.table.pts[number])

    def put_together(self) -> None:
        """Give packets as the container holds them from now on, whether they were taken apart or not."""
        if self._packed:
            self.table, self._packed, self._kept = self._demuxed, False, None

    def feed(self, run: Run) -> Iterator[tuple[int, Packet]]:
        """The packets of a run with their numbers.

        Raises
        ------
        IndexMismatch
            The file gives other packets than before.
        """
        if self._kept is not None:
            return zip(range(run.start, run.stop), self._kept[run.start : run.stop], strict=True)
        return self._read(run)

    def _read(self, run: Run) -> Iterator[tuple[int, Packet]]:
        """The packets of a run, from the file."""
        for seek in (True, False):
            if seek and not (run.start and self._trust_seeks and not self._packed):
                continue
            packed = self._packed_frames() if self._packed else None
            with self._media.again() as other:
                if seek and not self._seek(other, run.start):
                    continue
                number = -1 if seek else 0
                indexed = self._demuxed.rows(0, run.stop)
                for packet, row in _demux(other):
                    if number < 0:
                        number = self._locate(row, run.start)
                        if number < 0:
                            break
                        indexed = self._demuxed.rows(number, run.stop)
                    if row != next(indexed, None):
                        self._trust_seeks = False
                        raise IndexMismatch(f"{self._media.name}: packet {number} is not the one that was indexed")
                    if packed is not None:
                        try:
                            packet = packed.apart(packet)  # noqa: PLW2901
                        except HeaderError as error:  # in place, with packets of the same sizes
                            raise IndexMismatch(f"{self._media.name}: it was written anew ({error})") from error
                        packet.pts = int(self.table.pts[number])
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

    def _packed_frames(self) -> PackedFrames | None:
        """What takes packets apart, where the codec needs it."""
        return PackedFrames(self._media.codec.extradata or b"") if self._media.facts.codec == "mpeg4" else None

    def _scan(self, scanner: Scanner, packet: Packet, size: int) -> str | None:
        """Show a packet to the scanner; return why its headers do not suffice, None if they do."""
        if not size:
            return "empty packets"
        for data in packet.iter_sidedata():
            if data.data_desc in _CHANGES:
                return "codec parameters change in mid-stream"
        try:
            scanner.scan(packet)
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

    def _locate(self, row: Row, target: int) -> int:
        """Number of a packet that came after a seek; -1 if it is unknown, ambiguous or behind the target."""
        pts, dts, pos, size, _, _ = row
        table = self._demuxed
        found = np.flatnonzero((table.pts == pts) & (table.dts == dts) & (table.pos == pos) & (table.size == size))
        return int(found[0]) if len(found) == 1 and found[0] <= target else -1


def beginning(packet: Packet, nbytes: int) -> Packet:
    """The packet without what comes behind its first bytes."""
    return like(packet, memoryview(packet)[:nbytes])


def _packets(media: MediaFile) -> Iterator[Packet]:
    """The stream's packets; at the file's end empty ones."""
    packets = media.container.demux(media.stream)
    while True:
        try:
            yield next(packets)
        except StopIteration:
            return
        except IndexError:  # PyAV, at the end of a file in which a stream began late, looks for a flag it never made
            return


def _demux(media: MediaFile) -> Iterator[tuple[Packet, Row]]:
    for packet in _packets(media):
        pts, dts, pos, size = packet.pts, packet.dts, packet.pos, packet.size
        if not size and dts is None and pts is None:  # PyAV's mark of the end
            continue
        yield (
            packet,
            (
                NO_PTS if pts is None else pts,
                NO_PTS if dts is None else dts,
                -1 if pos is None else pos,
                size,
                packet.is_discard,
                packet.is_corrupt,
            ),
        )

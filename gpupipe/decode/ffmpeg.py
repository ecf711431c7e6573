"""Decoding on FFmpeg, through PyAV: one codec thread, planes in the decoder's memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import NoReturn

import numpy as np
from av.video.frame import VideoFrame

from gpupipe.decode.base import MAX_PIXELS, Choice, Decoder, IndexMismatch, Indices, Stats, checked
from gpupipe.decode.ffmpeg_codec import Event, FFmpegCodec, Number
from gpupipe.decode.ffmpeg_file import MediaFile
from gpupipe.decode.ffmpeg_packets import PacketSource
from gpupipe.decode.headers import HeaderError
from gpupipe.decode.index import NO_PTS, FrameIndex, counted_index, exact_index
from gpupipe.decode.planner import Plan, Run, plan
from gpupipe.decode.surfaces import Surfaces
from gpupipe.decode.tolerance import cheapest
from gpupipe.errors import CorruptError, InputError, NoVideoError, TruncatedError, UsageError
from gpupipe.types import StreamInfo, Surface

_CACHE_BYTES = 32 << 20


class FFmpegDecoder(Decoder):
    """A video stream decoded by FFmpeg.

    Parameters
    ----------
    path : str or path
    stream : int, optional
        Index in the container; default FFmpeg's best.
    max_pixels : int
        Pictures of more are refused before there is memory for them.
    seek : bool
        False feeds every packet from the first on: slower, the same results and verdicts.
    cache_bytes : int
        Packets are kept in memory if all of them are no larger; else the file is read again for every call.

    Raises
    ------
    MissingInputError, NoVideoError, TruncatedError, UnsupportedError, DecodeError, InputError
        See :func:`gpupipe.decode.open`.
    """

    backend = "ffmpeg"

    def __init__(
        self,
        path: str | os.PathLike[str],
        stream: int | None = None,
        max_pixels: int = MAX_PIXELS,
        *,
        seek: bool = True,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.stats = Stats()
        self._name = os.fspath(path)
        self._media = MediaFile(self._name, stream, max_pixels)
        self._codec = FFmpegCodec(self._media, self.stats)
        self._surfaces = Surfaces(self._media)
        self._seek = seek
        self._cache_bytes = cache_bytes
        self._source: PacketSource | None = None
        self._index: FrameIndex | None = None
        self._readable: FrameIndex | None = None
        self._uncounted: str | None = None  # why the packets do not determine the index
        self._first_fault: tuple[int, str] | None = None
        self._turn = 0

    @property
    def info(self) -> StreamInfo:
        """The stream's facts."""
        return self._media.info

    @property
    def index(self) -> FrameIndex:
        """The pictures that the stream shows."""
        index = self._any_index()
        if len(index):
            return index
        if index.fault:
            raise TruncatedError(f"{self._name}: no picture can be read: {index.fault}. Get the whole file", 0)
        if self._first_fault:
            packet, fault = self._first_fault
            raise CorruptError(f"{self._name}: no picture can be decoded; packet {packet}: {fault}. Get it again", 0)
        raise NoVideoError(
            f"{self._name}: video stream {self._media.facts.stream} shows no picture. Check how it was made"
        )

    def readable(self) -> FrameIndex:
        """Decode everything; return the pictures before the first fault."""
        if self._readable is None:
            index = self._any_index()
            count = self._count_readable(index)
            packet = None if index.packet is None else index.packet[:count]
            self._readable = FrameIndex(
                index.pts[:count], index.time_base, index.exact, packet, index.fault, index.reason
            )
        return self._readable

    def frames(self, indices: Indices, strict: bool = False, partial: bool = False) -> Iterator[tuple[int, Surface]]:
        """Decode the pictures with these numbers."""
        index = self.readable() if partial else self.index
        if index.fault and not partial:
            count = len(self.readable())
            raise TruncatedError(
                f"{self._name}: the file ends early: {index.fault}. {count} frames before that are readable. Get the "
                "whole file",
                count,
            )
        wanted = checked(indices, len(index), self._name)
        index = self._any_index()  # of all that may come out, not only of what is readable
        strict = strict and not partial
        self._turn += 1
        if strict or (wanted and not index.exact):
            return self._in_full(wanted, index, strict)
        return self._planned(wanted, index) if wanted else iter(())

    def read(
        self, choice: Choice, put: Callable[[int, Surface], None], strict: bool = False, partial: bool = False
    ) -> Indices:
        """Decode pictures in any order; what must be counted is, with luck, decoded no more than once."""
        if callable(choice) and not (strict or partial):
            self.prepare()
            if self._index is None and self._packets().fault is None:
                chosen = self._read_counting(choice, put)
                if chosen is not None:
                    return chosen
        return super().read(choice, put, strict, partial)

    def _read_counting(
        self, choice: Callable[[FrameIndex], Indices], put: Callable[[int, Surface], None]
    ) -> Indices | None:
        """Count and decode in one go what is chosen as if every packet showed a picture; None if that was wrong."""
        table = self._packets().table
        count = int((~table.discard).sum())
        known = np.sort(table.pts[~table.discard])
        stamps = known if count and known[0] != NO_PTS else np.arange(count, dtype=np.int64) * self._media.step
        guess = FrameIndex(stamps, self._media.facts.time_base, False)
        self._index = guess  # whatever the choice asks of this decoder is about the guess
        try:
            chosen = np.asarray(choice(guess), np.int64)
        except InputError:  # of the guess; what is true is seen in the ordinary way
            return None
        finally:
            self._index = None
        positions: dict[int, list[int]] = {}
        for position, number in enumerate(chosen.tolist()):
            positions.setdefault(number, []).append(position)

        def see(number: int, frame: VideoFrame) -> None:
            for position in positions.get(number, ()):
                put(position, self._surfaces.of(frame, frame.pts, not number))

        self._index = self._count(see)
        sound = self._first_fault is None and len(self._index) > 0
        return chosen if sound and np.array_equal(choice(self._index), chosen) else None

    def near(
        self, indices: Indices, seconds: float, low: int = 0, high: int | None = None, partial: bool = False
    ) -> Indices:
        """Trade pictures for those that cost least to decode, no further than ``seconds`` from the wanted ones."""
        index = self.readable() if partial else self.index
        if seconds <= 0 or index.packet is None or not len(indices):  # what was counted is decoded from the start
            return indices
        return cheapest(self._packets().table, index, np.asarray(indices, np.int64), seconds, low, high)

    def close(self) -> None:
        """Give the file and the codec back."""
        self._media.close()
        self._source = None

    # -- the index ---------------------------------------------------------------------------------------------------

    def _packets(self) -> PacketSource:
        if self._source is None:
            self._codec.renew()
            self._source = PacketSource(self._media, self._cache_bytes)
        return self._source

    def _any_index(self) -> FrameIndex:
        if self._index is None:
            self.prepare()
        if self._index is None:
            self._index = self._count()
        return self._index

    def prepare(self) -> None:
        """Read the packets and make the index from them, if they determine it; else it has yet to be counted."""
        if self._index is not None or self._uncounted is not None:
            return
        source = self._packets()
        try:
            if source.reason is not None:
                raise HeaderError(source.reason)
            index = exact_index(source.table, self._media.facts.time_base, source.fault)
            if source.doubt is not None and not self._really_broken(index):
                raise HeaderError(source.doubt)
            self._index = index
        except HeaderError as error:
            self._uncounted = str(error)

    def _really_broken(self, index: FrameIndex) -> bool:
        """True if no packet whose headers could not be read decodes to a sound picture."""
        table = self._packets().table
        entries = np.flatnonzero(table.entry)
        for broken in np.flatnonzero(table.broken).tolist():
            start = int(entries[np.searchsorted(entries, broken) - 1])
            self._codec.restart(table.restarts)
            for frame, _, fault in self._execute(Run(start, broken + 1), None):
                if frame is not None and fault is None and frame.pts == table.pts[broken]:
                    return False
        return True

    def _count(self, see: Callable[[int, VideoFrame], None] | None = None) -> FrameIndex:
        """Make the index by decoding everything, on and on behind any fault; `see` is shown every frame."""
        stamps: list[tuple[int | None, int | None]] = []
        self._first_fault = None
        for frame, packet, found in self._everything():
            if found and self._first_fault is None:
                self._first_fault = packet, found
            if frame is not None:
                if see is not None:
                    see(len(stamps), frame)
                stamps.append((frame.pts, frame.dts))
        return counted_index(
            stamps, self._media.facts.time_base, self._media.step, self._packets().fault, self._uncounted
        )

    def _recount(self, reason: str) -> NoReturn:
        """Replace an index that was wrong."""
        assert self._index is not None
        self._uncounted = reason
        self._packets().put_together()
        self._index = self._count()
        self._readable = None
        raise IndexMismatch(
            f"{self._name}: the packets do not tell what is shown ({reason}); {len(self._index)} frames were counted "
            "by decoding. Choose frames again"
        )

    def _count_readable(self, index: FrameIndex) -> int:
        """Pictures that come out before the first fault, and that come from packets before the damaged one."""
        sources: list[int] = []
        damaged = len(self._packets().table)
        # Where the file ends early, what the decoder holds back may follow pictures that are lost.
        for frame, packet, fault in self._everything(drain=index.fault is None, trace=True):
            source = packet
            if frame is not None:
                number = index.number(frame.pts)
                if index.packet is None:
                    source = frame.opaque if isinstance(frame.opaque, Number) else packet
                elif number != len(sources):
                    break
                else:
                    source = int(index.packet[number])
            if fault:
                damaged = source
                break
            sources.append(source)
        return next((i for i, source in enumerate(sources) if source >= damaged), len(sources))

    # -- decoding ----------------------------------------------------------------------------------------------------

    def _everything(self, drain: bool = True, trace: bool = False) -> Generator[Event]:
        """Decode the whole stream."""
        run = Run(0, len(self._packets().table))
        self._codec.renew()
        yield from self._execute(run, None, drain, trace)

    def _execute(self, run: Run, schedule: Plan | None, drain: bool = True, trace: bool = False) -> Generator[Event]:
        """Feed a run of packets; see :meth:`FFmpegCodec.execute`."""
        return self._codec.execute(self._packets(), run, schedule, drain, trace)

    def _in_full(self, wanted: list[int], index: FrameIndex, strict: bool) -> Iterator[tuple[int, Surface]]:
        """Decode from the first packet to the last wanted picture, or to the end; pictures are those that come out."""
        turn = self._turn
        pending = iter(wanted)
        goal = next(pending, None)
        count = 0
        for frame, packet, fault in self._everything():
            self._mind(turn)
            number = index.number(frame.pts) if frame is not None else None
            if fault:
                known = index.packet if number is not None else None
                self._corrupt(packet if known is None else int(known[number]), fault)
            if frame is None:
                continue
            if index.exact and number != count:
                self._recount("the decoder showed another picture")
            if count == goal:
                yield count, self._surfaces.of(frame, int(index.pts[count]), not count)
                goal = next(pending, None)
                if goal is None and not strict:
                    return
            count += 1
        if goal is not None or count != len(index):
            self._recount(f"{count} of {len(index)} frames came out")

    def _planned(self, wanted: list[int], index: FrameIndex) -> Iterator[tuple[int, Surface]]:
        """Decode what the wanted pictures depend on."""
        turn = self._turn
        table = self._packets().table
        assert index.packet is not None
        schedule = plan(table, index, wanted, self._seek)
        goals = set(wanted)
        shown = np.full(len(table), -1, np.int64)
        shown[index.packet] = np.arange(len(index))
        numbers = dict(zip(index.pts.tolist(), range(len(index)), strict=True))
        last = -1
        for run in schedule.runs:
            self._mind(turn)
            self._codec.restart(table.restarts)
            here = shown[run.start : run.stop][(schedule.closure & (schedule.cut == 0))[run.start : run.stop]]
            due = set(here[here >= 0].tolist())
            for frame, packet, fault in self._execute(run, schedule):
                number = numbers.get(frame.pts) if frame is not None else None
                if fault:
                    source = packet if number is None else int(index.packet[number])
                    if schedule.closure[source]:
                        self._corrupt(source, fault)
                if frame is None:
                    continue
                if number is None:
                    self._recount(f"the decoder showed a picture at {frame.pts}, which no packet names")
                if number in due:
                    due.remove(number)
                elif number in goals:
                    self._recount(f"the decoder showed the picture at {frame.pts} twice")
                if number in goals:
                    if number < last:
                        self._recount("the decoder showed pictures in another order")
                    last = number
                    yield number, self._surfaces.of(frame, int(index.pts[number]), not number)
                    self._mind(turn)
            for number in sorted(due):
                if table.broken[index.packet[number]]:
                    self._corrupt(int(index.packet[number]), "it shows nothing")
            if due:
                self._recount(f"{len(due)} pictures did not come out, the first at {int(index.pts[min(due)])}")

    def _mind(self, turn: int) -> None:
        if turn != self._turn or self._media.closed:
            raise UsageError(f"{self._name}: frames() was called again, or the decoder closed, before this one ended")

    def _corrupt(self, packet: int, fault: str) -> NoReturn:
        """Fail, and say how much could be read."""
        count, total = len(self.readable()), len(self.index)
        place = f" frame {count} ({self.index.times[count]:.2f} s)" if count < total else ""
        raise CorruptError(
            f"{self._name}{place}: packet {packet} cannot be decoded: {fault}. {count} of {total} frames are readable "
            "before that. Get it again",
            count,
        )

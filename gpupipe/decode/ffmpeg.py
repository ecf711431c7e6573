"""Decoding on FFmpeg, through PyAV: one codec thread, planes in the decoder's memory.

What libavcodec says of damage was measured with flipped bits. H.264, MPEG-2 and MPEG-4 conceal it and flag the frame;
VP9 and AV1 refuse the packet; H.265 says nothing unless ``err_detect`` is ``explode``, which is therefore set for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, Literal, NoReturn

import av
import numpy as np
from av.video.frame import VideoFrame

from gpupipe.decode.base import MAX_PIXELS, Choice, Decoder, IndexMismatch, Indices, Stats, checked
from gpupipe.decode.facts import colour_of
from gpupipe.decode.ffmpeg_file import MediaFile, orientation_of
from gpupipe.decode.ffmpeg_packets import PacketSource, beginning
from gpupipe.decode.headers import HeaderError
from gpupipe.decode.index import NO_PTS, FrameIndex, counted_index, exact_index
from gpupipe.decode.planner import Plan, Run, plan
from gpupipe.decode.tolerance import cheapest
from gpupipe.errors import (
    CorruptError,
    DecodeError,
    InputError,
    NoVideoError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from gpupipe.layouts import native_layout
from gpupipe.types import StreamInfo, Surface, SurfaceFormat

_CACHE_BYTES = 32 << 20

Event = tuple[VideoFrame | None, int, str | None]
"""A frame that came out, the packet that was fed last, and the fault that either shows."""


class _Number(int):
    """Number of a packet, as it travels through the codec to its frame; PyAV tells such objects apart by identity."""


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
        self._used = False  # the codec or the container is no longer at its start
        self._seek = seek
        self._cache_bytes = cache_bytes
        self._source: PacketSource | None = None
        self._index: FrameIndex | None = None
        self._readable: FrameIndex | None = None
        self._uncounted: str | None = None  # why the packets do not determine the index
        self._first_fault: tuple[int, str] | None = None
        self._formats: dict[tuple[object, ...], SurfaceFormat] = {}
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
                put(position, self._surface(frame, frame.pts, not number))

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
            self._fresh()
            self._used = True
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
            self._restart(table.restarts)
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
                    source = frame.opaque if isinstance(frame.opaque, _Number) else packet
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

    def _fresh(self) -> None:
        """Make the codec one that has decoded nothing."""
        if self._media.closed:
            raise UsageError(f"{self._name}: this decoder is closed")
        if self._used:
            self._media.reopen()
            self._used = False

    def _everything(self, drain: bool = True, trace: bool = False) -> Generator[Event]:
        """Decode the whole stream."""
        run = Run(0, len(self._packets().table))
        self._fresh()
        self._used = True
        yield from self._execute(run, None, drain, trace)

    def _execute(self, run: Run, schedule: Plan | None, drain: bool = True, trace: bool = False) -> Generator[Event]:
        """Feed a run of packets; those that the schedule can do without as far as their headers, or not at all.

        With `trace` every frame carries the :class:`_Number` of its packet.
        """
        codec, stats = self._media.codec, self.stats
        try:
            codec.open(strict=False)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):  # no fault of the file
                raise
            raise DecodeError(
                f"{self._name}: the {self.info.codec} decoder does not take what its header says ({error.strerror}). "
                "Check the file with ffprobe"
            ) from error
        codec.copy_opaque = trace
        table = self._packets().table
        skips = table.skips
        skip: Literal["NONREF", "NONKEY"] = (
            "NONREF" if table.references is None else "NONKEY"
        )  # headers are still read, entries decoded
        skippable, cut = schedule.of(run) if schedule is not None else ([], [])
        number = run.start
        for number, packet in self._packets().feed(run):
            if packet.is_corrupt:
                yield None, number, "the demuxer found it damaged"
            if not packet.size:  # would tell the codec that the stream ends
                continue
            stats.packets += 1
            if trace:
                packet.opaque = _Number(number)
            if schedule is not None:
                skipped = skippable[number - run.start]
                stats.skipped += skipped
                if skips:
                    codec.skip_frame = skip if skipped else "DEFAULT"
                elif skipped:
                    continue
                elif cut[number - run.start]:
                    packet = beginning(packet, cut[number - run.start])  # noqa: PLW2901
            try:
                frames = codec.decode(packet)
            except av.FFmpegError as error:
                self._media.check_size(codec.height, codec.width)
                if isinstance(error, MemoryError):  # no fault of the file
                    raise
                yield None, number, error.strerror
                continue
            for frame in frames:
                stats.decoded += 1
                yield frame, number, "its frame is damaged" if frame.is_corrupt else None
        codec.skip_frame = "DEFAULT"
        if drain:
            yield from self._drain(number)

    def _drain(self, number: int) -> Generator[Event]:
        """Take what the codec holds back."""
        frames: list[VideoFrame] = []
        with suppress(av.FFmpegError):  # a frame that is missing is seen to be missing
            frames = self._media.codec.decode(None)
        for frame in frames:
            self.stats.decoded += 1
            yield frame, number, "its frame is damaged" if frame.is_corrupt else None

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
                yield count, self._surface(frame, int(index.pts[count]), not count)
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
            self._restart(table.restarts)
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
                    yield number, self._surface(frame, int(index.pts[number]), not number)
                    self._mind(turn)
            for number in sorted(due):
                if table.broken[index.packet[number]]:
                    self._corrupt(int(index.packet[number]), "it shows nothing")
            if due:
                self._recount(f"{len(due)} pictures did not come out, the first at {int(index.pts[min(due)])}")

    def _restart(self, flushing: bool) -> None:
        """Prepare the codec for a run that has nothing to do with what it decoded before."""
        codec = self._media.codec
        if self._used and flushing and not self._media.closed:
            delay = codec.reorder_depth
            codec.flush_buffers()
            codec.reorder_depth = max(codec.reorder_depth, delay)
        else:
            self._fresh()
        self._used = True

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

    # -- surfaces ----------------------------------------------------------------------------------------------------

    def _surface(self, frame: VideoFrame, pts: int | None, first: bool) -> Surface:
        name = frame.format.name
        turned = orientation_of(frame) or (self.info.rotation, self.info.mirrored)
        if first:
            self._media.turn(*turned)
        key = (name, frame.height, frame.width, frame.colorspace, frame.color_range, turned)
        made = self._formats.get(key)
        if made is None:
            siting, codec = self._media.facts.colour.siting, self._media.facts.codec
            colour = colour_of(name, frame.colorspace, frame.color_range, siting, codec)
            try:
                layout = native_layout(name)
            except UnsupportedError as error:
                raise UnsupportedError(f"{self._name}: {error}") from error
            made = SurfaceFormat(frame.height, frame.width, layout, colour, *turned)
            self._formats[key] = made
        if made.layout != name:
            frame = frame.reformat(format=made.layout)
        planes: list[Any] = []
        strides: list[int] = []
        for plane in frame.planes:
            stride = plane.line_size
            if stride < 0:  # stored from the bottom up
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -stride)
                planes.append(rows[::-1].tobytes())
            else:
                planes.append(plane)
            strides.append(abs(stride))
        return Surface(made, planes, strides, pts, frame)

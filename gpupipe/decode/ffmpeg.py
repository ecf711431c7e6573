"""Decoding on FFmpeg, through PyAV.

One codec thread, local files only. What libavcodec reports of damage was measured with flipped bits: H.264, MPEG-2 and
MPEG-4 conceal it and flag the frame; VP9 and AV1 refuse the packet; H.265 tells nothing unless ``err_detect`` is ``explode``,
which is set for it and changes no sound frame.
"""

from __future__ import annotations

import logging
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gpupipe.decode.base import Decoder, IndexMismatch, Indices, Stats, checked
from gpupipe.decode.extent import shortfall
from gpupipe.decode.facts import colour_of, orientation, siting_of, stream_block, transfer_name
from gpupipe.decode.headers import HeaderError, scanner_for
from gpupipe.decode.index import NO_PTS, FrameIndex, PacketTable, counted_index, exact_index
from gpupipe.decode.planner import Run, plan
from gpupipe.errors import (
    CorruptError,
    DecodeError,
    InputError,
    MissingInputError,
    NoVideoError,
    TruncatedError,
    UnsupportedError,
    UsageError,
)
from gpupipe.layouts import native_layout
from gpupipe.types import StreamInfo, Surface, SurfaceFormat

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,asf_o,ogg,ivf,nut,mxf,gxf,dv,m4v,"
    "h261,h263,h264,hevc,vvc,obu,av1,mjpeg,vc1,vc1test,rm,wtv,gif,apng,yuv4mpegpipe,dirac,cavsvideo,avs2,avs3,nsv,amv,"
    "bink,smk,roq,flic,vivo,swf,film_cpk,mp3,wav,w64,flac,aac,ac3,eac3,aiff,au,caf,amr,ape,tta,wv,mpc,dts,truehd"
)  # no playlists, no image sequences, nothing that opens another file
_MAX_PIXELS = 1 << 28
_CACHE_BYTES = 32 << 20
_ATTACHED = av.stream.Disposition.attached_pic
_CHANGES = ("new_extradata", "param_change", "palette")
_UNTRUSTED_END = ("mpegts",)  # damage in mid-stream and at the end look alike

_log_lock = threading.Lock()
logging.getLogger("libav").addHandler(logging.NullHandler())  # nothing of FFmpeg's goes to stderr


class FFmpegDecoder(Decoder):
    """A video stream decoded by FFmpeg.

    Parameters
    ----------
    path : str or path
    stream : int, optional
        Index in the container; default FFmpeg's best.
    seek : bool
        False feeds every packet from the first on (for tests: results and verdicts are the same).
    cache_bytes : int
        Packets are kept in memory if all of them are no larger; else the file is read again for every call.
    """

    backend = "ffmpeg"

    def __init__(
        self,
        path: str | os.PathLike[str],
        stream: int | None = None,
        *,
        seek: bool = True,
        cache_bytes: int = _CACHE_BYTES,
    ) -> None:
        self.stats = Stats()
        self._name = os.fspath(path)
        self._seek = seek
        self._cache_bytes = cache_bytes
        _check_file(self._name)
        self._container: InputContainer | None = _open(self._name)
        try:
            self._number = _choose(self._container, stream, self._name)
            self._stream = self._attach(self._container)
            self._used = False
            self._info = self._facts()
        except BaseException:
            self.close()
            raise
        self._packets: list[av.Packet] | None = []
        self._table: PacketTable | None = None
        self._index: FrameIndex | None = None
        self._readable: FrameIndex | None = None
        self._formats: dict[tuple[object, ...], SurfaceFormat] = {}
        self._turn = 0

    # -- the contract ------------------------------------------------------------------------------------------------

    @property
    def info(self) -> StreamInfo:
        """The stream's facts."""
        return self._info

    @property
    def index(self) -> FrameIndex:
        """The pictures that the stream shows."""
        if self._index is None:
            self._index = self._make_index()
        if not len(self._index):
            if self._index.fault:
                raise TruncatedError(f"{self._name}: no picture can be read: {self._index.fault}. Get the whole file", 0)
            raise NoVideoError(f"{self._name}: video stream {self._number} shows no picture. Check how it was made")
        return self._index

    def readable(self) -> FrameIndex:
        """Decode everything; return the pictures before the first fault."""
        if self._readable is None:
            index = self._index or self._make_index()
            self._index = index
            count = self._count_readable(index)
            self._readable = FrameIndex(
                index.pts[:count],
                index.time_base,
                index.exact,
                None if index.packet is None else index.packet[:count],
                index.fault,
                index.reason,
            )
        return self._readable

    def frames(
        self, indices: Indices, strict: bool = False, partial: bool = False
    ) -> Iterator[tuple[int, Surface]]:
        """Decode the pictures with these numbers."""
        index = self.readable() if partial else self.index
        if index.fault and not partial:
            count = len(self.readable())
            raise TruncatedError(
                f"{self._name}: the file ends early: {index.fault}. {count} frames before that are readable; get the whole "
                "file, or take them with --allow-partial",
                count,
            )
        wanted = checked(indices, len(index), self._name)
        self._turn += 1
        if not wanted and not strict:
            return iter(())
        if strict or not index.exact:
            return self._in_full(wanted, index, strict and not partial)
        return self._planned(wanted, index)

    def close(self) -> None:
        """Give the file and the codec back."""
        if self._container is not None:
            self._container.close()
            self._container = None

    # -- facts -------------------------------------------------------------------------------------------------------

    @property
    def _codec(self) -> VideoCodecContext:
        return self._stream.codec_context

    def _attach(self, container: InputContainer) -> VideoStream:
        """Prepare the chosen stream of a container that was just opened."""
        container.flags &= ~av.container.Flags.gen_pts.value  # timestamps that are missing must be seen to be missing
        for other in container.streams:
            if other.index != self._number:
                other.discard = av.stream.Discard.all
        stream = container.streams[self._number]
        assert isinstance(stream, VideoStream)
        codec = stream.codec_context
        if codec is None:
            raise UnsupportedError(
                f"{self._name}: no decoder for video stream {self._number} in this FFmpeg. Convert the file first"
            )
        codec.thread_count = 1
        codec.options = {"max_pixels": str(_MAX_PIXELS)}
        if codec.codec.canonical_name == "hevc":
            codec.options = {**codec.options, "err_detect": "explode"}
        return stream

    def _facts(self) -> StreamInfo:
        assert self._container is not None
        stream, codec = self._stream, self._codec
        name = codec.codec.canonical_name
        layout = codec.pix_fmt
        time_base = stream.time_base or Fraction(1, 1)
        duration = stream.duration * time_base if stream.duration else None
        if duration is None and self._container.duration:
            duration = Fraction(self._container.duration, av.time_base)
        block = stream_block(_dump(self._container), self._number)
        rotation, mirrored = self._peek_orientation() if "Display Matrix" in block else (0, False)
        rate = stream.average_rate
        components = codec.format.components if codec.format else ()
        return StreamInfo(
            path=self._name,
            stream=self._number,
            container=self._container.format.name,
            codec=name,
            profile=codec.profile,
            layout=layout,
            height=codec.height,
            width=codec.width,
            rotation=rotation,
            mirrored=mirrored,
            fps=float(rate) if rate else None,
            time_base=time_base,
            start_seconds=float(stream.start_time * time_base) if stream.start_time is not None else None,
            duration_seconds=float(duration) if duration else None,
            colour=colour_of(layout or "", codec.colorspace, codec.color_range, siting_of(block, layout, name), name),
            transfer=transfer_name(codec.color_trc),
            bits=components[0].bits if components else None,
        )

    def _peek_orientation(self) -> tuple[int, bool]:
        """Orientation from the first frame: PyAV shows the display matrix of frames only."""
        with _open(self._name) as container, suppress(av.FFmpegError):
            stream = self._attach(container)
            for frame in container.decode(stream):
                return _orientation(frame) or (0, False)
        return 0, False

    # -- the index ---------------------------------------------------------------------------------------------------

    def _make_index(self) -> FrameIndex:
        rows, fault = self._demux()
        time_base = self._info.time_base
        try:
            if self._table is None:
                raise HeaderError(self._reason)
            return exact_index(self._table, time_base, fault)
        except HeaderError as error:
            self._table = self._table or PacketTable.make(rows, None)
            return self._count(str(error), fault)

    def _demux(self) -> tuple[list[tuple[int, int, int, int, bool, bool]], str | None]:
        """Read all packets: fill the table (or the reason why not) and the cache; return rows and fault."""
        container = self._fresh()
        rows: list[tuple[int, int, int, int, bool, bool]] = []
        kept: list[av.Packet] | None = []
        total = 0
        self._reason = ""
        fault = None
        scanner = None
        try:
            scanner = scanner_for(self._info.codec, self._codec.extradata or b"")
        except HeaderError as error:
            self._reason = str(error)
        packets = container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                fault = f"reading stops after packet {len(rows)}: {error.strerror}"
                break
            if packet is None:
                break
            if not packet.size:
                if packet.pts is None and packet.dts is None and packet.pos is None:
                    continue  # PyAV's mark of the end
                self._reason = self._reason or "empty packets"
            rows.append(_row(packet))
            if scanner is not None and not self._reason:
                try:
                    scanner.scan(bytes(packet))
                except HeaderError as error:
                    self._reason = str(error)
                if any(packet.has_sidedata(kind) for kind in _CHANGES):
                    self._reason = "codec parameters change in mid-stream"
            total += packet.size
            if kept is not None:
                kept.append(packet)
                if total > self._cache_bytes:
                    kept = None
        self._packets = kept
        self._used = True
        if scanner is not None and not self._reason:
            try:
                self._table = PacketTable.make(rows, scanner.pictures(), scanner.skips, scanner.restarts)
            except HeaderError as error:
                self._reason = str(error)
        return rows, fault or self._cut_short(rows)

    def _cut_short(self, rows: list[tuple[int, int, int, int, bool, bool]]) -> str | None:
        assert self._container is not None
        if self._info.container not in _UNTRUSTED_END and any(row[5] for row in rows):
            return f"packet {next(i for i, row in enumerate(rows) if row[5])} of {len(rows)} is not whole"
        if "mp4" in self._info.container and len(self._stream.index_entries) > len(rows):
            return f"its sample table names {len(self._stream.index_entries)} samples, {len(rows)} are there"
        return shortfall(Path(self._name))

    def _count(self, reason: str, fault: str | None) -> FrameIndex:
        stamps = [(frame.pts, frame.dts) for frame, _, _ in self._everything() if frame is not None]
        rate = self._info.fps
        step = max(1, round(1 / (rate * self._info.time_base))) if rate else 1
        return counted_index(stamps, self._info.time_base, step, fault, reason)

    def _recount(self, reason: str) -> NoReturn:
        """Replace an index that was wrong."""
        assert self._index is not None
        self._index = self._count(reason, self._index.fault)
        self._readable = None
        raise IndexMismatch(
            f"{self._name}: the packets do not tell what is shown ({reason}); {len(self._index)} frames were counted by "
            "decoding. Choose frames again"
        )

    def _count_readable(self, index: FrameIndex) -> int:
        """Pictures before the first fault."""
        if index.packet is None:
            count = 0
            for frame, _, fault in self._everything(drain=index.fault is None):
                if fault:
                    break
                count += frame is not None
            return count
        seen: set[int] = set()
        stop = len(self._table) if self._table is not None else 0
        damaged = stop
        events = self._everything(drain=index.fault is None)
        for frame, packet, fault in events:
            number = index.number(frame.pts) if frame is not None else None
            if fault:
                damaged = min(damaged, packet if number is None else int(index.packet[number]))
                events.close()
                break
            if number is not None:
                seen.add(number)
        if damaged < stop and index.fault is None:
            # What the decoder still held back came before the damage, and has its place in an index that is complete.
            for frame in self._drain():
                number = index.number(frame.pts)
                if number is None:
                    continue
                if frame.is_corrupt:
                    damaged = min(damaged, int(index.packet[number]))
                seen.add(number)
        for number in range(len(index)):
            if number not in seen or index.packet[number] >= damaged:
                return number
        return len(index)

    # -- decoding ----------------------------------------------------------------------------------------------------

    def _fresh(self) -> InputContainer:
        """A container at its start, with a codec that has decoded nothing."""
        if self._container is None:
            raise UsageError(f"{self._name}: this decoder is closed")
        if self._used:
            self._container.close()
            self._container = _open(self._name)
            self._stream = self._attach(self._container)
            self._used = False
        return self._container

    def _everything(self, drain: bool = True) -> Iterator[tuple[VideoFrame | None, int, str | None]]:
        """Decode the whole stream in order; yield (frame or None, packet, fault or None)."""
        self._fresh()
        codec = self._codec
        self._used = True
        number = -1
        for number, packet in self._feed(Run(0, len(self._table) if self._table is not None else 0)):
            if not packet.size:
                continue
            fault = "the demuxer found it damaged" if packet.is_corrupt else None
            if fault:
                yield None, number, fault
            self.stats.packets += 1
            try:
                frames = codec.decode(packet)
            except av.FFmpegError as error:
                yield None, number, error.strerror
                continue
            for frame in frames:
                self.stats.decoded += 1
                yield frame, number, "the frame is damaged" if frame.is_corrupt else None
        if drain:
            for frame in self._drain():
                yield frame, number, "the frame is damaged" if frame.is_corrupt else None

    def _drain(self) -> list[VideoFrame]:
        frames: list[VideoFrame] = []
        with suppress(av.FFmpegError):  # a frame that is missing is seen to be missing
            frames = self._codec.decode(None)
        self.stats.decoded += len(frames)
        return frames

    def _in_full(self, wanted: list[int], index: FrameIndex, strict: bool) -> Iterator[tuple[int, Surface]]:
        """Decode from the first packet to the last wanted picture, or to the end; pictures are those that come out."""
        turn = self._turn
        pending = iter([*wanted, -1])
        goal = next(pending)
        number = -1
        for frame, packet, fault in self._everything():
            self._still(turn)
            if fault:
                self._corrupt(packet, fault)
            if frame is None:
                continue
            number += 1
            if index.exact and index.number(frame.pts) != number:
                self._recount("the decoder showed another picture")
            if number == goal:
                yield number, self._surface(frame, int(index.pts[number]))
                goal = next(pending)
                if goal < 0 and not strict:
                    return
        if goal >= 0 or (strict and number + 1 != len(index)):
            if index.exact:
                self._recount(f"{number + 1} of {len(index)} frames came out")
            raise CorruptError(f"{self._name}: {number + 1} frames came out, {len(index)} before. Is the file being written?")

    def _planned(self, wanted: list[int], index: FrameIndex) -> Iterator[tuple[int, Surface]]:
        """Decode what the wanted pictures depend on."""
        turn = self._turn
        table = self._table
        assert table is not None and index.packet is not None
        schedule = plan(table, index, wanted, self._seek)
        goals = set(wanted)
        shown = np.full(len(table), -1, np.int64)
        shown[index.packet] = np.arange(len(index))
        last = -1
        for run in schedule.runs:
            if self._used:
                if table.restarts and self._codec.is_open:
                    self._codec.flush_buffers()
                else:
                    self._fresh()
            self._used = True
            due = {int(n) for n in shown[run.start : run.stop][schedule.closure[run.start : run.stop]] if n >= 0}
            for frame, packet, fault in self._execute(run, schedule.skippable, table.skips):
                self._still(turn)
                number = index.number(frame.pts) if frame is not None else None
                source = packet if number is None else int(index.packet[number])
                if fault and (schedule.closure[source] if frame is None or number is not None else False):
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
                    if number <= last:
                        self._recount("the decoder showed pictures in another order")
                    last = number
                    yield number, self._surface(frame, int(index.pts[number]))
            if due:
                self._recount(f"{len(due)} pictures did not come out, the first at {int(index.pts[min(due)])}")

    def _execute(self, run: Run, skippable: np.ndarray, skips: bool) -> Iterator[tuple[VideoFrame | None, int, str | None]]:
        codec = self._codec
        number = run.start
        if skips:
            codec.open(strict=False)
        for number, packet in self._feed(run):
            if packet.is_corrupt:
                yield None, number, "the demuxer found it damaged"
            self.stats.packets += 1
            if skips:
                skipped = bool(skippable[number])
                codec.skip_frame = "NONREF" if skipped else "DEFAULT"
                self.stats.skipped += skipped
            try:
                frames = codec.decode(packet)
            except av.FFmpegError as error:
                yield None, number, error.strerror
                continue
            for frame in frames:
                self.stats.decoded += 1
                yield frame, number, "the frame is damaged" if frame.is_corrupt else None
        codec.skip_frame = "DEFAULT"
        for frame in self._drain():
            yield frame, number, "the frame is damaged" if frame.is_corrupt else None

    def _feed(self, run: Run) -> Iterator[tuple[int, av.Packet]]:
        """Packets of a run, from memory or by reading the file again."""
        if self._packets is not None:
            for number in range(run.start, run.stop):
                yield number, self._packets[number]
            return
        yield from self._read_again(run)

    def _read_again(self, run: Run) -> Iterator[tuple[int, av.Packet]]:
        table = self._table
        assert table is not None
        with _open(self._name) as container:
            stream = self._attach(container)
            number = 0
            if run.start and table.dts[run.start] != NO_PTS:
                number = self._seek_to(container, stream, run.start)
        with _open(self._name) as container:
            stream = self._attach(container)
            if number:
                container.seek(int(table.dts[run.start]), stream=stream)
            for packet in container.demux(stream):
                if number >= run.stop:
                    return
                if not packet.size and packet.pts is None and packet.dts is None and packet.pos is None:
                    continue
                if _row(packet) != _table_row(table, number):
                    raise DecodeError(
                        f"{self._name}: packet {number} is not the one that was indexed. Is the file being written?"
                    )
                if number >= run.start:
                    yield number, packet
                number += 1

    def _seek_to(self, container: InputContainer, stream: VideoStream, target: int) -> int:
        """Try to seek; return the number of the first packet that then comes, 0 where the file must be read from its start."""
        table = self._table
        assert table is not None
        try:
            container.seek(int(table.dts[target]), stream=stream)
            first = next(container.demux(stream))
        except (av.FFmpegError, StopIteration):
            return 0
        row = _row(first)
        same = (table.pts == row[0]) & (table.dts == row[1]) & (table.pos == row[2]) & (table.size == row[3])
        found = np.flatnonzero(same)
        return int(found[0]) if len(found) == 1 and found[0] <= target else 0

    def _still(self, turn: int) -> None:
        if turn != self._turn:
            raise UsageError(f"{self._name}: frames() was called again before this one was exhausted")

    def _corrupt(self, packet: int, fault: str) -> NoReturn:
        """Fail, and say how much could be read."""
        count = len(self.readable())
        total = len(self.index)
        seconds = ""
        if count < total:
            seconds = f" frame {count} ({self.index.times[count]:.2f} s)"
        raise CorruptError(
            f"{self._name}{seconds}: packet {packet} cannot be decoded: {fault}. {count} of {total} frames are readable; "
            "--allow-partial takes them",
            count,
        )

    # -- surfaces ----------------------------------------------------------------------------------------------------

    def _surface(self, frame: VideoFrame, pts: int) -> Surface:
        name = frame.format.name
        turned = _orientation(frame) or (self._info.rotation, self._info.mirrored)
        key = (name, frame.height, frame.width, frame.colorspace, frame.color_range, turned)
        format = self._formats.get(key)
        if format is None:
            layout = native_layout(name)
            colour = colour_of(name, frame.colorspace, frame.color_range, self._info.colour.siting, self._info.codec)
            format = SurfaceFormat(frame.height, frame.width, layout, colour, *turned)
            self._formats[key] = format
        if format.layout != name:
            frame = frame.reformat(format=format.layout)
        planes: list[object] = []
        strides: list[int] = []
        for plane in frame.planes:
            if plane.line_size < 0:  # stored from the bottom up
                rows = np.frombuffer(plane, np.uint8).reshape(plane.height, -plane.line_size)
                planes.append(np.ascontiguousarray(rows[::-1]).reshape(-1))
            else:
                planes.append(plane)
            strides.append(abs(plane.line_size))
        return Surface(format, planes, strides, pts, frame)


def _check_file(name: str) -> None:
    try:
        found = os.stat(name)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise MissingInputError(f"{name!r}: there is no such file. Check the path") from error
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}. Check the path and its permissions") from error
    if not stat.S_ISREG(found.st_mode):
        kind = "a directory" if stat.S_ISDIR(found.st_mode) else "not a regular file"
        raise MissingInputError(f"{name}: is {kind}; expected a video file")
    if not found.st_size:
        raise DecodeError(f"{name}: the file is empty (0 bytes). Copy or download it again")
    if not os.access(name, os.R_OK):
        raise InputError(f"{name}: permission denied. Make it readable")


def _open(name: str) -> InputContainer:
    options = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
    try:
        return av.open(
            f"file:{name}",
            mode="r",
            options={"threads": "1", "max_pixels": str(_MAX_PIXELS)},
            container_options=options,
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        short = shortfall(Path(name))
        if short:
            raise TruncatedError(f"{name}: the file ends early: {short}. Get the whole file", 0) from error
        raise DecodeError(
            f"{name}: FFmpeg cannot read it as a media file ({_why(name, options) or error.strerror}). "
            "Check that it is a video"
        ) from error


def _why(name: str, options: dict[str, str]) -> str:
    """Open once more to hear what FFmpeg says about it."""
    with _log_lock:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as logs, suppress(av.FFmpegError):
                av.open(f"file:{name}", mode="r", container_options=options).close()
        finally:
            av.logging.set_level(level)
    return "; ".join(message.strip() for _, _, message in logs[:2])


def _dump(container: InputContainer) -> str:
    """What FFmpeg prints of a file: the only place where PyAV shows chroma siting and stream side data."""
    with _log_lock:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.VERBOSE)
        av.logging.set_libav_level(av.logging.VERBOSE)
        try:
            return container.dumps_format()
        finally:
            av.logging.set_libav_level(av.logging.INFO)
            av.logging.set_level(level)


def _choose(container: InputContainer, stream: int | None, name: str) -> int:
    """Index of the stream to decode."""
    videos = [s for s in container.streams.video if not s.disposition & _ATTACHED]
    if not videos:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise NoVideoError(f"{name}: no video stream; its streams: {kinds}. Give a file with pictures")
    if stream is not None:
        if all(s.index != stream for s in videos):
            names = ", ".join(f"{s.index} ({s.codec_context.name if s.codec_context else '?'})" for s in videos)
            raise NoVideoError(f"{name}: stream {stream} is no video stream; its video streams: {names}. Choose one")
        return stream
    best = container.streams.best("video")
    if best is not None and not best.disposition & _ATTACHED:
        return best.index
    return max(videos, key=lambda s: s.frames).index


def _orientation(frame: VideoFrame) -> tuple[int, bool] | None:
    data = frame.side_data
    for i in range(len(data)):
        if data[i].type.name == "DISPLAYMATRIX":
            return orientation(struct.unpack("=9i", bytes(data[i])))
    return None


def _row(packet: av.Packet) -> tuple[int, int, int, int, bool, bool]:
    return (
        NO_PTS if packet.pts is None else packet.pts,
        NO_PTS if packet.dts is None else packet.dts,
        -1 if packet.pos is None else packet.pos,
        packet.size,
        packet.is_discard,
        packet.is_corrupt,
    )


def _table_row(table: PacketTable, i: int) -> tuple[int, int, int, int, bool, bool]:
    return (
        int(table.pts[i]),
        int(table.dts[i]),
        int(table.pos[i]),
        int(table.size[i]),
        bool(table.discard[i]),
        bool(table.corrupt[i]),
    )

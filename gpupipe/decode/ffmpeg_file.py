"""Opening a local file with FFmpeg, choosing its stream, and reading that stream's facts."""

from __future__ import annotations

import logging
import os
import stat
import struct
import threading
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.sidedata.sidedata import SideDataContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from gpupipe.closing import Closing
from gpupipe.decode.extent import shortfall
from gpupipe.decode.facts import colour_of, orientation, siting_of, stream_block, transfer_name
from gpupipe.errors import DecodeError, InputError, MissingInputError, NoVideoError, TruncatedError, UnsupportedError
from gpupipe.types import StreamInfo

_FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,asf_o,ogg,ivf,nut,mxf,gxf,dv,m4v,"
    "h261,h263,h264,hevc,vvc,obu,av1,mjpeg,vc1,vc1test,rm,wtv,gif,apng,yuv4mpegpipe,dirac,cavsvideo,avs2,avs3,nsv,amv,"
    "bink,smk,roq,flic,vivo,film_cpk,mp3,wav,w64,flac,aac,ac3,eac3,aiff,au,caf,amr,ape,tta,wv,mpc,dts,truehd"
)  # no playlists, no image sequences, nothing that opens another file
_WHITELISTS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
_EXPLODE = ("hevc",)
"""Codecs whose damage libavcodec neither raises nor flags unless told to; it changes no sound frame."""
_GEN_PTS = 0x0001  # AVFMT_FLAG_GENPTS

_log_lock = threading.Lock()
logging.getLogger("libav").addHandler(logging.NullHandler())  # what FFmpeg says never goes to stderr


class MediaFile(Closing):
    """A file, its chosen video stream, and a codec.

    Parameters
    ----------
    name : str
        Path of the file.
    stream : int, optional
        Index in the container; default FFmpeg's best.
    max_pixels : int
        Pictures of more are refused before there is memory for them.

    Attributes
    ----------
    container : av.container.InputContainer
    stream : av.video.stream.VideoStream
    facts : StreamInfo
        Of the stream; upright unless :attr:`info` was asked for, or :meth:`turn` told better.
    delay : int
        Pictures that the codec holds back from its start.

    Raises
    ------
    MissingInputError, NoVideoError, TruncatedError, UnsupportedError, DecodeError, InputError
        See :func:`gpupipe.decode.open`.
    """

    container: InputContainer
    stream: VideoStream

    def __init__(self, name: str, stream: int | None, max_pixels: int) -> None:
        self.name, self._max_pixels = name, max_pixels
        _check(name)
        self.container = self._open()
        self._closed = False
        try:
            self._number = _choose(self.container, stream, name)
            self._attach()
            self.delay = self.codec.reorder_depth
            self.facts, self._turned = self._read_facts()
            self.check_size(self.facts.height, self.facts.width)
        except BaseException:
            self.close()
            raise

    @property
    def codec(self) -> VideoCodecContext:
        """Decoder of the stream."""
        return self.stream.codec_context

    @property
    def info(self) -> StreamInfo:
        """The stream's facts."""
        if not self._turned:
            self.turn(*self._peek_orientation())
        return self.facts

    @property
    def step(self) -> int:
        """Units from one picture to the next by the container's rate."""
        rate = self.facts.fps
        return max(1, round(1 / (rate * self.facts.time_base))) if rate else 1

    def check_size(self, height: int, width: int) -> None:
        """Raise :class:`UnsupportedError` where pictures of this size, the codec's own now, are too large.

        FFmpeg refuses one that begins within the stream with any error, or forgets the size.
        """
        if height * width > self._max_pixels or (self.facts.width and not width):
            size = f"{height}x{width} (height x width)" if width else "a new size"
            raise UnsupportedError(
                f"{self.name}: pictures of {size} are more than {self._max_pixels} pixels. "
                "Raise --max-pixels (max_pixels=) if they are meant to be that large"
            )

    def turn(self, rotation: int, mirrored: bool) -> None:
        """Take the orientation of the stream's first frame; the first call counts."""
        if not self._turned:
            self.facts = replace(self.facts, rotation=rotation, mirrored=mirrored)
            self._turned = True

    def reopen(self) -> None:
        """Begin again: the container at its start, the codec with no memory."""
        self.container.close()
        self.container = self._open()
        self._attach()

    def again(self) -> MediaFile:
        """The same stream of the same file, read apart from this one."""
        other = object.__new__(MediaFile)
        other.name, other._number, other.delay = self.name, self._number, self.delay
        other._max_pixels = self._max_pixels
        other.container = self._open()
        other._closed = False
        other._attach()
        other.facts, other._turned = self.facts, self._turned
        return other

    def close(self) -> None:
        """Give the file back; may be called again."""
        if not self._closed:
            self._closed = True
            self.container.close()

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return self._closed

    def _open(self) -> InputContainer:
        return _open(self.name, self._max_pixels)

    def _attach(self) -> None:
        """Prepare a container that was just opened."""
        # Timestamps that are missing must be seen to be missing.
        self.container.flags &= ~_GEN_PTS
        for other in self.container.streams:
            if other.index != self._number:
                other.discard = av.stream.Discard.all
        stream = self.container.streams[self._number]
        assert isinstance(stream, VideoStream)
        self.stream = stream
        codec: Any = stream.codec_context  # None where FFmpeg has no decoder, whatever PyAV's stub says
        if codec is None:
            _refuse_short(self.name)
            raise UnsupportedError(
                f"{self.name}: this FFmpeg has no decoder for video stream {self._number}. Convert the file first"
            )
        codec.thread_count = 1
        codec.options = _bound(self._max_pixels)
        if codec.codec.canonical_name in _EXPLODE:
            codec.options = {**codec.options, "err_detect": "explode"}

    def _read_facts(self) -> tuple[StreamInfo, bool]:
        """The facts, and whether their orientation is the stream's."""
        stream, codec = self.stream, self.codec
        name = codec.codec.canonical_name
        layout = codec.pix_fmt
        time_base = stream.time_base or Fraction(1)
        duration = stream.duration * time_base if stream.duration else None
        if duration is None and self.container.duration:
            duration = Fraction(self.container.duration, av.time_base)
        block = stream_block(_dump(self.container), self._number)
        rate = stream.average_rate
        components = codec.format.components if layout and codec.format else ()
        siting = siting_of(block, layout, name)
        facts = StreamInfo(
            path=self.name,
            stream=self._number,
            container=self.container.format.name,
            codec=name,
            profile=codec.profile,
            layout=layout,
            height=codec.height,
            width=codec.width,
            rotation=0,
            mirrored=False,
            fps=float(rate) if rate else None,
            time_base=time_base,
            start_seconds=float(stream.start_time * time_base) if stream.start_time is not None else None,
            duration_seconds=float(duration) if duration else None,
            colour=colour_of(layout or "", codec.colorspace, codec.color_range, siting, name),
            transfer=transfer_name(codec.color_trc),
            bits=components[0].bits if components else None,
        )
        return facts, "Display Matrix" not in block

    def _peek_orientation(self) -> tuple[int, bool]:
        """Orientation from the first frame: PyAV shows the matrix of frames only, and FFmpeg prints half of it."""
        with self._open() as container, suppress(av.FFmpegError):  # damage is for whoever wants its pictures
            stream = container.streams[self._number]
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                assert isinstance(frame, VideoFrame)
                return orientation_of(frame) or (0, False)
        return 0, False


def orientation_of(frame: VideoFrame) -> tuple[int, bool] | None:
    """Rotation and mirroring of a frame; None where it carries no display matrix."""
    try:
        # Not frame.side_data: it refers back to the frame, whose memory then waits for the cycle collector.
        data: Any = SideDataContainer(frame)  # type: ignore[call-arg]
    except ValueError:  # PyAV gives up on all of it where it does not know the kind of one (EXIF, view ids)
        return (90 * round(-frame.rotation / 90) % 360, False) if frame.rotation else None
    for i in range(len(data)):
        if data[i].type.name == "DISPLAYMATRIX":
            return orientation(struct.unpack("=9i", bytes(data[i])))
    return None


def _check(name: str) -> None:
    try:
        found = Path(name).stat()
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


def _open(name: str, max_pixels: int) -> InputContainer:
    try:
        return av.open(
            f"file:{name}",
            mode="r",
            options={"threads": "1", **_bound(max_pixels)},
            container_options=_WHITELISTS,
            metadata_errors="replace",
        )
    except av.FFmpegError as error:
        _refuse_short(name)
        raise DecodeError(
            f"{name}: FFmpeg cannot read it as a media file ({_why(name) or error.strerror}). Check that it is a video"
        ) from error


def _bound(max_pixels: int) -> dict[str, str]:
    # FFmpeg bounds the padded picture, also one that begins within the stream: the visible size is judged here.
    return {"max_pixels": str(2 * max_pixels + (1 << 20))}


def _refuse_short(name: str) -> None:
    """Say of a file that gives nothing that it ends early, if it does."""
    short = shortfall(Path(name))
    if short:
        raise TruncatedError(f"{name}: the file ends early: {short}. Get the whole file", 0)


def _why(name: str) -> str:
    """Open once more to hear what FFmpeg says about it."""
    with _log_lock:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.ERROR)
        try:
            with av.logging.Capture() as logs, suppress(av.FFmpegError):
                av.open(f"file:{name}", mode="r", container_options=_WHITELISTS).close()
        finally:
            av.logging.set_level(level)
    return "; ".join(message.strip() for _, _, message in logs[:2])


def _dump(container: InputContainer) -> str:
    """What FFmpeg prints of a file: the only place where PyAV shows chroma siting and a stream's side data."""
    printer: Any = container
    with _log_lock:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.VERBOSE)
        av.logging.set_libav_level(av.logging.VERBOSE)
        try:
            return str(printer.dumps_format())
        finally:
            av.logging.set_libav_level(av.logging.INFO)
            av.logging.set_level(level)


def _choose(container: InputContainer, stream: int | None, name: str) -> int:
    """Index of the stream to decode."""
    attached = av.stream.Disposition.attached_pic
    videos = [s for s in container.streams.video if not s.disposition & attached]
    if not videos:
        _refuse_short(name)
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise NoVideoError(f"{name}: no video stream; its streams: {kinds}. Give a file with moving pictures")
    if stream is not None:
        if all(s.index != stream for s in videos):
            names = ", ".join(f"{s.index} ({s.codec_context.name if s.codec_context else '?'})" for s in videos)
            raise NoVideoError(f"{name}: stream {stream} is no video stream; its video streams: {names}. Choose one")
        return stream
    best = container.streams.best("video")
    if best is not None and not best.disposition & attached:
        return best.index
    return max(videos, key=lambda s: s.frames).index

"""libavcodec's decoder of one stream, fed in runs.

What it says of damage was measured with flipped bits. H.264, MPEG-2 and MPEG-4 conceal it and flag the frame; VP9 and
AV1 refuse the packet; H.265 says nothing unless ``err_detect`` is ``explode``, which is therefore set for it.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from typing import Literal

import av
from av.video.frame import VideoFrame

from gpupipe.decode.base import Stats
from gpupipe.decode.ffmpeg_file import MediaFile
from gpupipe.decode.ffmpeg_packets import PacketSource, beginning
from gpupipe.decode.planner import Plan, Run
from gpupipe.errors import DecodeError, UsageError

Event = tuple[VideoFrame | None, int, str | None]
"""A frame that came out, the packet that was fed last, and the fault that either shows."""


class FFmpegCodec:
    """Decodes runs of packets.

    Parameters
    ----------
    media : MediaFile
        Just opened.
    stats : Stats
        Is kept up to date.
    """

    def __init__(self, media: MediaFile, stats: Stats) -> None:
        self._media, self._stats = media, stats
        self._used = False

    def renew(self) -> None:
        """Make the codec one that has decoded nothing."""
        if self._media.closed:
            raise UsageError(f"{self._media.name}: this decoder is closed")
        if self._used:
            self._media.reopen()
            self._used = False

    def restart(self, flushing: bool) -> None:
        """Prepare the codec for a run that has nothing to do with what it decoded before."""
        codec = self._media.codec
        if self._used and flushing and not self._media.closed:
            delay = codec.reorder_depth
            codec.flush_buffers()
            codec.reorder_depth = max(codec.reorder_depth, delay)
        else:
            self.renew()

    def execute(
        self, source: PacketSource, run: Run, schedule: Plan | None, drain: bool = True, trace: bool = False
    ) -> Generator[Event]:
        """Feed a run of packets; those that the schedule can do without as far as their headers, or not at all.

        With `trace` every frame carries the :class:`Number` of its packet.
        """
        codec, stats = self._media.codec, self._stats
        self._used = True
        try:
            codec.open(strict=False)
        except av.FFmpegError as error:
            if isinstance(error, MemoryError):  # no fault of the file
                raise
            raise DecodeError(
                f"{self._media.name}: the {self._media.facts.codec} decoder does not take what its header says "
                f"({error.strerror}). Check the file with ffprobe"
            ) from error
        codec.copy_opaque = trace
        table = source.table
        skips = table.skips
        # Headers are still read, entries decoded.
        skip: Literal["NONREF", "NONKEY"] = "NONREF" if table.references is None else "NONKEY"
        skippable, cut = schedule.of(run) if schedule is not None else ([], [])
        number = run.start
        for number, packet in source.feed(run):
            if packet.is_corrupt:
                yield None, number, "the demuxer found it damaged"
            if not packet.size:  # would tell the codec that the stream ends
                continue
            stats.packets += 1
            if trace:
                packet.opaque = Number(number)
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
            self._stats.decoded += 1
            yield frame, number, "its frame is damaged" if frame.is_corrupt else None


class Number(int):
    """Number of a packet, as it travels through the codec to its frame; PyAV tells such objects apart by identity."""

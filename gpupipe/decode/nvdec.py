"""Decoding on a card's video engine. What is fed is planned, and every verdict given, as by the FFmpeg backend.

An engine conceals damage. So its pictures are held back until those that may refer to the same packets have come out
too; if it then speaks of damage, or shows other pictures than were planned, FFmpeg decodes, and judges.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Literal, NoReturn

import numpy as np

from gpupipe.decode.base import MAX_PIXELS, Choice, Indices
from gpupipe.decode.bits import Unfit
from gpupipe.decode.bitstream import EngineStream
from gpupipe.decode.facts import colour_of
from gpupipe.decode.ffmpeg import FFmpegDecoder
from gpupipe.decode.ffmpeg_packets import beginning
from gpupipe.decode.index import FrameIndex, PacketTable
from gpupipe.decode.packets import Packet
from gpupipe.decode.planner import Plan, Run, plan
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.session import Picture, Session, StreamKind
from gpupipe.errors import DecodeError, DeviceMemoryError, UnsupportedError
from gpupipe.layouts import layout_of
from gpupipe.types import Colour, DeviceSurface, Surface, SurfaceFormat

CODECS = ("h264", "hevc", "vp8", "vp9", "av1")
"""Those whose decoding is defined to the bit, and that video engines know."""

_CHROMA: dict[tuple[int, int], Literal["420", "422", "444"]] = {(1, 1): "420", (0, 1): "422", (0, 0): "444"}
_DEPTHS = (8, 10, 12)
_HELD = 16  # pictures that may come out between one and another that was decoded before it (H.264 and H.265, DPB size)


class _Doubt(Exception):
    """The engine's pictures may not be FFmpeg's; says why."""


class NvdecDecoder(FFmpegDecoder):
    """A video stream decoded on a card, and by FFmpeg where the card cannot, or conceals damage.

    Parameters
    ----------
    path, stream, max_pixels, seek, cache_bytes
        See :class:`gpupipe.decode.ffmpeg.FFmpegDecoder`.
    pool : DecoderPool
        The card's decoders.
    only : bool
        Never let FFmpeg's pictures stand in for the card's: raise instead.
    on_device : bool
        Hand out pictures that the card decoded as :class:`gpupipe.types.DeviceSurface`; whoever takes one gives it back
        by ``surface.owner.release()``. FFmpeg's are always :class:`gpupipe.types.Surface`.

    Attributes
    ----------
    backend : str
        ``"nvdec"`` or ``"ffmpeg"``: who decoded what was read last; before that, who would.
    refusal : str or None
        Why FFmpeg decodes.

    Raises
    ------
    UnsupportedError
        With `only`: the card does not decode this stream.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        stream: int | None = None,
        max_pixels: int = MAX_PIXELS,
        *,
        pool: DecoderPool,
        only: bool = False,
        on_device: bool = False,
        **more: Any,
    ) -> None:
        super().__init__(path, stream, max_pixels, **more)
        self._pool, self._only, self._on_device = pool, only, on_device
        self._reading = False
        self._use: _Use | None = None
        self._kind: StreamKind | None = None
        self._fed: EngineStream | None = None
        self._judging = False
        self._surface_formats: dict[SurfaceFormat, SurfaceFormat] = {}
        try:
            self._kind = self._kind_of()
            self._fed = EngineStream(
                self._media.facts.codec,
                self._media.codec.extradata or b"",
                (self._media.facts.height, self._media.facts.width),
            )
            self.refusal: str | None = None
        except Unfit as error:
            self.refusal = str(error)
            if only:
                self.close()
                self._refuse(self.refusal)
        except BaseException:
            self.close()
            raise
        self.backend = "nvdec" if self.refusal is None else "ffmpeg"

    def frames(
        self, indices: Indices, strict: bool = False, partial: bool = False
    ) -> Iterator[tuple[int, Surface]]:  # DeviceSurface with on_device, which whoever asks for it knows
        """Decode the pictures with these numbers.

        Where the card turns out to conceal damage midway, FFmpeg decodes the rest; :meth:`read` begins anew.
        """
        self._end_use()
        why = self._why_not(strict, partial)
        if why is None and not self._any_index().exact:
            why = f"its pictures must be counted by decoding ({self._any_index().reason})"
        self._choose(why)
        return super().frames(indices, strict, partial)

    def read(
        self, choice: Choice, put: Callable[[int, Surface], None], strict: bool = False, partial: bool = False
    ) -> Indices:
        """Decode pictures in any order; all of them on the card, or all of them by FFmpeg."""
        why = self._why_not(strict, partial)
        if why is None:
            self.prepare()
            if self._uncounted is not None:
                why = f"its pictures must be counted by decoding ({self._uncounted})"
        self._choose(why)
        self._reading = True
        try:
            return super().read(choice, put, strict, partial)
        except _Doubt as doubt:
            self._reading = False
            if self._only:
                self._judge(str(doubt), lambda: super(NvdecDecoder, self).read(choice, lambda *_: None))
            self.refusal, self.backend = str(doubt), "ffmpeg"
            return super().read(choice, put)
        finally:
            self._reading = False
            self._end_use()

    def close(self) -> None:
        """Give the file, the codec and the card's decoder back."""
        self._end_use()
        super().close()

    # -- what the card takes -----------------------------------------------------------------------------------------

    def _kind_of(self) -> StreamKind:
        """What the stream asks of a card; raises :class:`Unfit`."""
        facts = self._media.facts
        if facts.codec not in CODECS:
            raise Unfit(f"{facts.codec} is not decoded to the same bits everywhere; it takes {', '.join(CODECS)}")
        try:
            layout = layout_of(facts.layout or "")
        except UnsupportedError:
            raise Unfit(f"its pixel format is {facts.layout or 'not known'}") from None
        chroma = _CHROMA.get(layout.subsampling)
        planar = layout.family == "yuv" and layout.name.startswith("yuv") and not layout.name.startswith("yuva")
        if not planar or chroma is None or layout.depth not in _DEPTHS:
            raise Unfit(f"its pixel format is {facts.layout}")
        kind = StreamKind(facts.codec, chroma, layout.depth)
        words = f"{kind.codec} {':'.join(chroma)} {kind.depth} bit"
        can = self._pool.capability(kind)
        if can is None:
            raise Unfit(f"the card does not decode {words}")
        blocks = -(-facts.height // 16) * -(-facts.width // 16)
        if not (
            can.min_height <= facts.height <= can.max_height
            and can.min_width <= facts.width <= can.max_width
            and blocks <= can.max_macroblocks
        ):
            raise Unfit(
                f"of {words} the card takes {can.min_height}x{can.min_width} to {can.max_height}x{can.max_width} "
                f"(height x width) and {can.max_macroblocks} blocks of 16x16; it is {facts.height}x{facts.width}"
            )
        return kind

    def _refuse(self, why: str) -> NoReturn:
        raise UnsupportedError(
            f"{self._name}: nvdec on {self._pool.name} cannot decode it: {why}. Use --backend auto or ffmpeg"
        )

    def _why_not(self, strict: bool, partial: bool) -> str | None:
        """Why a read is not the card's."""
        return "only FFmpeg judges every packet (strict, partial)" if strict or partial else self.refusal

    def _choose(self, why_not: str | None) -> None:
        """Say who decodes."""
        if why_not is not None and self._only and not self._judging:
            self._refuse(why_not)
        self.backend = "nvdec" if why_not is None else "ffmpeg"

    def _judge(self, doubt: str, decode: Callable[[], object]) -> NoReturn:
        """Let FFmpeg say whether the file is damaged; raise either way."""
        self.refusal, self._judging = doubt, True
        try:
            decode()
        finally:
            self.refusal, self._judging = None, False
        raise DecodeError(
            f"{self._name}: nvdec on {self._pool.name}: {doubt}, yet FFmpeg finds no fault in it. Use --backend auto"
        )

    # -- decoding ----------------------------------------------------------------------------------------------------

    def _planned(self, wanted: list[int], index: FrameIndex) -> Iterator[tuple[int, Surface]]:
        if self.backend == "ffmpeg":
            return super()._planned(wanted, index)
        return self._on_engine(wanted, index, self._reading)

    def _on_engine(self, wanted: list[int], index: FrameIndex, reading: bool) -> Iterator[tuple[int, Surface]]:
        """Decode on the card; behind a doubt by FFmpeg, unless a read begins anew."""
        last = -1
        try:
            for number, picture in self._pictures(wanted, index):
                last = number
                yield number, self._shown(picture, int(index.pts[number]))  # type: ignore[misc]
        except _Doubt as doubt:
            if reading:
                raise
            if self._only:
                self._judge(str(doubt), lambda: deque(super(NvdecDecoder, self)._planned(wanted, index), 0))
            self.refusal, self.backend = str(doubt), "ffmpeg"
            # All of it again, since what was handed out already may depend on what is damaged.
            yield from (found for found in super()._planned(wanted, index) if found[0] > last)

    def _pictures(self, wanted: list[int], index: FrameIndex) -> Iterator[tuple[int, Picture]]:
        """The wanted pictures, held back until nothing speaks against them; whoever takes one owns it."""
        turn = self._turn
        table = self._packets().table
        assert index.packet is not None
        assert self._kind is not None
        schedule = plan(table, index, wanted, self._seek)
        runs = _begun_cleanly(schedule, table)
        for run in runs:
            self._mind(turn)
            if (table.corrupt | table.broken)[run.start : run.stop].any():
                raise _Doubt("a packet is damaged")
        shown = np.full(len(table), -1, np.int64)
        shown[index.packet] = np.arange(len(index))
        facts = self._media.facts
        use = self._use = _Use(self._pool, self._kind, (facts.height, facts.width))
        try:
            # Those that the container says not to show come out of a card, too.
            numbers: dict[int, int] = dict.fromkeys(table.pts[table.discard].tolist(), -1)
            numbers.update(zip(index.pts.tolist(), range(len(index)), strict=True))
            for run in runs:
                here = shown[run.start : run.stop][(schedule.closure & (schedule.cut == 0))[run.start : run.stop]]
                line = _Line(use, numbers, np.sort(here[here >= 0]).tolist(), set(wanted))
                use.begin()
                for pictures in self._execute_on(use, run, schedule, table):
                    for number in line.take(pictures):
                        yield number, use.out(number)
                        self._mind(turn)
                for number in line.end():
                    yield number, use.out(number)
                    self._mind(turn)
            use.close(sound=True)
        except GeneratorExit:
            use.close(sound=True)  # whoever takes the session begins anew
            raise
        finally:
            use.close(sound=False)

    def _execute_on(self, use: _Use, run: Run, schedule: Plan, table: PacketTable) -> Iterator[list[Picture]]:
        """Feed a run of packets to the card; lists of pictures that came out."""
        assert self._fed is not None
        stats, convert = self.stats, self._fed.packet
        skippable, cut = schedule.of(run)
        entry = table.entry[run.start : run.stop].tolist()
        first = True
        for number, packet in self._packets().feed(run):
            at = number - run.start
            if not packet.size:
                continue
            stats.packets += 1
            if skippable[at]:
                stats.skipped += 1
                continue
            if cut[at]:
                packet = beginning(packet, cut[at])  # noqa: PLW2901
            try:
                fed = convert(packet, first, entry[at])
            except Unfit as error:
                raise _Doubt(str(error)) from error
            first = False
            pictures = use.feed(fed)
            if pictures:
                stats.decoded += len(pictures)
                yield pictures
        pictures = use.drain()
        stats.decoded += len(pictures)
        yield pictures

    def _shown(self, picture: Picture, pts: int) -> Surface | DeviceSurface:
        """What is handed out of a picture."""
        coarse = picture.surface.format
        format = self._surface_formats.get(coarse)
        if format is None:
            info = self.info
            format = replace(coarse, colour=self._colour(), rotation=info.rotation, mirrored=info.mirrored)
            self._surface_formats[coarse] = format
        if self._on_device:
            surface = picture.surface
            return DeviceSurface(format, surface.pointers, surface.strides, pts, surface.owner)
        try:
            return replace(picture.to_host(), format=format, pts=pts)
        finally:
            picture.release()

    def _colour(self) -> Colour:
        """As FFmpeg's decoder tells it: the stream's word counts more than its container's."""
        facts, codec, fed = self._media.facts, self._media.codec, self._fed
        assert fed is not None
        matrix = codec.colorspace if fed.matrix is None else fed.matrix
        colour_range = codec.color_range if fed.colour_range is None else fed.colour_range
        layout = facts.layout or ""
        if fed.colour_range is not None:
            layout = layout.replace("yuvj", "yuv")
        return colour_of(layout, matrix, colour_range, facts.colour.siting, facts.codec)

    def _end_use(self) -> None:
        """Give back what an iteration that nobody goes on with still holds."""
        use, self._use = self._use, None
        if use is not None:
            use.close(sound=True)


class _Use:
    """A session in use, and the pictures that it showed and nobody took yet."""

    def __init__(self, pool: DecoderPool, kind: StreamKind, size: tuple[int, int]) -> None:
        self.size = size
        self._pool, self._kind = pool, kind
        self._session: Session | None = None
        self._held: dict[int, Picture] = {}
        self._closed = False

    def begin(self) -> None:
        """Take a session, or begin again with the one that is there."""
        try:
            if self._session is None:
                self._session = self._pool.take(self._kind, *self.size)
            else:
                self._session.begin(*self.size)
        except DecodeError as error:
            raise _Doubt(f"the card refuses it ({error})") from error

    def feed(self, packet: Packet) -> list[Picture]:
        assert self._session is not None
        try:
            return list(self._session.feed(packet))
        except DecodeError as error:
            raise _Doubt(f"the card refuses a packet ({error})") from error
        except DeviceMemoryError:
            self._pool.shed()  # for whoever tries again
            raise

    def drain(self) -> list[Picture]:
        assert self._session is not None
        try:
            return list(self._session.drain())
        except DecodeError as error:
            raise _Doubt(f"the card refuses the end ({error})") from error

    def hold(self, number: int, picture: Picture) -> None:
        self._held[number] = picture

    def out(self, number: int) -> Picture:
        """Hand a picture over."""
        return self._held.pop(number)

    def mind_damage(self) -> None:
        assert self._session is not None
        if self._session.damaged():
            raise _Doubt("the card reports damage")

    def close(self, sound: bool) -> None:
        """Give everything back; may be called again."""
        if self._closed:
            return
        self._closed = True
        for picture in self._held.values():
            picture.release()
        self._held.clear()
        session, self._session = self._session, None
        if session is not None:
            self._pool.give(session, sound)


class _Line:
    """Pictures of one run on their way out: checked against what is due, the wanted ones held back for a while."""

    def __init__(self, use: _Use, numbers: dict[int, int], due: list[int], wanted: set[int]) -> None:
        self._use, self._numbers, self._wanted = use, numbers, wanted
        self._due, self._missing = deque(due), set(due)
        self._out: deque[int] = deque()  # numbers, in order; -1 for those that nobody wants

    def take(self, pictures: list[Picture]) -> Iterator[int]:
        """Take what came out; the numbers of those that may go out."""
        waiting = deque(pictures)
        try:
            while waiting:
                self._accept(waiting[0])
                waiting.popleft()
        finally:
            for picture in waiting:
                picture.release()
        while len(self._out) > _HELD:
            yield from self._first()

    def end(self) -> Iterator[int]:
        """The numbers of the rest."""
        if self._due:
            raise _Doubt(f"{len(self._due)} pictures did not come out")
        while self._out:
            yield from self._first()

    def _accept(self, picture: Picture) -> None:
        number = self._numbers.get(picture.pts)
        format = picture.surface.format
        if number is None:
            raise _Doubt(f"the card showed a picture at {picture.pts}, which no packet names")
        if (format.height, format.width) != self._use.size:
            raise _Doubt(f"the card showed a picture of {format.height}x{format.width}")
        if self._due and number == self._due[0]:
            self._missing.remove(self._due.popleft())
        elif number in self._wanted or number in self._missing:
            raise _Doubt("the card showed pictures in another order, or twice")
        if number in self._wanted:
            self._use.hold(number, picture)
            self._out.append(number)
        else:
            picture.release()
            self._out.append(-1)

    def _first(self) -> Iterator[int]:
        number = self._out.popleft()
        if number >= 0:
            self._use.mind_damage()
            yield number


def _begun_cleanly(schedule: Plan, table: PacketTable) -> list[Run]:
    """The runs, begun so early that no packet is fed whose references are missing.

    FFmpeg shows such pictures as damaged, which is of no interest where they are not wanted; an engine speaks of damage
    and does not say where.
    """
    entries = np.flatnonzero(table.entry)
    leading = table.leading & ~schedule.skippable
    runs: list[Run] = []
    for run in schedule.runs:
        place = max(int(np.searchsorted(entries, run.start, side="right")) - 1, 0)
        while place:
            following = entries[place + 1] if place + 1 < len(entries) else len(table)
            if not leading[entries[place] : min(following, run.stop)].any():
                break
            place -= 1
        start = min(run.start, int(entries[place]))
        while runs and start <= runs[-1].stop:
            start = min(start, runs.pop().start)
        runs.append(Run(start, run.stop))
    return runs

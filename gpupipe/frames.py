"""Frames of one video for any job: opened once, sampled, resized into place, however long it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np

from gpupipe import decode
from gpupipe.cuda.slots import DeviceRows, Ticket, runs
from gpupipe.decode.base import Decoder
from gpupipe.decode.index import FrameIndex
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.sampling import uniform, within
from gpupipe.errors import DeviceMemoryError, UnsupportedError
from gpupipe.sinks.files import Buffer
from gpupipe.sinks.spool import Spool
from gpupipe.stages import Stages
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface, Size, StreamInfo, Surface

Window = tuple[float, float | None]
"""``(begin, end)`` in seconds after the stream's start, end excluded; None for to the end."""


@dataclass(frozen=True)
class Sampling:
    """Which frames: `num_frames` evenly over the window, or over the whole stream."""

    num_frames: int
    window: Window | None = None


@dataclass(frozen=True)
class Frames:
    """What was taken from one video.

    Attributes
    ----------
    shape : tuple of int
        ``(T, H, W, 3)``.
    indices : numpy.ndarray
        int64 [T], in presentation order over the whole stream.
    pts_seconds : numpy.ndarray
        float64 [T].
    valid : numpy.ndarray
        bool [T], False where a frame repeats the last.
    total : int
        Frames the stream shows.
    info : StreamInfo
    backend : str
    pieces : callable
        The RGB bytes in order, as a stream of buffers.
    """

    shape: tuple[int, int, int, int]
    indices: np.ndarray
    pts_seconds: np.ndarray
    valid: np.ndarray
    total: int
    info: StreamInfo
    backend: str
    pieces: Callable[[], Iterator[Buffer]]


class FrameReader:
    """Reads frames at one size; keeps the last video open, since items of one file come together.

    With a `pool` a card decodes, and with `rows` on that card it resizes too. What that has no room for FFmpeg does,
    where `backend` leaves the choice.
    """

    def __init__(
        self,
        size: Size,
        backend: str,
        stream: int | None,
        strict: bool,
        allow_partial: bool,
        spool: Path,
        tolerance: float = 0.0,
        max_pixels: int = decode.MAX_PIXELS,
        pool: DecoderPool | None = None,
        rows: DeviceRows | None = None,
    ) -> None:
        self._pool, self._rows = pool, rows
        self._staged: np.ndarray | None = None
        self._size, self._backend, self._stream = size, backend, stream
        self._strict, self._allow_partial = strict, allow_partial
        self._spool, self._max_pixels = spool, max_pixels
        self._stages = Stages()
        self._tolerance = 0.0 if strict else tolerance  # where all is decoded the exact frames cost nothing more
        self._resizer = Resizer(size)
        self._path: Path | None = None
        self._decoder: Decoder | None = None

    def sampled(self, path: Path, sampling: Sampling, out: np.ndarray, stages: Stages) -> Frames:
        """Sample into `out`, uint8 [N, H, W, 3]; with fewer frames than N the last is repeated."""
        self._stages = stages
        return self._on_either(path, lambda decoder: self._sampled(decoder, sampling, out))

    def _sampled(self, decoder: Decoder, sampling: Sampling, out: np.ndarray) -> Frames:
        valid = np.zeros(0, bool)

        def choose(index: FrameIndex) -> np.ndarray:
            nonlocal valid
            start, stop = _bounds(index, sampling.window)
            chosen, valid = uniform(stop - start, sampling.num_frames)
            exact = start + chosen[valid]
            if not self._tolerance:
                return exact
            near = decoder.near(exact, self._tolerance, start, stop, partial=self._allow_partial)
            return np.asarray(near, np.int64)

        with self._ticket(out) as ticket:
            indices = self._read(
                decoder, choose, lambda position, surface: ticket.put(position, surface, self._resizer)
            )
            count = len(indices)
            ticket.finish(count)
        out[count:] = out[count - 1]
        indices = np.concatenate([indices, np.repeat(indices[-1:], sampling.num_frames - count)])
        return self._frames(decoder, indices, valid, lambda: iter([out]))

    def every(self, path: Path, window: Window | None, stages: Stages) -> Frames:
        """Every frame. They go through a nameless file beside the output, so that memory stays bounded."""
        self._stages = stages
        return self._on_either(path, lambda decoder: self._every(decoder, window))

    def _every(self, decoder: Decoder, window: Window | None) -> Frames:
        spool, staged = Spool(self._spool), self._staging()
        waiting: list[int] = []  # positions of the rows that are staged

        with self._ticket(staged) as ticket:

            def flush() -> None:
                ticket.finish(len(waiting))
                with self._stages("write"):
                    for position, row, length in runs([(position, row) for row, position in enumerate(waiting)]):
                        spool.write(staged[row : row + length], position * staged[0].nbytes)
                waiting.clear()

            def put(position: int, surface: Surface | DeviceSurface) -> None:
                ticket.put(len(waiting), surface, self._resizer)
                waiting.append(position)
                if len(waiting) == len(staged):
                    flush()

            indices = self._read(decoder, lambda index: np.arange(*_bounds(index, window), dtype=np.int64), put)
            flush()
        nbytes = len(indices) * staged[0].nbytes  # a first reading that was taken back may have been longer
        return self._frames(decoder, indices, np.ones(len(indices), bool), lambda: spool.pieces(nbytes))

    def _ticket(self, out: np.ndarray) -> Ticket | _InPlace:
        return _InPlace(out) if self._rows is None else self._rows.ticket(out, self._stages)

    def _staging(self) -> np.ndarray:
        """Room for one picture, or for as many as are on the card at a time."""
        if self._staged is None:
            self._staged = np.empty((1, *self._size, 3), np.uint8) if self._rows is None else self._rows.pinned()
        return self._staged

    def _on_either(self, path: Path, read: Callable[[Decoder], Frames]) -> Frames:
        """Read; again by FFmpeg where the card cannot, if FFmpeg may."""
        decoder = self._open(path, self._backend)
        try:
            return read(decoder)
        except (DeviceMemoryError, UnsupportedError):
            if self._backend != "auto" or decoder.backend == "ffmpeg":
                raise
        self.close()
        return read(self._open(path, "ffmpeg"))

    def _open(self, path: Path, backend: str) -> Decoder:
        if self._decoder is None or self._path != path:
            self.close()
            with self._stages("open"):
                self._decoder = decode.open(
                    path, backend, self._stream, self._max_pixels, pool=self._pool, on_device=self._rows is not None
                )
            self._path = path
        return self._decoder

    def _index(self, decoder: Decoder) -> FrameIndex:
        return decoder.readable() if self._allow_partial else decoder.index

    def _read(
        self,
        decoder: Decoder,
        choose: Callable[[FrameIndex], np.ndarray],
        put: Callable[[int, Surface | DeviceSurface], None],
    ) -> np.ndarray:
        def timed(position: int, surface: Surface | DeviceSurface) -> None:
            with self._stages("transform"):
                put(position, surface)

        with self._stages("index"):
            decoder.prepare()
        with self._stages("decode"):
            chosen = decoder.read(choose, timed, strict=self._strict, partial=self._allow_partial)
        return np.asarray(chosen, np.int64)

    def _frames(
        self,
        decoder: Decoder,
        indices: np.ndarray,
        valid: np.ndarray,
        pieces: Callable[[], Iterator[Buffer]],
    ) -> Frames:
        index = self._index(decoder)
        return Frames(
            shape=(len(indices), *self._size, 3),
            indices=indices,
            pts_seconds=index.pts_seconds[indices],
            valid=valid,
            total=len(index),
            info=decoder.info,
            backend=decoder.backend,
            pieces=pieces,
        )

    def close(self) -> None:
        """Close the video that is open."""
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None


class _InPlace:
    """What a ticket is for rows on the card, where there is none."""

    def __init__(self, out: np.ndarray) -> None:
        self._out = out

    def put(self, position: int, surface: Surface | DeviceSurface, resizer: Resizer) -> None:
        assert isinstance(surface, Surface), "without rows on the card its pictures come to the host"
        resizer.resize(surface, self._out[position])

    def finish(self, count: int) -> None:
        """All is where it belongs."""

    def __enter__(self) -> _InPlace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass


def _bounds(index: FrameIndex, window: Window | None) -> tuple[int, int]:
    return (0, len(index)) if window is None else within(index, *window)

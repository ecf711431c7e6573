"""One video as a sequence of upright RGB frames: by number, by time, at a rate, spread evenly, one after the other."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from gpupipe import decode
from gpupipe.closing import Closing
from gpupipe.decode.base import Decoder, IndexMismatch
from gpupipe.decode.index import Bools, FrameIndex, Int64s
from gpupipe.decode.sampling import at_rate, at_seconds, uniform
from gpupipe.errors import UsageError
from gpupipe.frame_batch import Frame, FrameBatch, Pixels, empty_pixels
from gpupipe.machine import free_memory_bytes
from gpupipe.transform import Resizer
from gpupipe.types import Size, StreamInfo, Surface

_Choose = Callable[[FrameIndex], tuple[Int64s, Bools]]


class OutOfRangeError(UsageError, IndexError):
    """A frame number that the video does not have."""


class Video(Closing):
    """A video file, opened; what :func:`open_video` returns.

    ``len(video)`` is the number of pictures that the stream shows, whatever the container claims. ``video[i]`` is a
    :class:`Frame` and ``video[a:b:c]`` a :class:`FrameBatch`, numbers and steps as in a list. Iteration gives one frame
    after the other and holds one in memory; inside the loop, other frames may be asked for. All of these are of the
    picture's own size, upright; :meth:`frames` can give another.

    On a rare file the packets do not tell what is shown, and that comes out while it is decoded. Its pictures are then
    counted, the frames chosen again, and ``len`` and ``pts_seconds`` are those of the count from there on.

    Not for several threads at a time.

    Parameters
    ----------
    decoder : Decoder
        Owned, and closed by :meth:`close`.
    strict, allow_partial : bool
        See :func:`open_video`.
    """

    def __init__(self, decoder: Decoder, strict: bool = False, allow_partial: bool = False) -> None:
        self._decoder = decoder
        self._strict, self._partial = strict, allow_partial
        self._resizer = Resizer(None)
        self._turn = 0  # of the decoder's users: an iteration sees that another came between
        self._closed = False

    @property
    def info(self) -> StreamInfo:
        """The stream's facts, by its headers."""
        return self._decoder.info

    @property
    def height(self) -> int:
        """Pixels, upright, by the headers."""
        return self.info.upright[0]

    @property
    def width(self) -> int:
        """Pixels, upright, by the headers."""
        return self.info.upright[1]

    @property
    def fps(self) -> float | None:
        """Average frame rate by the headers; None where they name none."""
        return self.info.fps

    @property
    def duration_seconds(self) -> float | None:
        """By the headers; None where they name none."""
        return self.info.duration_seconds

    @property
    def pts_seconds(self) -> npt.NDArray[np.float64]:
        """Presentation time of every picture, float64 [T], in seconds on the container's own clock.

        The first may be other than 0, for instance in a transport stream; ``video.pts_seconds - video.pts_seconds[0]``
        counts from the first picture, as ``frames(seconds=...)`` does.
        """
        return self._index().pts_seconds

    def __len__(self) -> int:
        return len(self._index())

    @overload
    def __getitem__(self, key: int) -> Frame: ...
    @overload
    def __getitem__(self, key: slice) -> FrameBatch: ...
    def __getitem__(self, key: int | slice) -> Frame | FrameBatch:
        if isinstance(key, slice):
            return self._read(lambda index: _all_valid(np.arange(*key.indices(len(index)), dtype=np.int64)), None)
        try:
            wanted = operator.index(key)
        except TypeError:
            raise TypeError(
                f"video[{type(key).__name__}]: expected an int or a slice; frames(indices=...) takes many numbers"
            ) from None
        batch = self._read(lambda index: _all_valid(self._numbers([wanted], len(index))), None)
        return Frame(batch.data[0], int(batch.index[0]), float(batch.pts_seconds[0]))

    def __iter__(self) -> Iterator[Frame]:
        resizer = Resizer(None)
        position, before, recounted = 0, None, False
        while True:
            index = self._index()
            if before is not None and not np.array_equal(index.pts[:position], before.pts[:position]):
                raise IndexMismatch(
                    f"{self.info.path}: the packets do not tell what is shown, which was seen after {position} frames; "
                    "the pictures have been counted now. Iterate again"
                )
            before, times = index, index.pts_seconds
            self._turn += 1
            turn = self._turn
            left = np.arange(position, len(index))
            try:
                for number, surface in self._decoder.frames(left, self._strict, self._partial):
                    if number != position:
                        continue  # one is missing: to its end the decoder will say so, and count
                    data = empty_pixels(*surface.format.upright, 3)
                    resizer.resize(surface, data)
                    position += 1
                    yield Frame(data, number, float(times[number]))
                    if self._turn != turn:
                        break
                else:
                    return
            except IndexMismatch:
                if recounted:
                    raise
                recounted = True

    def frames(
        self,
        *,
        indices: Sequence[int] | npt.NDArray[np.integer] | None = None,
        seconds: Sequence[float] | npt.NDArray[np.floating] | None = None,
        fps: float | None = None,
        num: int | None = None,
        size: Size | None = None,
    ) -> FrameBatch:
        """Read frames into one array. Only what they depend on is decoded.

        Exactly one of the first four:

        Parameters
        ----------
        indices : sequence of int [T]
            Numbers in any order, repeated or not; negative ones count from the end.
        seconds : sequence of float [T]
            The pictures on show at these times after the first picture. ``valid`` is False where nothing is on show and
            the nearest picture stands in: before the first one, and behind the last (taken to last as long as the one
            before it).
        fps : float
            The pictures on show at 0, 1/fps, 2/fps, ... s after the first picture, up to the last. One that is shown
            for longer comes more than once.
        num : int
            So many spread evenly, both ends included: ``numpy.linspace(0, T-1, num, dtype=int)``. Where the video has
            fewer, all of them and then the last again, with ``valid`` False.
        size : (int, int), optional
            ``(height, width)`` of the result in pixels, upright; default the pictures' own.

        Returns
        -------
        FrameBatch

        Raises
        ------
        UsageError
            Not exactly one of the four, values that cannot be, pictures of several sizes and no ``size``, or more bytes
            than the machine has free.
        OutOfRangeError
            A number that the video does not have; a UsageError and an IndexError.
        CorruptError
            A packet that a wanted picture depends on cannot be decoded.
        TruncatedError
            The file ends early.
        UnsupportedError
            A pixel format or colour matrix that is not converted.
        """
        given = {"indices": indices, "seconds": seconds, "fps": fps, "num": num}
        names = [name for name, value in given.items() if value is not None]
        if len(names) != 1:
            raise UsageError(
                f"frames({', '.join(f'{name}=...' for name in names)}): "
                "expected exactly one of indices=, seconds=, fps=, num="
            )
        if size is not None:
            size = _checked_size(size)
        if indices is not None:
            numbers = _row("indices", indices, "iu").astype(np.int64)
            return self._read(lambda index: _all_valid(self._numbers(numbers, len(index))), size)
        if seconds is not None:
            times = _row("seconds", seconds, "iuf").astype(np.float64)
            if not np.isfinite(times).all():
                raise UsageError(f"seconds={times[~np.isfinite(times)][0]}: expected finite times")
            return self._read(lambda index: (at_seconds(index, times), _on_show(index, times, self.fps)), size)
        if fps is not None:
            rate = float(fps)
            if not 0 < rate < float("inf"):
                raise UsageError(f"fps={fps}: expected a positive number")
            return self._read(lambda index: _all_valid(at_rate(index, rate)), size)
        count = operator.index(num)  # type: ignore[arg-type]  # the one that is not None
        if count < 1:
            raise UsageError(f"num={num}: expected at least 1")
        return self._read(lambda index: uniform(len(index), count), size)

    def close(self) -> None:
        """Give the file and the codec back; may be called again. Frames that were read stay good."""
        self._closed = True
        self._turn += 1
        self._decoder.close()

    def __repr__(self) -> str:
        facts = [self.info.codec, f"{self.height}x{self.width}"]
        if self.fps is not None:
            facts.append(f"{self.fps:.6g} fps")
        return f"<Video {self.info.path!r}: {', '.join(facts)}{', closed' if self._closed else ''}>"

    def _index(self) -> FrameIndex:
        if self._closed:
            raise UsageError(f"{self.info.path}: this video is closed; open it again")
        return self._decoder.readable() if self._partial else self._decoder.index

    def _numbers(self, wanted: Sequence[int] | Int64s, total: int) -> Int64s:
        for number in wanted:
            if not -total <= number < total:
                there = f"frames 0 to {total - 1}" if total else "no readable frame"
                raise OutOfRangeError(f"{self.info.path}: frame {number} was asked for; it has {there}")
        numbers = np.asarray(wanted, np.int64)
        return np.where(numbers < 0, numbers + total, numbers)

    def _read(self, choose: _Choose, size: Size | None) -> FrameBatch:
        if self._resizer.size != size:
            self._resizer = Resizer(size)
        resizer = self._resizer
        data: Pixels | None = None
        index = self._index()
        chosen: tuple[Int64s, Bools]

        def choice(found: FrameIndex) -> Int64s:
            nonlocal data, index, chosen
            data, index, chosen = None, found, choose(found)
            return chosen[0]

        def put(position: int, surface: Surface) -> None:
            nonlocal data
            out = resizer.out_size(surface.format)
            if data is None:
                data = self._allocate(len(chosen[0]), out)
            elif data.shape[1:3] != out:
                raise UsageError(
                    f"{self.info.path}: its pictures have several sizes, {data.shape[1]}x{data.shape[2]} and "
                    f"{out[0]}x{out[1]}; a batch has one. Give size=(height, width), or iterate"
                )
            resizer.resize(surface, data[position])

        self._turn += 1
        self._decoder.read(choice, put, self._strict, self._partial)
        numbers, valid = chosen
        if data is None:  # nothing was asked for
            data = empty_pixels(0, *(size or self.info.upright), 3)
        return FrameBatch(data, numbers, index.pts_seconds[numbers], valid)

    def _allocate(self, count: int, size: Size) -> Pixels:
        nbytes = count * size[0] * size[1] * 3
        free = free_memory_bytes()
        if nbytes > free:
            raise UsageError(
                f"{self.info.path}: {count} frames of {size[0]}x{size[1]} take {nbytes / 1e9:.1f} GB, and "
                f"{free / 1e9:.1f} GB of memory are free. Take fewer, give a smaller size=(height, width), or iterate"
            )
        return empty_pixels(count, *size, 3)


def open_video(
    path: str | os.PathLike[str],
    backend: str = "auto",
    stream: int | None = None,
    *,
    max_pixels: int = decode.MAX_PIXELS,
    strict: bool = False,
    allow_partial: bool = False,
) -> Video:
    """Open a video file for reading frames.

    Parameters
    ----------
    path : path
        A file on this machine; nothing else is ever opened.
    backend : str
        ``"auto"`` or ``"ffmpeg"``: on the CPU. ``"nvdec"``: on the first GPU that this process sees, opened once and
        kept; the same bytes, resized on the CPU.
    stream : int, optional
        Index of the video stream in its container; default the one FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture; more is refused before there is memory for it. Default 8K.
    strict : bool
        Decode everything whenever frames are read, and fail on any fault in the stream.
    allow_partial : bool
        Of a damaged or truncated file take the pictures before the first fault. Finding it decodes the whole file once.

    Returns
    -------
    Video
        A context manager.

    Raises
    ------
    MissingInputError
        No such file, or not a regular one.
    NoVideoError
        No video stream, or not that one.
    TruncatedError, UnsupportedError, DecodeError
        The file cannot be read.
    UsageError
        No such backend, or no GPU for it (the message says what is missing), or ``strict`` together with
        ``allow_partial``.

    Examples
    --------
    >>> with open_video("clip.mp4") as video:  # doctest: +SKIP
    ...     first, last = video[0], video[-1]
    ...     batch = video.frames(num=16, size=(160, 256))
    ...     tensor = torch.from_dlpack(batch)  # uint8 [16, 160, 256, 3], no copy
    """
    if strict and allow_partial:
        raise UsageError("strict fails on any fault and allow_partial passes over them: choose one")
    return Video(decode.open(path, backend, stream, max_pixels), strict, allow_partial)


def _all_valid(numbers: Int64s) -> tuple[Int64s, Bools]:
    return numbers, np.ones(len(numbers), np.bool_)


def _on_show(index: FrameIndex, seconds: npt.NDArray[np.float64], fps: float | None) -> Bools:
    """Tell for each time after the first picture whether any picture is on show, bool of that shape."""
    times = index.times
    alone = 1 / fps if fps else float("inf")
    end = times[-1] + (times[-1] - times[-2] if len(times) > 1 else alone)
    shown: Bools = (seconds >= -1e-6) & (seconds < end - 1e-6)
    return shown


def _row(name: str, values: object, kinds: str) -> npt.NDArray[Any]:
    row = np.asarray(values)
    if row.ndim != 1 or (row.size and row.dtype.kind not in kinds):
        raise UsageError(
            f"{name}: {row.dtype} of shape {list(row.shape)}; expected a flat sequence of "
            f"{'numbers' if 'f' in kinds else 'integers'}"
        )
    return row


def _checked_size(size: Size) -> Size:
    try:
        height, width = map(operator.index, size)
    except (TypeError, ValueError):
        raise UsageError(f"size={size!r}: expected (height, width) in pixels") from None
    return height, width

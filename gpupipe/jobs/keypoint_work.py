"""What a worker of the keypoints job does: pictures as they come, or clips side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.ahead import Ahead
from gpupipe.decode.image_base import ImageDecoder
from gpupipe.job import Completion, Work, worked
from gpupipe.jobs.keypoint_frames import ClipFrame
from gpupipe.memory import RowSpec
from gpupipe.ops.keypoints.executors import Executor
from gpupipe.ops.keypoints.points import COUNTS, PARTS, POINTS, Keypoints
from gpupipe.ops.keypoints.stages import Pixels
from gpupipe.pulse import AUDIT_SEAT
from gpupipe.sinks.base import Sample
from gpupipe.sinks.files import Buffer
from gpupipe.sinks.spool import Spool

PICTURE_ROWS = (
    RowSpec("keypoints", (POINTS, 3), "<f4"),
    RowSpec("valid", (len(PARTS),), "|b1"),
    RowSpec("visibility", (COUNTS["pose"],), "<f4"),
    RowSpec("shape", (2,), "<i4"),
)
"""Of each picture: see :class:`gpupipe.ops.keypoints.points.Keypoints`; `shape` is its upright (height, width)."""

CLIP_ROWS = (*PICTURE_ROWS, RowSpec("frame", (), "<i4"), RowSpec("pts", (), "<f8"))
"""Of each frame of a clip, beside that its number in the video and its time in seconds, NaN in a folder."""

_AHEAD_NBYTES = 64 << 20  # of pictures that wait, per worker


class PictureOperator:
    """An item a picture, each by itself. While some are worked the next are read.

    Parameters
    ----------
    path_of : callable
        A planned item's file.
    executor : Executor
        In mode ``stateless``.
    decoder : ImageDecoder
    threads : int
        That read.
    """

    def __init__(self, path_of: Callable[[Any], Path], executor: Executor, decoder: ImageDecoder, threads: int) -> None:
        self._path_of, self._executor, self._decoder, self._threads = path_of, executor, decoder, threads
        self._batch = min(executor.batch, (AUDIT_SEAT - threads - 1) // 2)
        self._room = self._batch + 1
        self.depth = threads + self._room + self._batch

    def run(self, stream: Iterable[Work]) -> Iterator[Completion]:
        """Work the stream; an item's error is its own."""
        ahead = Ahead(stream, self._read, lambda image: image.nbytes, self._threads, self._room, _AHEAD_NBYTES)
        try:
            while (taken := ahead.take(self._batch)) is not None:
                yield from (made for _, made in taken if isinstance(made, Completion))
                yield from self._find([(work, made) for work, made in taken if not isinstance(made, Completion)])
        finally:
            ahead.end()

    def _read(self, work: Work) -> Pixels:
        with work.stages("read"):
            return self._decoder.decode(self._path_of(work.item)).rgb

    def _find(self, taken: list[tuple[Work, Pixels]]) -> Iterator[Completion]:
        if not taken:
            return
        first = taken[0][0]
        found = [_points(work.slot.rows) for work, _ in taken]

        def find(_: Work) -> None:
            with first.stages("keypoints"):
                self._executor.find([image for _, image in taken], [None] * len(taken), found)

        failed = worked(find, first)
        for work, image in taken:
            if failed is not None and len(taken) > 1:  # one of them; which it is shows alone
                yield from self._find([(work, image)])
            elif failed is not None:
                yield failed
            else:
                rows = work.slot.rows
                work.backend = self._executor.name
                rows["shape"][:] = image.shape[:2]
                yield Completion(work, Sample("", rows, dict))

    def close(self) -> None:
        """Give the networks back."""
        self._executor.close()
        self._decoder.close()


class ClipOperator:
    """An item a clip. As many as the executor likes go in lock-step, each with its own memory.

    Parameters
    ----------
    frames_of : callable
        A planned item's pictures in their order.
    name_of : callable
        A planned item's blob name.
    executor : Executor
    decoder : ImageDecoder
        Closed with this.
    spool : Path
        Folder for a clip's points until they are written.
    """

    def __init__(
        self,
        frames_of: Callable[[Any], Iterator[ClipFrame]],
        name_of: Callable[[Work], str],
        executor: Executor,
        decoder: ImageDecoder,
        spool: Path,
    ) -> None:
        self._frames_of, self._name_of, self._executor = frames_of, name_of, executor
        self._decoder, self._spool = decoder, spool
        self._batch = min(executor.batch, AUDIT_SEAT - 2)
        self.depth = self._batch + 2

    def run(self, stream: Iterable[Work]) -> Iterator[Completion]:
        """Work the stream; a clip's error is its own."""
        ahead: Ahead[_Clip] = Ahead(stream, self._open, lambda _: 0, 1, 1, _AHEAD_NBYTES)
        live: list[_Clip] = []
        try:
            while True:
                most = self._batch - len(live)
                taken = ahead.take(most, wait=not live) if most else []
                if taken is None and not live:
                    return
                for _, made in taken or []:
                    if isinstance(made, Completion):
                        yield made
                    else:
                        live.append(made)
                yield from self._step(live)
        finally:
            ahead.end()

    def _open(self, work: Work) -> _Clip:
        return _Clip(work, self._frames_of(work.item), self._spool)

    def _step(self, live: list[_Clip]) -> Iterator[Completion]:
        """The next picture of every clip; those that end leave `live`."""
        for clip in list(live):
            failed = clip.advance(self._executor)
            if failed is not None or clip.over:
                live.remove(clip)
                clip.work.backend = self._executor.name
                yield failed or Completion(clip.work, clip.sample(self._name_of(clip.work)))
        if not live:
            return
        first = live[0].work

        def find(_: Work) -> None:
            with first.stages("keypoints"):
                self._executor.find(
                    [clip.image for clip in live], [clip.memory for clip in live], [clip.found for clip in live]
                )

        failed = worked(find, first)
        if failed is None:
            for clip in live:
                clip.keep()
            return
        works = [clip.work for clip in live]
        live.clear()
        if len(works) == 1:
            yield failed
            return
        for work in works:  # one of them; which it is shows alone, from the start: memories may have moved on
            alone = [self._open(work)]
            while alone:
                yield from self._step(alone)

    def close(self) -> None:
        """Give the networks back."""
        self._executor.close()
        self._decoder.close()


class _Clip:
    """One clip at work: where it is, what is remembered, and what was found so far."""

    def __init__(self, work: Work, frames: Iterator[ClipFrame], spool: Path) -> None:
        self.work, self._frames = work, frames
        self.memory: Any = None
        self.found = Keypoints.nobody()
        self._frame: ClipFrame | None = None
        self._points = Spool(spool)
        self._forget()

    @property
    def image(self) -> Pixels:
        """The picture to be worked."""
        assert self._frame is not None
        return self._frame.rgb

    @property
    def over(self) -> bool:
        """There is no picture left."""
        return self._frame is None

    def advance(self, executor: Executor) -> Completion | None:
        """Go to the next picture; a completion where it cannot be had."""

        def read(work: Work) -> None:
            with work.stages("read"):
                self._frame = next(self._frames, None)

        failed = worked(read, self.work)
        if failed is None and self._frame is not None and self._frame.place == 0:
            self._forget()
            self.memory = executor.begin()
        return failed

    def keep(self) -> None:
        """The picture's points are found."""
        assert self._frame is not None
        frame, found = self._frame, self.found
        row = {
            "valid": found.valid,
            "visibility": found.visibility,
            "shape": np.array(frame.rgb.shape[:2], np.int32),
            "frame": np.int32(frame.number),
            "pts": np.float64(frame.pts_seconds),
        }
        for name, values in row.items():
            self._rows[name] += values.tobytes()
        self._nbytes += self._points.write(found.points, self._nbytes)

    def sample(self, name: str) -> Sample:
        """What was found in the whole clip."""
        rows: dict[str, Iterable[Buffer]] = {name: [values] for name, values in self._rows.items()}
        points, nbytes = self._points, self._nbytes
        return Sample(name, {}, lambda: {"keypoints": points.pieces(nbytes), **rows})

    def _forget(self) -> None:
        """What was found so far is void; the spool is written anew from its start."""
        self._rows = {spec.name: bytearray() for spec in CLIP_ROWS if spec.name != "keypoints"}
        self._nbytes = 0


def _points(rows: dict[str, np.ndarray]) -> Keypoints:
    return Keypoints(rows["keypoints"], rows["visibility"], rows["valid"])

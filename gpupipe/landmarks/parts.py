"""Frames cut into parts of clips, and what is counted of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.clip import Clip
from gpupipe.ops.keypoints.points import Floats

FRAMES = 1024  # of a part of a clip, at most: 7 MB of points


@dataclass
class Counts:
    """Frames of a split, as the ``stats`` of a pickle have them.

    Attributes
    ----------
    total : int
        All frames, also those that a pickle leaves out.
    success : int
        Frames in which something was found.
    nobody, unreadable : int
        Frames in which nothing was found; frames whose picture could not be read. Less than ``total - success``
        together where an old file does not say which.
    seconds : float
        What it took; NaN where it is not said.
    """

    total: int = 0
    success: int = 0
    nobody: int = 0
    unreadable: int = 0
    seconds: float = 0.0

    def add(self, clip: Clip) -> None:
        """Count the frames of a clip."""
        success, unreadable = int(clip.valid.any(axis=1).sum()), int((~clip.readable).sum())
        self.total += len(clip)
        self.success += success
        self.unreadable += unreadable
        self.nobody += len(clip) - success - unreadable

    def __add__(self, other: Counts) -> Counts:
        seconds = self.seconds + other.seconds
        return Counts(
            self.total + other.total,
            self.success + other.success,
            self.nobody + other.nobody,
            self.unreadable + other.unreadable,
            math.nan if math.isnan(seconds) else seconds,  # the sum of two NaNs may have another sign bit
        )

    def to_json(self) -> dict[str, int | float]:
        """By the names that pickles use."""
        return {
            "total": self.total,
            "success": self.success,
            "failed": self.total - self.success,
            "nobody": self.nobody,
            "unreadable": self.unreadable,
            "total_time": self.seconds,
        }


def runs(videos: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Where a part of a clip begins and ends, in the video ids of consecutive frames: at most :data:`FRAMES` each."""
    begin = 0
    for end in range(1, len(videos) + 1):
        if end == len(videos) or videos[end] != videos[begin] or end - begin == FRAMES:
            yield begin, end
            begin = end


def parts(
    split: str,
    videos: Sequence[str],
    paths: Sequence[str],
    points: Floats,
    valid: npt.NDArray[np.bool_],
    shapes: npt.NDArray[np.int32],
    readable: npt.NDArray[np.bool_],
) -> Iterator[Clip]:
    """Consecutive frames of a split, of files without visibility and times, as parts of clips."""
    for begin, end in runs(videos):
        here = slice(begin, end)
        pts = np.full(end - begin, np.nan)
        yield Clip(
            split, videos[begin], paths[here], points[here], valid[here], None, shapes[here], pts, readable[here]
        )


def without_empty(clip: Clip) -> Clip:
    """The frames of a clip in which something was found."""
    return chosen(clip, np.asarray(clip.valid.any(axis=1)))


def chosen(clip: Clip, kept: npt.NDArray[np.bool_]) -> Clip:
    """The frames of a clip for which `kept`, bool [T], is true."""
    if kept.all():
        return clip

    def of(array: Any) -> Any:
        return None if array is None else array[kept]

    paths = [clip.paths[place] for place in np.flatnonzero(kept).tolist()]
    return Clip(
        clip.split, clip.video, paths, of(clip.points), of(clip.valid), of(clip.visibility), of(clip.shapes),
        of(clip.pts_seconds), of(clip.readable),
    )  # fmt: skip

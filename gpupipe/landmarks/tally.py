"""What is in a split of keypoints, counted and measured as its clips go by."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.parts import Counts
from gpupipe.landmarks.skeleton import part_slices
from gpupipe.ops.keypoints.points import PARTS

Doubles = npt.NDArray[np.float64]

_MOST_SIZES = 1000  # picture sizes told apart


class Tally:
    """Counts clips; memory does not grow with them, but for the names of the videos.

    Attributes
    ----------
    counts : Counts
        Frames in all, with somebody, with nobody, that could not be read.
    found : ndarray, int64 [4]
        Frames in which each of :data:`~gpupipe.ops.keypoints.points.PARTS` was found.
    sizes : Counter of (height, width)
        Frames by the size of their picture, where it is known.
    timed : int
        Frames that have a time.
    """

    def __init__(self) -> None:
        self.counts = Counts()
        self.found = np.zeros(len(PARTS), np.int64)
        self.sizes: Counter[tuple[int, int]] = Counter()
        self.timed = 0
        self._videos: set[str] = set()

    @property
    def videos(self) -> int:
        """How many there are, by their ids."""
        return len(self._videos)

    def add(self, clip: Clip) -> None:
        """Count the frames of a clip."""
        self.counts.add(clip)
        self.found += clip.valid.sum(axis=0)
        self.timed += int(np.isfinite(clip.pts_seconds).sum())
        self._videos.add(clip.video)
        known = clip.shapes[(clip.shapes > 0).all(axis=1)]
        for (height, width), frames in zip(*np.unique(known, axis=0, return_counts=True), strict=True):
            size = int(height), int(width)
            if size in self.sizes or len(self.sizes) < _MOST_SIZES:
                self.sizes[size] += int(frames)


class Spread:
    """Where the points of each part lie, of the frames in which it was found.

    Attributes
    ----------
    count : ndarray, int64 [4]
        Points that are finite, by part, in the order of :data:`~gpupipe.ops.keypoints.points.PARTS`.
    low, high : ndarray, float64 [4, 3]
        Least and greatest x, y, z; infinite where there is no point.
    outside : ndarray, int64 [4]
        Points whose x or y is beyond the picture's edges.
    broken : int
        Points that are not finite, in all parts together.
    """

    def __init__(self) -> None:
        self.count = np.zeros(len(PARTS), np.int64)
        self.low = np.full((len(PARTS), 3), np.inf)
        self.high = np.full((len(PARTS), 3), -np.inf)
        self.outside = np.zeros(len(PARTS), np.int64)
        self.broken = 0
        self._sum = np.zeros((len(PARTS), 3))
        self._squares = np.zeros((len(PARTS), 3))

    @property
    def mean(self) -> Doubles:
        """float64 [4, 3]; 0 where there is no point."""
        return np.asarray(self._sum / np.maximum(1, self.count)[:, None], np.float64)

    @property
    def deviation(self) -> Doubles:
        """Standard deviation, float64 [4, 3]; 0 where there is no point."""
        squares = self._squares / np.maximum(1, self.count)[:, None]
        return np.asarray(np.sqrt(np.maximum(0, squares - self.mean**2)), np.float64)

    def add(self, clip: Clip) -> None:
        """Measure the points of a clip."""
        for number, place in enumerate(part_slices(clip.points.shape[1]).values()):
            found = clip.points[clip.valid[:, number], place].reshape(-1, 3)
            axes = np.ascontiguousarray(found.T)  # three long rows: many times as fast
            with np.errstate(invalid="ignore"):
                sound = np.isfinite(axes.sum(dtype=np.float64))
            if not sound:
                axes = axes[:, np.isfinite(axes).all(axis=0)]
                self.broken += len(found) - axes.shape[1]
            if axes.size:
                x, y, _ = axes
                self.count[number] += len(x)
                self.low[number] = np.minimum(self.low[number], axes.min(axis=1))
                self.high[number] = np.maximum(self.high[number], axes.max(axis=1))
                self.outside[number] += int(((x < 0) | (x > 1) | (y < 0) | (y > 1)).sum())
                self._sum[number] += axes.sum(axis=1, dtype=np.float64)
                self._squares[number] += np.square(axes, dtype=np.float64).sum(axis=1)

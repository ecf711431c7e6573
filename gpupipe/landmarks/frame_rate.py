"""How many frames a second a video's times say."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

DEFAULT_FPS = 25.0
"""Of folders of pictures, which have no times; what PHOENIX-2014-T was filmed at."""


class Clock:
    """The mean rate of frames whose times come in parts."""

    def __init__(self) -> None:
        self._count = 0
        self._first: tuple[int, float] | None = None
        self._last: tuple[int, float] | None = None

    def add(self, pts_seconds: npt.ArrayLike) -> Clock:
        """The next frames' times; NaN where one has none."""
        times = np.asarray(pts_seconds, np.float64)
        there = np.flatnonzero(np.isfinite(times))
        if len(there):
            self._first = self._first or (self._count + int(there[0]), float(times[there[0]]))
            self._last = self._count + int(there[-1]), float(times[there[-1]])
        self._count += len(times)
        return self

    @property
    def rate(self) -> float | None:
        """Frames a second; None where fewer than two have times, or the times do not grow."""
        if self._first is None or self._last is None or self._last[1] <= self._first[1]:
            return None
        return (self._last[0] - self._first[0]) / (self._last[1] - self._first[1])

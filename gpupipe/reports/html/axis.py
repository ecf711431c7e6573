"""The time axis: hours of a run one after another, the pauses between runs taken out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PAUSE_SHARE = 0.02  # a shorter gap is not worth a mark
_STEPS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600),
    *(7200, 10800, 21600, 43200, 86400, 172800, 432800, 864000, 2592000),
)


@dataclass(frozen=True)
class Tick:
    """A label: its place from 0 to 1, and seconds at work until there."""

    place: float
    seconds: float


class Axis:
    """Maps Unix times to places from 0 to 1.

    Parameters
    ----------
    spans : iterable of (float, float)
        Unix times, beginning and end of each run; they may overlap.

    Attributes
    ----------
    seconds : float
        Length of the axis.
    spans : list of (float, float)
        Apart from each other, in their order.
    """

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        self.spans = joined(spans, 0.0)
        active = sum(stop - start for start, stop in self.spans)
        self.spans = joined(self.spans, _PAUSE_SHARE * active)
        lengths = [stop - start for start, stop in self.spans]
        self.seconds = max(sum(lengths), 1e-3)
        ends = np.cumsum([0.0, *lengths]) / self.seconds
        self._times = np.array(self.spans or [(0.0, 1e-3)]).ravel()
        self._places = np.stack([ends[:-1], ends[1:]], axis=1).ravel() if self.spans else np.array([0.0, 1.0])

    def places(self, times: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """0 to 1; what lies in a pause is where it is cut out, what lies before or after is at the end."""
        return np.asarray(np.interp(np.asarray(times, np.float64), self._times, self._places), np.float64)

    def place(self, time: float) -> float:
        """Of one."""
        return float(self.places([time])[0])

    def breaks(self) -> list[tuple[float, float, float]]:
        """Where pauses are cut out: place, Unix time of its beginning and end."""
        pairs = zip(self.spans, self.spans[1:], strict=False)
        return [(self.place(before[1]), before[1], after[0]) for before, after in pairs]

    def ticks(self, most: int = 5) -> list[Tick]:
        """Labels at round distances."""
        step = next((step for step in _STEPS if self.seconds / step <= most), self.seconds / most)
        return [Tick(n * step / self.seconds, n * step) for n in range(int(self.seconds / step) + 1)]


def joined(spans: Iterable[tuple[float, float]], gap: float) -> list[tuple[float, float]]:
    """The union of spans; those no more than `gap` apart are one."""
    made: list[tuple[float, float]] = []
    for start, stop in sorted(spans):
        if made and start - made[-1][1] <= gap:
            made[-1] = (made[-1][0], max(made[-1][1], stop))
        else:
            made.append((start, max(start, stop)))
    return made

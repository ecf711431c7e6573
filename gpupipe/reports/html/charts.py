"""What the report draws, as SVG paths in a box of 1000 x 100 (or a row's height), stretched by the page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

WIDTH, HEIGHT = 1000, 100

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Steps:
    """A histogram over time.

    Attributes
    ----------
    path : str
        A filled outline, for a viewBox of ``0 0 1000 100``.
    top : float
        Value at the upper edge.
    mean, peak : float
    """

    path: str
    top: float
    mean: float
    peak: float


def steps(values: Floats, top: float) -> str:
    """The filled outline of equal columns; `top` is the value at the upper edge."""
    if not values.any():
        return ""
    heights = HEIGHT - HEIGHT * values / top
    parts = [f"M0 {HEIGHT}"]
    before = ""
    for left, height in zip(np.linspace(0, WIDTH, len(values) + 1), heights, strict=False):
        here = f"{height:.1f}"
        if here != before:
            parts.append(f"H{left:.1f}V{here}")
            before = here
    return "".join([*parts, f"H{WIDTH}V{HEIGHT}Z"])


def histogram(places: Floats, weights: Floats | None, bins: int, seconds: float) -> Floats:
    """Sums a second by column; `places` are 0 to 1 of an axis of so many seconds."""
    sums, _ = np.histogram(places, bins, (0.0, 1.0), weights=weights)
    return np.asarray(sums * (bins / seconds), np.float64)


def drawn(values: Floats) -> Steps:
    """Draw a histogram, its scale ending at a round number."""
    peak = float(values.max(initial=0.0))
    top = round_up(peak)
    return Steps(steps(values, top), top, float(values.mean()) if len(values) else 0.0, peak)


def round_up(value: float) -> float:
    """The next number of 1, 1.5, 2, 3, 4, 5, 6, 8 times a power of ten; 1 for 0."""
    if value <= 0:
        return 1.0
    power = 10.0 ** np.floor(np.log10(value))
    return float(next((m * power for m in (1, 1.5, 2, 3, 4, 5, 6, 8) if m * power >= value * (1 - 1e-9)), 10 * power))


def bars(levels: npt.NDArray[np.int64], top: float, height: float, level: int) -> str:
    """Rectangles where a row has `level`, joined where columns of it adjoin."""
    there = np.flatnonzero(np.diff(np.concatenate([[False], levels == level, [False]]).astype(np.int8)))
    scale = WIDTH / len(levels)
    return "".join(
        f"M{start * scale:.1f} {top:.1f}h{(stop - start) * scale:.1f}v{height:.1f}h{-(stop - start) * scale:.1f}z"
        for start, stop in there.reshape(-1, 2)
    )

"""Smoothing of points over time: the One-Euro filter and the low-pass it is made of, as MediaPipe computes them.

Source: Casiez, Roussel, Vogel, "1 Euro Filter", CHI 2012; MediaPipe's ``util/filtering``. Filters hold float32 and
compute in double.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from gpupipe.ops.keypoints.points import Floats

Doubles = npt.NDArray[np.float64]

STEP_SECONDS = 33_333_000 * 1e-9
"""Python's MediaPipe calls every frame 33,333 microseconds later than the last, whatever the clip's rate."""


class LowPass:
    """Exponential smoothing of arrays of one shape."""

    def __init__(self) -> None:
        self.raw: Floats | None = None
        self._held: Floats | None = None

    def apply(self, values: Floats, alpha: Floats) -> Floats:
        """Take the next values; `alpha` is how much of them is believed."""
        if self._held is None:
            smooth = values.copy()
        else:
            smooth = (alpha * values + (1.0 - alpha.astype(np.float64)) * self._held).astype(np.float32)
        self.raw, self._held = values.copy(), smooth
        return smooth


class OneEuro:
    """A low-pass that gives way the faster a value moves.

    Parameters
    ----------
    cutoff : float
        Hz, of a value at rest.
    beta : float
        How much the cutoff rises with speed.
    """

    def __init__(self, cutoff: float, beta: float) -> None:
        self._cutoff, self._beta = cutoff, beta
        self._values, self._speeds = LowPass(), LowPass()

    def apply(self, values: Floats, scale: float) -> Floats:
        """Take the next frame's values; `scale` is what makes their speeds comparable from far and near."""
        raw = self._values.raw
        speeds = (
            np.zeros(values.shape) if raw is None else (values.astype(np.float64) - raw) * scale * (1.0 / STEP_SECONDS)
        )
        slow = self._speeds.apply(speeds.astype(np.float32), _alpha(np.float64(1.0)))
        return self._values.apply(values, _alpha(self._cutoff + self._beta * np.abs(slow.astype(np.float64))))


def _alpha(cutoff: Doubles | np.float64) -> Floats:
    alpha: Floats = np.asarray(1.0 / (1.0 + 1.0 / (2 * math.pi * cutoff) / STEP_SECONDS), np.float32)
    return alpha

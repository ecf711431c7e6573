"""How busy the GPUs of a run are, sampled beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gpupipe.cuda.nvml import GpuSample, Sampler
from gpupipe.posts import Post

_EVERY_SECONDS = 1.0  # the driver's own counters are means over up to a second


@dataclass
class Gauge:
    """One GPU, now and on the mean of the run.

    Attributes
    ----------
    label : str
    sample : GpuSample
        The last one.
    means : dict of str to float
        ``sm_percent``, ``decoder_percent``, ``jpeg_percent``, ``power_watts``: of what the card tells.
    peak_bytes : int
        Most memory of the card in use, by whomever.
    samples : int
    """

    label: str
    sample: GpuSample
    means: dict[str, float]
    peak_bytes: int = 0
    samples: int = 0

    def add(self, sample: GpuSample) -> None:
        """Take one more sample; a card that was lost gives none."""
        self.sample = sample
        if sample.lost is not None:
            return
        self.samples += 1
        self.peak_bytes = max(self.peak_bytes, sample.memory_used_bytes or 0)
        for name in ("sm_percent", "decoder_percent", "jpeg_percent", "power_watts"):
            value = getattr(sample, name)
            if value is not None:
                self.means[name] = self.means.get(name, 0.0) + (value - self.means.get(name, 0.0)) / self.samples

    def record(self) -> dict[str, Any]:
        """JSON values for the ledger."""
        means = {name: round(value, 1) for name, value in self.means.items()}
        return {"samples": self.samples, "peak_bytes": self.peak_bytes, "lost": self.sample.lost, **means}


class Gauges:
    """The GPUs of some posts; without NVML none, and ``reason`` says why.

    Parameters
    ----------
    posts : sequence of Post
    """

    def __init__(self, posts: Sequence[Post]) -> None:
        labels = {post.gpu: post.label for post in posts if post.gpu}
        self._sampler = Sampler(list(labels))
        self.reason = self._sampler.reason
        self.gauges = [Gauge(label, GpuSample(uuid), {}) for uuid, label in labels.items()]
        self._looked = float("-inf")

    def look(self) -> bool:
        """Take a sample of each if it is time; False where it was not."""
        now = time.monotonic()
        if now - self._looked < _EVERY_SECONDS:
            return False
        self._looked = now
        for gauge, sample in zip(self.gauges, self._sampler.sample(), strict=False):
            gauge.add(sample)
        return True

    def close(self) -> None:
        """Give NVML back."""
        self._sampler.close()

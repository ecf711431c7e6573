"""NVML's counters of the card while something runs."""

from __future__ import annotations

import statistics
import threading
from typing import Any

from gpupipe.cuda.nvml import GpuSample, Sampler

_SAMPLE_SECONDS = 0.2


class Counters:
    """NVML's counters of the first card, read while the block runs; means of the samples in which it decoded."""

    def __init__(self) -> None:
        self._samples: list[GpuSample] = []
        self._stop = threading.Event()
        self._sampler = Sampler()
        self._reason = self._sampler.reason
        self._thread = threading.Thread(target=self._run, name="counters", daemon=True)

    def __enter__(self) -> Counters:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sampler.close()

    def found(self) -> dict[str, Any]:
        if self._reason is not None:
            return {"counters": {"unavailable": self._reason}}
        busy = [sample for sample in self._samples if sample.decoder_percent]
        means = {
            name: statistics.mean(values)
            for name in ("sm_percent", "decoder_percent", "power_watts")
            if (values := [value for sample in busy if (value := getattr(sample, name)) is not None])
        }
        return {"counters": {"samples": len(busy), **means}}

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._samples += self._sampler.sample()[:1]

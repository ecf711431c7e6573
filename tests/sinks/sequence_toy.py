"""Items of any number of rows that follow from their number, and a job that makes them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from toy import ToyJob

from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Sample
from gpupipe.sinks.sequences import SequenceSink

SPECS = (RowSpec("points", (5, 3), "<f4"), RowSpec("valid", (2,), "|b1"), RowSpec("pts", (), "<f8"))


def length(ordinal):
    """From 0 to 6 rows."""
    return ordinal * 3 % 7


def arrays(ordinal, rows=None, salt=0):
    draw = np.random.default_rng((ordinal, salt))
    rows = length(ordinal) if rows is None else rows
    return {
        spec.name: draw.integers(0, 100, (rows, *spec.shape)).astype(spec.dtype)
        if spec.name != "valid"
        else draw.random((rows, *spec.shape)) < 0.5
        for spec in SPECS
    }


def sample(ordinal, rows=None, salt=0):
    """As an operator hands it over: a few rows at a time."""
    made = arrays(ordinal, rows, salt)
    return Sample(f"{ordinal:06d}", {}, lambda: {name: [array[:2], array[2:]] for name, array in made.items()})


@dataclass(frozen=True)
class SequenceToy(ToyJob):
    """The toy job with sequences for its output."""

    format: str = "sequences"

    def blob_name(self, ordinal, item):
        return f"{ordinal:06d}"

    def sink(self, place):
        return SequenceSink(place, SPECS)

    def _process(self, work):
        return replace(super()._process(work), sample=sample(work.ordinal, salt=self.salt))

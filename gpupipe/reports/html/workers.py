"""When each worker was busy: a row a worker, a few hundred columns, however many items there are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gpupipe.reports.html.axis import Axis
from gpupipe.reports.html.charts import Floats, bars
from gpupipe.reports.html.record import Rows, Shard

COLUMNS = 240
ROWS = 48  # more workers share rows
LEVELS = 5
ROW_HEIGHT = 16
_GAP = 3
SIGNS = {
    "death": "✕", "hang": "!", "memory": "▲", "device": "⏏", "audit": "≠", "recycle": "↻", "redo": "↺", "stop": "■",
}  # fmt: skip
"""The kinds of events that are marked, and how."""


@dataclass(frozen=True)
class Row:
    """A worker, or several: their name and the share of the time they were busy."""

    name: str
    busy: float


@dataclass(frozen=True)
class Mark:
    """Something that happened: place from 0 to 1, row (-1 for all), kind, how often."""

    place: float
    row: int
    kind: str
    count: int


@dataclass
class Timeline:
    """All of them.

    Attributes
    ----------
    rows : list of Row
    paths : list of str
        What is busy by a fifth, two fifths, ... of its time; in a box 1000 wide and :attr:`height` high.
    marks : list of Mark
    grouped : int
        Workers a row.
    """

    rows: list[Row] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    grouped: int = 1

    @property
    def height(self) -> int:
        """In pixels."""
        return ROW_HEIGHT * len(self.rows)

    def kinds(self) -> dict[str, int]:
        """Events by kind, those that are marked."""
        counts = {kind: sum(mark.count for mark in self.marks if mark.kind == kind) for kind in SIGNS}
        return {kind: count for kind, count in counts.items() if count}


def timeline(shards: list[Shard], axis: Axis) -> Timeline:
    """Lay out what every worker of every run shard did."""
    numbers = [_workers(shard) for shard in shards]
    grouped = max(1, -(-sum(map(len, numbers)) // ROWS))
    made = Timeline(grouped=grouped)
    parts: list[list[str]] = [[] for _ in range(LEVELS)]
    marks: dict[tuple[int, int, str], int] = {}
    for shard, workers in zip(shards, numbers, strict=True):
        busy = _busy(shard, workers, axis)
        first = len(made.rows)
        for start in range(0, len(workers), grouped):
            group = workers[start : start + grouped]
            shares = busy[start : start + grouped].mean(axis=0)
            numbered = f"{group[0]}" if len(group) == 1 else f"{group[0]}–{group[-1]}"
            name = f"{shard.name}: {numbered}" if len(shards) > 1 else f"worker {numbered}"
            levels = np.ceil(np.round(shares, 3) * LEVELS).astype(np.int64)
            for level in range(LEVELS):
                parts[level].append(bars(levels, ROW_HEIGHT * len(made.rows) + _GAP / 2, ROW_HEIGHT - _GAP, level + 1))
            made.rows.append(Row(name, float(shares.mean())))
        for at, kind, worker in shard.marks:
            if kind in SIGNS:
                column = min(COLUMNS - 1, int(axis.place(at) * COLUMNS))
                row = -1 if worker < 0 else first + int(np.searchsorted(workers, worker)) // grouped
                marks[row, column, kind] = marks.get((row, column, kind), 0) + 1
    made.paths = ["".join(part) for part in parts]
    made.marks = [
        Mark((column + 0.5) / COLUMNS, row, kind, count) for (row, column, kind), count in sorted(marks.items())
    ]
    return made


def _workers(shard: Shard) -> npt.NDArray[np.int64]:
    """Their numbers: of those that finished an item, and of those something happened to."""
    named = [worker for _, kind, worker in shard.marks if worker >= 0 and kind in SIGNS]
    return np.union1d(shard.rows["worker"].astype(np.int64), np.array(named, np.int64))


def _busy(shard: Shard, workers: npt.NDArray[np.int64], axis: Axis) -> Floats:
    """[workers, COLUMNS]: the share of each column's time that the worker was on an item."""
    rows = shard.rows
    busy = np.zeros((len(workers), COLUMNS))
    order = np.lexsort((rows["ordinal"], rows["finished"], shard.run_of, rows["worker"]))
    keys = np.stack([rows["worker"][order].astype(np.int64), shard.run_of[order]])
    edges = np.flatnonzero((np.diff(keys, axis=1) != 0).any(axis=0)) + 1
    for part in np.split(order, edges):
        if len(part):
            starts, ends = _intervals(rows[part])
            row = np.searchsorted(workers, rows["worker"][part[0]])
            busy[row] += _covered(axis.places(starts), axis.places(ends))
    return np.minimum(busy, 1.0)


def _intervals(rows: Rows) -> tuple[Floats, Floats]:
    """When each of a worker's items began and ended, one after another.

    Workers report several items at once: those have ended one before the other, not all at that time. From the last
    to the first, ``end = min(finished, start of the next)``; less the sums of all seconds before, that is a running
    minimum.
    """
    seconds = np.maximum(rows["seconds"], 0.0)
    sums = np.cumsum(seconds)
    ends = np.minimum.accumulate((rows["finished"] - sums)[::-1])[::-1] + sums
    return ends - seconds, ends


def _covered(starts: Floats, ends: Floats) -> Floats:
    """The share of each of COLUMNS equal parts of [0, 1] that intervals cover."""
    edges = np.linspace(0.0, 1.0, COLUMNS + 1)
    return np.diff(_before(edges, starts) - _before(edges, ends)) * COLUMNS


def _before(edges: Floats, points: Floats) -> Floats:
    """``sum(max(0, edge - point))`` over the points, at each edge."""
    points = np.sort(points)
    sums = np.concatenate([[0.0], np.cumsum(points)])
    below = np.searchsorted(points, edges)
    return np.asarray(below * edges - sums[below], np.float64)

"""All that the bookkeeping of an output says, read at once and held in arrays: a million items are 50 MB."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe import ownership
from gpupipe import plan as plans
from gpupipe.errors import UsageError
from gpupipe.ledger import Ledger, reading
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE, FAILED, Event, Outcome, RunRecord
from gpupipe.plan import BOOKKEEPING, Plan

EVENTS_KEPT = 200  # the last of them, word for word
EXAMPLES = 3  # of each reason

_ROW = np.dtype(
    [
        *(("ordinal", "<i8"), ("state", "u1"), ("epoch", "<i4"), ("worker", "<i4"), ("backend", "<i4")),
        *(("attempts", "<i4"), ("seconds", "<f8"), ("finished", "<f8"), ("nbytes", "<i8"), ("input", "<i8")),
    ]
)

Rows = npt.NDArray[Any]
"""An array of :data:`_ROW`: the ledger's measures, ``backend`` a number into :attr:`Record.backends`."""


@dataclass
class Failures:
    """Items that failed with one reason.

    Attributes
    ----------
    reason : str
    count : int
    stages : Counter of str
        Where.
    examples : list of Outcome
        The first of them.
    """

    reason: str
    count: int
    stages: Counter[str]
    examples: list[Outcome]


@dataclass
class Shard:
    """What one run shard's ledger holds.

    Attributes
    ----------
    name : str
        ``"shard-0"``.
    rows : Rows
        By ordinal, every row that is not pending.
    counts : bool [rows]
        False where another ledger has a later row for the item.
    runs : list of RunRecord
        The earliest first.
    run_of : int64 [rows]
        Index into `runs`; -1 where none had begun.
    marks : list of (float, str, int)
        Time, kind and worker of every event.
    """

    name: str
    rows: Rows
    counts: npt.NDArray[np.bool_]
    runs: list[RunRecord]
    run_of: npt.NDArray[np.int64]
    marks: list[tuple[float, str, int]]


@dataclass
class Record:
    """An output's bookkeeping.

    Attributes
    ----------
    out : Path
    plan : Plan
    ledgers : Ledgers
        Both open until :meth:`close`.
    running : list of str
        The live runs.
    shards : list of Shard
    backends : list of str
    failures : list of Failures
        The commonest first.
    events : list of Event
        The last of them, in their order.
    differences : list of Event
        Of the audits, the first of them.
    """

    out: Path
    plan: Plan
    ledgers: Ledgers
    running: list[str]
    shards: list[Shard]
    backends: list[str]
    failures: list[Failures]
    events: list[Event]
    differences: list[Event]

    def close(self) -> None:
        """Close plan and ledgers."""
        self.plan.close()
        self.ledgers.close()

    def rows(self) -> Rows:
        """Of every item that has an outcome, the row that counts."""
        return np.concatenate([shard.rows[shard.counts] for shard in self.shards] or [np.empty(0, _ROW)])

    def runs(self) -> Iterator[tuple[Shard, int, RunRecord]]:
        """Every run with its shard and its index there."""
        for shard in self.shards:
            for number, run in enumerate(shard.runs):
                yield shard, number, run


def read(out: Path) -> Record:
    """Read it, during a run or after it; nothing is written.

    Raises
    ------
    UsageError
        No planned output of gpupipe is there, or its plan is damaged.
    OutputError
        A ledger is damaged.
    """
    bookkeeping = out / BOOKKEEPING
    if not plans.exists(bookkeeping):
        raise UsageError(f"{out}: no output of gpupipe here (no plan in {BOOKKEEPING})")
    running = ownership.holders(bookkeeping)
    with ExitStack() as opened:
        plan = opened.enter_context(closing(Plan(bookkeeping / "plan")))
        ledgers = Ledgers(bookkeeping, ownership.read_layout(bookkeeping)["epoch"], plan.count)
        opened.enter_context(closing(ledgers))
        codes: dict[str, int] = {}
        tables = [_table(ledger, codes) for ledger in ledgers.ledgers]
        latest = np.full(plan.count, -1, dtype=np.int32)
        for table in tables:
            np.maximum.at(latest, table["ordinal"], table["epoch"])
        events: list[Event] = []
        differences: list[Event] = []
        failures: dict[str, Failures] = {}
        shards = []
        for ledger, table in zip(ledgers.ledgers, tables, strict=True):
            counts = table["epoch"] == latest[table["ordinal"]]
            shards.append(_shard(ledger, table, counts, events, differences))
            _add_failures(ledger, table[counts & (table["state"] == FAILED)]["ordinal"], failures)
        opened.pop_all()
    grouped = sorted(failures.values(), key=lambda group: -group.count)
    last = sorted(events, key=lambda event: event.at)[-EVENTS_KEPT:]
    return Record(out, plan, ledgers, running, shards, list(codes), grouped, last, differences[:EVENTS_KEPT])


def _table(ledger: Ledger, codes: dict[str, int]) -> Rows:
    coded = (
        (*row[:4], codes.setdefault(row[4], len(codes)), *row[5:])  # a number for each backend's name
        for row in ledger.measures()
    )
    with reading(ledger.path):
        return np.fromiter(coded, dtype=_ROW)


def _shard(
    ledger: Ledger, rows: Rows, counts: npt.NDArray[np.bool_], events: list[Event], differences: list[Event]
) -> Shard:
    runs = ledger.runs()
    run_of = np.searchsorted([run.started for run in runs], rows["finished"], side="right") - 1
    marks = []
    last: deque[Event] = deque(maxlen=EVENTS_KEPT)
    for event in ledger.events():
        marks.append((event.at, event.kind, event.worker))
        last.append(event)
        if event.kind == "audit":
            differences.append(event)
    events += last
    return Shard(ledger.path.parent.name, rows, counts, runs, run_of, marks)


def _add_failures(ledger: Ledger, ordinals: npt.NDArray[np.int64], found: dict[str, Failures]) -> None:
    # Only items of `ordinals`: a run at work may have added rows since they were read, and the sums shall agree.
    known = iter(ordinals.tolist())
    wanted = next(known, None)
    for outcome in ledger.outcomes(FAILED):
        while wanted is not None and wanted < outcome.ordinal:
            wanted = next(known, None)
        if wanted is None:
            break
        if wanted == outcome.ordinal:
            group = found.setdefault(outcome.error, Failures(outcome.error, 0, Counter(), []))
            group.count += 1
            group.stages[outcome.stage] += 1
            if len(group.examples) < EXAMPLES:
                group.examples.append(outcome)


def states(rows: Rows) -> tuple[int, int]:
    """How many are done, and how many failed."""
    return int((rows["state"] == DONE).sum()), int((rows["state"] == FAILED).sum())

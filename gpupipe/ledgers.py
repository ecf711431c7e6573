"""All ledgers of an output, read as one.

Epochs: when a dataset is continued with another number of run shards, other ledgers own other items.
Each such change is a new epoch (see ownership.py); of several rows for one item the highest epoch counts.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gpupipe.ledger import Ledger, damaged
from gpupipe.outcome import PENDING, Event, Outcome, RunRecord


class Ledgers:
    """All ledgers of an output, read as one.

    Parameters
    ----------
    bookkeeping : Path
        ``OUT/.gpupipe``.
    epoch : int
        The layout's epoch: in the first, 0, no item has rows in two ledgers.
    count : int or None
        N, the number of items of the plan, for :meth:`Ledger.check`; None looks at nothing.

    Raises
    ------
    OutputError
        From here, and from whatever reads: a ledger is damaged.
    """

    def __init__(self, bookkeeping: Path, epoch: int, count: int | None = None) -> None:
        self.ledgers: list[Ledger] = []
        try:
            for path in sorted(bookkeeping.glob("shard-*/ledger.db")):
                ledger = Ledger(path)
                if not ledger.born:  # a run has made the file this instant, and its tables not yet
                    ledger.close()
                    continue
                self.ledgers.append(ledger)
                if count is not None:
                    ledger.check(count)
        except BaseException:
            self.close()
            raise
        self._disjoint = epoch <= 0 or len(self.ledgers) == 1

    def counts(self) -> dict[tuple[int, str], int]:
        """Items by (state, error); pending items have no row and are not counted."""
        total: Counter[tuple[int, str]] = Counter()
        if self._disjoint:
            for ledger in self.ledgers:
                total.update(ledger.counts())
        else:
            total.update((outcome.state, outcome.error) for outcome in self.outcomes())
        return dict(total)

    def states(self, count: int) -> np.ndarray:
        """uint8 [N], the state of every item."""
        states = np.zeros(count, dtype=np.uint8)
        epochs = np.full(count, -1, dtype=np.int64)
        for ledger in self.ledgers:
            ordinals, there, epoch = ledger.states()
            later = epoch >= epochs[ordinals]
            states[ordinals[later]], epochs[ordinals[later]] = there[later], epoch[later]
        return states

    def outcomes(self, state: int | None = None) -> Iterator[Outcome]:
        """The outcome that counts, by ordinal; items without one are left out."""
        if self._disjoint:
            before = -1
            for outcome in heapq.merge(*(ledger.outcomes(state) for ledger in self.ledgers), key=lambda o: o.ordinal):
                self._follows(before, outcome.ordinal)
                before = outcome.ordinal
                yield outcome
            return
        # A row of an older epoch may have another state: merge all, choose, then filter.
        merged = heapq.merge(*(ledger.outcomes() for ledger in self.ledgers), key=lambda o: (o.ordinal, o.epoch))
        for _, rows in itertools.groupby(merged, key=lambda o: o.ordinal):
            *_, last = rows
            if state in (None, last.state):
                yield last

    def _follows(self, before: int, ordinal: int) -> None:
        if ordinal <= before:
            folder = self.ledgers[0].path.parent.parent
            raise damaged(folder, f"two have item {ordinal}, and layout.json says that none of them is older")

    def outcome(self, ordinal: int) -> Outcome | None:
        """The outcome of one item that counts; None where it has none."""
        rows = [row for ledger in self.ledgers if (row := ledger.outcome(ordinal)) is not None]
        return max(rows, key=lambda row: row.epoch, default=None)

    def fingerprints(self) -> Iterator[tuple[int, int, str]]:
        """Ordinal, state and fingerprint of every item that has an outcome, by ordinal."""
        if self._disjoint:
            before = -1
            for row in heapq.merge(*(ledger.fingerprints() for ledger in self.ledgers)):
                self._follows(before, row[0])
                before = row[0]
                yield row[:3]
        else:
            for outcome in self.outcomes():
                if outcome.state != PENDING:
                    yield outcome.ordinal, outcome.state, outcome.fingerprint

    def runs(self) -> list[RunRecord]:
        """Every run so far, the earliest first."""
        return sorted((run for ledger in self.ledgers for run in ledger.runs()), key=lambda run: run.started)

    def events(self) -> Iterator[Event]:
        """What happened, in its order."""
        return heapq.merge(*(ledger.events() for ledger in self.ledgers), key=lambda event: event.at)

    def close(self) -> None:
        """Close them all."""
        for ledger in self.ledgers:
            ledger.close()

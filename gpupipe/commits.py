"""Group commit: outcomes on their way into the ledger, about a second's worth at a time, output shards to their names.

Data first, then the ledger, then the names: a kill between any two steps loses work and never truth.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from gpupipe.closing import Closing
from gpupipe.ledger import Ledger
from gpupipe.outcome import DONE, PENDING, Event, Outcome, RunRecord
from gpupipe.sinks.base import Place, Sink
from gpupipe.sinks.files import BatchSync

COMMIT_SECONDS = 1.0
COMMIT_ITEMS = 5000


class GroupCommit(Closing):
    """Holds outcomes and events until they are committed; nobody else publishes output shards during a run.

    Parameters
    ----------
    ledger : Ledger
    sink : Sink
    place : Place
    states : numpy.ndarray
        uint8 [N], the ledger's state of each item; kept up to date.
    owned : numpy.ndarray
        bool [N], items of this run shard.
    on_commit : callable, optional
        Called after each commit.
    """

    def __init__(
        self,
        ledger: Ledger,
        sink: Sink,
        place: Place,
        states: np.ndarray,
        owned: np.ndarray,
        on_commit: Callable[[], None] | None = None,
    ) -> None:
        self._ledger, self._sink, self._place, self._on_commit = ledger, sink, place, on_commit
        self._states = states
        shard_of = np.arange(len(states)) // place.shard_size
        self._pending_in_shard = np.bincount(shard_of[owned & (states == PENDING)], minlength=place.shards)
        self._owned_shards = np.unique(shard_of[owned])
        self._sync = BatchSync(place.out)
        self._batch: list[Outcome] = []
        self._events: list[Event] = []
        self._committed = time.monotonic()

    def open_shards(self) -> None:
        """Before any work: open the output shards with pending items again, name those that a killed run left whole."""
        for shard in map(int, self._owned_shards):
            if self._pending_in_shard[shard]:
                self._sink.reopen(shard)
            else:
                self._publish_if_complete(shard)

    def add(self, outcome: Outcome) -> None:
        """Take an item's outcome; its bytes are written."""
        self._batch.append(outcome)

    def note(self, event: Event) -> None:
        """Take an event, for the next commit."""
        self._events.append(event)

    @property
    def waiting(self) -> int:
        """Outcomes that are not committed."""
        return len(self._batch)

    @property
    def due(self) -> bool:
        """True where something has waited for long enough, or there is enough of it."""
        waited = time.monotonic() - self._committed
        return bool(self._batch or self._events) and (waited > COMMIT_SECONDS or len(self._batch) >= COMMIT_ITEMS)

    def commit(self, record: RunRecord) -> None:
        """Data first, then the ledger, then the names that only whole shards get; `record` goes into the ledger too.

        Raises
        ------
        OutputError
            Something could not be made durable; what waited is given up, and its items stay pending.
        """
        self._committed = time.monotonic()
        if not self._batch and not self._events:
            return
        # Taken before the sync: after one that failed nothing of this batch may be called done, also not by a second
        # sync, which the kernel lets succeed although the pages are lost.
        batch, self._batch = self._batch, []
        events, self._events = self._events, []
        self._sync()
        record.at = time.time()
        self._ledger.commit(batch, record, events)
        for outcome in batch:
            self._states[outcome.ordinal] = outcome.state
            self._pending_in_shard[outcome.ordinal // self._place.shard_size] -= 1
        for shard in sorted({outcome.ordinal // self._place.shard_size for outcome in batch}):
            self._publish_if_complete(shard)
        if self._on_commit is not None:
            self._on_commit()

    def _publish_if_complete(self, shard: int) -> None:
        if self._pending_in_shard[shard] == 0 and not self._sink.published(shard):
            items = self._place.shard_items(shard)
            self._sink.publish(shard, self._states[items.start : items.stop] == DONE)

    def close(self) -> None:
        """Give the folder's descriptor back; what waits is given up."""
        self._sync.close()

"""What a run has come to so far: how many items and how fast, in which stages, with what of the machine."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence

import numpy as np

from gpupipe.closing import Closing
from gpupipe.gauges import Gauges
from gpupipe.machine import Usage
from gpupipe.member import Member
from gpupipe.outcome import DONE, FAILED, PENDING, Outcome, RunRecord
from gpupipe.posts import Post
from gpupipe.progress import Snapshot

_RATE_SECONDS = 20.0  # the rate is that of the last so many


class Tally(Closing):
    """Counts, for the display and for the ledger; made when the run begins.

    Parameters
    ----------
    states : numpy.ndarray
        uint8 [N], the ledger's state of each item when the run begins.
    owned : numpy.ndarray
        bool [N], items of this run shard.
    record : RunRecord
        Of this run; kept up to date.
    posts : sequence of Post

    Attributes
    ----------
    snapshot : Snapshot
        For displays.
    """

    def __init__(self, states: np.ndarray, owned: np.ndarray, record: RunRecord, posts: Sequence[Post]) -> None:
        before = states[owned]
        self.snapshot = Snapshot(
            total=int(owned.sum()),
            earlier=int((before != PENDING).sum()),
            done=int((before == DONE).sum()),
            failed=int((before == FAILED).sum()),
        )
        self._record = record
        self._gauges = Gauges(posts) if any(post.gpu for post in posts) else None
        self._began = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()

    def add(self, outcome: Outcome) -> None:
        """Count an item's outcome."""
        if outcome.state == DONE:
            self.snapshot.done += 1
        else:
            self.snapshot.failed += 1
            self.snapshot.reasons[outcome.error] += 1

    def use(self, stages: dict[str, float], before: Usage, now: Usage) -> None:
        """Add what a worker says: seconds by stage since it last did, and all that it used until then and until now."""
        record = self._record
        for stage, seconds in stages.items():
            record.stages[stage] = record.stages.get(stage, 0.0) + seconds
        record.cpu_seconds += now.cpu_seconds - before.cpu_seconds
        record.read_bytes += now.read_bytes - before.read_bytes
        record.written_bytes += now.written_bytes - before.written_bytes
        record.peak_bytes = max(record.peak_bytes, now.peak_bytes)

    def record(self, workers: int) -> RunRecord:
        """The run's record as of now; `workers` are at work."""
        record = self._record
        record.seconds, record.rate, record.workers = time.monotonic() - self._began, self.snapshot.rate, workers
        return record

    def look(self, members: Iterable[Member]) -> Snapshot:
        """The snapshot as of now; `members` are at work."""
        now, shown, record = time.monotonic(), self.snapshot, self._record
        shown.seconds = now - self._began
        shown.rate = self._rate(now, shown.done + shown.failed)
        if self._gauges is not None and self._gauges.look():
            shown.gpus = self._gauges.gauges
            record.facts["gpus"] = {gauge.label: gauge.record() for gauge in shown.gpus}
        shown.workers = [(member.number, member.pulse.read()) for member in members]
        shown.stages, shown.cpu_seconds, shown.peak_bytes = record.stages, record.cpu_seconds, record.peak_bytes
        shown.read_bytes, shown.written_bytes = record.read_bytes, record.written_bytes
        return shown

    def _rate(self, now: float, count: int) -> float:
        self._recent.append((now, count))
        while now - self._recent[0][0] > _RATE_SECONDS:
            self._recent.popleft()
        then, earlier = self._recent[0]
        return (count - earlier) / (now - then) if now > then else 0.0

    def close(self) -> None:
        """Give the cards' counters back."""
        if self._gauges is not None:
            self._gauges.close()

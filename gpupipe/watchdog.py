"""The watchdog: which workers are on one item for longer than it may take.

It reads the workers' pulses; nothing is asked of a worker, so one that hangs in native code is seen too. While the
supervisor itself does not run (stopped, or the machine asleep) nobody's time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gpupipe.member import Member

_LONGEST_TICK_SECONDS = 2.0  # the supervisor's loop turns several times a second; a longer gap was no turn of it
_CHECK_SECONDS = 1.0


class Watchdog:
    """Judges by item: `patience` gives the seconds that an ordinal may take."""

    def __init__(self, patience: Callable[[int], float]) -> None:
        self._patience = patience
        self._looked = time.monotonic()
        self._excused: dict[int, tuple[int, float]] = {}  # by worker: the item, and seconds that do not count

    def overdue(self, members: Iterable[Member]) -> list[Member]:
        """The workers whose time is over."""
        now = time.monotonic()
        gap, self._looked = now - self._looked, now
        gap = gap if gap > _LONGEST_TICK_SECONDS else 0.0
        late = []
        for member in members:
            beat = member.pulse.read()
            if beat.ordinal is None or member.hung:
                continue
            item, excused = self._excused.get(member.number, (beat.ordinal, 0.0))
            excused = (excused if item == beat.ordinal else 0.0) + min(gap, beat.seconds)
            if excused:
                self._excused[member.number] = beat.ordinal, excused
            worked = beat.seconds - excused
            if worked > _CHECK_SECONDS and worked > self._patience(beat.ordinal):
                late.append(member)
        return late

"""The watchdog: which workers are on an item for longer than it may take.

It reads the workers' pulses; nothing is asked of a worker, so one that hangs in native code is seen too. While the
supervisor itself does not run (stopped, or the machine asleep) nobody's time counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from gpupipe.fingerprint import patience_seconds
from gpupipe.job import Job
from gpupipe.member import Member
from gpupipe.plan import Plan

_LONGEST_TICK_SECONDS = 2.0  # the supervisor's loop turns several times a second; a longer gap was no turn of it
_CHECK_SECONDS = 1.0
IDLE_SECONDS = 300.0  # with work or told to end, and none in hand; a slow disk may hold a start or a write for a while


def patience(job: Job, plan: Plan, item_timeout: float | None) -> Callable[[int], float]:
    """Seconds that each ordinal may take: as many as were asked for, else by its input's size and the job's pace."""
    return lambda ordinal: item_timeout or patience_seconds(job.input_file(plan.item(ordinal)), job.pace)


class Watchdog:
    """Judges by item: `patience` gives the seconds that an ordinal may take. One stopped between items is seen too."""

    def __init__(self, patience: Callable[[int], float]) -> None:
        self._patience = patience
        self._looked = time.monotonic()
        self._excused: dict[tuple[int, int], float] = {}  # by worker and item: seconds that do not count
        self._idle: dict[Member, tuple[int, float]] = {}  # items it completed, and seconds since that count

    def overdue(self, members: Iterable[Member]) -> list[tuple[Member, int | None]]:
        """The workers whose time is over, and on which item; None where one did not begin what it was given, or
        does not end.
        """
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        gap = passed if passed > _LONGEST_TICK_SECONDS else 0.0
        late: list[tuple[Member, int | None]] = []
        excused: dict[tuple[int, int], float] = {}
        for member in members:
            if member.hung:
                continue
            beats = member.pulse.items()
            if not beats:
                late += [(member, None)] if self._idles(member, passed - gap) else []
                continue
            self._idle.pop(member, None)
            for beat in beats:
                assert beat.ordinal is not None
                key = member.number, beat.ordinal
                excused[key] = self._excused.get(key, 0.0) + min(gap, beat.seconds)
                worked = beat.seconds - excused[key]
                if worked > _CHECK_SECONDS and worked > self._patience(beat.ordinal):
                    late.append((member, beat.ordinal))
                    break
        self._excused = excused
        return late

    def _idles(self, member: Member, passed: float) -> bool:
        if not member.outstanding and not member.stopping:
            self._idle.pop(member, None)
            return False
        completed, seconds = self._idle.get(member, (member.completed, 0.0))
        seconds = seconds + passed if completed == member.completed else 0.0
        self._idle[member] = member.completed, seconds
        return seconds > IDLE_SECONDS

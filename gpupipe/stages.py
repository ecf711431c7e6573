"""Where a worker's time goes: busy seconds by stage, and the stage it is in right now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, perf_counter

from gpupipe.pulse import Pulse

START = "start"
AUDIT = "audit"
WAITS = ("wait", "wait to write", "wait for card")
"""Stages in which nothing is done: there is no lease, storage is behind, or the GPU is."""


class Stages:
    """Busy seconds by stage. Entering a stage inside another pauses the outer one.

    One thread at a time, but :meth:`take`, which any may call.

    Parameters
    ----------
    pulse : Pulse, optional
        Shows the stage.
    seat : int, optional
        Of the pulse, for the time of items; None for the time between them.
    """

    def __init__(self, pulse: Pulse | None = None, seat: int | None = None) -> None:
        self.failed_in = ""
        self._seconds: dict[str, float] = {}
        self._taken: dict[str, float] = {}
        self._stack: list[str] = []
        self._since = perf_counter()
        self._pulse, self._seat = pulse, seat
        self._began = monotonic()

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count the block's time as `stage`; an error leaving it is remembered as that stage's."""
        self._switch()
        self._stack.append(stage)
        self._show()
        try:
            yield
        except BaseException:
            self.failed_in = self.failed_in or stage
            raise
        finally:
            self._switch()
            self._stack.pop()
            self._show()

    def begin(self, ordinal: int) -> None:
        """An item takes the seat."""
        self.failed_in, self._began = "", monotonic()
        if self._pulse is not None and self._seat is not None:
            self._pulse.item(ordinal, self._seat)

    def seconds(self) -> float:
        """Since :meth:`begin`."""
        return monotonic() - self._began

    def end(self) -> None:
        """The item leaves it."""
        if self._pulse is not None and self._seat is not None:
            self._pulse.item(None, self._seat)

    def _switch(self) -> None:
        now = perf_counter()
        if self._stack:
            stage = self._stack[-1]
            self._seconds[stage] = self._seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def _show(self) -> None:
        if self._pulse is not None:
            self._pulse.stage(self._stack[-1] if self._stack else "", self._seat)

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by stage."""
        before, self._taken = self._taken, self._seconds.copy()  # one step, whatever the other thread does
        taken = {stage: seconds - before.get(stage, 0.0) for stage, seconds in self._taken.items()}
        return {stage: seconds for stage, seconds in taken.items() if seconds}

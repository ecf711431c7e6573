"""Where a worker's time goes: busy seconds by stage, and the stage it is in right now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from gpupipe.pulse import Pulse


class Stages:
    """Busy seconds by stage. Entering a stage inside another pauses the outer one; not thread-safe.

    The waiting stages are ``wait`` (no lease to work on) and those an operator adds.
    """

    def __init__(self, pulse: Pulse | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.failed_in = ""
        self._stack: list[str] = []
        self._since = perf_counter()
        self._pulse = pulse

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

    def _switch(self) -> None:
        now = perf_counter()
        if self._stack:
            stage = self._stack[-1]
            self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._since
        self._since = now

    def _show(self) -> None:
        if self._pulse is not None:
            self._pulse.stage(self._stack[-1] if self._stack else "")

    def take(self) -> dict[str, float]:
        """Seconds since the last call, by stage."""
        taken, self.seconds = self.seconds, {}
        return taken

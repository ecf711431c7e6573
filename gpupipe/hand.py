"""A hand: a process that is asked about one item at a time, ended when it hangs, replaced when it dies.

What a supervisor is for a run, for a few items whose answers are waited for.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpupipe.closing import Closing
from gpupipe.death import death
from gpupipe.errors import StoppedError
from gpupipe.member import Member
from gpupipe.posts import Post
from gpupipe.watchdog import Watchdog

START_SECONDS = 60.0  # to import and set up, on a busy machine with cold disks
_TICK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Lost:
    """The process did not survive the item, or gave it up: no answer."""

    error: str
    message: str


class Hand(Closing):
    """Asks a process of the program `module`; the next question after a death starts another one.

    Parameters
    ----------
    module : str
        ``"gpupipe.worker"`` or one that is told the same and shows the same pulse.
    setup : dict
        What it is told first.
    folder : Path
        For its log.
    patience : callable
        Seconds that an item may take, by its ordinal.
    post : Post, optional
        Where it works; default a CPU core.
    """

    def __init__(
        self,
        module: str,
        setup: dict[str, Any],
        folder: Path,
        patience: Callable[[int], float],
        post: Post | None = None,
    ) -> None:
        self._module, self._setup, self._folder, self._patience = module, setup, folder, patience
        self._post = post
        self._watchdog = Watchdog(patience)
        self._member: Member | None = None
        self._started = 0

    @property
    def started(self) -> int:
        """Processes so far."""
        return self._started

    def ask(self, question: dict[str, Any], answers: Callable[[Any], bool]) -> list[Any] | Lost:
        """Send one message and wait for the one that `answers` it.

        Returns
        -------
        list or Lost
            Every message up to that one, or why there is none.

        Raises
        ------
        StoppedError
            The process ends, or does nothing, without an item in hand: it would with any other too.
        """
        if self._member is None:
            self._member = Member.spawn(self._started, self._setup, self._folder, self._module, self._post)
            self._started += 1
        member = self._member
        asked = time.monotonic()
        member.wire.send(question)
        heard: list[Any] = []
        with selectors.DefaultSelector() as selector:
            selector.register(member.wire, selectors.EVENT_READ)
            while not member.wire.closed:
                if selector.select(_TICK_SECONDS):
                    for message in member.wire.receive():
                        heard.append(message)
                        if not {"fatal", "starved", "lost"}.isdisjoint(message):
                            return self._given_up(member, message)
                        if answers(message):
                            return heard
                for _, ordinal in self._watchdog.overdue([member]):
                    self.close()
                    words = "not done" if ordinal is None else f"not done after {self._patience(ordinal):g} s"
                    return Lost("hang", words)
                if member.pulse.read().ordinal is None and time.monotonic() - asked > START_SECONDS:
                    raise StoppedError(f"a worker did not start within {START_SECONDS:.0f} s")
        return self._died(member)

    def _given_up(self, member: Member, message: Any) -> Lost:
        at_work = member.pulse.read().ordinal is not None
        self.close()
        if "starved" in message:
            return Lost("memory", "it needs more memory than --memory-per-worker grants, or than there is")
        if "lost" in message or not at_work:
            raise StoppedError(message.get("lost") or message["fatal"])
        return Lost("stopped", message["fatal"].strip().rpartition("\n")[2])

    def _died(self, member: Member) -> Lost:
        self._member = None
        why, beat = death(member.reap()), member.pulse.read()
        member.pulse.close()
        if beat.ordinal is None:
            tail = member.log.read_text(errors="replace")[-2000:].strip()
            raise StoppedError(f"a worker died without an item in hand ({why}); it said:\n{tail}")
        return Lost("crash", f"its process ended: {why}, in stage {beat.stage or 'unknown'}")

    def close(self) -> None:
        """End the process."""
        if self._member is not None:
            self._member.reap()
            self._member.pulse.close()
            self._member = None

"""Work made ready by a few threads before it is wanted: storage is waited for beside the computing, not before it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from gpupipe.job import Completion, Work, worked

Ready = TypeVar("Ready")

Outcome = tuple[Work, Ready | Completion]


class Ahead(Generic[Ready]):
    """The threads of one stream.

    Parameters
    ----------
    stream : iterable of Work
        Asked by one thread at a time, and never by one that has work in hand: it may wait for what is not yet done.
    prepare : callable of Work
        Makes it ready; what it raises becomes the item's completion, see :func:`gpupipe.job.worked`.
    nbytes_of : callable
        Memory that something ready holds.
    threads : int
    room : int
        Works that may be ready and not yet taken.
    nbytes : int
        Memory for them; a single larger one waits until nothing else is there.
    """

    def __init__(
        self,
        stream: Iterable[Work],
        prepare: Callable[[Work], Ready],
        nbytes_of: Callable[[Ready], int],
        threads: int,
        room: int,
        nbytes: int,
    ) -> None:
        self._stream, self._prepare, self._nbytes_of = iter(stream), prepare, nbytes_of
        self._room, self._nbytes = room, nbytes
        self._turn = threading.Lock()
        self._change = threading.Condition()
        self._ready: deque[tuple[Outcome[Ready], int]] = deque()
        self._held = 0
        self._working = threads
        self._over = False
        self._error: BaseException | None = None
        for number in range(threads):
            # One may be waiting in the stream when nothing is wanted any more: it must not hold the process.
            threading.Thread(target=self._run, name=f"ahead-{number}", daemon=True).start()

    def take(self, most: int, wait: bool = True) -> list[Outcome[Ready]] | None:
        """What is ready, at most so many, in any order; None once the stream has ended and all was taken.

        Parameters
        ----------
        most : int
            How many.
        wait : bool
            Until there is at least one; else what is taken may be empty.

        Raises
        ------
        Exception
            As a thread met it, where it is not an item's own.
        """
        with self._change:
            if wait:
                self._change.wait_for(lambda: self._ready or self._error is not None or not self._working)
            if self._error is not None:
                raise self._error
            if not self._ready:
                return [] if self._working else None
            taken = [self._ready.popleft() for _ in range(min(most, len(self._ready)))]
            self._held -= sum(nbytes for _, nbytes in taken)
            self._change.notify_all()
        return [outcome for outcome, _ in taken]

    def end(self) -> None:
        """Nothing more is wanted."""
        with self._change:
            self._over = True
            self._change.notify_all()

    def _run(self) -> None:
        try:
            while (work := self._take()) is not None:
                self._put(work, worked(self._prepare, work))
        except BaseException as error:  # raised again where the work is taken
            with self._change:
                self._error = self._error or error
                self._over = True
        finally:
            with self._change:
                self._working -= 1
                self._change.notify_all()

    def _take(self) -> Work | None:
        with self._turn:
            if self._over:
                return None
            work = next(self._stream, None)
            if work is None:
                self._over = True
            return None if self._over else work

    def _put(self, work: Work, made: Ready | Completion) -> None:
        nbytes = 0 if isinstance(made, Completion) else self._nbytes_of(made)
        with self._change:
            self._change.wait_for(
                lambda: self._over or not self._ready or (len(self._ready) < self._room and self._fits(nbytes))
            )
            self._ready.append(((work, made), nbytes))
            self._held += nbytes
            self._change.notify_all()

    def _fits(self, nbytes: int) -> bool:
        return self._held + nbytes <= self._nbytes

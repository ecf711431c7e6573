"""Decoders of one card, kept and lent: making one costs 50 to 300 ms, beginning again with one a few."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from gpupipe.decode.session import Capability, Session, StreamKind, VideoEngine
from gpupipe.errors import DeviceMemoryError, UsageError

Key = tuple[StreamKind, int, int]
"""What a session was made for: kind and the largest height and width, which are those of a bucket."""

_SMALLEST = 256
_KEPT_PER_ENGINE = 2  # so that a mixture of kinds does not make and close decoders all the time


@dataclass(slots=True)
class _Loan:
    """A session in use."""

    key: Key
    thread: threading.Thread  # not its number: those are given again


class DecoderPool:
    """Lends sessions, as many at a time as the card has engines, first come, first served.

    A thread that holds a session already does not wait for an engine: it would wait for itself. It gets one more.

    Parameters
    ----------
    engine : VideoEngine

    Notes
    -----
    Threads may share it. Sessions are made when they are first needed and kept when they are given back; the one that
    was idle longest is closed where there are too many of them, or no memory for another.
    """

    def __init__(self, engine: VideoEngine) -> None:
        self.engine = engine
        self._capabilities: dict[StreamKind, Capability | None] = {}
        self._idle: list[tuple[Key, Session]] = []  # the one that was used last at the end
        self._lent: dict[Session, _Loan] = {}
        self._making: list[threading.Thread] = []  # threads that make one
        self._starved: list[threading.Thread] = []  # threads that wait for memory
        self._queue: deque[object] = deque()
        self._closed = False
        self._changed = threading.Condition()
        self._asking = threading.Lock()

    @property
    def name(self) -> str:
        """Of the card."""
        return self.engine.name

    def capability(self, kind: StreamKind) -> Capability | None:
        """What the card decodes of this kind, asked once."""
        with self._asking:
            if kind not in self._capabilities:
                self._capabilities[kind] = self.engine.capability(kind)
            return self._capabilities[kind]

    def take(self, kind: StreamKind, height: int, width: int) -> Session:
        """Borrow a session that has begun with pictures of this size; waits for one.

        Raises
        ------
        DeviceMemoryError
            There is no memory for it, and nobody else holds any that could come free.
        DecodeError
            The card refuses it.
        DeviceLostError
        """
        capability = self.capability(kind)
        assert capability is not None, "the card does not decode this kind"
        key = (kind, *_bucket(height, width, capability))
        self._enter(capability.engines)
        try:
            session = self._begun(key, height, width, capability.engines)
        finally:
            with self._changed:
                self._making.remove(threading.current_thread())
                self._changed.notify_all()
        return session

    def give(self, session: Session, sound: bool = True) -> None:
        """Take a session back; one that raised is not `sound`, and is closed."""
        kept = sound and not self._closed
        if not kept:
            session.close()  # before anybody hears of it: they wait for its memory
        with self._changed:
            loan = self._lent.pop(session)
            if kept:
                self._idle.append((loan.key, session))
            self._changed.notify_all()
        if kept and self._closed:
            self.shed()

    def shed(self) -> None:
        """Close what is idle: its memory is needed."""
        while self._close_one():
            pass

    def close(self) -> None:
        """Close what is idle; what is lent is closed when it comes back. May be called again."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.shed()

    # -- taking ------------------------------------------------------------------------------------------------------

    def _enter(self, engines: int) -> None:
        """Wait for a turn and an engine."""
        me, ticket = threading.current_thread(), object()
        with self._changed:
            if not any(loan.thread == me for loan in self._lent.values()):
                self._queue.append(ticket)
                try:
                    self._changed.wait_for(lambda: self._closed or self._is_next(ticket, engines))
                finally:
                    self._queue.remove(ticket)
                    self._changed.notify_all()
            if self._closed:
                raise UsageError(f"the decoders of {self.name} are closed")
            self._making.append(me)

    def _is_next(self, ticket: object, engines: int) -> bool:
        return self._queue[0] is ticket and len(self._lent) + len(self._making) < engines

    def _begun(self, key: Key, height: int, width: int, engines: int) -> Session:
        """A session that has begun; room for it is made as far as that can be done."""
        while True:
            session = self._idle_one(key)
            try:
                if session is None:
                    self._make_room(_KEPT_PER_ENGINE * engines)
                    session = self.engine.session(*key)
                session.begin(height, width)
            except DeviceMemoryError:
                if session is not None:
                    session.close()
                if not self._close_one() and not self._wait_for_memory():
                    raise
            except BaseException:
                if session is not None:
                    session.close()
                raise
            else:
                with self._changed:
                    self._lent[session] = _Loan(key, threading.current_thread())
                return session

    def _idle_one(self, key: Key) -> Session | None:
        with self._changed:
            for place in reversed(range(len(self._idle))):
                if self._idle[place][0] == key:
                    return self._idle.pop(place)[1]
        return None

    def _make_room(self, most: int) -> None:
        """Close what was idle longest until one more may be made."""
        while True:
            with self._changed:
                if len(self._idle) + len(self._lent) < most:
                    return
            if not self._close_one():
                return

    def _close_one(self) -> bool:
        """Close the session that was idle longest; False if none is idle."""
        with self._changed:
            if not self._idle:
                return False
            _, session = self._idle.pop(0)
        session.close()
        return True

    def _wait_for_memory(self) -> bool:
        """Wait until somebody gives a session back; False if all who hold one wait as well."""
        me = threading.current_thread()
        with self._changed:
            self._starved.append(me)
            self._changed.notify_all()  # whoever waits like this one may have been waiting for it
            try:
                held = len(self._lent)
                self._changed.wait_for(lambda: self._idle or len(self._lent) < held or self._is_stuck())
                return bool(self._idle) or len(self._lent) < held
            finally:
                self._starved.remove(me)

    def _is_stuck(self) -> bool:
        """True if nobody is left who could give anything back."""
        active = {loan.thread for loan in self._lent.values()} | set(self._making)
        return active <= set(self._starved)


def _bucket(height: int, width: int, capability: Capability) -> tuple[int, int]:
    """The largest (height, width) that a session is made for: little more, since oversized ones are slow."""
    return min(_step(height), capability.max_height), min(_step(width), capability.max_width)


def _step(side: int) -> int:
    """The next of 256, 384, 512, 768, 1024, 1536, ..."""
    step = _SMALLEST
    while step < side:
        if step * 3 // 2 >= side:
            return step * 3 // 2
        step *= 2
    return step

"""Collects pictures of many clips and has them resized by one launch.

A launch costs the same for one picture as for sixty, so pictures wait while the card is busy and go together when it
is not: batches grow by themselves under load, and nothing waits where there is none. Nobody waits for a single picture
either; what is behind a launch is known by its event.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from gpupipe.cuda.card import Card, Event, Stream, Target
from gpupipe.decode.session import Picture
from gpupipe.errors import DeviceLostError, DeviceMemoryError, GpupipeError, StoppedError
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface

BATCH = 64
_IN_FLIGHT = 2  # launches: one runs, one is ready behind it
_BACKLOG = 4  # batches that may wait before who submits has to


@dataclass(slots=True, eq=False)
class Entry:
    """One picture on its way through the kernel; its fields belong to the batcher.

    Attributes
    ----------
    surface : DeviceSurface
    resizer : Resizer
    target : Target
    waiting : bool
        It is not on its way to the card yet.
    event : Event or None
        Behind its launch.
    launch : int
        Number of that, ascending.
    error : GpupipeError or None
        Why it is not launched.
    waiter : threading.Condition or None
        Whoever is to hear of it.
    """

    surface: DeviceSurface
    resizer: Resizer
    target: Target
    waiting: bool = True
    event: Event | None = None
    launch: int = 0
    error: GpupipeError | None = None
    waiter: threading.Condition | None = field(default=None, repr=False)

    @property
    def settled(self) -> bool:
        """True once it was launched, or never will be."""
        return self.event is not None or self.error is not None


class Batcher:
    """Of one worker; any thread may submit.

    A thread launches, in the order of submission, and one waits for what was launched and gives its pictures back.

    Parameters
    ----------
    card : Card
    stream : Stream
        For the launches; the engine's pictures are ready for work enqueued here.
    tell : callable of str
        Told of what a person should know.
    batch : int
        Most pictures a launch. Where the card has not enough memory for so many it is halved, for good.

    Attributes
    ----------
    batch : int
        Most pictures a launch, by now.
    """

    def __init__(self, card: Card, stream: Stream, tell: Callable[[str], object], batch: int = BATCH) -> None:
        self.batch = batch
        self._card, self._stream, self._tell = card, stream, tell
        self._lock = threading.Lock()
        self._due = threading.Condition(self._lock)  # for the launcher: there is something to launch
        self._landing = threading.Condition(self._lock)  # for the other thread: there is something to wait for
        self._room = threading.Condition(self._lock)  # for those that submit
        self._waiting: deque[Entry] = deque()
        self._flying: deque[tuple[Event, Sequence[Entry]]] = deque()
        self._heard: set[threading.Condition] = set()
        self._launches = 0
        self._error: GpupipeError | None = None
        self._closed = self._launched_all = False
        self._threads = [
            threading.Thread(target=self._guarded, args=(run,), name=f"batcher-{run.__name__.strip('_')}", daemon=True)
            for run in (self._launch, self._land)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, surface: DeviceSurface, resizer: Resizer, target: Target) -> Entry:
        """Have a picture resized into its target, and given back behind that; blocks while too many wait.

        Two pictures for one target may not both be waiting: withdraw the first.

        Raises
        ------
        DeviceLostError, StoppedError
        """
        entry = Entry(surface, resizer, target)
        with self._lock:
            self._room.wait_for(lambda: len(self._waiting) < _BACKLOG * self.batch or self._error is not None)
            self._check()
            self._waiting.append(entry)
            if self._ready():
                self._due.notify()
        return entry

    def launched(self, entries: Sequence[Entry]) -> Event:
        """Wait until these were launched, given in any order; return the event behind the last of them.

        Raises
        ------
        DeviceMemoryError, UnsupportedError, InputError
            One of them could not be.
        DeviceLostError, StoppedError
        """
        heard = threading.Condition(self._lock)
        last: Entry | None = None
        with self._lock:
            self._heard.add(heard)
            for entry in entries:
                entry.waiter = heard
                while not entry.settled and self._error is None:
                    heard.wait()
                if last is None or entry.launch > last.launch:
                    last = entry
            self._heard.discard(heard)
            self._check()
        for entry in entries:
            if entry.error is not None:
                raise entry.error
        assert last is not None, "no picture was asked for"
        assert last.event is not None, "settled without an error: launched"
        return last.event

    def withdraw(self, entries: Iterable[Entry]) -> None:
        """Give pictures back that nobody wants any more, those that are not on their way; the others go theirs."""
        with self._lock:
            found = [entry for entry in entries if entry.waiting]
            for entry in found:
                entry.waiting = False
                self._waiting.remove(entry)
            if found:
                self._room.notify_all()
        for entry in found:
            _release(entry)

    def close(self) -> None:
        """Launch what waits, wait for it, and end."""
        with self._lock:
            self._closed = True
            self._due.notify()
        for thread in self._threads:
            thread.join()

    # ---- the launcher

    def _launch(self) -> None:
        while True:
            with self._lock:
                self._due.wait_for(lambda: self._ready() or self._closed or self._error is not None)
                if not self._waiting or self._error is not None:
                    return
                entries = [self._waiting.popleft() for _ in range(min(self.batch, len(self._waiting)))]
                for entry in entries:
                    entry.waiting = False
                self._room.notify_all()
            self._enqueue(entries)

    def _ready(self) -> bool:
        full = len(self._waiting) >= self.batch and len(self._flying) < _IN_FLIGHT
        return full or bool(self._waiting and not self._flying)

    def _enqueue(self, entries: list[Entry]) -> None:
        singly = False
        while entries:
            part = entries[: 1 if singly else self.batch]
            with self._lock:
                self._due.wait_for(lambda: len(self._flying) < _IN_FLIGHT or self._error is not None)
                if self._error is not None:
                    return
            try:
                self._card.resize([(entry.surface, entry.resizer, entry.target) for entry in part], self._stream)
            except DeviceLostError:
                raise
            except DeviceMemoryError as error:
                if len(part) > 1:
                    self._halve(len(part))
                    continue
                if self._drained():  # what runs may have held the memory
                    continue
                self._settle(part, None, error)
            except GpupipeError as error:
                if len(part) > 1:  # of one of them, and only that one shall have it
                    singly = True
                    continue
                self._settle(part, None, error)
            else:
                self._settle(part, self._stream.record(), None)
            del entries[: len(part)]

    def _halve(self, count: int) -> None:
        with self._lock:
            self.batch = count // 2
        self._tell(f"{self._card.name}: no memory for {count} pictures a launch; at most {self.batch} from here on")

    def _drained(self) -> bool:
        """Wait until nothing is in flight; False where nothing was."""
        with self._lock:
            flying = bool(self._flying)
            self._due.wait_for(lambda: not self._flying or self._error is not None)
            return flying

    def _settle(self, entries: Sequence[Entry], event: Event | None, error: GpupipeError | None) -> None:
        with self._lock:
            self._launches += 1
            for entry in entries:
                entry.event, entry.error, entry.launch = event, error, self._launches
                if entry.waiter is not None:
                    entry.waiter.notify()
            if event is not None:
                self._flying.append((event, entries))
                self._landing.notify()
        if event is None:
            for entry in entries:
                _release(entry)

    # ---- the one that waits

    def _land(self) -> None:
        while True:
            with self._lock:
                self._landing.wait_for(lambda: self._flying or self._launched_all)
                if not self._flying:
                    return
                event, entries = self._flying[0]
            event.wait()
            for entry in entries:
                _release(entry)
            with self._lock:
                self._flying.popleft()
                self._due.notify()

    # ---- the end

    def _guarded(self, run: Callable[[], None]) -> None:
        try:
            run()
        except DeviceLostError as error:
            self._fail(error)
        except BaseException as error:  # every item would fail likewise
            stopped = StoppedError(f"{self._card.name}: the batcher ended: {type(error).__name__}: {error}")
            stopped.__cause__ = error
            self._fail(stopped)
        finally:
            if run == self._launch:
                with self._lock:
                    self._launched_all = True
                    self._landing.notify()

    def _fail(self, error: GpupipeError) -> None:
        with self._lock:
            self._error = self._error or error
            for condition in (self._due, self._room, *self._heard):
                condition.notify_all()

    def _check(self) -> None:
        if self._error is not None:  # anew: several threads raise it
            raise type(self._error)(str(self._error)) from self._error


def _release(entry: Entry) -> None:
    picture = entry.surface.owner
    assert isinstance(picture, Picture)
    picture.release()

"""The operator of a GPU worker: several items in hand, each in a thread of its own, a *lane*.

One item waits for packets, another for the decoder, a third for its rows to be copied: that is how they overlap. Every
lane has its own process function, so that nothing below it is shared but what was made for it: the pool of decoders
and the batcher.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from gpupipe.cuda.batcher import Batcher
from gpupipe.cuda.device import Device
from gpupipe.cuda.slots import DeviceRows
from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.session import StreamKind, VideoEngine
from gpupipe.errors import DeviceLostError, DeviceMemoryError, StoppedError
from gpupipe.job import Completion, ItemMemoryError, Work, worked
from gpupipe.pulse import SEATS
from gpupipe.types import Size

MAX_LANES = 32
_ROWS_NBYTES = 4 << 30  # of all lanes, on the card and again pinned; more lanes than fit are of no use
_COMMON = (StreamKind("h264", "420", 8), StreamKind("hevc", "420", 8), StreamKind("vp9", "420", 8))
_LAST_SECONDS = 2.0  # for lanes that may be held by a lost device, or wait for memory that never comes


class Process(Protocol):
    """What one lane does with one item at a time."""

    def __call__(self, work: Work) -> Completion:
        """Work it."""

    def close(self) -> None:
        """Give decoders and buffers back."""


class Lanes:
    """An operator with as many items in hand as it was given processes.

    Parameters
    ----------
    processes : sequence of Process
        One a lane; owned.
    close : callable, optional
        Gives back what they share, after they were closed.
    """

    def __init__(self, processes: Sequence[Process], close: Callable[[], None] | None = None) -> None:
        self.depth = len(processes)
        self._processes, self._close = processes, close

    @classmethod
    def on(cls, device: Device, count: int, size: Size, make: Callable[[DecoderPool, DeviceRows], Process]) -> Lanes:
        """Lanes on a card: two for each unit that decodes, so that none waits for the other's kernel and copy, and two
        for what FFmpeg decodes; fewer where their rows do not fit.

        Parameters
        ----------
        device : Device
            Its decoders and its kernel.
        count : int
            Rows a lane has on the card at a time.
        size : (int, int)
            ``(height, width)`` of a row in pixels.
        make : callable of (DecoderPool, DeviceRows)
            Makes the process of one lane from what all share and what is its own.

        Raises
        ------
        StoppedError
            The card has not memory for the rows of a single item.
        """
        pool, batcher = DecoderPool(device.engine), Batcher(device.card, device.stream, device.tell)
        nbytes = count * size[0] * size[1] * 3
        wanted = min(2 * _engines(device.engine) + 2, MAX_LANES, SEATS, max(1, _ROWS_NBYTES // nbytes))
        rows: list[DeviceRows] = []
        try:
            while len(rows) < wanted:
                rows.append(DeviceRows(device.card, batcher, count, size))
        except DeviceMemoryError as error:
            if not rows:
                batcher.close()
                raise StoppedError(
                    f"{device.card.name}: no memory for the {count} rows of one item ({nbytes} bytes): {error}. Free "
                    "some, ask for fewer or smaller frames, or use --backend ffmpeg"
                ) from error

        def close() -> None:
            batcher.close()
            pool.close()

        return cls([make(pool, each) for each in rows], close)

    def run(self, stream: Iterable[Work]) -> Iterator[Completion]:
        """Work the stream, which is taken from by one lane at a time; an item's error is its own.

        However it ends, lanes with an item in hand end it first. Only where the device or the memory gives out, they
        are not waited for any longer than a moment.

        Raises
        ------
        OutputError, StoppedError, UsageError, DeviceLostError, ItemMemoryError
            As the first lane met it.
        """
        shift = _Shift(iter(stream), self._processes)
        seconds: float | None = None
        try:
            yield from shift.completions()
        except (DeviceLostError, ItemMemoryError):
            seconds = _LAST_SECONDS
            raise
        finally:
            shift.end(seconds)

    def close(self) -> None:
        """Give decoders and buffers back."""
        for process in self._processes:
            process.close()
        if self._close is not None:
            self._close()


class _Shift:
    """The lanes at work on one stream."""

    def __init__(self, stream: Iterator[Work], processes: Sequence[Process]) -> None:
        self._stream = stream
        self._turn = threading.Condition()
        self._taker: threading.Thread | None = None
        self._over = False  # no further item is begun
        self._said: queue.SimpleQueue[Completion | BaseException | None] = queue.SimpleQueue()
        # A lane may be waiting in the stream when nobody wants its items any more: it must not hold the process.
        self._threads = [
            threading.Thread(target=self._lane, args=(process,), name=f"lane-{number}", daemon=True)
            for number, process in enumerate(processes)
        ]
        for thread in self._threads:
            thread.start()

    def completions(self) -> Iterator[Completion]:
        """Those of all lanes, until each has ended; raises what ended one of them."""
        left = len(self._threads)
        while left:
            said = self._said.get()
            if said is None:
                left -= 1
            elif isinstance(said, BaseException):
                raise said
            else:
                yield said

    def end(self, seconds: float | None) -> None:
        """Begin nothing more and wait for the lanes at work, at most so long."""
        with self._turn:
            taker = self._taker
            self._stop()
        last = None if seconds is None else time.monotonic() + seconds
        for thread in self._threads:
            if thread is not taker:  # that one has no item, and ends as soon as the stream lets go of it
                thread.join(None if last is None else max(0.0, last - time.monotonic()))

    def _stop(self) -> None:
        self._over = True
        self._turn.notify_all()

    def _lane(self, process: Process) -> None:
        try:
            while (work := self._take()) is not None:
                self._said.put(worked(process, work))
        except BaseException as error:  # raised again where the completions are taken
            with self._turn:
                self._stop()
            self._said.put(error)
        else:
            self._said.put(None)

    def _take(self) -> Work | None:
        with self._turn:
            self._turn.wait_for(lambda: self._taker is None or self._over)
            if self._over:
                return None
            self._taker = threading.current_thread()
        work = None
        try:
            work = next(self._stream, None)
        finally:
            with self._turn:
                self._taker = None
                if work is None:
                    self._stop()
                self._turn.notify()
        return None if self._over else work


def _engines(engine: VideoEngine) -> int:
    """Units of the card that decode at the same time."""
    return max((found.engines for kind in _COMMON if (found := engine.capability(kind)) is not None), default=1)

"""Making a done item again, and comparing: for ``verify --deep``, and for ``--audit`` beside a run on GPUs."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any

import xxhash

from gpupipe.errors import InputError
from gpupipe.fingerprint import change
from gpupipe.job import Job, Work, decoding_with
from gpupipe.memory import HostSlots
from gpupipe.sinks.base import Place, Sink
from gpupipe.sinks.files import checksum_of
from gpupipe.stages import AUDIT, Stages


class Again:
    """Makes items with FFmpeg on a CPU core, whatever made them; writes nothing to the output.

    Parameters
    ----------
    job : Job
        Its own backend is not asked: there may be no card here.
    place : Place
        Its ``staging`` takes what a long item needs beside memory.
    """

    def __init__(self, job: Job, place: Place) -> None:
        self._job = job = decoding_with(job, "ffmpeg")
        self._sink: Sink = job.sink(place)
        self._slots = HostSlots(job.rows())
        self._operator = job.operator(place, None)

    def difference(self, ordinal: int, item: Any, fingerprint: str, checksum: str) -> str:
        """How the item differs from the one that was written, in words; empty where it does not."""
        path = self._job.input_file(item)
        what = change(fingerprint, path)
        if what != "same":
            return f"the input of item {ordinal} is {what} since it was done"
        slot = self._slots.acquire(ordinal)
        assert slot is not None
        (completion,) = self._operator.run([Work(ordinal, item, slot)])
        error = completion.error
        try:
            again = "" if completion.sample is None else checksum_of(self._sink.members(completion.sample))
        except InputError as late:
            error = late
        self._slots.release(slot)
        if error is not None:
            return f"item {ordinal} was done, and fails now: {type(error).__name__}: {error}"
        return "" if again == checksum else f"item {ordinal} is made otherwise now"

    def close(self) -> None:
        """Give the decoder back."""
        self._operator.close()


class Audit:
    """Makes a share of the items again, in a thread of its own, while the run goes on.

    Which ones follows from their ordinals alone, so that a resumed run audits those that the whole one would.

    Parameters
    ----------
    again : Again
    share : float
    tell : callable of (int, str)
        Given the ordinal and the difference of each; empty for none. Called by the audit's thread.
    stages : Stages, optional
        With a seat of its own, so that it is seen from outside which item is being made again, and for how long.
    """

    def __init__(
        self, again: Again, share: float, tell: Callable[[int, str], object], stages: Stages | None = None
    ) -> None:
        self._again, self._share, self._tell, self._stages = again, share, tell, stages or Stages()
        self._queue: queue.Queue[tuple[int, Any, str, str] | None] = queue.Queue(maxsize=64)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="audit", daemon=True)
        self._thread.start()

    def chooses(self, ordinal: int) -> bool:
        """True for its share of all ordinals."""
        return xxhash.xxh3_64_intdigest(ordinal.to_bytes(8, "little")) < self._share * 2**64

    def put(self, ordinal: int, item: Any, fingerprint: str, checksum: str) -> None:
        """Have a written item made again; waits where many do.

        Raises
        ------
        Exception
            An earlier one could not be made, for a reason that is not its own.
        """
        if self._error is not None:
            raise self._error
        self._queue.put((ordinal, item, fingerprint, checksum))

    def finish(self) -> None:
        """Wait until all are made; raises like :meth:`put`."""
        self._queue.put(None)
        self._thread.join()
        self._again.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        with self._stages(AUDIT):
            while (one := self._queue.get()) is not None:
                if self._error is None:
                    self._stages.begin(one[0])
                    try:
                        self._tell(one[0], self._again.difference(*one))
                    except BaseException as error:  # handed to whoever puts the next one, and no more are made
                        self._error = error
                    self._stages.end()

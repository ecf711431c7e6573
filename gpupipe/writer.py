"""The writer of a worker: puts finished items into their places, in a thread while the next one is decoded.

It owns a slot from the moment a completion is handed over until the item is written; hashing and writing hold no GIL.
Items so small that handing them to a thread costs more than writing them are written at once. It also tells the
supervisor what was written: an item is reported only after its bytes were handed to storage.
"""

from __future__ import annotations

import queue
import threading
import time
import traceback
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from gpupipe.again import Audit
from gpupipe.errors import GpupipeError, InputError
from gpupipe.fingerprint import ABSENT, fingerprint
from gpupipe.job import Completion, ItemMemoryError, Job
from gpupipe.machine import usage
from gpupipe.memory import HostSlots
from gpupipe.outcome import DONE, FAILED
from gpupipe.sinks.base import Sink
from gpupipe.sinks.files import Checksum
from gpupipe.stages import Stages
from gpupipe.wire import Wire

REPORT_SECONDS = 0.2
_STATE, _CHECKSUM = 1, 5  # places in a row for the ledger
_THREAD_PAYS_BYTES = 1 << 18  # a handover costs 0.1 ms, mostly waiting for the GIL: more than writing a small item
_WAIT_PAYS_SECONDS = 3e-3  # an item; about what two threads on one core lose to each other over an item of 2 MB
_REMEMBERED = 16  # items whose waits count


@dataclass(frozen=True, slots=True)
class _Finished:
    completion: Completion
    seconds: float
    stage: str


class Writer:
    """Commits or voids items in the order they come; at most as many wait as there are slots.

    Parameters
    ----------
    job, sink, slots, wire
        The worker's.
    audit : Audit, optional
        Makes a share of the items again.
    beside : bool
        Write large items in a thread while the next is made, since a core is free for it. Else that is done only once
        writing is seen to wait for the disk: on one core two threads cost more than they save.
    """

    def __init__(
        self, job: Job, sink: Sink, slots: HostSlots, wire: Wire, audit: Audit | None = None, beside: bool = True
    ) -> None:
        self._beside, self._waits = beside, 0.0
        self._job, self._sink, self._slots, self._wire, self._audit = job, sink, slots, wire, audit
        self._stages = Stages()
        self._queue: queue.SimpleQueue[_Finished | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._rows: list[list[Any]] = []
        self._waiting = 0  # handed over and not yet written
        self._eager = False
        self._last_nbytes = 0
        self._reported = time.monotonic()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    def put(self, completion: Completion) -> None:
        """Hand an item over.

        Raises
        ------
        OutputError
            An earlier item could not be written.
        """
        self._raise()
        finished = _Finished(completion, completion.work.stages.seconds(), completion.work.stages.failed_in)
        with self._lock:
            # Where items are audited whoever writes them may have to wait, and that shall not be an item's time.
            threaded = self._beside and self._last_nbytes >= _THREAD_PAYS_BYTES
            at_once = self._audit is None and not self._waiting and not threaded
            self._waiting += 1
        if at_once:
            self._write(finished)
        else:
            self._queue.put(finished)

    def eager(self, now: bool) -> None:
        """Report each item at once (`now`: nothing else is in hand), or in batches."""
        with self._lock:
            self._eager = now
            if now and not self._waiting:
                self._report()

    def finish(self) -> None:
        """Wait until everything is written and reported; raises what went wrong."""
        self._queue.put(None)
        self._thread.join()
        self._raise()
        with self._lock:
            self._report()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while (finished := self._queue.get()) is not None:
                self._write(finished)
        except BaseException as error:  # handed to the worker's own thread, which ends on it
            self._error = error
            self._slots.give_up()

    def _write(self, finished: _Finished) -> None:
        row = self._settle(finished)
        audit = self._audit if self._to_audit(finished.completion, row) else None
        with self._lock:
            self._rows.append(row)
            self._waiting -= 1
            late = time.monotonic() - self._reported > REPORT_SECONDS
            if late or audit is not None or (self._eager and not self._waiting):
                self._report()
        if audit is not None:  # after the report: whatever the audit may end, the item is done
            work = finished.completion.work
            audit.put(work.ordinal, work.item, work.fingerprint, row[_CHECKSUM])

    def _to_audit(self, completion: Completion, row: list[Any]) -> bool:
        work = completion.work
        made_on_card = row[_STATE] == DONE and work.backend != "ffmpeg"
        return self._audit is not None and made_on_card and self._audit.chooses(work.ordinal)

    def _settle(self, finished: _Finished) -> list[Any]:
        """Write the item or void it; one row for the ledger."""
        completion, stage = finished.completion, finished.stage
        work, error = completion.work, completion.error
        checksum = Checksum()
        began, busy = time.monotonic(), time.thread_time()
        if completion.sample is not None:
            try:
                with self._stages("write"):
                    self._sink.commit(work.ordinal, completion.sample, checksum)
            except InputError as late:  # a sample that is made while it is written
                error, stage = late, "write"
            except MemoryError as late:
                raise ItemMemoryError(work.ordinal) from late
        if error is not None:
            with self._stages("void"):
                self._sink.void(work.ordinal, self._job.blob_name(work.ordinal, work.item))
            # A file taken away while it was worked on may come back with its old time: that is a change too.
            if fingerprint(self._job.input_file(work.item)) == ABSENT:
                work.fingerprint = ABSENT
        self._slots.release(work.slot)
        self._last_nbytes = checksum.nbytes
        if not self._beside:
            waited = time.monotonic() - began - (time.thread_time() - busy)
            self._waits += (waited - self._waits) / _REMEMBERED
            self._beside = self._waits > _WAIT_PAYS_SECONDS
        return [
            work.ordinal,
            DONE if error is None else FAILED,
            finished.seconds + time.monotonic() - began,
            work.backend,
            work.fingerprint,
            "" if error else checksum.hexdigest(),
            0 if error else checksum.nbytes,
            stage if error else "",
            type(error).__name__ if error else "",
            _message(error) if error else "",
            "" if error else completion.record,
        ]

    def _report(self) -> None:
        rows, self._rows = self._rows, []
        self._reported = time.monotonic()
        if rows:
            self._wire.send({"completed": rows, "stages": self._stages.take(), "usage": astuple(usage())})


def _message(error: Exception) -> str:
    if isinstance(error, GpupipeError):
        return str(error)
    # Not one of ours: where it came from is worth more than brevity.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error} ({Path(last.filename).name}:{last.lineno})"

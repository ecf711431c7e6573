"""A worker: one process that takes leases, runs the job's operator over their items and writes the results.

Started as ``python -m gpupipe.worker FD PULSE_FD PARENT``: a socket to its supervisor, the pulse it shares with it,
and the supervisor's process id. It lives no longer than its supervisor, whatever kills that.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpupipe.errors import GpupipeError, InputError, OutputError, StoppedError
from gpupipe.job import Completion, Job, Work, restore
from gpupipe.ledger import DONE, FAILED
from gpupipe.memory import HostSlots
from gpupipe.plan import Plan
from gpupipe.pulse import Pulse
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import Checksum
from gpupipe.stages import Stages
from gpupipe.wire import Wire

REPORT_SECONDS = 0.2
_PR_SET_PDEATHSIG = 1
_PREFETCHED_SLOTS = 1


@dataclass(frozen=True)
class Setup:
    """What a worker is told first."""

    number: int
    job: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    out: str
    staging: str
    count: int
    shard_size: int

    def place(self, bookkeeping: Path) -> Place:
        """Where the output lies."""
        return Place(Path(self.out), bookkeeping, Path(self.staging), self.count, self.shard_size)


class Worker:
    """Runs leases from a wire until told to stop."""

    def __init__(self, wire: Wire, pulse: Pulse, setup: Setup, bookkeeping: Path, first: list[Any]) -> None:
        self._wire, self._pulse, self._setup = wire, pulse, setup
        self._stages = Stages(pulse)
        with self._stages("start"):
            self._plan = Plan(bookkeeping / "plan")
            self._job: Job = restore(setup.job, setup.options, setup.inputs)
            place = setup.place(bookkeeping)
            self._sink = self._job.sink(place)
            self._slots = HostSlots(self._job.rows(), _PREFETCHED_SLOTS)
            self._operator = self._job.operator(place, self._stages)
        self._leases: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._stopping = False
        for message in first:  # what came along with the setup
            self._take(message)
        self._completed: list[list[Any]] = []
        self._reported = time.monotonic()
        self._began = 0.0

    def run(self) -> None:
        """Work until the supervisor says stop."""
        threading.Thread(target=self._listen, name="leases", daemon=True).start()
        for completion in self._operator.run(self._stream()):
            self._completed.append(self._settle(completion))
            if time.monotonic() - self._reported > REPORT_SECONDS:
                self._report()
        self._report()
        self._operator.close()

    def _listen(self) -> None:
        # The only reader of the wire. When the supervisor is gone there is nothing worth finishing: what is
        # half-written is not in the ledger, and the next run does it again.
        while True:
            for message in self._wire.receive():
                self._take(message)
            if self._wire.closed:
                os._exit(1)

    def _take(self, message: Any) -> None:
        if message["lease"] is None:
            self._stopping = True
        self._leases.put(message["lease"])

    def _stream(self) -> Iterator[Work]:
        while True:
            self._report()
            with self._stages("wait"):
                lease = self._leases.get()
            if lease is None:
                return
            for position in range(*lease):
                if self._stopping:  # finish the item in hand, not the lease
                    return
                ordinal = self._plan.ordinal(position)
                self._pulse.item(ordinal)
                self._began = time.monotonic()
                yield Work(ordinal, self._plan.item(ordinal), self._slots.acquire(ordinal))

    def _settle(self, completion: Completion) -> list[Any]:
        """Write the item or void it; one row for the ledger."""
        work, error = completion.work, completion.error
        checksum = Checksum()
        if completion.sample is not None:
            try:
                with self._stages("write"):
                    self._sink.commit(work.ordinal, completion.sample, checksum)
            except InputError as late:  # a sample that decodes while it is written
                error = late
        if error is not None:
            with self._stages("void"):
                self._sink.void(work.ordinal, self._job.blob_name(work.ordinal, work.item))
        self._slots.release(work.slot)
        self._pulse.item(None)
        stage, self._stages.failed_in = self._stages.failed_in, ""
        return [
            work.ordinal,
            DONE if error is None else FAILED,
            time.monotonic() - self._began,
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
        completed, self._completed = self._completed, []
        self._reported = time.monotonic()
        self._wire.send({"completed": completed, "stages": self._stages.take(), "cpu": time.process_time()})


def _message(error: Exception) -> str:
    if isinstance(error, GpupipeError):
        return str(error)
    # Not one of ours: where it came from is worth more than brevity.
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error} ({Path(last.filename).name}:{last.lineno})"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent dies, also in the midst of native code."""
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "prctl"):
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)


def main() -> None:
    """Entry point of the process."""
    fd, pulse_fd, parent = map(int, sys.argv[1:4])
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the supervisor decides
    wire = Wire(socket.socket(fileno=fd))
    messages: list[Any] = []
    while not messages:
        messages = wire.receive()
        if wire.closed:
            return
    setup = messages.pop(0)["setup"]
    bookkeeping = Path(setup.pop("bookkeeping"))
    try:
        Worker(wire, Pulse(pulse_fd), Setup(**setup), bookkeeping, messages).run()
    except (OutputError, StoppedError) as error:
        wire.send({"fatal": str(error)})
    except Exception:
        wire.send({"fatal": traceback.format_exc()})
        raise


if __name__ == "__main__":
    main()

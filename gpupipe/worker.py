"""A worker: one process that takes leases, runs the job's operator over their items and writes the results.

Started as ``python -m gpupipe.worker FD PULSE_FD PARENT``: a socket to its supervisor, the pulse it shares with it,
and the supervisor's process id. It lives no longer than its supervisor, whatever kills that.
"""

from __future__ import annotations

import ctypes
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe import fingerprint as fingerprints
from gpupipe.again import Again, Audit
from gpupipe.cuda.device import Device, open_device
from gpupipe.errors import DeviceLostError, DeviceMemoryError, OutputError, StoppedError, UsageError
from gpupipe.job import ItemMemoryError, Job, Work, restore
from gpupipe.machine import usage
from gpupipe.memory import HostSlot, HostSlots
from gpupipe.plan import Plan
from gpupipe.pulse import AUDIT_SEAT, Pulse
from gpupipe.sinks.base import Place
from gpupipe.stages import Stages
from gpupipe.wire import Wire
from gpupipe.writer import Writer

_PR_SET_PDEATHSIG = 1
_LOOK_SECONDS = 0.5
_YOUNG_SECONDS = 60.0  # a worker that is large from its first item on shall not spend its time starting
_WRITING = 1  # slots beside those being filled


@dataclass(frozen=True)
class Setup:
    """What a worker is told first; `memory_bytes` binds it, past the `recycle` bounds it asks to be replaced.

    `device` names what opens its GPU, and the number to open; None for a CPU core. `cores` are those it shall run on.
    `spare`: there are more cores than workers.
    """

    number: int
    job: str
    options: dict[str, Any]
    inputs: dict[str, Any]
    out: str
    staging: str
    count: int
    shard_size: int
    fingerprint: fingerprints.Kind
    memory_bytes: int | None
    recycle_bytes: int
    recycle_seconds: float
    audit: float = 0.0
    spare: bool = False
    device: tuple[str, int] | None = None
    cores: list[int] | None = None

    def place(self, bookkeeping: Path) -> Place:
        """Where the output lies."""
        return Place(Path(self.out), bookkeeping, Path(self.staging), self.count, self.shard_size)


class Worker:
    """Runs leases from a wire until told to stop."""

    def __init__(self, wire: Wire, pulse: Pulse, setup: Setup, bookkeeping: Path, first: list[Any]) -> None:
        self._wire, self._setup = wire, setup
        self._stages = Stages(pulse)
        with self._stages("start"):
            self._plan = Plan(bookkeeping / "plan")
            self._job: Job = restore(setup.job, setup.options, setup.inputs)
            place = setup.place(bookkeeping)
            self._sink = self._job.sink(place)
            self._device = None if setup.device is None else self._opened(*setup.device)
            self._operator = self._job.operator(place, self._device)
            pinned = None if self._device is None else self._device.card.pinned
            self._slots = self._room(self._operator.depth + _WRITING, pinned)
            self._audit = self._auditor(place, pulse) if setup.audit and self._device is not None else None
            beside = setup.spare or self._device is not None
            self._writer = Writer(self._job, self._sink, self._slots, wire, self._audit, beside)
        self._seats = [Stages(pulse, seat) for seat in range(self._operator.depth)]
        self._free: queue.SimpleQueue[Stages] = queue.SimpleQueue()
        for seat in self._seats:
            self._free.put(seat)
        self._leases: queue.SimpleQueue[list[int] | None] = queue.SimpleQueue()
        self._stopping = False
        for message in first:  # what came along with the setup
            self._take(message)
        self._looked = self._since = time.monotonic()
        # What a card's driver maps and pins is there from the start, and a fresh process would have it again.
        self._resident = 0 if self._device is None else usage().resident_bytes

    def run(self) -> None:
        """Work until the supervisor says stop."""
        threading.Thread(target=self._listen, name="leases", daemon=True).start()
        for completion in self._operator.run(self._stream()):
            self._writer.put(completion)
            completion.work.stages.end()
            self._free.put(completion.work.stages)
        self._writer.finish()
        if self._audit is not None:
            self._audit.finish()
        self._report()
        self._operator.close()
        if self._device is not None:
            self._device.close()

    def _opened(self, opener: str, number: int) -> Device:
        try:
            device = open_device(opener, number)
        except DeviceMemoryError as error:
            raise StoppedError(
                f"a GPU has no memory to begin with: {error}. Free some, leave it out with --gpu-ids, or use --backend "
                "ffmpeg"
            ) from error
        return replace(device, tell=lambda text: self._wire.send({"note": text}))

    def _room(self, count: int, pinned: Callable[[int], np.ndarray] | None) -> HostSlots:
        try:
            return HostSlots(self._job.rows(), count, pinned)
        except MemoryError as error:
            raise StoppedError(
                f"no memory for {count} items of a worker: {error}. Use fewer workers, or ask for fewer or smaller "
                "frames"
            ) from error

    def _auditor(self, place: Place, pulse: Pulse) -> Audit:
        """Makes items again with FFmpeg."""

        def tell(ordinal: int, difference: str) -> None:
            self._wire.send({"audit": ordinal, "difference": difference})

        return Audit(Again(self._job, place), self._setup.audit, tell, Stages(pulse, AUDIT_SEAT))

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
            self._writer.eager(True)
            with self._stages("wait"):
                lease = self._leases.get()
            self._writer.eager(False)
            if lease is None:
                return
            for position in range(*lease):
                if self._stopping or self._worn():  # finish the item in hand, not the lease
                    return
                ordinal = self._plan.ordinal(position)
                with self._stages("wait to write"):
                    slot = self._slots.acquire(ordinal)
                    if slot is None:  # writing failed: Writer.finish says why
                        return
                    stages = self._free.get()
                stages.begin(ordinal)
                yield self._work(ordinal, slot, stages)

    def _work(self, ordinal: int, slot: HostSlot, stages: Stages) -> Work:
        try:
            item = self._plan.item(ordinal)
            with stages("plan"):
                fingerprint = fingerprints.fingerprint(self._job.input_file(item), self._setup.fingerprint)
        except MemoryError as error:  # the item's, as it would be a moment later
            raise ItemMemoryError(ordinal) from error
        return Work(ordinal, item, slot, fingerprint, stages)

    def _worn(self) -> bool:
        """True where a fresh process shall go on: this one is old, or has grown (libraries leak, heaps fragment)."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        age, resident = now - self._since, usage().resident_bytes
        grown = resident - self._resident > self._setup.recycle_bytes and age > _YOUNG_SECONDS
        if grown or age > self._setup.recycle_seconds:
            self._wire.send({"recycle": f"{age:.0f} s old, {resident >> 20} MiB"})
            return True
        return False

    def _report(self) -> None:
        spent: Counter[str] = Counter()
        for stages in (self._stages, *self._seats):
            spent.update(stages.take())
        depth = self._operator.depth
        self._wire.send({"completed": [], "stages": spent, "usage": astuple(usage()), "depth": depth})


def bind_memory(nbytes: int | None) -> None:
    """Have what would go beyond `nbytes` of private memory fail, as a ``MemoryError``."""
    if nbytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (nbytes, nbytes))


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
    wire = Wire(socket.socket(fileno=fd))
    messages: list[Any] = []
    while not messages:
        messages = wire.receive()
        if wire.closed:
            return
    setup = messages.pop(0)["setup"]
    bookkeeping = Path(setup.pop("bookkeeping"))
    bind_memory(setup["memory_bytes"])
    if setup.get("cores"):
        os.sched_setaffinity(0, setup["cores"])
    try:
        Worker(wire, Pulse(pulse_fd), Setup(**setup), bookkeeping, messages).run()
    except ItemMemoryError as error:
        wire.send({"starved": error.ordinal})
        os._exit(1)  # at once: whatever else wants memory now may wait for it forever
    except DeviceLostError as error:
        wire.send({"lost": str(error)})
        os._exit(1)  # at once: the driver may never let go of what is still to be freed
    except (OutputError, StoppedError, UsageError) as error:
        wire.send({"fatal": str(error)})
    except Exception:
        wire.send({"fatal": traceback.format_exc()})
        raise


if __name__ == "__main__":
    main()

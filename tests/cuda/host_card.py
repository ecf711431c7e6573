"""A card in host memory: streams are threads, so that order and overlap are real; trouble and gates on demand.

:func:`open_device` opens it for a worker process, which finds this file through the path as it finds the planted jobs.
"""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from fakes import FakeEngine, Trouble

from gpupipe.cuda.card import Card, DeviceBuffer, Event, Stream
from gpupipe.cuda.device import Device
from gpupipe.errors import DeviceLostError, DeviceMemoryError
from gpupipe.layouts import layout_of
from gpupipe.types import DeviceSurface, Surface

OPENER = "host_card:open_device"
FAULTS = "HOST_CARD_FAULTS"
"""Environment variable: what :func:`open_device` plants, as JSON."""

PATIENCE = 20.0  # who waits for so long will wait forever


@dataclass
class Faults:
    """What goes wrong.

    Attributes
    ----------
    most_pictures : int or None
        A launch of more finds no memory.
    most_nbytes : int or None
        Memory of the card for :meth:`HostCard.empty`.
    lost_at : int or None
        Launches after which the card is lost, for good.
    refuse : callable of DeviceSurface, optional
        Raises for pictures that the kernel does not take.
    """

    most_pictures: int | None = None
    most_nbytes: int | None = None
    lost_at: int | None = None
    refuse: Callable[[DeviceSurface], None] | None = None


class HostEvent(Event):
    def __init__(self, card: HostCard):
        self._card, self._reached = card, threading.Event()

    def reach(self):
        self._reached.set()

    def done(self):
        self._card.mind()
        return self._reached.is_set()

    def wait(self):
        assert self._reached.wait(PATIENCE), "an event was never reached"
        self._card.mind()


class HostStream(Stream):
    """A thread with a queue. `hold` keeps it from running what comes after, until `go`."""

    handle = 0

    def __init__(self, card: HostCard, number: int):
        self._card = card
        self._jobs: queue.SimpleQueue = queue.SimpleQueue()
        self._user = threading.Lock()
        self._gate: threading.Event | None = None
        self.thread = threading.Thread(target=self._run, name=f"stream-{number}", daemon=True)
        self.thread.start()

    def record(self):
        event = HostEvent(self._card)
        self.enqueue(event.reach)
        return event

    def wait(self, event):
        self.enqueue(lambda: event._reached.wait(PATIENCE))

    def enqueue(self, job):
        assert self._user.acquire(blocking=False), "two threads use one stream"
        self._jobs.put(job)
        self._user.release()

    def slip(self, job):
        """For tests: any thread may."""
        self._jobs.put(job)

    def hold(self):
        self._gate = threading.Event()
        self.slip(lambda gate=self._gate: gate.wait(PATIENCE))

    def go(self):
        if self._gate is not None:
            self._gate.set()

    def end(self):
        self._jobs.put(None)
        self.thread.join()

    def _run(self):
        while (job := self._jobs.get()) is not None:
            if not self._card.lost.is_set() or getattr(job, "__self__", None).__class__ is HostEvent:
                job()


class HostCard(Card):
    """See the module.

    Attributes
    ----------
    batches : list of int
        Pictures of each launch that was taken.
    ran : list of tuple
        What the streams ran, in order: ``("kernel", pictures)``, ``("copy", nbytes)``.
    live_nbytes, most_live_nbytes : int
        Memory of the card in use, now and at most.
    watch : callable of tuple, optional
        Called with each entry of `ran`, on its stream's thread, when it has run.
    """

    name = "host:0"

    def __init__(self, faults: Faults | None = None):
        self.faults = faults or Faults()
        self.lost = threading.Event()
        self.batches: list[int] = []
        self.ran: list[tuple[str, int]] = []
        self.watch: Callable[[tuple[str, int]], None] = lambda entry: None
        self.live_nbytes = self.most_live_nbytes = self.launches = 0
        self.streams: list[HostStream] = []
        self._lock = threading.Lock()

    def mind(self):
        if self.lost.is_set():
            raise DeviceLostError(f"{self.name}: the card is lost (planted)")

    def lose(self):
        """The card falls off the bus: nothing more runs, and whoever waits is told."""
        self.lost.set()

    def empty(self, nbytes):
        self.mind()
        most = self.faults.most_nbytes
        with self._lock:
            if most is not None and self.live_nbytes + nbytes > most:
                raise DeviceMemoryError(f"{self.name}: {nbytes} bytes beside {self.live_nbytes}, it has {most}")
            self.live_nbytes += nbytes
            self.most_live_nbytes = max(self.most_live_nbytes, self.live_nbytes)
        owner = _Owned(self, np.full(nbytes, 0xCD, np.uint8))
        return DeviceBuffer(owner.memory.ctypes.data, nbytes, owner)

    def freed(self, nbytes):
        with self._lock:
            self.live_nbytes -= nbytes

    def pinned(self, nbytes):
        self.mind()
        raw = np.full(nbytes + 4096, 0xEE, np.uint8)
        start = -raw.ctypes.data % 4096
        return raw[start : start + nbytes]

    def stream(self):
        self.mind()
        self.streams.append(HostStream(self, len(self.streams)))
        return self.streams[-1]

    def copy_out(self, source, offset, out, stream):
        self.mind()
        assert out.flags.c_contiguous
        assert offset + out.nbytes <= source.nbytes

        def copy():
            out.reshape(-1).view(np.uint8)[:] = source.owner.memory[offset : offset + out.nbytes]
            self._log("copy", out.nbytes)

        stream.enqueue(copy)

    def resize(self, pictures, stream):
        self.mind()
        if self.faults.lost_at is not None and self.launches >= self.faults.lost_at:
            self.lose()
            self.mind()
        most = self.faults.most_pictures
        if most is not None and len(pictures) > most:
            raise DeviceMemoryError(f"{self.name}: {len(pictures)} pictures a launch")
        if self.faults.refuse is not None:
            for surface, _, _ in pictures:
                self.faults.refuse(surface)
        targets = [(target.buffer.pointer, target.offset) for _, _, target in pictures]
        assert len(set(targets)) == len(targets), "two pictures of one launch write the same row"
        self.launches += 1
        self.batches.append(len(pictures))

        def kernel():
            for surface, resizer, target in pictures:
                height, width = resizer.out_size(surface.format)
                row = target.buffer.owner.memory[target.offset : target.offset + height * width * 3]
                resizer.resize(on_host(surface), row.reshape(height, width, 3))
            self._log("kernel", len(pictures))

        stream.enqueue(kernel)

    def _log(self, *entry):
        self.ran.append(entry)
        self.watch(entry)

    def close(self):
        for stream in self.streams:
            stream.end()
        self.streams = []


class _Owned:
    """Memory of the card; gone with the last reference."""

    def __init__(self, card: HostCard, memory: np.ndarray):
        self.card, self.memory = card, memory

    def __del__(self):
        self.memory[:] = 0xDD
        self.card.freed(len(self.memory))


def on_host(surface: DeviceSurface) -> Surface:
    """The same picture for the CPU; reads where the pointers point, as a kernel does."""
    layout = layout_of(surface.format.layout)
    planes = []
    for number, (pointer, stride) in enumerate(zip(surface.pointers, surface.strides, strict=True)):
        chroma = layout.family == "yuv" and number > 0
        shrink = layout.subsampling[0] if chroma else 0
        rows = (surface.format.height + (1 << shrink) - 1) >> shrink
        kind = np.ctypeslib.ctypes.c_uint8 * (stride * rows)
        planes.append(np.frombuffer(kind.from_address(pointer), np.uint8))
    return Surface(surface.format, planes, surface.strides, surface.pts)


def host_device(faults: Faults | None = None, engine: FakeEngine | None = None) -> Device:
    """A device for tests in this process."""
    card = HostCard(faults)
    return Device(card, engine or FakeEngine(), card.stream())


def open_device(number: int) -> Device:
    """A device for a worker process; trouble comes through the environment."""
    words = json.loads(os.environ.get(FAULTS, "{}"))
    trouble = Trouble(lose=words.pop("lose_packet", None))
    return host_device(Faults(**words), FakeEngine(trouble=trouble))

"""Jobs that do to their workers what libraries do."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from toy import ToyJob, misdeed

from gpupipe import decode
from gpupipe.cuda.device import Device
from gpupipe.errors import DeviceLostError, DeviceMemoryError, UsageError
from gpupipe.job import ItemLoop
from gpupipe.jobs.clips import ClipsJob
from gpupipe.lanes import Lanes


@dataclass(frozen=True)
class GrowingJob(ToyJob):
    """Each item leaves two megabytes behind in its worker, which may be replaced as soon as it has grown."""

    def operator(self, place, device):
        sys.modules["__main__"]._YOUNG_SECONDS = 0.0
        loop, kept = super().operator(place, device), []
        process = loop._process

        def grow(work):
            kept.append(os.urandom(2 << 20))
            return process(work)

        loop._process = grow
        return loop


@dataclass(frozen=True)
class PatientJob(ToyJob):
    """An item called "wait" is done once there is a file `go` among the marks."""

    def operator(self, place, device):
        loop = super().operator(place, device)
        process = loop._process

        def wait(work):
            while work.item == "wait" and not Path(self.marks, "go").exists():
                time.sleep(0.01)
            return process(work)

        loop._process = wait
        return loop


class _Opening(ClipsJob):
    """Its workers meet :meth:`opening` before each file they decode."""

    def operator(self, place, device):
        opened = decode.open

        def opening(path, *arguments, **words):
            self.opening(Path(path))
            return opened(path, *arguments, **words)

        decode.open = opening
        return super().operator(place, device)


@dataclass(frozen=True)
class PoisonedClips(_Opening):
    """Its decoder aborts the process on a file called `poison.mp4`, as a defect of a library may."""

    def opening(self, path):
        if path.name == "poison.mp4":
            os.abort()


@dataclass(frozen=True)
class VanishingClips(_Opening):
    """The file `v5.mp4` goes away just before it is opened, once."""

    def opening(self, path):
        if path.name == "v5.mp4" and not path.with_name("stays").exists():
            path.rename(path.with_name("v5.away"))


@dataclass(frozen=True)
class CardToy(ToyJob):
    """Worked on a device, four items at a time; "fragile" loses the card called GPU-b, "tight" is told of."""

    backend: str = "nvdec"
    audit_says: str = ""

    def inputs(self):
        return {**super().inputs(), "backend": self.backend, "audit_says": self.audit_says}

    def options(self):
        return {key: value for key, value in super().options().items() if key not in ("backend", "audit_says")}

    def operator(self, place, device):
        if device is None and self.backend == "nvdec":
            raise UsageError("there is no card here")
        if device is None:
            return ItemLoop(self._process, lambda: None)
        return Lanes([_OnCard(self, device)] * 4)

    def _process(self, work):
        if self.audit_says in ("stuck", "crash"):
            misdeed(self.audit_says, work.ordinal, self.marks)
        completion = super()._process(work)
        if self.audit_says == "different":
            work.slot.rows["payload"][0] ^= 1
        return completion


@dataclass(frozen=True)
class HeavyCardToy(CardToy):
    """A card whose driver holds much memory of its worker from the start."""

    def operator(self, place, device):
        sys.modules["__main__"]._YOUNG_SECONDS = 0.0
        self.__dict__["held"] = np.ones(200 << 20, np.uint8)
        return super().operator(place, device)


class _OnCard:
    """What a lane of the device does with an item."""

    def __init__(self, job, device):
        self._job, self._device = job, device

    def __call__(self, work):
        if work.item == "tight":
            self._device.tell("cuda:0: at most 32 pictures a launch")
        if work.item == "fragile" and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b":
            raise DeviceLostError("cuda:1 fell off the bus")
        if work.item in ("first", "second"):
            self._one_after_the_other(work.item)
        work.backend = "nvdec"
        return ToyJob._process(self._job, work)

    def _one_after_the_other(self, word):
        """Two workers on GPU-b: "first" says that it is lost, then "second" crashes; the other card waits for that."""
        marks, me = Path(self._job.marks), str(os.getpid())
        here = os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"
        if here and word == "first":
            while not any(mark.suffix != f".{me}" for mark in marks.glob("second.*")):
                time.sleep(0.01)
            Path(marks, f"lost.{me}").touch()
            raise DeviceLostError("cuda:1 fell off the bus")
        if here:
            Path(marks, f"second.{me}").touch()
        while not (lost := list(marks.glob("lost.*"))):
            time.sleep(0.01)
        if here and lost[0].suffix == f".{me}":
            raise DeviceLostError("cuda:1 fell off the bus")
        while here:
            if not Path("/proc", lost[0].suffix[1:]).exists():  # the supervisor has seen its end
                os.abort()
            time.sleep(0.01)

    def close(self):
        pass


class _Card:
    def pinned(self, nbytes):
        return np.empty(nbytes, np.uint8)

    def close(self):
        if os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-clings":
            time.sleep(3600)


def open_device(number):
    """What a worker opens for a card in these tests; GPU-dead does not answer, GPU-full has no memory."""
    if os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-dead":
        raise DeviceLostError("cuda:2 does not answer")
    if os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-full":
        raise DeviceMemoryError("cuda:0: out of memory")
    return Device(_Card(), None, None)

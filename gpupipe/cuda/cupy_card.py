"""A real card, through CuPy: its memory pool, page-locked memory, streams beside each other, events, the kernel."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpupipe.cuda.card import Card, DeviceBuffer, Event, Stream, Target
from gpupipe.cuda.device import Device
from gpupipe.cuda.kernel import CupyRuntime, FrameKernel, cuda_errors
from gpupipe.decode.pynvcodec import PyNvEngine
from gpupipe.errors import DeviceMemoryError
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface

_PAGE = 4096


class CupyCard(Card):
    """One device of this process.

    Parameters
    ----------
    number : int
        Among those this process sees.

    Raises
    ------
    UsageError
        CuPy cannot be had; the message says what to install.
    StoppedError
        The kernel does not compile here.
    """

    def __init__(self, number: int) -> None:
        self.name = f"cuda:{number}"
        self._number = number
        self._kernel = FrameKernel(CupyRuntime(number))
        self._cupy: Any = importlib.import_module("cupy")

    def empty(self, nbytes: int) -> DeviceBuffer:
        """Memory from CuPy's pool; it goes back there when the last reference is dropped."""
        cuda = self._cupy.cuda
        with cuda_errors(self.name), cuda.Device(self._number):
            memory = cuda.alloc(nbytes)
        return DeviceBuffer(memory.ptr, nbytes, memory)

    def pinned(self, nbytes: int) -> np.ndarray:
        """Page-locked memory (cudaHostAlloc)."""
        cuda = self._cupy.cuda
        try:
            with cuda_errors(self.name), cuda.Device(self._number):
                memory = cuda.alloc_pinned_memory(nbytes + _PAGE)
        except DeviceMemoryError as error:  # the same status, but it is the host that has none
            raise MemoryError(f"{self.name}: {nbytes} bytes of page-locked memory cannot be had") from error
        raw = np.frombuffer(memory, np.uint8, nbytes + _PAGE)  # keeps it
        start = -raw.ctypes.data % _PAGE
        return raw[start : start + nbytes]

    def stream(self) -> CupyStream:
        """A stream that waits for no other one, the default one included."""
        return CupyStream(self._cupy.cuda, self._number)

    def copy_out(self, source: DeviceBuffer, offset: int, out: np.ndarray, stream: Stream) -> None:
        """One asynchronous copy."""
        runtime = self._cupy.cuda.runtime
        with cuda_errors(self.name), self._cupy.cuda.Device(self._number):
            runtime.memcpyAsync(
                out.ctypes.data, source.pointer + offset, out.nbytes, runtime.memcpyDeviceToHost, stream.handle
            )

    def resize(self, pictures: Sequence[tuple[DeviceSurface, Resizer, Target]], stream: Stream) -> None:
        """One launch."""
        self._kernel.resize(pictures, stream.handle)

    def close(self) -> None:
        """Give the pools' free memory back."""
        with cuda_errors(self.name), self._cupy.cuda.Device(self._number):
            self._cupy.get_default_memory_pool().free_all_blocks()
            self._cupy.get_default_pinned_memory_pool().free_all_blocks()


class CupyStream(Stream):
    """A non-blocking CUDA stream."""

    def __init__(self, cuda: Any, number: int) -> None:
        self._cuda, self._number, self._name = cuda, number, f"cuda:{number}"
        with cuda_errors(self._name), cuda.Device(number):
            self._stream = cuda.Stream(non_blocking=True)
        self.handle: int = self._stream.ptr

    def record(self) -> CupyEvent:
        """An event; whoever waits for it sleeps, since a thread that spins keeps a core from decoding."""
        with cuda_errors(self._name), self._cuda.Device(self._number):
            event = self._cuda.Event(block=True, disable_timing=True)
            event.record(self._stream)
        return CupyEvent(event, self._name)

    def wait(self, event: Event) -> None:
        """On the device; this thread goes on."""
        assert isinstance(event, CupyEvent), "an event of another card"
        with cuda_errors(self._name), self._cuda.Device(self._number):
            self._stream.wait_event(event.event)


class CupyEvent(Event):
    """A recorded CUDA event."""

    def __init__(self, event: Any, name: str) -> None:
        self.event, self._name = event, name

    def done(self) -> bool:
        """Ask."""
        with cuda_errors(self._name):
            return bool(self.event.done)

    def wait(self) -> None:
        """Sleep until then; CuPy holds no GIL meanwhile."""
        with cuda_errors(self._name):
            self.event.synchronize()


def open(number: int) -> Device:
    """Open a card with its video engine, whose pictures come in the order of the stream that the kernel runs in.

    Raises
    ------
    UsageError
        A library or the driver is missing; the message says what to install.
    """
    card = CupyCard(number)
    stream = card.stream()
    return Device(card, PyNvEngine(number, stream.handle), stream)

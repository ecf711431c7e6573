"""What the parts measure on: a card with its kernel, its clocks, and the means to put data on it.

``open_board`` is asked in the process of each part, so that what one part breaks is whole again for the next.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np

from gpupipe.cuda.card import Card, DeviceBuffer, Stream, Target
from gpupipe.cuda.device import OPENER, Device
from gpupipe.cuda.pixels import PixelFormat
from gpupipe.errors import GpupipeError
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface

BOARD = "bench.gpu_parts.board:open_board"
"""Opens a real one."""

CARD = "gpupipe.cuda.cupy_card:CupyCard"
_DELAY_BYTES = 256 << 20
_MOST_DELAYS = 1 << 12
_KEPT_DELAYS = 64  # what took longer once, as an allocator's first call does, need not do so again

Pictures = Sequence[tuple[DeviceSurface, Resizer, Target]]


class Unavailable(Exception):
    """What a part needs is not there; says what, in one sentence."""


class Board(ABC):
    """A card to measure on. All work goes into one stream, unless a card or device is asked for.

    Attributes
    ----------
    name : str
        Of the model: ``"NVIDIA H200"``.
    stream : int
        Handle of the stream, for libraries.
    """

    name: str
    stream: int

    @abstractmethod
    def facts(self) -> dict[str, Any]:
        """Memory, compute capability, driver and versions, for the result's file."""

    @abstractmethod
    def put(self, array: np.ndarray) -> Any:
        """A copy on the card, C-contiguous; the array type of the board's library, which has DLPack."""

    @abstractmethod
    def pointer(self, array: Any) -> int:
        """Address of what :meth:`put` returned."""

    @abstractmethod
    def get(self, array: Any) -> np.ndarray:
        """A copy of such an array, or of another library's, on the host, behind all work of the stream."""

    @abstractmethod
    def copy(self, source: Any, to: Any) -> None:
        """Enqueue the copy of one array of the card into another of as many bytes."""

    @abstractmethod
    def resize(self, pictures: Pictures, pixels: PixelFormat) -> None:
        """Enqueue one launch of the package's kernel, with all that it needs to be told."""

    @abstractmethod
    def replay(self, pictures: Pictures, pixels: PixelFormat) -> Callable[[], None]:
        """What enqueues that launch alone, again and again: what it is told lies on the card already."""

    @abstractmethod
    def seconds(self, enqueue: Callable[[], None]) -> float:
        """Time between two events around what is enqueued, the host's time for that taken out of the way."""

    @abstractmethod
    def synchronise(self) -> None:
        """Wait for everything that was enqueued on the card, in any stream."""

    @abstractmethod
    def card(self) -> Card:
        """The package's card, for what goes beyond the kernel.

        Raises
        ------
        Unavailable
        """

    @abstractmethod
    def device(self) -> Device:
        """Card and video engine as a worker has them.

        Raises
        ------
        Unavailable
        """

    def target(self, array: Any, offset: int = 0) -> Target:
        """Where a picture goes, within an array of the card."""
        return Target(DeviceBuffer(self.pointer(array), int(array.nbytes), array), offset)


def open_named(opener: str) -> Board:
    """The board that ``module:function`` opens.

    Raises
    ------
    Unavailable
    """
    board: Board = _named(opener)()
    return board


def open_board() -> Board:
    """The first card that this process sees.

    Raises
    ------
    Unavailable
        No driver, no card, no CuPy; with the next step.
    """
    if reason := no_kernel():
        raise Unavailable(reason)
    return CupyBoard()


def no_kernel() -> str | None:
    """Why the kernel cannot run here; it needs less than decoding does: no video libraries."""
    from gpupipe.cuda import devices
    from gpupipe.cuda.probe import driver_version

    newest = driver_version()
    if newest is None:
        return devices.NO_DRIVER
    if find_spec("cupy") is None:
        return f"CuPy is not installed: {devices.install_command(newest)}"
    return devices.no_device() or devices.no_package("cupy", newest)


class CupyBoard(Board):
    """A real card."""

    def __init__(self) -> None:
        import cupy

        from gpupipe.cuda import kernel

        self._cupy, self._kernel = cupy, kernel
        cupy.cuda.Device(0).use()
        self._own = cupy.cuda.Stream(non_blocking=True)
        self.stream = int(self._own.ptr)
        self._runtime = kernel.CupyRuntime(0)
        self._frames = kernel.FrameKernel(self._runtime)
        self._delay = [cupy.zeros(_DELAY_BYTES, cupy.uint8) for _ in range(2)]
        self._delays = 8
        self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()

    def facts(self) -> dict[str, Any]:
        runtime = self._cupy.cuda.runtime
        properties = runtime.getDeviceProperties(0)
        major, minor = self._cupy.cuda.nvrtc.getVersion()
        return {
            "gpu": self.name,
            "memory_bytes": int(properties["totalGlobalMem"]),
            "multiprocessors": int(properties["multiProcessorCount"]),
            "compute_capability": [int(properties["major"]), int(properties["minor"])],
            "driver_cuda": _dotted(runtime.driverGetVersion()),
            "runtime_cuda": _dotted(runtime.runtimeGetVersion()),
            "nvrtc": f"{major}.{minor}",
        }

    def put(self, array: np.ndarray) -> Any:
        found = self._cupy.asarray(np.ascontiguousarray(array))
        self._cupy.cuda.Stream.null.synchronize()
        return found

    def pointer(self, array: Any) -> int:
        return int(array.data.ptr)

    def get(self, array: Any) -> np.ndarray:
        self._own.synchronize()
        return np.asarray(self._cupy.asnumpy(array))

    def copy(self, source: Any, to: Any) -> None:
        to.data.copy_from_device_async(source.data, source.nbytes, self._own)

    def resize(self, pictures: Pictures, pixels: PixelFormat) -> None:
        self._frames.resize(pictures, self.stream, pixels)

    def replay(self, pictures: Pictures, pixels: PixelFormat) -> Callable[[], None]:
        recorder = _Recorder(self._runtime)
        self._kernel.FrameKernel(recorder).resize(pictures, self.stream, pixels)
        launch, keep = recorder.launched
        tiles, records = self._runtime.upload(launch.tiles), self._runtime.upload(launch.pictures)
        module = self._cupy.RawModule(
            code=self._kernel.source(), options=self._kernel.OPTIONS, backend="nvrtc"
        )  # the same text and options: out of the compiler's cache
        function = module.get_function(self._kernel.NAME)
        addresses = (np.uint64(tiles.pointer), np.uint64(records.pointer))
        kept = (keep, tiles, records, pictures)

        def enqueue() -> None:
            assert kept  # what the kernel reads lives as long as this function
            with self._own:
                function((len(launch.tiles),), (launch.threads,), addresses)

        return enqueue

    def seconds(self, enqueue: Callable[[], None]) -> float:
        cuda = self._cupy.cuda
        begin, end = cuda.Event(), cuda.Event()

        def delay(count: int) -> None:
            for _ in range(count):
                self.copy(*self._delay)

        def attempt(count: int) -> bool:
            delay(count)
            begin.record(self._own)
            enqueue()
            end.record(self._own)
            behind = not begin.done
            end.synchronize()
            return behind

        self._delays = min(long_enough(attempt, self._delays), _KEPT_DELAYS)
        return float(cuda.get_elapsed_time(begin, end)) / 1e3

    def synchronise(self) -> None:
        self._cupy.cuda.runtime.deviceSynchronize()

    def card(self) -> Card:
        try:
            card: Card = _named(CARD)(0)
        except (ImportError, AttributeError, RuntimeError, OSError, GpupipeError) as error:
            raise Unavailable(f"{CARD} does not open: {error}") from error
        return card

    def device(self) -> Device:
        from gpupipe.cuda import devices

        if reason := devices.missing():
            raise Unavailable(reason)
        try:
            device: Device = _named(OPENER)(0)
        except (ImportError, RuntimeError, OSError, GpupipeError) as error:
            raise Unavailable(f"the video engine does not open: {error}") from error
        return device


class _Recorder:
    """Stands in for the runtime and keeps the launch instead of carrying it out."""

    def __init__(self, runtime: Any) -> None:
        self._runtime = runtime
        self.launched: tuple[Any, Sequence[object]] | None = None

    def upload(self, table: np.ndarray) -> DeviceBuffer:
        buffer: DeviceBuffer = self._runtime.upload(table)
        return buffer

    def launch(self, launch: Any, stream: int, keep: Sequence[object]) -> None:
        self.launched = launch, keep


def long_enough(attempt: Callable[[int], bool], count: int) -> int:
    """The delay, in its own units, behind which an attempt was enqueued whole before the card came to it.

    A card that waits for the host between two events would have the host's time counted as its own. So it is kept busy
    until everything is enqueued; an attempt for which that was too short is made again.

    Parameters
    ----------
    attempt : callable of int
        Delays the card so long, and measures; False if the card was not busy to the end.
    count : int
        The first delay.

    Raises
    ------
    RuntimeError
        Nothing was long enough: what is enqueued waits for the card itself.
    """
    while not attempt(count):
        if count >= _MOST_DELAYS:
            raise RuntimeError(
                f"enqueueing outlasted {count} copies of {_DELAY_BYTES >> 20} MiB: it waits for the card"
            )
        count *= 2
    return count


def wait(stream: Stream) -> None:
    """Until what was enqueued in a card's stream has run."""
    stream.record().wait()


def _named(path: str) -> Any:
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"

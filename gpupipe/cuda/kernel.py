"""The one kernel of the pixel path, ``csrc/frames.cu``: compiled at first use, its plans kept on the card.

:class:`FrameKernel` lays launches out and keeps plans; a :class:`Runtime` carries them out: :class:`CupyRuntime` on a
card. CuPy compiles through NVRTC for the device's own architecture and keeps the result on disk (``CUPY_CACHE_DIR``, by
default ``~/.cupy/kernel_cache``), under a key of source, options and compiler version.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.cuda.card import DeviceBuffer, Target
from gpupipe.cuda.pixels import PixelFormat, level_bits
from gpupipe.cuda.tables import KernelPlan, Launch, PlacedPlan, prepare
from gpupipe.errors import DeviceLostError, DeviceMemoryError, StoppedError, UsageError
from gpupipe.transform import Crop, Resizer
from gpupipe.types import DeviceSurface, Size, SurfaceFormat

NAME = "resize_frames"
"""The kernel's."""

OPTIONS = ("-std=c++17",)
"""What the compiler is told beside the architecture."""

BYTES = PixelFormat()
"""uint8 ``[H, W, 3]``."""

_PLANS_KEPT = 64
_SLOTS = 8  # launches of one runtime on their way; a stage has two or three
_OUT_OF_MEMORY = 2
# Of cudaError_t: no device, devices unavailable, faults of the hardware (ECC, NVLink, contained), and what leaves a
# context of no more use: illegal address, timeout, destroyed, assert, faults of code (714 to 719), tensor memory,
# system not ready, unknown.
_LOST = frozenset((46, 100, 214, 220, 226, 700, 702, 709, 710, *range(714, 720), 721, 802, 999))


class Runtime(ABC):
    """What carries launches out. Methods may raise DeviceMemoryError and DeviceLostError."""

    @abstractmethod
    def upload(self, table: npt.NDArray[Any]) -> DeviceBuffer:
        """A copy in device memory, 16-byte aligned, there when this returns."""

    @abstractmethod
    def launch(self, launch: Launch, stream: int, keep: Sequence[object]) -> None:
        """Enqueue a launch into the stream of that handle, and hold on to `keep` until it has run."""


class FrameKernel:
    """Resizes batches of pictures of any formats and sizes, each batch in one launch.

    Threads may share one.

    Parameters
    ----------
    runtime : Runtime
    tile_rows : int
        Output rows of a block's tile, see :func:`gpupipe.cuda.tables.prepare`.

    Examples
    --------
    >>> kernel = FrameKernel(CupyRuntime(0))  # doctest: +SKIP
    >>> kernel.resize([(surface, Resizer((160, 256)), target)], stream.handle)  # doctest: +SKIP
    """

    def __init__(self, runtime: Runtime, tile_rows: int = 8) -> None:
        self._runtime = runtime
        self._tile_rows = tile_rows
        self._plans: OrderedDict[tuple[SurfaceFormat, Size | None, Crop | None, PixelFormat], PlacedPlan] = (
            OrderedDict()
        )
        self._lock = Lock()

    def resize(
        self,
        pictures: Sequence[tuple[DeviceSurface, Resizer, Target]],
        stream: int,
        pixels: PixelFormat = BYTES,
    ) -> None:
        """Enqueue one launch.

        Parameters
        ----------
        pictures : sequence of (DeviceSurface, Resizer, Target)
            Planes, and targets of :meth:`gpupipe.cuda.card.Target`, must stay as they are until the launch has run.
        stream : int
            The stream's handle; 0 is the default one.
        pixels : PixelFormat, optional
            Of every target; its offset is a multiple of the element's size.

        Raises
        ------
        UnsupportedError, InputError
            As :meth:`gpupipe.transform.Resizer.resize`; nothing is enqueued.
        UsageError
            A target that does not fit its buffer or is not aligned.
        DeviceMemoryError
            There is not so much left.
        DeviceLostError
            The device no longer answers.
        """
        if not pictures:
            return
        with self._lock:
            placed = []
            met: dict[tuple[int, int], PlacedPlan] = {}  # by identity, which is quicker than the formats' hash
            for surface, resizer, target in pictures:
                key = (id(surface.format), id(resizer))
                plan = met.get(key)
                if plan is None:
                    plan = met[key] = self._plan(surface.format, resizer, pixels)
                nbytes = plan.plan.elements * pixels.element_nbytes
                if not 0 <= target.offset <= target.buffer.nbytes - nbytes or target.offset % pixels.element_nbytes:
                    raise UsageError(
                        f"target at byte {target.offset} of {target.buffer.nbytes}: expected room for {nbytes} bytes, "
                        f"aligned to {pixels.element_nbytes}"
                    )
                placed.append((plan, surface, target.buffer.pointer + target.offset))
            self._runtime.launch(prepare(placed, self._tile_rows), stream, [plan for plan, _, _ in placed])

    def _plan(self, format: SurfaceFormat, resizer: Resizer, pixels: PixelFormat) -> PlacedPlan:
        key = (format, resizer.size, resizer.crop, pixels)
        found = self._plans.get(key)
        if found is not None:
            self._plans.move_to_end(key)
            return found
        plan = KernelPlan(format, resizer)
        blob = self._runtime.upload(plan.blob)
        if pixels.dtype == "uint8":
            found = PlacedPlan(plan, blob.pointer, pixels, owner=blob)
        else:
            levels = self._runtime.upload(level_bits(pixels))
            found = PlacedPlan(plan, blob.pointer, pixels, levels.pointer, (blob, levels))
        self._plans[key] = found
        while len(self._plans) > _PLANS_KEPT:
            self._plans.popitem(last=False)
        return found


class CupyRuntime(Runtime):
    """A card, through CuPy.

    Launches are told what to do in memory of a few slots, each page-locked and on the device; a slot is used again when
    its launch has run. Calls for one runtime come one at a time.

    Parameters
    ----------
    device : int
        Among those this process sees.

    Raises
    ------
    UsageError
        CuPy is not installed.
    StoppedError
        The kernel does not compile here.
    """

    def __init__(self, device: int) -> None:
        self._cupy = _import_cupy()
        self._device = device
        self._slots: list[_Slot] = []
        with cuda_errors(f"cuda:{device}"), self._cupy.cuda.Device(device):
            try:
                module = self._cupy.RawModule(code=source(), options=OPTIONS, backend="nvrtc")
                module.compile()
                self._function = module.get_function(NAME)
            except self._cupy.cuda.compiler.CompileException as error:
                raise StoppedError(
                    f"cuda:{device}: the kernel does not compile: {error}. Install the CUDA packages of one major "
                    "version that the driver runs: pip install 'gpupipe[cu13]' or 'gpupipe[cu12]'"
                ) from error

    def upload(self, table: npt.NDArray[Any]) -> DeviceBuffer:
        """A copy in device memory, there when this returns."""
        cuda = self._cupy.cuda
        host = np.ascontiguousarray(table)
        with cuda_errors(f"cuda:{self._device}"), cuda.Device(self._device):
            memory = cuda.alloc(host.nbytes)
            cuda.runtime.memcpy(memory.ptr, host.ctypes.data, host.nbytes, cuda.runtime.memcpyHostToDevice)
            cuda.runtime.streamSynchronize(0)  # the copy returns when it has read its source, which is earlier
        return DeviceBuffer(memory.ptr, host.nbytes, memory)

    def launch(self, launch: Launch, stream: int, keep: Sequence[object]) -> None:
        """One copy of what the kernel is told, one launch."""
        cuda = self._cupy.cuda
        tiles, pictures = launch.tiles.nbytes, launch.pictures.nbytes
        with cuda_errors(f"cuda:{self._device}"), cuda.Device(self._device):
            slot = self._slot(tiles + pictures)
            slot.host[:tiles] = launch.tiles.view(np.uint8)
            slot.host[tiles : tiles + pictures] = launch.pictures.view(np.uint8)
            slot.keep = keep
            to = cuda.Stream.from_external(_Handle(stream)) if stream else cuda.Stream.null
            try:
                cuda.runtime.memcpyAsync(
                    slot.memory.ptr,
                    slot.host.ctypes.data,
                    tiles + pictures,
                    cuda.runtime.memcpyHostToDevice,
                    stream,
                )
                with to:
                    addresses = (np.uint64(slot.memory.ptr), np.uint64(slot.memory.ptr + tiles))
                    self._function((len(launch.tiles),), (launch.threads,), addresses)
            finally:
                slot.event.record(to)

    def _slot(self, nbytes: int) -> _Slot:
        """A slot that no launch uses, of at least so many bytes."""
        slot = next((slot for slot in self._slots if slot.event.done), None)
        if slot is None and len(self._slots) >= _SLOTS:
            slot = self._slots[0]
            slot.event.synchronize()
        if slot is not None:
            self._slots.remove(slot)
            slot.keep = ()
        if slot is None or slot.host.nbytes < nbytes:
            slot = _Slot(self._cupy, max(nbytes, 1 << 16))
        self._slots.append(slot)  # the one used longest ago is first
        return slot


class _Handle:
    """A stream of somebody else's, as CUDA's stream protocol has it."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        """Version and handle."""
        return 0, self._handle


class _Slot:
    """Room for what one launch is told, on both sides."""

    def __init__(self, cupy: Any, nbytes: int) -> None:
        self.event = cupy.cuda.Event(disable_timing=True)  # done until it is first recorded
        self.memory = cupy.cuda.alloc(nbytes)
        pinned = cupy.cuda.alloc_pinned_memory(nbytes)
        self.host: npt.NDArray[np.uint8] = np.frombuffer(pinned, np.uint8, nbytes)
        self.keep: Sequence[object] = ()


def source() -> str:
    """The kernel in one text, its header within, so that a compiler's cache sees every change of either."""
    here = Path(__file__).parent
    folder = here if (here / "frames.cu").exists() else here.parents[1] / "csrc"  # installed; or editable
    text = (folder / "frames.cu").read_text(encoding="utf-8")
    header = (folder / "plane.h").read_text(encoding="utf-8").replace("#pragma once", "")
    return text.replace('#include "plane.h"', header)


@contextmanager
def cuda_errors(where: str) -> Iterator[None]:
    """Say CUDA's errors, as CuPy raises them, in the package's own words; `where` is the device's name.

    Raises
    ------
    DeviceMemoryError
        Out of memory, of the device or of page-locked memory.
    DeviceLostError
        The device or its context is of no more use.
    """
    cupy = _import_cupy()
    cuda = cupy.cuda
    try:
        yield
    except cuda.memory.OutOfMemoryError as error:
        raise DeviceMemoryError(f"{where}: {error}") from error
    except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError) as error:
        if error.status == _OUT_OF_MEMORY:
            raise DeviceMemoryError(f"{where}: {error}") from error
        if error.status in _LOST:
            raise DeviceLostError(f"{where}: {error}; its items go to other workers") from error
        raise


def _import_cupy() -> Any:
    try:
        import cupy
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"the GPU needs CuPy, which does not import ({error}); pip install 'gpupipe[cu13]' or 'gpupipe[cu12]'"
        ) from error
    return cupy

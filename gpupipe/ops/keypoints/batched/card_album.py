"""The images of one batch in a GPU's memory, their crops cut by ``csrc/keypoints_crop.cu``.

CuPy compiles it at first use, as :mod:`gpupipe.cuda.kernel` says of the other kernel.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

import gpupipe.cuda
from gpupipe.cuda.kernel import cuda_errors
from gpupipe.errors import StoppedError
from gpupipe.ops.keypoints.batched.album import Album, frames_of
from gpupipe.ops.keypoints.batched.runtime import Runtime
from gpupipe.ops.keypoints.graph import NETWORKS, Crop
from gpupipe.ops.keypoints.reference import codes
from gpupipe.ops.keypoints.stages import Picture

NAMES = ("crop_matrices", "crop_pixels")
"""The kernels'."""

OPTIONS = ("-std=c++17", "-fmad=false")
"""What the compiler is told beside the architecture. Nothing is fused: the CPU's code does not, either."""

THREADS = 256
"""Of a block: ``kThreads``."""


class Kernels(Protocol):
    """What carries launches out."""

    def launch(self, name: str, blocks: tuple[int, int], arguments: Sequence[Any]) -> None:
        """Enqueue a kernel of blocks of :data:`THREADS`; an argument is a contiguous tensor or a 32-bit integer."""


class CardAlbum(Album):
    """Crops by two launches for all images of a batch. Made and used inside of :meth:`Runtime.work`.

    Parameters
    ----------
    runtime : Runtime
        Whose device and batch it has.
    kernels : Kernels
        See :class:`CupyKernels`.
    """

    def __init__(self, runtime: Runtime, kernels: Kernels) -> None:
        self._runtime, self._kernels = runtime, kernels
        frames, taken = frames_of((), runtime.batch)
        self.frames, self.taken = runtime.to_device(frames), runtime.to_device(taken)
        self._table = runtime.to_device(np.zeros((runtime.batch, 3), np.int64))  # RgbImage: address, height, width
        lows = {network.crop.low for network in NETWORKS.values()}
        self._codes = {low: runtime.to_device(codes(low).copy()) for low in lows}
        self._memory: Any = None

    def load(self, pictures: Sequence[Picture]) -> None:
        """One copy of all, out of page-locked memory."""
        starts = np.cumsum([0, *(picture.pixels.nbytes for picture in pictures)])
        staged = self._runtime.staging(int(starts[-1]))
        for picture, start in zip(pictures, starts, strict=False):
            staged.numpy()[start : start + picture.pixels.nbytes] = picture.pixels.reshape(-1)
        self._memory = staged.to(self._runtime.device, non_blocking=True)
        table = np.zeros(self._table.shape, np.int64)
        for row, picture, start in zip(table, pictures, starts, strict=False):
            row[:] = self._memory.data_ptr() + start, *picture.pixels.shape[:2]
        frames, taken = frames_of(pictures, len(table))
        for held, values in ((self._table, table), (self.frames, frames), (self.taken, taken)):
            held.copy_(self._runtime.to_device(values))

    def crop(self, regions: Any, wanted: Any, how: Crop) -> Any:
        """A launch for the matrices, one for the pixels."""
        count, size, device = len(regions), how.size, self._runtime.device
        wanted, regions = (wanted & self.taken).contiguous(), regions.contiguous()
        matrices = torch.empty((count, 9), dtype=torch.float64, device=device)
        crops = torch.empty((count, size, size, 3), dtype=torch.float32, device=device)
        self._kernels.launch(NAMES[0], (-(-count // THREADS), 1), (regions, wanted, count, size, matrices))
        pixels = (self._table, matrices, wanted, size, int(how.zeros), self._codes[how.low], crops)
        self._kernels.launch(NAMES[1], (-(-size * size // THREADS), count), pixels)
        return crops


class CupyKernels:
    """The kernels on a card, in torch's current stream.

    Parameters
    ----------
    device : torch.device

    Raises
    ------
    UsageError
        CuPy is not installed.
    StoppedError
        The kernels do not compile here.
    """

    def __init__(self, device: Any) -> None:
        self._device = device
        with cuda_errors(str(device)):
            import cupy

            self._cupy = cupy
            try:
                with cupy.cuda.Device(device.index):
                    module = cupy.RawModule(code=source(), options=OPTIONS, backend="nvrtc")
                    self._functions = {name: module.get_function(name) for name in NAMES}
            except cupy.cuda.compiler.CompileException as error:
                raise StoppedError(
                    f"{device}: the crops' kernel does not compile: {error}. Install the CUDA packages of one major "
                    "version that the driver runs: pip install 'gpupipe[cu13]'"
                ) from error

    def launch(self, name: str, blocks: tuple[int, int], arguments: Sequence[Any]) -> None:
        """Enqueue a kernel; also while the stream is being captured."""
        cuda = self._cupy.cuda
        given = [np.int32(each) if isinstance(each, int) else np.uint64(each.data_ptr()) for each in arguments]
        stream = torch.cuda.current_stream(self._device)
        with cuda_errors(str(self._device)), cuda.Device(self._device.index), cuda.Stream.from_external(stream):
            self._functions[name](blocks, (THREADS,), tuple(given))


def source() -> str:
    """The kernels in one text, their header within, so that a compiler's cache sees every change of either."""
    here = Path(gpupipe.cuda.__file__).parent
    folder = here if (here / "keypoints_crop.cu").exists() else here.parents[1] / "csrc"  # installed; or editable
    text = (folder / "keypoints_crop.cu").read_text(encoding="utf-8")
    header = (folder / "keypoints_warp.h").read_text(encoding="utf-8").replace("#pragma once", "")
    return text.replace('#include "keypoints_warp.h"', header)

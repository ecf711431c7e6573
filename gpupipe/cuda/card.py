"""What the pipeline needs of a card: memory, streams that run apart, one kernel.

:class:`gpupipe.cuda.cupy_card.CupyCard` is the real one. Whoever holds a buffer owns it; it is freed when the last
reference is dropped. A card may be used by several threads, a stream by one at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface


@dataclass(frozen=True, slots=True)
class DeviceBuffer:
    """Memory of a card.

    Attributes
    ----------
    pointer : int
        Device address.
    nbytes : int
    owner : object
        Keeps it allocated.
    """

    pointer: int
    nbytes: int
    owner: object


@dataclass(frozen=True, slots=True)
class Target:
    """Where one picture goes: ``offset`` bytes into ``buffer``, as C-contiguous uint8 ``[H, W, 3]``."""

    buffer: DeviceBuffer
    offset: int


class Event(ABC):
    """A point in a stream."""

    @abstractmethod
    def done(self) -> bool:
        """True once everything before it has run."""

    @abstractmethod
    def wait(self) -> None:
        """Block this thread until then; holds no GIL.

        Raises
        ------
        DeviceLostError
            The device no longer answers.
        """


class Stream(ABC):
    """Work that runs in order, beside that of other streams.

    Attributes
    ----------
    handle : int
        The CUDA stream's address, for libraries; 0 where there is none.
    """

    handle: int

    @abstractmethod
    def record(self) -> Event:
        """The point behind everything enqueued so far."""

    @abstractmethod
    def wait(self, event: Event) -> None:
        """Have what is enqueued from now on run after `event`, without blocking this thread."""


class Card(ABC):
    """One device.

    Every method may raise :class:`gpupipe.errors.DeviceLostError`.

    Attributes
    ----------
    name : str
        ``"cuda:0"``.
    """

    name: str

    @abstractmethod
    def empty(self, nbytes: int) -> DeviceBuffer:
        """Memory of the card, not cleared.

        Raises
        ------
        DeviceMemoryError
            There is not so much left.
        """

    @abstractmethod
    def pinned(self, nbytes: int) -> np.ndarray:
        """Page-locked host memory, uint8 ``[nbytes]``, page-aligned, not cleared.

        Raises
        ------
        MemoryError
            The system does not lock so much.
        """

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream."""

    @abstractmethod
    def copy_out(self, source: DeviceBuffer, offset: int, out: np.ndarray, stream: Stream) -> None:
        """Enqueue the copy of ``out.nbytes`` bytes from the card into pinned memory; `out` is C-contiguous."""

    @abstractmethod
    def resize(self, pictures: Sequence[tuple[DeviceSurface, Resizer, Target]], stream: Stream) -> None:
        """Enqueue one launch that resizes pictures of any formats and sizes, each into its target.

        The bytes are those of ``Resizer.resize`` on the same planes.

        Raises
        ------
        DeviceMemoryError
            The launch needs more memory than is left; a smaller one may fit.
        UnsupportedError
            A format or size that the kernel does not take.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back."""

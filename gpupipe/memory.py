"""Slots: where an item's rows are computed before they are written to their place.

A slot is acquired, filled, committed by a sink and released. Here the memory is the host's, pageable or pinned; what a
card computes stands in a :class:`gpupipe.cuda.card.DeviceBuffer` until it is copied here.
"""

from __future__ import annotations

import math
import queue
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

_PAGE = 4096


@dataclass(frozen=True, slots=True)
class RowSpec:
    """One declared array of an output: its row is ``shape`` of ``dtype`` for every item."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(slots=True)
class HostSlot:
    """Writable rows of one item, in host memory that :class:`HostSlots` owns and uses again."""

    ordinal: int
    rows: dict[str, np.ndarray]


class HostSlots:
    """A few slots made once and used for one item after another; taken and given back by different threads.

    Parameters
    ----------
    specs : sequence of RowSpec
    count : int
    allocate : callable, optional
        Gives so many bytes, uint8, page-aligned; default pageable memory, a card gives pinned.
    """

    def __init__(
        self, specs: Sequence[RowSpec], count: int = 1, allocate: Callable[[int], np.ndarray] | None = None
    ) -> None:
        take = allocate or _aligned
        self._free: queue.SimpleQueue[dict[str, np.ndarray] | None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put({spec.name: take(spec.nbytes).view(spec.dtype).reshape(spec.shape) for spec in specs})

    def acquire(self, ordinal: int) -> HostSlot | None:
        """A slot for the item, waited for; its bytes are those of an earlier item. None once the slots are given up."""
        rows = self._free.get()
        return None if rows is None else HostSlot(ordinal, rows)

    def release(self, slot: HostSlot) -> None:
        """Give the memory back; the slot's arrays may not be used any more."""
        self._free.put(slot.rows)

    def give_up(self) -> None:
        """Wake whoever waits for a slot: none will come."""
        self._free.put(None)


def _aligned(nbytes: int) -> np.ndarray:
    # Page-aligned, so that a write may go straight from here (O_DIRECT).
    raw = np.empty(nbytes + _PAGE, dtype=np.uint8)
    start = -raw.ctypes.data % _PAGE
    return raw[start : start + nbytes]

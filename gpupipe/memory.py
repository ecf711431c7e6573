"""Slots: where an item's rows are computed before they are written to their place.

A slot is acquired, filled, committed by a sink and released. Here the memory is the host's; who owns it
is visible in the type, so that pinned and device slots can stand beside this one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    """A few slots made once and used for one item after another; not thread-safe."""

    def __init__(self, specs: Sequence[RowSpec], count: int = 1) -> None:
        self._free = [{spec.name: _aligned(spec) for spec in specs} for _ in range(count)]

    def acquire(self, ordinal: int) -> HostSlot:
        """A slot for the item; its bytes are those of an earlier item until they are written."""
        return HostSlot(ordinal, self._free.pop())

    def release(self, slot: HostSlot) -> None:
        """Give the memory back; the slot's arrays may not be used any more."""
        self._free.append(slot.rows)


def _aligned(spec: RowSpec) -> np.ndarray:
    # Page-aligned, so that a write may go straight from here (O_DIRECT, pinning).
    raw = np.empty(spec.nbytes + _PAGE, dtype=np.uint8)
    start = -raw.ctypes.data % _PAGE
    return raw[start : start + spec.nbytes].view(spec.dtype).reshape(spec.shape)

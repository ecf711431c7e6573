"""The pulse of a worker: what it works on and since when, in 64 bytes shared with its supervisor.

It outlives the worker, so a death can be pinned on an item and a stage; and it costs no message.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

# Monotonic seconds at an item's start, then its ordinal or -1. Native, so that each is one store and none is torn by a
# kill; in this order, so that who reads between the two takes an item for younger than it is.
_ITEM = struct.Struct("@dq")
_STAGE = struct.Struct("<32s")
_SIZE = 64


@dataclass(frozen=True, slots=True)
class Beat:
    """One reading: the item (None between items), seconds on it, and the stage."""

    ordinal: int | None
    seconds: float
    stage: str


class Pulse:
    """The shared bytes. The supervisor makes them and hands the descriptor to its worker."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.memfd_create("gpupipe-pulse") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, _SIZE)
        self._map = mmap.mmap(self.fd, _SIZE)
        if fd is None:
            self.item(None)

    def item(self, ordinal: int | None) -> None:
        """Say which item is begun."""
        _ITEM.pack_into(self._map, 0, time.monotonic(), -1 if ordinal is None else ordinal)

    def stage(self, name: str) -> None:
        """Say which stage is begun."""
        _STAGE.pack_into(self._map, _ITEM.size, name.encode()[:32])

    def read(self) -> Beat:
        """What was said last; CLOCK_MONOTONIC is one for all processes of a machine."""
        since, ordinal = _ITEM.unpack_from(self._map, 0)
        (stage,) = _STAGE.unpack_from(self._map, _ITEM.size)
        return Beat(
            None if ordinal < 0 else ordinal, time.monotonic() - since, stage.rstrip(b"\0").decode(errors="replace")
        )

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.fd)

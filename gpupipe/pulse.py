"""The pulse of a worker: what it works on and since when, in some KiB shared with its supervisor.

It outlives the worker, so a death can be pinned on items and their stages; and it costs no message. A worker has as
many *seats* as it works items at the same time, and one line beside them for what it does between items.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from dataclasses import dataclass

SEATS = 255
AUDIT_SEAT = SEATS - 1  # beyond those of any operator
# Monotonic seconds at an item's start, then its ordinal or -1. Native, so that each is one store and none is torn by a
# kill; in this order, so that who reads between the two takes an item for younger than it is.
_ITEM = struct.Struct("@dq")
_STAGE = struct.Struct("<32s")
_LINE = _ITEM.size + _STAGE.size
_BETWEEN = SEATS  # the line behind the last seat
_SIZE = _LINE * (SEATS + 1)


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
            for seat in range(SEATS + 1):
                self.item(None, seat)

    def item(self, ordinal: int | None, seat: int = 0) -> None:
        """Say which item is begun, or that the seat is free again."""
        _ITEM.pack_into(self._map, seat * _LINE, time.monotonic(), -1 if ordinal is None else ordinal)

    def stage(self, name: str, seat: int | None) -> None:
        """Say which stage is begun; None for one between items."""
        place = _BETWEEN if seat is None else seat
        _STAGE.pack_into(self._map, place * _LINE + _ITEM.size, name.encode()[:32])

    def items(self) -> list[Beat]:
        """The items in hand; CLOCK_MONOTONIC is one for all processes of a machine."""
        now = time.monotonic()
        taken = [seat for seat in range(SEATS) if _ITEM.unpack_from(self._map, seat * _LINE)[1] >= 0]
        beats = (self._read(seat, now) for seat in taken)
        return [beat for beat in beats if beat.ordinal is not None]  # it may be free again by now

    def read(self) -> Beat:
        """What was said last: of the item that has been in hand longest, or of the time between items."""
        return max(self.items(), key=lambda beat: beat.seconds, default=self._read(_BETWEEN, time.monotonic()))

    def _read(self, place: int, now: float) -> Beat:
        since, ordinal = _ITEM.unpack_from(self._map, place * _LINE)
        (stage,) = _STAGE.unpack_from(self._map, place * _LINE + _ITEM.size)
        return Beat(None if ordinal < 0 else ordinal, now - since, stage.rstrip(b"\0").decode(errors="replace"))

    def close(self) -> None:
        """Unmap and close."""
        self._map.close()
        os.close(self.fd)

"""What is still to do, as ranges of work positions, and how it is dealt out.

A lease is one range. Its size follows the measured rate, so that a worker reports about once a second
whether an item takes a millisecond or a minute, and shrinks towards the end so that nobody waits for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np

LEASE_SECONDS = 1.0
MAX_LEASE = 1024
_GROUP_REACH = 64  # how far a lease is stretched to keep items of one file together


class Leases:
    """The queue of pending positions.

    Parameters
    ----------
    pending : numpy.ndarray
        bool [N], by work position.
    group_starts : numpy.ndarray or None
        bool [N], True where a position begins a new input file; None where each item has its own.
    """

    def __init__(self, pending: np.ndarray, group_starts: np.ndarray | None = None) -> None:
        self._ranges = deque(_runs(pending))
        self._alone: deque[int] = deque()
        self._group_starts = group_starts
        self.left = int(pending.sum())

    def take(self, workers: int, rate: float, idle: bool = True, least: int = 1) -> tuple[int, int] | None:
        """The next lease as ``(start, stop)``; None where nothing is left for this worker.

        Parameters
        ----------
        workers : int
            Workers that share what is left.
        rate : float
            Items a second of one worker, 0 while unknown.
        idle : bool
            The worker has nothing else in hand: only then does it get a suspect.
        least : int
            Items that the worker has in hand at the same time.
        """
        if self._alone and idle:
            position = self._alone.popleft()
            self.left -= 1
            return position, position + 1
        if not self._ranges:
            return None
        start, end = self._ranges.popleft()
        size = max(least, min(int(rate * LEASE_SECONDS), self.left // (2 * workers), MAX_LEASE))
        stop = self._round(start, min(end, start + size), end)
        if stop < end:
            self._ranges.appendleft((stop, end))
        self.left -= stop - start
        return start, stop

    def _round(self, start: int, stop: int, end: int) -> int:
        if self._group_starts is None or stop >= end:
            return stop
        ahead = np.flatnonzero(self._group_starts[stop : min(end, stop + _GROUP_REACH)])
        return stop + int(ahead[0]) if len(ahead) else stop

    def clear(self) -> None:
        """Deal out nothing more."""
        self._ranges.clear()
        self._alone.clear()
        self.left = 0

    def give_back(self, positions: Iterable[int]) -> None:
        """Return positions of a dead worker's lease; they are dealt out next."""
        back = sorted(positions, reverse=True)
        self.left += len(back)
        for position in back:
            if self._ranges and self._ranges[0][0] == position + 1:
                self._ranges[0] = (position, self._ranges[0][1])
            else:
                self._ranges.appendleft((position, position + 1))

    def try_alone(self, position: int) -> None:
        """Return a suspect: it is dealt out as a lease of its own."""
        self._alone.append(position)
        self.left += 1


def _runs(pending: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate(([False], pending, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]

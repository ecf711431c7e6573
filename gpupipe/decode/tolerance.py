"""Pictures near the wanted ones that cost less to decode, from the packet table alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpupipe.decode.index import FrameIndex, Int64s, PacketTable
from gpupipe.decode.planner import governing


def cheapest(
    table: PacketTable,
    index: FrameIndex,
    wanted: Sequence[int] | Int64s,
    seconds: float,
    low: int = 0,
    high: int | None = None,
) -> Int64s:
    """Trade pictures for the cheapest within reach.

    From the last to the first: of the pictures within reach the one that adds the fewest packets to those that must be
    decoded anyway, of these the nearest in time, of these the earlier. It is a function of the file and of what is
    asked for, never of a backend.

    Parameters
    ----------
    table : PacketTable
        The stream's packets.
    index : FrameIndex
        An exact one, or the beginning of it.
    wanted : sequence of int
        Numbers of pictures, not decreasing.
    seconds : float
        How far a picture may be from the wanted one.
    low, high : int
        Pictures outside ``low <= number < high`` are not taken.

    Returns
    -------
    int64, as many
        Not decreasing; one picture may stand for several.
    """
    assert index.packet is not None, "a counted index has no costs"
    costs = _Costs(table, index.packet)
    times = index.times
    high = len(index) if high is None else high
    chosen = np.array(wanted, np.int64)
    edge = 1e-9 + seconds
    for place in range(len(chosen) - 1, -1, -1):
        number = int(chosen[place])
        first = max(low, int(np.searchsorted(times, times[number] - edge)))
        stop = min(high, int(np.searchsorted(times, times[number] + edge, side="right")))
        if place + 1 < len(chosen):
            stop = min(stop, int(chosen[place + 1]) + 1)
        reach = np.arange(first, max(stop, first + 1))
        best = np.lexsort((reach, np.abs(times[reach] - times[number]), costs.of(reach)))[0]
        chosen[place] = reach[best]
        costs.add(int(chosen[place]))
    return chosen


class _Costs:
    """Packets that a picture adds to those that are decoded already."""

    def __init__(self, table: PacketTable, packets: Int64s) -> None:
        self._packets = packets
        self._droppable = table.droppable
        self._entries, self._governing = governing(table, packets)
        self._following = np.append(self._entries[1:], len(table))
        # Packets before each that must be decoded, in the group of their own entry and behind it (see planner.plan).
        self._own = np.append(0, np.cumsum(~(table.droppable | table.leading)))
        self._all = np.append(0, np.cumsum(~table.droppable))
        self._reached = self._entries.copy()  # by entry: all before that packet is decoded
        self._single = np.zeros(len(table), np.bool_)  # droppable packets that are decoded

    def of(self, numbers: Int64s) -> Int64s:
        """Packets that each would add."""
        packets, entry = self._packets[numbers], self._governing[numbers]
        stop = packets + ~self._droppable[packets]
        added = np.maximum(self._count(entry, stop) - self._count(entry, self._reached[entry]), 0)
        return np.asarray(added + (self._droppable[packets] & ~self._single[packets]), np.int64)

    def add(self, number: int) -> None:
        """Decode a picture."""
        packet, entry = int(self._packets[number]), int(self._governing[number])
        self._reached[entry] = max(self._reached[entry], packet + 1)
        self._single[packet] |= self._droppable[packet]

    def _count(self, entry: Int64s, stop: Int64s) -> Int64s:
        """Packets before ``stop`` that must be decoded from an entry on."""
        inside = np.minimum(stop, self._following[entry])
        own = self._own[inside] - self._own[self._entries[entry]]
        return np.asarray(own + self._all[stop] - self._all[inside], np.int64)

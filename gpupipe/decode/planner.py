"""What must be decoded for the wanted pictures, from the packet table alone.

The *closure* of a picture is a function of the file: the entry that governs it, every packet from there to it in decode
order that others may refer to (where packets name their references: those that it refers to), and itself. A plan says
in which runs packets are fed, and which of them may be skipped; it feeds at least the closure, and no verdict rests on
what it feeds beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpupipe.decode.index import Bools, FrameIndex, Int64s, PacketTable, References


@dataclass(frozen=True, slots=True)
class Run:
    """Packets ``start:stop`` of the table, fed one after the other to a decoder that was flushed before."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What to feed.

    Attributes
    ----------
    runs : sequence of Run
        In order, apart from each other.
    closure : bool [P]
        Packets that the wanted pictures depend on; damage in any of them fails the item.
    skippable : bool [P]
        Packets that need not be decoded although they lie in a run.
    cut : int64 [P]
        Bytes of a packet after which it may be cut off, because the picture behind them is not wanted; 0 where all of
        it is needed.
    """

    runs: Sequence[Run]
    closure: Bools
    skippable: Bools
    cut: Int64s

    def of(self, run: Run) -> tuple[list[bool], list[int]]:
        """What `skippable` and `cut` say of the packets of one run."""
        return self.skippable[run.start : run.stop].tolist(), self.cut[run.start : run.stop].tolist()


def plan(table: PacketTable, index: FrameIndex, wanted: Sequence[int], seek: bool = True) -> Plan:
    """Plan the decoding of some pictures.

    Parameters
    ----------
    table : PacketTable
        The stream's packets.
    index : FrameIndex
        An exact one.
    wanted : sequence of int
        Numbers of pictures, ascending.
    seek : bool
        False feeds everything from the first packet on; the closure is the same.

    Returns
    -------
    Plan
    """
    assert index.packet is not None, "a counted index is not planned"
    targets = index.packet[np.asarray(wanted, np.int64)]
    closure = np.zeros(len(table), np.bool_)
    entries, groups = governing(table, targets)
    runs: list[Run] = []
    stops: dict[int, int] = {}  # by group, behind its last target
    for number, target in zip(groups.tolist(), targets.tolist(), strict=True):
        stops[number] = max(stops.get(number, 0), target + 1)
    for number, stop in sorted(stops.items()):
        start = int(entries[number])
        following = int(entries[number + 1]) if number + 1 < len(entries) else stop
        needed = ~table.droppable[start:stop]
        needed[: following - start] &= ~table.leading[start : min(following, stop)]
        closure[start:stop] |= needed
        if runs and (start <= runs[-1].stop or not seek):
            runs[-1] = Run(runs[-1].start, max(stop, runs[-1].stop))
        else:
            runs.append(Run(start if seek else 0, stop))
    closure[targets] = True
    cut = table.prefix.copy()
    cut[targets] = 0
    if table.references is None:
        return Plan(runs, closure, table.droppable & ~closure, cut)
    closure = _referred(table, table.references, closure, targets)
    return Plan(runs, closure, ~_fed(table, table.references, closure, runs), cut)


def _referred(table: PacketTable, references: References, most: Bools, targets: Int64s) -> Bools:
    """The part of the closure that the wanted pictures refer to, over any number of others; entries stay in it."""
    closure = most & table.entry
    waiting = targets.tolist()
    closure[targets] = False
    while waiting:
        packet = waiting.pop()
        if not closure[packet]:
            closure[packet] = True
            waiting.extend(references.needs[packet])
    if (closure & ~most).any():
        return most
    if references.reach:
        kept = np.flatnonzero(closure)
        last = np.maximum.accumulate(np.where(references.anchor[kept], np.arange(len(kept)), -1))[:-1]
        follow = (last >= 0) & ~table.entry[kept[1:]]
        gaps = np.abs(table.order[kept[1:]] - table.order[kept[last]])
        if (gaps[follow] >= references.reach).any():
            return most
    return closure


def _fed(table: PacketTable, references: References, closure: Bools, runs: Sequence[Run]) -> Bools:
    """The closure, and what entries within a run name, which is nothing that they are made of.

    They keep it for the leading pictures. Decoders that are never shown a packet may refuse a picture that names it.
    """
    if table.skips:
        return closure
    waiting: list[int] = []
    for run in runs:
        for entry in np.flatnonzero((table.entry & closure)[run.start + 1 : run.stop]).tolist():
            waiting.extend(references.needs[run.start + 1 + entry])
    fed = closure.copy()
    while waiting:
        packet = waiting.pop()
        if not fed[packet]:
            fed[packet] = True
            waiting.extend(references.needs[packet])
    return fed


def governing(table: PacketTable, targets: Int64s) -> tuple[Int64s, Int64s]:
    """Where decoding begins for some packets.

    Returns
    -------
    entries : int64 [E]
        Packets at which decoding may begin.
    groups : int64, as many as ``targets``
        Which of the entries; for leading pictures the one before the last.
    """
    entries = np.flatnonzero(table.entry)
    groups = np.searchsorted(entries, targets, side="right") - 1
    return entries, np.maximum(groups - table.leading[targets], 0)

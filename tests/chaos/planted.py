"""The toy job and the clips job with misdeeds planted among their items, showing on a board what they do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import board
from toy import ToyJob, misdeed

from gpupipe.job import ItemLoop
from gpupipe.jobs.clips import ClipsJob

PHASES = {"commit": "writing", "void": "voiding", "publish": "publishing", "reopen": "reopening"}


class _Shown:
    """What both have in common: their planning, writing, publishing and finishing are seen."""

    def write_items(self, writer):
        mine = board.mine(self.marks)
        mine.watch(writer, "publish", "planning")
        with mine.during("planning"):
            super().write_items(writer)

    def sink(self, place):
        sink, mine = super().sink(place), board.mine(self.marks)
        for name, phase in PHASES.items():
            mine.watch(sink, name, phase)
        return sink

    def finish(self, dataset):
        with board.mine(self.marks).during("finishing"):
            super().finish(dataset)


@dataclass(frozen=True)
class PlantedToy(_Shown, ToyJob):
    """Words say what an item does; see :func:`toy.misdeed`."""


@dataclass(frozen=True)
class PlantedClips(_Shown, ClipsJob):
    """A pair misbehaves whose vid names a misdeed (``crash:17``)."""

    marks: str = ""
    _INPUTS: ClassVar[tuple[str, ...]] = (*ClipsJob._INPUTS, "marks")

    def operator(self, place, device):
        loop = super().operator(place, device)

        def process(work):
            with work.stages("decode"):
                misdeed(str(work.item.get("vid")).partition(":")[0], work.ordinal, self.marks)
            return loop._process(work)

        return ItemLoop(process, loop.close)

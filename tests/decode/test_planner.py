"""Plans, from tables written by hand."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.decode.headers import HeaderError, Picture
from gpupipe.decode.index import NO_PTS, FrameIndex, PacketTable, References, counted_index, exact_index
from gpupipe.decode.planner import Run, plan

TIME_BASE = Fraction(1, 100)


def table(text: str) -> PacketTable:
    """Packets in decode order, kind and place each: I entry, P reference, b droppable, L and l the same but leading."""
    rows, pictures = [], []
    for i, word in enumerate(text.split()):
        kind, place = word[0], int(word[1:])
        rows.append((place * 10, i, i, 1, False, False))
        pictures.append(Picture(True, place, kind == "I", kind in "Ll", kind in "bl"))
    return PacketTable.make(rows, pictures, True, True)


def index(packets: PacketTable) -> FrameIndex:
    return exact_index(packets, TIME_BASE, None)


#          0  1  2  3  4  5  6  7  8  9
OPEN = "I0 P3 b1 b2 I6 L4 l5 P9 b7 b8 I10 P11"
#       0  1  2  3  4  5  6  7  8  9  10  11


class TestPlan:
    def wanted(self, *frames: int, seek: bool = True) -> tuple[list[Run], list[int], list[int]]:
        packets = table(OPEN)
        made = plan(packets, index(packets), frames, seek)
        return list(made.runs), np.flatnonzero(made.closure).tolist(), np.flatnonzero(made.skippable).tolist()

    def test_within_a_group(self) -> None:
        runs, closure, skippable = self.wanted(2)
        assert runs == [Run(0, 4)]
        assert closure == [0, 1, 3]
        assert skippable == [2, 6, 8, 9]

    def test_leading_needs_the_entry_before(self) -> None:
        runs, closure, _ = self.wanted(5)
        assert runs == [Run(0, 7)]
        assert closure == [0, 1, 4, 5, 6]

    def test_trailing_does_not_need_leading(self) -> None:
        runs, closure, _ = self.wanted(7)
        assert runs == [Run(4, 9)]
        assert closure == [4, 7, 8]

    def test_runs_join_or_part(self) -> None:
        assert self.wanted(0, 11)[0] == [Run(0, 1), Run(10, 12)]
        assert self.wanted(8, 10)[0] == [Run(4, 11)]
        assert self.wanted(2, 6)[0] == [Run(0, 5)]
        assert self.wanted(0, 11, seek=False)[0] == [Run(0, 12)]

    @given(st.sets(st.integers(0, 11), min_size=1))
    def test_closure_is_a_function_of_the_file(self, frames: set[int]) -> None:
        near, closure, skippable = self.wanted(*sorted(frames))
        far, same, too = self.wanted(*sorted(frames), seek=False)
        assert (closure, skippable) == (same, too)
        fed = {p for run in near for p in range(run.start, run.stop)}
        assert set(closure) <= fed <= {p for run in far for p in range(run.start, run.stop)}
        apart = set()
        for frame in frames:
            apart |= set(self.wanted(frame)[1])
        assert set(closure) == apart


class TestReferences:
    """I0 <- P4 <- P8, with 2 between I0 and P4, 6 between P4 and P8; P9 begins anew from I0."""

    NEEDS = ((), (0,), (0, 1), (1,), (1, 3), (0,))
    TEXT = "I0 P4 P2 P8 P6 P9"

    def closure(self, *frames: int, reach: int = 0, needs: tuple[tuple[int, ...], ...] = NEEDS) -> list[int]:
        references = References(needs, np.array([True, True, False, True, False, True]), reach)
        packets = replace(table(self.TEXT), references=references)
        made = plan(packets, index(packets), frames)
        assert not (made.closure & made.skippable).any()
        return np.flatnonzero(made.closure).tolist()

    def test_only_what_is_referred_to(self) -> None:
        assert self.closure(1) == [0, 1, 2]
        assert self.closure(3) == [0, 1, 3, 4]
        assert self.closure(5) == [0, 5]

    def test_order_must_be_told(self) -> None:
        """Where the order is counted from the last anchor, too long a gap would miscount it."""
        assert self.closure(5, reach=10) == [0, 5]
        assert self.closure(5, reach=9) == [0, 1, 2, 3, 4, 5]

    def test_nothing_before_the_entry(self) -> None:
        packets = replace(table("I0 P1 I2 P3"), references=References(((), (0,), (1,), (2,)), np.zeros(4, bool), 0))
        assert np.flatnonzero(plan(packets, index(packets), [3]).closure).tolist() == [2, 3]

    @pytest.mark.parametrize(("skips", "fed"), [(True, [0, 4]), (False, [0, 1, 2, 4])])
    def test_entries_within_a_run(self, skips: bool, fed: list[int]) -> None:
        """What they keep for leading pictures is no part of them; codecs that are never shown it may refuse them."""
        references = References(((), (0,), (1,), (0,), (2,)), np.zeros(5, bool), 0)
        packets = replace(table("I0 P1 P2 P3 I4"), references=references, skips=skips)
        made = plan(packets, index(packets), [0, 4], seek=False)
        assert list(made.runs) == [Run(0, 5)]
        assert np.flatnonzero(made.closure).tolist() == [0, 4]
        assert np.flatnonzero(~made.skippable).tolist() == fed
        assert plan(packets, index(packets), [4]).runs == [Run(4, 5)]


class TestExactIndex:
    def test_order(self) -> None:
        found = index(table(OPEN))
        assert found.exact
        assert found.pts.tolist() == [10 * i for i in range(12)]
        assert found.packet is not None
        assert found.packet.tolist() == [0, 2, 3, 1, 5, 6, 4, 8, 9, 7, 10, 11]
        assert found.number(30) == 3
        assert found.number(31) is None
        assert found.number(None) is None
        assert found.times[1] == pytest.approx(0.1)

    def test_hidden_and_discarded(self) -> None:
        packets = table("I0 P1 P2 P3")
        packets.shown[1] = False
        packets.discard[2] = True
        assert index(packets).pts.tolist() == [0, 30]

    @pytest.mark.parametrize("text", ["P0 P1", "I0 l1 P2", "I1 P0"])
    def test_doubt(self, text: str) -> None:
        packets = table(text)
        if text == "I1 P0":
            packets.order[:] = [0, 1]
        with pytest.raises(HeaderError):
            index(packets)

    def test_timestamps(self) -> None:
        for bad in (NO_PTS, 0):
            packets = table("I0 P1 P2")
            packets.pts[1] = bad
            with pytest.raises(HeaderError):
                index(packets)

    def test_empty(self) -> None:
        assert len(exact_index(PacketTable.make([], []), TIME_BASE, None)) == 0


class TestCountedIndex:
    def test_pts_first(self) -> None:
        found = counted_index([(0, 5), (10, 6), (20, 7)], TIME_BASE, 10, None, "why")
        assert found.pts.tolist() == [0, 10, 20]
        assert (found.exact, found.reason, found.packet) == (False, "why", None)

    def test_dts_out_of_order(self) -> None:
        found = counted_index([(None, 0), (None, 2), (None, 1), (None, 3)], TIME_BASE, 1, None, None)
        assert found.pts.tolist() == [0, 1, 2, 3]

    def test_nothing_known(self) -> None:
        found = counted_index([(None, None)] * 3, TIME_BASE, 4, None, None)
        assert found.pts.tolist() == [0, 4, 8]

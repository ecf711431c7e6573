"""Cheaper pictures within reach."""

from __future__ import annotations

import numpy as np
import pytest
from clips import PLANNED
from contract import Make
from hypothesis import given
from hypothesis import strategies as st
from reference import full, of_surface
from synth import Clip
from test_planner import OPEN, index, table

from gpupipe.decode.ffmpeg import FFmpegDecoder
from gpupipe.decode.planner import plan
from gpupipe.decode.sampling import uniform
from gpupipe.decode.tolerance import cheapest

#         0  1  2  3  4  5  6  7  8  9  10  11   0.1 s apart
CLOSED = "I0 P3 b1 b2 P6 b4 b5 I7 P8 P9 I10 P11"


def near(text: str, wanted: list[int], seconds: float, **bounds: int) -> list[int]:
    packets = table(text)
    return cheapest(packets, index(packets), wanted, seconds, **bounds).tolist()


class TestCheapest:
    def test_entry_within_reach(self) -> None:
        assert near(CLOSED, [6], 0.1) == [7]
        assert near(CLOSED, [11], 0.1) == [10]

    def test_what_is_decoded_anyway(self) -> None:
        """9 needs 7 and 8, so that 8 costs nothing; 2 needs 3, which is as near as 1."""
        assert near(CLOSED, [8, 9], 0) == [8, 9]
        assert near(CLOSED, [2, 3], 0.1) == [3, 3]

    def test_nearest_of_the_cheap(self) -> None:
        assert near("I0 P1 P2 P3 P4 P5", [2, 5], 0.1) == [2, 4]

    def test_bounds(self) -> None:
        assert near(CLOSED, [6], 0.1, high=7) == [6]
        assert near(CLOSED, [8], 0.1, low=8) == [8]

    def test_no_reach(self) -> None:
        assert near(OPEN, list(range(12)), 0) == list(range(12))

    @given(st.sampled_from([OPEN, CLOSED]), st.lists(st.integers(0, 11), min_size=1), st.floats(0, 0.6))
    def test_any(self, text: str, wanted: list[int], seconds: float) -> None:
        packets = table(text)
        frames = index(packets)
        wanted.sort()
        found = cheapest(packets, frames, wanted, seconds)
        assert len(found) == len(wanted)
        assert (np.diff(found) >= 0).all()
        assert (np.abs(frames.times[found] - frames.times[wanted]) <= seconds + 1e-6).all()
        exact, cheap = (plan(packets, frames, sorted(set(map(int, each)))).closure.sum() for each in (wanted, found))
        assert cheap <= exact


class TestDecoded:
    @pytest.mark.parametrize("name", ["h264 open gop", "hevc closed gop", "av1", "mpeg2", "vp8"])
    def test_pictures(self, make: Make, name: str) -> None:
        path = make(PLANNED[name])
        truth = full(path)
        with FFmpegDecoder(path) as decoder:
            exact = uniform(len(truth), 7)[0]
            chosen = decoder.near(exact, 0.2)
            found: dict[int, str] = {}
            decoder.read(chosen, lambda position, surface: found.update({position: of_surface(surface)}))
            assert [found[i] for i in range(7)] == [truth[i] for i in chosen]
            assert (np.abs(decoder.index.times[chosen] - decoder.index.times[exact]) <= 0.2 + 1e-6).all()

    def test_saves(self, make: Make) -> None:
        """A keyframe a second, four frames a second apart: half a second of reach leaves keyframes alone."""
        path = make(Clip(count=100, gop=25, options={"preset": "veryfast", "x264-params": "bframes=0:scenecut=0"}))
        decoded = {}
        for seconds in (0.0, 0.5):
            with FFmpegDecoder(path) as decoder:
                list(decoder.frames(np.unique(decoder.near([20, 45, 70, 95], seconds))))
                decoded[seconds] = decoder.stats.decoded
        assert decoded[0.5] <= 12
        assert decoded[0.0] >= 80

    def test_counted(self, make: Make) -> None:
        with FFmpegDecoder(make(Clip("ffv1", "mkv", count=10))) as decoder:
            assert list(decoder.near([3, 5], 1.0)) == [3, 5]

"""Sampling by number, time and rate."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.decode.index import FrameIndex
from gpupipe.decode.sampling import EmptyRangeError, at_rate, at_seconds, uniform, within
from gpupipe.errors import InputError


def index(*pts: int, base: Fraction = Fraction(1, 10)) -> FrameIndex:
    return FrameIndex(np.array(pts, np.int64), base, True)


@given(st.integers(1, 5000), st.integers(1, 64))
def test_uniform(total: int, count: int) -> None:
    found, valid = uniform(total, count)
    assert found.shape == valid.shape == (count,)
    if total >= count:
        assert found.tolist() == np.linspace(0, total - 1, count, dtype=int).tolist()
        assert valid.all()
    else:
        assert found.tolist() == [*range(total), *[total - 1] * (count - total)]
        assert valid.sum() == total


def test_uniform_of_nothing() -> None:
    for total, count in ((0, 16), (5, 0)):
        with pytest.raises(InputError):
            uniform(total, count)


def test_within() -> None:
    found = index(100, 110, 120, 130)  # starts late; 0, 1, 2, 3 s after its first frame
    assert within(found) == (0, 4)
    assert within(found, 1, 3) == (1, 3)
    assert within(found, 0.5, None) == (1, 4)
    assert within(found, None, 99) == (0, 4)
    for begin, end in ((3.5, 9), (1.2, 1.8), (2, 2)):
        with pytest.raises(EmptyRangeError, match="no picture"):
            within(found, begin, end)


def test_at_seconds() -> None:
    found = index(5, 10, 30)  # 0, 0.5, 2.5 s after its first frame
    assert at_seconds(found, [-1, 0, 0.49, 0.5, 2.4, 2.5, 99]).tolist() == [0, 0, 0, 1, 1, 2, 2]
    thirtieths = index(*range(90), base=Fraction(1, 30))
    assert at_seconds(thirtieths, np.arange(90) / 30).tolist() == list(range(90))
    with pytest.raises(EmptyRangeError):
        at_seconds(index(), [0])


def test_at_rate() -> None:
    found = index(*range(0, 50), base=Fraction(1, 25))
    assert at_rate(found, 25).tolist() == list(range(50))
    assert at_rate(found, 5).tolist() == list(range(0, 50, 5))
    assert at_rate(found, 5, begin=1.0).tolist() == list(range(25, 50, 5))
    assert at_rate(found, 5, end=1.0).tolist() == [0, 5, 10, 15, 20]
    assert at_rate(found, 50)[:4].tolist() == [0, 0, 1, 1]
    with pytest.raises(InputError):
        at_rate(found, 0)
    with pytest.raises(EmptyRangeError):
        at_rate(found, 5, begin=7)

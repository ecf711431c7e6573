import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpupipe.leases import MAX_LEASE, Leases


def deal(leases, workers=3, rate=10.0):
    dealt = []
    while (lease := leases.take(workers, rate)) is not None:
        dealt += range(*lease)
    return dealt


@given(st.lists(st.booleans(), min_size=1, max_size=300), st.floats(0, 1e4), st.integers(1, 40))
def test_every_pending_position_is_dealt_once(pending, rate, workers):
    leases = Leases(np.array(pending))
    assert deal(leases, workers, rate) == list(np.flatnonzero(pending))
    assert leases.left == 0


@given(st.lists(st.booleans(), min_size=8, max_size=200), st.data())
def test_what_is_given_back_is_dealt_again_and_nothing_else(pending, data):
    leases = Leases(np.array(pending))
    first = leases.take(1, 50.0)
    held = list(range(*first)) if first else []
    back = data.draw(st.sets(st.sampled_from(held)) if held else st.just(set()))
    leases.give_back(back)
    assert sorted(deal(leases)) == sorted(set(np.flatnonzero(pending)) - (set(held) - back))


def test_a_suspect_comes_alone_and_first():
    leases = Leases(np.ones(100, bool))
    start, stop = leases.take(1, 20.0)
    leases.give_back(set(range(start, stop)) - {start})
    leases.try_alone(start)
    assert leases.take(1, 20.0) == (start, start + 1)


def test_size_follows_the_rate_and_shrinks_at_the_end():
    leases = Leases(np.ones(100_000, bool))
    start, stop = leases.take(2, 0.0)
    assert stop - start == 1
    start, stop = leases.take(2, 300.0)
    assert stop - start == 300
    start, stop = leases.take(2, 1e9)
    assert stop - start == MAX_LEASE
    few = Leases(np.ones(12, bool))
    start, stop = few.take(3, 1e9)
    assert stop - start == 2


def test_items_of_one_file_stay_in_one_lease():
    starts = np.zeros(60, bool)
    starts[[0, 10, 20, 30, 40, 50]] = True
    leases = Leases(np.ones(60, bool), starts)
    assert leases.take(1, 14.0) == (0, 20)
    assert leases.take(1, 10.0) == (20, 30)

"""Work made ready ahead: nothing lost, nothing held back, memory bounded, errors where they belong."""

from __future__ import annotations

import threading

import pytest

from gpupipe.ahead import Ahead
from gpupipe.errors import InputError, OutputError
from gpupipe.job import Completion, Work
from gpupipe.memory import HostSlot


def works(count):
    return [Work(n, n, HostSlot(n, {})) for n in range(count)]


def drained(ahead, most=3):
    found = []
    while (taken := ahead.take(most)) is not None:
        assert 1 <= len(taken) <= most
        found += taken
    return found


@pytest.mark.parametrize("threads", [1, 4])
def test_everything_comes_once_and_an_error_is_its_items_own(threads):
    def prepare(work):
        if work.item % 5 == 0:
            raise InputError(f"item {work.item}")
        return work.item * 10

    found = drained(Ahead(works(100), prepare, lambda made: 1, threads, 4, 100))
    assert sorted(work.item for work, _ in found) == list(range(100))
    for work, made in found:
        if work.item % 5 == 0:
            assert isinstance(made, Completion) and str(made.error) == f"item {work.item}"
        else:
            assert made == work.item * 10


def test_one_thread_keeps_the_order():
    found = drained(Ahead(works(50), lambda work: work.item, lambda made: 1, 1, 4, 100))
    assert [made for _, made in found] == list(range(50))


def test_a_stream_that_waits_for_what_is_in_hand_goes_on():
    """The next lease may come only when the items of this one are done."""
    done = threading.Semaphore(0)

    def stream():
        for number, work in enumerate(works(6)):
            if number in (3, 5):
                for _ in range(number):
                    assert done.acquire(timeout=60), "items in hand were not handed on"
                done.release(number)
            yield work

    ahead = Ahead(stream(), lambda work: work.item, lambda made: 1, 2, 4, 100)
    found = []
    while (taken := ahead.take(2)) is not None:
        found += taken
        for _ in taken:
            done.release()
    assert len(found) == 6


def test_no_more_is_ready_than_there_is_room_and_memory_for():
    made, change = [], threading.Condition()

    def prepare(work):
        with change:
            made.append(work.item)
            change.notify_all()
        return bytes(10)

    def wait_for(count):
        with change:
            assert change.wait_for(lambda: len(made) >= count, timeout=60)

    ahead = Ahead(works(20), prepare, len, 1, 100, 25)  # two fit, a third waits in the thread's hands
    wait_for(3)
    assert len(made) == 3
    assert len(ahead.take(1)) == 1
    wait_for(4)
    assert len(made) == 4
    ahead.end()


def test_a_single_one_larger_than_the_memory_comes_alone():
    found = drained(Ahead(works(3), lambda work: bytes(1000), len, 1, 10, 25), most=10)
    assert len(found) == 3


def test_not_waiting_gives_what_there_is():
    gate = threading.Event()

    def prepare(work):
        assert gate.wait(60)
        return work.item

    ahead = Ahead(works(1), prepare, lambda made: 1, 1, 1, 1)
    assert ahead.take(5, wait=False) == []
    gate.set()
    assert [made for _, made in ahead.take(5)] == [0]
    assert ahead.take(5) is None


def test_what_is_no_items_fault_is_raised_where_the_work_is_taken():
    def prepare(work):
        raise OutputError(28, "no space")

    with pytest.raises(OutputError, match="no space"):
        drained(Ahead(works(3), prepare, lambda made: 1, 1, 1, 1))

    def stream():
        yield from works(2)
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        drained(Ahead(stream(), lambda work: 0, lambda made: 1, 2, 1, 1))

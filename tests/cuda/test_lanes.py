"""Lanes: who takes, who waits, and how it all ends; held by events, never by time."""

from __future__ import annotations

import queue
import threading

import numpy as np
import pytest

from gpupipe.errors import (
    DeviceLostError,
    DeviceMemoryError,
    InputError,
    OutputError,
    StoppedError,
    UsageError,
)
from gpupipe.job import Completion, ItemMemoryError, Work
from gpupipe.lanes import Lanes
from gpupipe.memory import HostSlot, HostSlots, RowSpec

PATIENCE = 20.0  # a test that waits for so long has failed


def works(count):
    return (Work(ordinal, f"item {ordinal}", HostSlot(ordinal, {})) for ordinal in range(count))


class Step:
    """A process of one lane: `act` of the work, then done."""

    def __init__(self, act=lambda work: None):
        self.act = act
        self.closed = False

    def __call__(self, work):
        self.act(work)
        return Completion(work, record=str(work.ordinal))

    def close(self):
        self.closed = True


def lanes_of(count, act=lambda work: None):
    return Lanes([Step(act) for _ in range(count)])


def left_over():
    return [thread for thread in threading.enumerate() if thread.name.startswith("lane-")]


@pytest.fixture(autouse=True)
def nothing_left():
    yield
    for thread in left_over():
        thread.join(PATIENCE)
    assert left_over() == []


def test_every_item_comes_once_and_the_lanes_end():
    lanes = lanes_of(4)
    done = [completion.work.ordinal for completion in lanes.run(works(50))]
    assert sorted(done) == list(range(50))
    assert lanes.depth == 4
    assert left_over() == []


def test_an_empty_stream_ends():
    assert list(lanes_of(3).run(works(0))) == []
    assert left_over() == []


def test_a_stream_that_ends_in_one_lane_is_asked_no_more():
    asked = []

    def stream():
        yield from works(2)
        asked.append("end")

    class Once:
        def __init__(self):
            self.inner, self.ended = stream(), False

        def __iter__(self):
            return self

        def __next__(self):
            assert not self.ended
            try:
                return next(self.inner)
            except StopIteration:
                self.ended = True
                raise

    assert len(list(lanes_of(5).run(Once()))) == 2
    assert asked == ["end"]


def test_as_many_items_are_in_hand_as_there_are_lanes():
    meeting = threading.Barrier(4)
    done = list(lanes_of(4, lambda work: meeting.wait(PATIENCE)).run(works(8)))
    assert len(done) == 8


def test_a_slow_item_holds_none_of_the_others():
    others = threading.Semaphore(0)

    def act(work):
        if work.ordinal == 0:
            for _ in range(9):
                assert others.acquire(timeout=PATIENCE)

    run = lanes_of(2, act).run(works(10))
    done = []
    for completion in run:
        done.append(completion.work.ordinal)
        others.release()
    assert sorted(done) == list(range(10))
    assert done[-1] == 0


def test_the_stream_is_taken_from_by_one_lane_at_a_time():
    inside, most = 0, 0

    class Stream:
        def __init__(self):
            self.left = 200

        def __iter__(self):
            return self

        def __next__(self):
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            self.left -= 1
            inside -= 1
            if self.left < 0:
                raise StopIteration
            return Work(self.left, "", HostSlot(self.left, {}))

    assert len(list(lanes_of(8).run(Stream()))) == 200
    assert most == 1


@pytest.mark.parametrize("error", [InputError("bad"), ZeroDivisionError("bug"), DeviceMemoryError("card is full")])
def test_an_items_error_is_its_own(error):
    def act(work):
        if work.ordinal == 3:
            raise error

    done = {completion.work.ordinal: completion for completion in lanes_of(3, act).run(works(6))}
    assert sorted(done) == list(range(6))
    assert done[3].error is error
    assert [done[n].error for n in (0, 1, 2, 4, 5)] == [None] * 5


@pytest.mark.parametrize(
    "error", [OutputError(28, "full"), StoppedError("stop"), UsageError("usage"), DeviceLostError("gone")]
)
def test_an_error_that_is_no_items_ends_the_operator(error):
    def act(work):
        if work.ordinal == 5:
            raise error

    done = []
    with pytest.raises(type(error)) as raised:
        for completion in lanes_of(3, act).run(works(1000)):
            done.append(completion.work.ordinal)
    assert raised.value is error
    assert 5 not in done
    assert len(done) < 1000


class Held:
    """Holds the first item in its lane until another's error has come."""

    def __init__(self):
        self.begun, self.go, self.ended = threading.Event(), threading.Event(), []

    def item(self, work):
        if work.ordinal == 0:
            self.begun.set()
            assert self.go.wait(PATIENCE)
            self.ended.append(work.ordinal)

    def error(self):
        assert self.begun.wait(PATIENCE)
        self.go.set()
        raise OutputError(28, "full")


def test_lanes_at_work_end_their_items_before_the_error_is_raised():
    held = Held()

    def act(work):
        held.item(work)
        if work.ordinal == 1:
            held.error()

    with pytest.raises(OutputError):
        list(lanes_of(2, act).run(works(9)))
    assert held.ended == [0]


def test_memory_of_the_host_names_the_item():
    def act(work):
        if work.ordinal == 2:
            raise MemoryError

    with pytest.raises(ItemMemoryError) as raised:
        list(lanes_of(2, act).run(works(4)))
    assert raised.value.ordinal == 2


def test_a_lost_device_is_raised_though_a_lane_is_held_by_it(monkeypatch):
    monkeypatch.setattr("gpupipe.lanes._LAST_SECONDS", 0.0)
    held, begun = threading.Event(), threading.Event()

    def act(work):
        if work.ordinal == 0:
            begun.set()
            held.wait(PATIENCE)
        else:
            begun.wait(PATIENCE)
            raise DeviceLostError("gone")

    try:
        with pytest.raises(DeviceLostError):
            list(lanes_of(2, act).run(works(9)))
        assert not held.is_set()  # it did not wait for the lane
    finally:
        held.set()


def test_a_consumer_that_stops_early_ends_the_lanes():
    begun = []
    run = lanes_of(3, lambda work: begun.append(work.ordinal)).run(works(10**9))
    next(run)
    run.close()
    for thread in left_over():  # one may have been in the stream
        thread.join(PATIENCE)
    assert 1 <= len(begun) < 10**9
    assert list(run) == []


def test_a_consumer_that_fails_ends_the_lanes_before_its_error_goes_on():
    """As a worker whose writer finds the disk full: nobody closes the generator but the error that leaves the loop."""
    held = Held()

    def consume():
        for _ in lanes_of(2, held.item).run(works(10**9)):
            held.error()

    with pytest.raises(OutputError):
        consume()
    assert held.ended == [0]


def test_a_consumer_that_stops_early_waits_for_no_stream():
    """The stream gives nothing any more: whoever waits in it has no item, and shall not hold the end."""
    feed: queue.SimpleQueue = queue.SimpleQueue()
    feed.put(0)
    begun = []

    def stream():
        while (ordinal := feed.get()) is not None:
            yield Work(ordinal, "", HostSlot(ordinal, {}))

    run = lanes_of(3, lambda work: begun.append(work.ordinal)).run(stream())
    assert next(run).work.ordinal == 0
    run.close()  # returns although a lane waits in the stream
    feed.put(1)  # and what that one still gets is not begun
    for thread in left_over():
        thread.join(PATIENCE)
    assert begun == [0]


@pytest.mark.parametrize("error", [ItemMemoryError(4), ValueError("the plan is damaged")])
def test_an_error_of_the_stream_is_raised(error):
    def stream():
        yield from works(4)
        raise error

    with pytest.raises(type(error)) as raised:
        list(lanes_of(3).run(stream()))
    assert raised.value is error


def test_no_deadlock_where_the_slots_are_given_up():
    """As in a worker: one lane waits for a slot, the writer fails, its slot never comes back."""
    slots = HostSlots([RowSpec("x", (4,), "|u1")], 2)

    def stream():
        for ordinal in range(100):
            slot = slots.acquire(ordinal)
            if slot is None:
                return
            yield Work(ordinal, "", slot)

    done = []
    for completion in lanes_of(4).run(stream()):
        done.append(completion.work.ordinal)
        if len(done) == 2:
            slots.give_up()  # neither slot was given back
    assert sorted(done) == [0, 1]


def test_closing_closes_what_the_lanes_have_then_what_they_share():
    order = []

    class Named(Step):
        def close(self):
            order.append("lane")

    lanes = Lanes([Named(), Named()], lambda: order.append("shared"))
    list(lanes.run(works(3)))
    lanes.close()
    assert order == ["lane", "lane", "shared"]


def test_rows_of_items_do_not_mix():
    slots = HostSlots([RowSpec("x", (1000,), "<i8")], 5)

    def stream():
        for ordinal in range(40):
            yield Work(ordinal, "", slots.acquire(ordinal))

    def act(work):
        for position in range(1000):
            work.slot.rows["x"][position] = work.ordinal

    for completion in lanes_of(4, act).run(stream()):
        rows = completion.work.slot.rows["x"]
        np.testing.assert_array_equal(rows, completion.work.ordinal)
        rows[:] = -1
        slots.release(completion.work.slot)

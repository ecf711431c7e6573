"""The batcher and the rows on the card, over a card in host memory whose streams are threads.

Pictures are scribbled over when they are given back: whoever gives one back too early makes a wrong row.
"""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest
from host_card import PATIENCE, Faults, HostCard, on_host

from gpupipe.cuda.batcher import Batcher
from gpupipe.cuda.slots import DeviceRows, runs
from gpupipe.decode.session import Picture
from gpupipe.errors import DeviceLostError, DeviceMemoryError, StoppedError, UnsupportedError
from gpupipe.stages import Stages
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface, SurfaceFormat

SIZE = (12, 16)
RESIZER = Resizer(SIZE)


class Drawn(Picture):
    """A picture of random samples that counts how often it is given back."""

    serial = itertools.count()

    def __init__(self, size=(32, 48), layout="nv12"):
        height, width = size
        self.pts = next(self.serial)
        self.memory = np.random.default_rng(self.pts).integers(0, 256, height * width * 3 // 2, dtype=np.uint8)
        self.truth = np.empty((*SIZE, 3), np.uint8)
        start = self.memory.ctypes.data
        self.surface = DeviceSurface(
            SurfaceFormat(height, width, layout), [start, start + height * width], [width, width], self.pts, self
        )
        RESIZER.resize(on_host(self.surface), self.truth)
        self.given = 0

    def to_host(self):
        return on_host(self.surface)

    def release(self):
        self.given += 1
        self.memory[:] = 0xA5


@pytest.fixture
def card():
    card = HostCard()
    yield card
    card.close()


class Rig:
    """A card with a batcher and rows for one item."""

    def __init__(self, card, batch=64, count=100):
        self.card, self.told = card, []
        self.stream = card.stream()
        self.batcher = Batcher(card, self.stream, self.told.append, batch)
        self.count = count

    def rows(self):
        return DeviceRows(self.card, self.batcher, self.count, SIZE)


@pytest.fixture
def rig(card):
    rig = Rig(card)
    yield rig
    rig.stream.go()
    rig.batcher.close()


def fresh(count):
    return np.zeros((count, *SIZE, 3), np.uint8)


def check(out, pictures):
    np.testing.assert_array_equal(out, [picture.truth for picture in pictures])
    assert [picture.given for picture in pictures] == [1] * len(pictures)


def test_every_picture_gets_its_row_and_is_given_back_once(rig):
    out, pictures = fresh(40), [Drawn((2 * (16 + n), 2 * (20 + n))) for n in range(40)]
    with rig.rows().ticket(out, Stages()) as ticket:
        for position, picture in reversed(list(enumerate(pictures))):
            ticket.put(position, picture.surface, RESIZER)
        ticket.finish(40)
    rig.batcher.close()
    check(out, pictures)


def test_one_picture_alone_is_launched_at_once(rig):
    out, picture = fresh(1), Drawn()
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(0, picture.surface, RESIZER)
        ticket.finish(1)
    assert rig.card.batches == [1]


def test_pictures_of_many_items_go_together_while_the_card_is_busy(rig):
    """The first holds the card; what comes meanwhile goes in one launch, whoever it is of and whatever its size."""
    rig.stream.hold()
    drawn = [[Drawn((32, 32 + 16 * item)) for _ in range(5)] for item in range(4)]
    outs = [fresh(5) for _ in drawn]
    tickets = [rig.rows().ticket(out, Stages()) for out in outs]
    first, rows = Drawn(), rig.rows()
    with rows.ticket(fresh(1), Stages()) as alone:
        alone.put(0, first.surface, RESIZER)
        rig.batcher.launched(list(alone._entries.values()))
        for ticket, pictures in zip(tickets, drawn, strict=True):
            for position, picture in enumerate(pictures):
                ticket.put(position, picture.surface, RESIZER)
        assert rig.card.batches == [1]  # nothing is full, and the card is busy
        rig.stream.go()
        for ticket in tickets:
            ticket.finish(5)
        alone.finish(1)
    rig.batcher.close()
    assert rig.card.batches == [1, 20]
    for out, pictures in zip(outs, drawn, strict=True):
        check(out, pictures)


def test_two_launches_are_in_flight_and_then_who_submits_waits(card):
    rig = Rig(card, batch=2)
    rig.stream.hold()
    pictures = [Drawn() for _ in range(40)]
    out, rows, reached = fresh(40), rig.rows(), threading.Semaphore(0)

    def submit():
        for position, picture in enumerate(pictures):
            ticket.put(position, picture.surface, RESIZER)
            reached.release()

    with rows.ticket(out, Stages()) as ticket:
        thread = threading.Thread(target=submit)
        thread.start()
        # One launched alone, two behind it, and 4 batches of 2 that wait. Which it is depends on who is quicker.
        for _ in range(10):
            assert reached.acquire(timeout=PATIENCE)
        rig.batcher.launched([ticket._entries[2]])
        assert card.batches in ([1, 2], [2, 2])
        assert len(rig.batcher._waiting) <= 8
        assert thread.is_alive()
        assert [picture.given for picture in pictures] == [0] * 40
        rig.stream.go()
        thread.join(PATIENCE)
        ticket.finish(40)
    rig.batcher.close()
    check(out, pictures)
    assert max(card.batches) == 2


def test_the_last_put_for_a_position_counts(rig):
    rig.stream.hold()
    blocker, first, second, third = Drawn(), Drawn(), Drawn(), Drawn()
    out = fresh(3)
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(2, blocker.surface, RESIZER)
        rig.batcher.launched([ticket._entries[2]])
        ticket.put(0, first.surface, RESIZER)  # waits, and is withdrawn
        ticket.put(0, second.surface, RESIZER)
        assert first.given == 1
        ticket.put(2, third.surface, RESIZER)  # the one before it is on its way
        ticket.put(1, blocker.surface, RESIZER)
        rig.stream.go()
        ticket.finish(1)
        np.testing.assert_array_equal(out[0], second.truth)
        assert not out[1:].any()  # not asked for: the sequence became shorter
    rig.batcher.close()
    assert [picture.given for picture in (first, second, third)] == [1, 1, 1]


def test_a_later_picture_for_a_row_that_is_on_its_way_comes_behind_it(rig):
    rig.stream.hold()
    first, second, out = Drawn(), Drawn(), fresh(1)
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(0, first.surface, RESIZER)
        rig.batcher.launched([ticket._entries[0]])
        ticket.put(0, second.surface, RESIZER)
        rig.stream.go()
        ticket.finish(1)
    rig.batcher.close()
    check(out, [second])
    assert first.given == 1


def test_rows_from_the_host_stay_and_may_be_replaced(rig):
    drawn = [Drawn() for _ in range(6)]
    host = [picture.to_host() for picture in drawn]
    truth = [picture.truth for picture in drawn]
    out = fresh(5)
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(0, drawn[0].surface, RESIZER)
        ticket.put(1, host[1], RESIZER)
        ticket.put(2, drawn[2].surface, RESIZER)
        ticket.put(2, host[3], RESIZER)  # FFmpeg took over and does it again
        ticket.put(3, host[4], RESIZER)
        ticket.put(3, drawn[5].surface, RESIZER)
        ticket.put(4, host[1], RESIZER)
        ticket.finish(5)
    np.testing.assert_array_equal(out, [truth[0], truth[1], truth[3], truth[5], truth[1]])


def test_one_surface_at_several_positions(rig):
    drawn, out = [Drawn(), Drawn()], fresh(5)
    with rig.rows().ticket(out, Stages()) as ticket:
        for position, which in enumerate((0, 0, 1, 1, 1)):
            ticket.put(position, drawn[which].surface, RESIZER)
        ticket.finish(5)
    rig.batcher.close()
    np.testing.assert_array_equal(out, [drawn[n].truth for n in (0, 0, 1, 1, 1)])
    assert [picture.given for picture in drawn] == [1, 1]
    assert sum(rig.card.batches) == 2


def test_an_item_that_fails_gives_its_pictures_back_and_the_next_uses_its_rows(rig):
    rig.stream.hold()
    rows, bad, good = rig.rows(), [Drawn() for _ in range(4)], [Drawn() for _ in range(4)]
    with pytest.raises(ZeroDivisionError), rows.ticket(fresh(4), Stages()) as ticket:
        ticket.put(0, bad[0].surface, RESIZER)
        rig.batcher.launched([ticket._entries[0]])
        for position in range(1, 4):
            ticket.put(position, bad[position].surface, RESIZER)
        raise ZeroDivisionError
    assert [picture.given for picture in bad] == [0, 1, 1, 1]  # the first is being worked on
    out = fresh(4)
    with rows.ticket(out, Stages()) as ticket:
        for position, picture in enumerate(good):
            ticket.put(position, picture.surface, RESIZER)
        rig.stream.go()
        ticket.finish(4)
    rig.batcher.close()
    check(out, good)
    assert bad[0].given == 1


# ---- memory


@pytest.mark.parametrize("most", [1, 3, 5, 40])
def test_a_launch_without_memory_is_halved_and_the_size_remembered(most):
    card = HostCard(Faults(most_pictures=most))
    rig = Rig(card)
    rig.stream.hold()
    pictures, out = [Drawn() for _ in range(60)], fresh(60)
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(0, pictures[0].surface, RESIZER)
        rig.batcher.launched([ticket._entries[0]])
        for position, picture in enumerate(pictures[1:], 1):
            ticket.put(position, picture.surface, RESIZER)
        rig.stream.go()
        ticket.finish(60)
    rig.batcher.close()
    card.close()
    check(out, pictures)
    assert max(card.batches) <= most
    assert rig.batcher.batch == {1: 1, 3: 3, 5: 3, 40: 29}[most]  # 59, 29, 14, 7, 3, 1
    assert rig.told[-1] == (
        f"host:0: no memory for {'59' if most == 40 else rig.told[-1].split()[4]} pictures a launch; "
        f"at most {rig.batcher.batch} from here on"
    )


def test_a_picture_that_fits_not_even_alone_fails_its_item_only():
    card = HostCard(Faults(most_pictures=0))
    rig = Rig(card)
    picture, other, out = Drawn(), Drawn(), fresh(1)
    rows = rig.rows()
    with pytest.raises(DeviceMemoryError), rows.ticket(out, Stages()) as ticket:
        ticket.put(0, picture.surface, RESIZER)
        ticket.finish(1)
    assert picture.given == 1
    card.faults.most_pictures = None
    with rows.ticket(out, Stages()) as ticket:
        ticket.put(0, other.surface, RESIZER)
        ticket.finish(1)
    rig.batcher.close()
    card.close()
    check(out, [other])


def test_a_picture_alone_waits_for_what_may_hold_the_memory(card):
    rig = Rig(card, batch=1)
    first, second, out = Drawn(), Drawn(), fresh(2)
    full = threading.Event()

    def refuse(surface):
        if surface is second.surface and not first.given:
            full.set()
            raise DeviceMemoryError("not beside the first")

    card.faults.refuse = refuse
    rig.stream.hold()
    with rig.rows().ticket(out, Stages()) as ticket:
        ticket.put(0, first.surface, RESIZER)
        ticket.put(1, second.surface, RESIZER)
        assert full.wait(PATIENCE)
        rig.stream.go()
        ticket.finish(2)
    rig.batcher.close()
    check(out, [first, second])


def test_a_picture_that_the_kernel_does_not_take_fails_its_item_only(rig):
    def refuse(surface):
        if surface is odd.surface:
            raise UnsupportedError("not this one")

    rig.card.faults.refuse = refuse
    odd, blocker = Drawn(), Drawn()
    good = [Drawn() for _ in range(6)]
    rig.stream.hold()
    out = fresh(6)
    with rig.rows().ticket(fresh(2), Stages()) as bad, rig.rows().ticket(out, Stages()) as ticket:
        bad.put(0, blocker.surface, RESIZER)
        rig.batcher.launched([bad._entries[0]])
        for position, picture in enumerate(good):
            if position == 3:
                bad.put(1, odd.surface, RESIZER)
            ticket.put(position, picture.surface, RESIZER)
        rig.stream.go()
        ticket.finish(6)
        with pytest.raises(UnsupportedError, match="not this one"):
            bad.finish(2)
    rig.batcher.close()
    check(out, good)
    assert odd.given == 1


def test_rows_that_do_not_fit_say_so():
    card = HostCard(Faults(most_nbytes=2 * 100 * 12 * 16 * 3))
    rig = Rig(card)
    kept = [rig.rows(), rig.rows()]
    with pytest.raises(DeviceMemoryError):
        rig.rows()
    kept.pop()
    kept.append(rig.rows())
    rig.batcher.close()
    card.close()
    assert len(kept) == 2


# ---- a lost device


def test_a_lost_device_wakes_all_who_wait(card):
    """One waits for its launch, one for room, one for its copy."""
    rig = Rig(card, batch=1)
    rig.stream.hold()
    errors, threads = [], []
    copying = rig.rows()
    copying.stream.hold()
    launched = threading.Event()

    def item(rows, count):
        try:
            with rows.ticket(fresh(count), Stages()) as ticket:
                for position in range(count):
                    ticket.put(position, Drawn().surface, RESIZER)
                launched.set()
                ticket.finish(count)
        except Exception as error:
            errors.append(type(error))

    for rows, count in ((copying, 1), (rig.rows(), 3), (rig.rows(), 50)):
        launched.clear()
        threads.append(threading.Thread(target=item, args=(rows, count)))
        threads[-1].start()
        assert count == 50 or launched.wait(PATIENCE)
    card.lose()
    rig.stream.go()
    copying.stream.go()
    for thread in threads:
        thread.join(PATIENCE)
    assert errors == [DeviceLostError] * 3
    rig.batcher.close()


def test_a_lost_device_wakes_who_waits_for_room_alone(card, monkeypatch):
    rig = Rig(card, batch=1)
    rig.stream.hold()
    rows, blocked, errors = rig.rows(), threading.Event(), []
    wait = rig.batcher._room.wait

    def noticed(seconds=None):
        blocked.set()
        return wait(seconds)

    monkeypatch.setattr(rig.batcher._room, "wait", noticed)

    def item():
        ticket = rows.ticket(fresh(50), Stages())  # not closed: what it would withdraw would make room
        try:
            for position in range(50):
                ticket.put(position, Drawn().surface, RESIZER)
        except Exception as error:
            errors.append(type(error))

    thread = threading.Thread(target=item)
    thread.start()
    assert blocked.wait(PATIENCE)
    card.lose()
    rig.stream.go()
    thread.join(PATIENCE)
    assert errors == [DeviceLostError]
    rig.batcher.close()


def test_a_device_lost_at_a_launch():
    card = HostCard(Faults(lost_at=1))
    rig = Rig(card)
    rows, out = rig.rows(), fresh(1)
    first = Drawn()
    with rows.ticket(out, Stages()) as ticket:
        ticket.put(0, first.surface, RESIZER)
        ticket.finish(1)
    np.testing.assert_array_equal(out[0], first.truth)
    for _ in range(2):  # whoever comes later is told too
        with pytest.raises(DeviceLostError, match="lost"), rows.ticket(out, Stages()) as ticket:
            ticket.put(0, Drawn().surface, RESIZER)
            ticket.finish(1)
    rig.batcher.close()
    card.close()


def test_a_bug_of_the_card_stops_the_operator_with_its_words(rig):
    def refuse(surface):
        raise ZeroDivisionError("planted")

    rig.card.faults.refuse = refuse
    with pytest.raises(StoppedError, match="ZeroDivisionError: planted"), rig.rows().ticket(fresh(1), Stages()) as it:
        it.put(0, Drawn().surface, RESIZER)
        it.finish(1)


# ---- overlap


def test_a_copy_runs_beside_the_kernel_of_the_next_item(rig):
    """The first item's copy and the second one's kernel each wait until the other has begun."""
    first, second = rig.rows(), rig.rows()
    meeting = threading.Barrier(2)
    outs, pictures = [fresh(1), fresh(1)], [Drawn(), Drawn()]

    def finish():
        with first.ticket(outs[0], Stages()) as ticket:
            ticket.put(0, pictures[0].surface, RESIZER)
            first.stream.slip(lambda: meeting.wait(PATIENCE))
            ticket.finish(1)

    thread = threading.Thread(target=finish)
    thread.start()
    with second.ticket(outs[1], Stages()) as ticket:
        rig.stream.slip(lambda: meeting.wait(PATIENCE))
        ticket.put(0, pictures[1].surface, RESIZER)
        ticket.finish(1)
    thread.join(PATIENCE)
    rig.batcher.close()
    assert not meeting.broken
    check(np.concatenate(outs), pictures)


def test_many_threads_many_items(card):
    """Sizes, orders, replacements, failures and empty memory at random; each row is compared."""
    rig = Rig(card, batch=8)
    wrong = []

    def lane(seed):
        random = np.random.default_rng(seed)
        rows = DeviceRows(card, rig.batcher, 12, SIZE)
        for _ in range(12):
            count = int(random.integers(1, 13))
            pictures = [Drawn((int(random.integers(8, 30)) * 2, int(random.integers(8, 30)) * 2)) for _ in range(count)]
            truth = [picture.truth for picture in pictures]
            out = fresh(count)
            try:
                with rows.ticket(out, Stages()) as ticket:
                    for position in random.permutation(count):
                        if random.random() < 0.2:
                            ticket.put(int(position), Drawn().surface, RESIZER)
                        if random.random() < 0.2:
                            ticket.put(int(position), pictures[position].to_host(), RESIZER)
                            pictures[position].release()
                        else:
                            ticket.put(int(position), pictures[position].surface, RESIZER)
                        if random.random() < 0.02:
                            raise InterruptedError
                    ticket.finish(count)
            except InterruptedError:
                continue
            if not np.array_equal(out, truth):
                wrong.append(seed)

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rig.batcher.close()
    assert wrong == []
    assert max(card.batches) > 1


def test_runs_join_what_goes_up_together():
    assert runs([(0, 0), (1, 1), (2, 1), (3, 2), (5, 5), (6, 6)]) == [(0, 0, 2), (2, 1, 2), (5, 5, 2)]
    assert runs([]) == []

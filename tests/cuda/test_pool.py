"""The decoders of a card: lent, kept, closed; who waits for what. Held by events, never by time."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import pytest
from fakes import FakeEngine, FakeSession, Trouble

from gpupipe.decode.pool import DecoderPool
from gpupipe.decode.session import Session, StreamKind
from gpupipe.errors import DecodeError, DeviceLostError, DeviceMemoryError, UsageError

T = TypeVar("T")

PATIENCE = 20.0  # a test that waits for so long has failed

H264 = StreamKind("h264", "420", 8)
HEVC = StreamKind("hevc", "420", 10)
VP9 = StreamKind("vp9", "420", 8)


class Threads:
    """A new thread for every call."""

    def submit(self, call: Callable[..., T], *arguments: object) -> Future[T]:
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(call(*arguments))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future


@pytest.fixture
def threads() -> Threads:
    return Threads()


class _Told(deque[object]):
    """A queue that tells whoever waits for it to grow."""

    def __init__(self, changed: threading.Condition) -> None:
        super().__init__()
        self._changed = changed

    def append(self, ticket: object) -> None:
        super().append(ticket)
        self._changed.notify_all()


class WaitingPool(DecoderPool):
    """Says how many wait in it."""

    def __init__(self, engine: FakeEngine) -> None:
        super().__init__(engine)
        self._queue = _Told(self._changed)

    def waiting(self, count: int) -> None:
        """Return when so many wait for an engine."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._queue) >= count, PATIENCE)

    def starving(self, count: int) -> None:
        """Return when so many wait for memory."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self._starved) >= count, PATIENCE)


def test_one_session_serves_many_streams() -> None:
    engine = FakeEngine()
    pool = DecoderPool(engine)
    for size in ((96, 128), (144, 176), (256, 250), (96, 128)):
        session = pool.take(H264, *size)
        pool.give(session)
    assert (engine.made, engine.begun) == (1, 4)
    assert (session.max_height, session.max_width) == (256, 256)


def test_sizes_have_buckets() -> None:
    """What is large enough for 1080p is not made for a thumbnail; nothing is larger than the card takes."""
    engine = FakeEngine(max_side=4096)
    pool = DecoderPool(engine)
    made = {}
    for height, width in ((64, 64), (257, 384), (385, 513), (1080, 1920), (1920, 1080), (2160, 3840), (4000, 4096)):
        session = pool.take(H264, height, width)
        made[height, width] = (session.max_height, session.max_width)
        pool.give(session)
    assert made == {
        (64, 64): (256, 256),
        (257, 384): (384, 384),
        (385, 513): (512, 768),
        (1080, 1920): (1536, 2048),
        (1920, 1080): (2048, 1536),
        (2160, 3840): (3072, 4096),
        (4000, 4096): (4096, 4096),
    }


def test_the_one_idle_longest_goes_first() -> None:
    engine = FakeEngine(engines=1)  # keeps two
    pool = DecoderPool(engine)
    for kind in (H264, HEVC, H264, VP9):
        pool.give(pool.take(kind, 96, 128))
    assert [session.kind for session in engine.open] == [H264, VP9]
    pool.give(pool.take(H264, 96, 128))
    assert engine.made == 3


def test_as_many_at_a_time_as_engines_first_come_first_served(threads: Threads) -> None:
    engine = FakeEngine(engines=2)
    pool = WaitingPool(engine)
    order: list[str] = []

    def work(name: str, kind: StreamKind) -> Session:
        session = pool.take(kind, 96, 128)
        order.append(name)
        return session

    held = [threads.submit(work, f"first {i}", H264).result(PATIENCE) for i in range(2)]
    waiting: list[Future[Session]] = []
    for number, kind in enumerate((HEVC, H264, VP9)):
        waiting.append(threads.submit(work, f"waits {number}", kind))
        pool.waiting(number + 1)
    assert not any(future.done() for future in waiting)
    pool.give(held[0])  # of the kind that the second one waits for; the first one's turn comes first
    third = waiting[0].result(PATIENCE)
    assert third.kind == HEVC
    pool.give(held[1])
    fourth = waiting[1].result(PATIENCE)
    assert order == ["first 0", "first 1", "waits 0", "waits 1"]
    pool.give(third)
    pool.give(fourth)
    pool.give(waiting[2].result(PATIENCE))
    assert order[-1] == "waits 2"


def test_nobody_overtakes(threads: Threads) -> None:
    """An engine that comes free is that of whoever waits, also before that one wakes."""
    engine = FakeEngine(engines=1)
    pool = WaitingPool(engine)
    order: list[str] = []

    def work() -> None:
        session = pool.take(H264, 96, 128)
        order.append("waited")
        pool.give(session)

    held = threads.submit(pool.take, H264, 96, 128).result(PATIENCE)
    waiting = threads.submit(work)
    pool.waiting(1)
    with pool._changed:  # nobody else moves until this thread waits
        pool.give(held)
        pool.take(H264, 96, 128)
        order.append("came later")
    waiting.result(PATIENCE)
    assert order == ["waited", "came later"]


def test_who_holds_one_does_not_wait_for_itself() -> None:
    engine = FakeEngine(engines=1)
    pool = DecoderPool(engine)
    first = pool.take(H264, 96, 128)
    second = pool.take(H264, 96, 128)
    assert first is not second
    pool.give(first)
    pool.give(second)
    assert pool.take(H264, 96, 128) in (first, second)


def test_no_memory_closes_what_is_idle() -> None:
    engine = FakeEngine(engines=4, most_sessions=2)
    pool = DecoderPool(engine)
    for kind in (H264, HEVC):
        pool.give(pool.take(kind, 96, 128))
    assert pool.take(VP9, 96, 128).kind == VP9
    assert {session.kind for session in engine.open} == {HEVC, VP9}


def test_no_memory_waits_for_what_is_lent(threads: Threads) -> None:
    engine = FakeEngine(engines=4, most_sessions=1)
    pool = WaitingPool(engine)
    held = threads.submit(pool.take, H264, 96, 128).result(PATIENCE)
    waiting = threads.submit(pool.take, HEVC, 96, 128)
    pool.starving(1)
    assert not waiting.done()
    pool.give(held)
    assert waiting.result(PATIENCE).kind == HEVC
    assert engine.closed == 1


def test_no_memory_and_a_broken_one_comes_back(threads: Threads) -> None:
    """Its memory is free before those who wait hear of it."""
    engine = FakeEngine(engines=4, most_sessions=1)
    pool = WaitingPool(engine)
    held = threads.submit(pool.take, H264, 96, 128).result(PATIENCE)
    waiting = threads.submit(pool.take, H264, 96, 128)
    pool.starving(1)
    pool.give(held, sound=False)
    assert waiting.result(PATIENCE) is not held


def test_no_memory_and_nobody_to_wait_for() -> None:
    pool = DecoderPool(FakeEngine(most_sessions=0))
    with pytest.raises(DeviceMemoryError):
        pool.take(H264, 96, 128)


def test_no_memory_and_all_wait_for_each_other(threads: Threads) -> None:
    """Two threads hold one each and want another: the first to see it gives up, and the other goes on."""
    engine = FakeEngine(engines=4, most_sessions=2)
    pool = WaitingPool(engine)
    barrier = threading.Barrier(2)

    def greedy() -> bool:
        first = pool.take(H264, 96, 128)
        barrier.wait(PATIENCE)
        try:
            second = pool.take(HEVC, 96, 128)
        except DeviceMemoryError:
            return False
        else:
            pool.give(second)
            return True
        finally:
            pool.give(first)

    outcomes = [future.result(PATIENCE) for future in [threads.submit(greedy) for _ in range(2)]]
    assert False in outcomes
    pool.give(pool.take(VP9, 96, 128))


def test_beginning_without_memory() -> None:
    """The decoder that could not begin is closed, what is idle goes, and it is tried again."""
    engine = FakeEngine(trouble=Trouble(begins=0))
    pool = DecoderPool(engine)
    pool.give(pool.take(HEVC, 96, 128))
    engine.trouble.begins = 1
    session = pool.take(H264, 96, 128)
    assert (engine.made, engine.closed) == (3, 2)
    assert engine.open == [session]


@pytest.mark.parametrize(
    ("trouble", "error"), [(Trouble(unmade=1), DecodeError), (Trouble(begins=1), DeviceMemoryError)]
)
def test_what_fails_leaves_room_for_the_next(trouble: Trouble, error: type[Exception]) -> None:
    engine = FakeEngine(engines=1, trouble=trouble)
    pool = DecoderPool(engine)
    with pytest.raises(error):
        pool.take(H264, 96, 128)
    assert not engine.open
    pool.give(pool.take(H264, 96, 128))


def test_a_broken_session_is_not_lent_again() -> None:
    engine = FakeEngine()
    pool = DecoderPool(engine)
    broken = pool.take(H264, 96, 128)
    pool.give(broken, sound=False)
    assert not engine.open
    assert pool.take(H264, 96, 128) is not broken


def test_a_lost_device_is_told_to_everyone(threads: Threads) -> None:
    engine = FakeEngine(engines=1)
    pool = WaitingPool(engine)
    held = threads.submit(pool.take, H264, 96, 128).result(PATIENCE)
    waiting = threads.submit(pool.take, H264, 96, 128)
    pool.waiting(1)
    engine.lost = True
    pool.give(held)
    with pytest.raises(DeviceLostError):
        waiting.result(PATIENCE)
    with pytest.raises(DeviceLostError):
        pool.take(H264, 96, 128)
    assert not engine.open


def test_closing(threads: Threads) -> None:
    """Idle ones at once, lent ones when they come back; whoever waits is told."""
    engine = FakeEngine(engines=1)
    pool = WaitingPool(engine)
    pool.give(pool.take(HEVC, 96, 128))
    held = threads.submit(pool.take, H264, 96, 128).result(PATIENCE)
    waiting = threads.submit(pool.take, H264, 96, 128)
    pool.waiting(1)
    pool.close()
    pool.close()
    with pytest.raises(UsageError, match="closed"):
        waiting.result(PATIENCE)
    assert engine.open == [held]
    pool.give(held)
    assert not engine.open


def test_the_card_is_asked_once() -> None:
    asked: list[StreamKind] = []

    def can(kind: StreamKind) -> bool:
        asked.append(kind)
        return kind.codec != "av1"

    pool = DecoderPool(FakeEngine(kinds=can))
    for _ in range(3):
        assert pool.capability(H264) is not None
        assert pool.capability(StreamKind("av1", "420", 8)) is None
    assert len(asked) == 2


def test_many_threads(threads: Threads) -> None:
    """Kinds at random from many threads, never more at work than engines, no session with two at once."""
    engine = FakeEngine(engines=3, most_sessions=5)
    pool = DecoderPool(engine)
    busy = threading.Semaphore(3)
    using: set[FakeSession] = set()

    def act(number: int) -> Callable[[], None]:
        def run() -> None:
            for step in range(40):
                kind = (H264, HEVC, VP9)[(number * 7 + step * step) % 3]
                session = pool.take(kind, 96 << step % 3, 128)
                assert busy.acquire(blocking=False), "more at work than engines"
                assert session not in using
                using.add(session)  # type: ignore[arg-type]
                assert session.kind == kind
                using.remove(session)  # type: ignore[arg-type]
                busy.release()
                pool.give(session, sound=step % 11 != 0)

        return run

    for future in [threads.submit(act(number)) for number in range(8)]:
        future.result(PATIENCE)
    pool.close()
    assert not engine.open
    assert engine.made == engine.closed < 320

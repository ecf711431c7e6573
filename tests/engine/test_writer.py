"""Where an item is written: by the worker itself, or beside its work."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from gpupipe import writer
from gpupipe.job import Completion, Work
from gpupipe.memory import HostSlots

LARGE = bytes(1 << 18)


class Clock:
    """Time that passes while something waits."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    @staticmethod
    def thread_time() -> float:
        return 0.0


def written(toys, monkeypatch, beside, waits=0.0, data=LARGE, items=4):
    """Names of the threads that write some items, one after the other."""
    clock, threads, done = Clock(), [], threading.Semaphore(0)
    monkeypatch.setattr(writer, "time", clock)

    def commit(ordinal, sample, checksum):
        threads.append(threading.current_thread().name)
        checksum.begin("a")
        checksum.update("a", data)
        clock.now += waits

    job = toys(["ok"] * items)
    slots = HostSlots(job.rows())
    release = slots.release
    monkeypatch.setattr(slots, "release", lambda slot: (release(slot), done.release()))
    made = writer.Writer(
        job, SimpleNamespace(commit=commit), slots, SimpleNamespace(send=lambda message: None), beside=beside
    )
    for ordinal in range(items):
        made.put(Completion(Work(ordinal, "ok", slots.acquire(ordinal)), sample=object()))
        assert done.acquire(timeout=30)
    made.finish()
    return ["beside" if name == "writer" else "itself" for name in threads]


def test_large_items_are_written_beside_where_a_core_is_free(toys, monkeypatch):
    assert written(toys, monkeypatch, beside=True)[1:] == ["beside"] * 3  # how large they are shows with the first
    assert written(toys, monkeypatch, beside=True, data=b"small") == ["itself"] * 4


@pytest.mark.parametrize(("waits", "behind"), [(0.0, "itself"), (0.002, "itself"), (1.0, "beside")])
def test_else_once_the_disk_keeps_them_waiting(toys, monkeypatch, waits, behind):
    assert written(toys, monkeypatch, beside=False, waits=waits) == ["itself", *[behind] * 3]

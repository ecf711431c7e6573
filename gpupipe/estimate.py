"""From a few items to all of them: ranges that say how far a sample reaches."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gpupipe.errors import OutputError
from gpupipe.job import Job
from gpupipe.sinks.base import Sink
from gpupipe.sinks.files import output_errors, write_at
from gpupipe.trial import Trial

_SEED = 42
_DRAWS = 1000
_RATE_BYTES = (4 << 20, 64 << 20)  # the second only where the first was quick
_RATE_SECONDS = 0.1


@dataclass(frozen=True)
class Range:
    """A value that is expected, and 95% bounds by the sample's spread; all three the same where it is exact."""

    low: float
    expected: float
    high: float


def run_seconds(trial: Trial, to_do: int, hands: int) -> Range | None:
    """What so many workers with a core each take for `to_do` items; None where the trial measured nothing."""
    if not to_do:
        return Range(0, 0, 0)
    if not trial.seconds:
        return None
    each = mean(trial.seconds)
    return Range(*(trial.start_seconds + to_do * value / hands for value in (each.low, each.expected, each.high)))


def output_bytes(
    job: Job, sink: Sink, todo: np.ndarray, states: np.ndarray, rewritten: int, trial: Trial
) -> tuple[Range | None, int | None]:
    """Length of the output of the items to do, and the room it needs on disk; None where the trial measured nothing.

    Parameters
    ----------
    job, sink
        The sink knows the place as a run has it; only its figures are asked for.
    todo : numpy.ndarray
        int64, ordinals.
    states : numpy.ndarray
        uint8 [N], by the ledger.
    rewritten : int
        Items to do that were done before: their old output makes room for the new.
    trial : Trial
        What was measured.
    """
    size = job.shard_size
    shards, counts = np.unique(todo // size, return_counts=True)
    if sink.kind == "rows":
        row = sum(spec.nbytes for spec in job.rows())
        # A shard is reserved whole with its first item: where one has an outcome it is there.
        fresh = np.setdiff1d(shards, np.flatnonzero(states) // size)
        overhead = sum(sink.overhead(int(shard)) for shard in fresh)
        exact = row * len(todo) + overhead
        items = np.minimum((fresh + 1) * size, len(states)) - fresh * size
        return Range(exact, exact, exact), row * int(items.sum()) + overhead
    if not len(todo):
        return Range(0, 0, 0), 0
    if not trial.nbytes:
        return None, None
    overhead = sum(sink.overhead(int(shard)) for shard in shards)
    each = mean(trial.nbytes)
    whole = Range(*(len(todo) * value + overhead for value in (each.low, each.expected, each.high)))
    copies = int(counts.max()) if sink.composes else 0
    each_on_disk = sum(trial.disk_bytes) / len(trial.disk_bytes)
    return whole, int((len(todo) - rewritten + copies) * each_on_disk + overhead)


def longer(one: Range, other: Range) -> Range:
    """What takes longer of two things that go on at once."""
    return Range(max(one.low, other.low), max(one.expected, other.expected), max(one.high, other.high))


def write_rate(folder: Path) -> float | None:
    """Bytes a second that the folder's file system makes durable; None where it cannot be measured without a trace.

    The file that is written has no name, so that nothing is left of it whatever happens, and the folder is as it was.
    """
    block = os.urandom(1 << 20)
    try:
        fd = os.open(folder, os.O_TMPFILE | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except OSError:  # not every file system has them
        return None
    try:
        with output_errors(folder):
            for nbytes in _RATE_BYTES:
                began = time.monotonic()
                write_at(fd, [block] * (nbytes >> 20), 0)
                os.fdatasync(fd)
                seconds = time.monotonic() - began
                if seconds > _RATE_SECONDS:
                    break
    except OutputError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):  # the forecast says that by itself
            return None
        raise
    finally:
        os.close(fd)
    return nbytes / max(seconds, 1e-6)


def mean(values: list[float] | list[int]) -> Range:
    """The mean, and where it lies in 95 of 100 samples drawn anew from this one."""
    found = np.asarray(values, np.float64)
    means = np.random.default_rng(_SEED).choice(found, (_DRAWS, len(found))).mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return Range(float(low), float(found.mean()), float(high))


def size_text(nbytes: float) -> str:
    """``1.9 MiB``."""
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} {unit}" if unit == "bytes" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.1f} TiB"

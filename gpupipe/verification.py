"""Verification: what lies in the output against what the ledger says was written there.

Reads only, unless it is to repair; then the damaged items are pending again, durably, and a run or ``gpupipe retry``
does them anew. Nothing that belongs to no item is ever removed.
"""

from __future__ import annotations

import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from operator import attrgetter
from pathlib import Path

import numpy as np

from gpupipe import ownership
from gpupipe.again import Again
from gpupipe.fingerprint import change
from gpupipe.job import Job, blob_names
from gpupipe.ledger import Ledger
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE, FAILED, PENDING, Event, Outcome
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.remains import Remains
from gpupipe.sinks.base import Expected, Fault, Place, Sink
from gpupipe.sinks.files import remove_tree
from gpupipe.summary import EXIT_DIFFERENT, EXIT_DONE


@dataclass(frozen=True)
class Verdict:
    """What a verification found.

    Attributes
    ----------
    output : str
    items, done, failed, pending : int
        By the ledger.
    nbytes : int
        Bytes of the done items, read back.
    deep : int
        Items made again and compared.
    faults : list of str
        ``path: what is wrong``; empty where all is as it was written.
    damaged : int
        Items that must be done again.
    repaired : bool
        True where these items are pending, and the files beside them taken back.
    seconds : float
    beside : list of str
        Files beside the items that differ (those of the whole dataset: its index, ``failed.jsonl``, a pickle); a
        repair has them written again.
    """

    output: str
    items: int
    done: int
    failed: int
    pending: int
    nbytes: int
    deep: int
    faults: list[str] = field(default_factory=list)
    damaged: int = 0
    repaired: bool = False
    seconds: float = 0.0
    beside: list[str] = field(default_factory=list)

    def text(self) -> str:
        """For a person; the faults themselves are said as they are found."""
        lines = [
            f"{self.done} done and {self.failed} failed items, {self.nbytes / 1e6:.0f} MB read back in "
            f"{self.seconds:.1f} s" + (f", {self.deep} made again" if self.deep else "")
        ]
        if self.pending:
            lines.append(f"{self.pending} items are pending: the same command as before works them")
        if not self.faults:
            lines.append("all is as it was written")
        else:
            lines.append(f"{len(self.faults)} differences; {self._next_step()}")
        return "\n".join(lines)

    def _next_step(self) -> str:
        again, repair = f"gpupipe retry {self.output}", f"gpupipe verify --repair {self.output}"
        if self.damaged and self.repaired:
            return f"{self.damaged} items are pending now: the same command as before, or {again}, does them again"
        if self.damaged:
            return f"{self.damaged} items must be done again: {repair}"
        files = " and ".join(self.beside)
        if files and self.repaired:
            return f"no item is damaged; the same command as before, or {again}, writes {files} again"
        if files:
            return f"no item is damaged; {files} must be written again: {repair}, then {again}"
        return "no item is damaged, and nothing of that is for a repair"

    @property
    def exit_code(self) -> int:
        """1 where anything differs, also where it was repaired."""
        return EXIT_DIFFERENT if self.faults else EXIT_DONE


def verify(
    job: Job, out: Path, deep: int = 0, seed: int = 0, repair: bool = False, say: Callable[[str], None] | None = None
) -> Verdict:
    """Compare an output with its ledger.

    Parameters
    ----------
    job : Job
        As the plan has it.
    out : Path
        The output folder.
    deep : int
        Done items to make again and compare.
    seed : int
        Of their choice.
    repair : bool
        Make the damaged items pending.
    say : callable, optional
        Told each fault as it is found.

    Raises
    ------
    LockedError
        A run is at work on the output.
    """
    began = time.monotonic()
    bookkeeping = out / BOOKKEEPING
    with ownership.alone(bookkeeping), closing(Plan(bookkeeping / "plan")) as plan:
        layout = ownership.read_layout(bookkeeping)
        with closing(Ledgers(bookkeeping, layout["epoch"], plan.count)) as ledgers:
            check = _Check(job, out, plan, ledgers)
            for fault in check.faults(deep, seed):
                check.found.append(fault)
                if say is not None:
                    say(_line(fault, out))
        damaged = sorted({ordinal for fault in check.found for ordinal in fault.ordinals})
        if repair:
            _send_back(bookkeeping, plan, job, layout, damaged)
            if damaged or check.beside:
                Remains(out).remove(job.remains())
    return replace(
        check.verdict,
        faults=[_line(fault, out) for fault in check.found],
        damaged=len(damaged),
        beside=[_named(path, out) for path in check.beside],
        repaired=repair and bool(damaged or check.beside),
        seconds=time.monotonic() - began,
    )


class _Check:
    def __init__(self, job: Job, out: Path, plan: Plan, ledgers: Ledgers) -> None:
        self._job, self._out, self._plan, self._ledgers = job, out, plan, ledgers
        # Nothing is staged: whatever is written goes to a folder that `_deep` makes for itself.
        self._place = Place(out, out / BOOKKEEPING, Path(), plan.count, job.shard_size)
        self._sink: Sink = job.sink(self._place)
        self.found: list[Fault] = []
        self.beside: list[Path] = []
        self.verdict = Verdict(str(out), plan.count, 0, 0, plan.count, 0, 0)

    def faults(self, deep: int, seed: int) -> Iterator[Fault]:
        for path, text in self._plan.faults():
            yield Fault(path, f"{text}; nothing else can be judged without it")
        if self.found:
            return
        yield from self._item_faults()
        yield from self._sink.extra(set(blob_names(self._job, self._plan)))
        if self.verdict.pending == 0:
            for fault in Remains(self._out).faults(self._job.remains()):
                self.beside.append(fault.path)
                yield fault
        if deep:
            yield from self._deep(deep, seed)

    def _item_faults(self) -> Iterator[Fault]:
        """Shard by shard, in one pass over the ledger and the plan."""
        done = failed = nbytes = 0
        shard, expected = 0, list[Expected]()
        worked = (outcome for outcome in self._ledgers.outcomes() if outcome.state != PENDING)
        for outcome, item in self._plan.beside(worked, attrgetter("ordinal")):
            if outcome.ordinal // self._place.shard_size != shard:
                yield from self._sink.verify(shard, expected)
                shard, expected = outcome.ordinal // self._place.shard_size, []
            expected.append(Expected(outcome.ordinal, self._job.blob_name(outcome.ordinal, item), outcome.checksum))
            done, failed = done + (outcome.state == DONE), failed + (outcome.state == FAILED)
            nbytes += outcome.nbytes
        yield from self._sink.verify(shard, expected)
        self.verdict = replace(
            self.verdict, done=done, failed=failed, pending=self._plan.count - done - failed, nbytes=nbytes
        )

    def _deep(self, count: int, seed: int) -> Iterator[Fault]:
        """Make a sample of the done items again."""
        done = np.flatnonzero(self._ledgers.states(self._plan.count) == DONE)
        sample = set(random.Random(seed).sample(done.tolist(), min(count, len(done))))
        self.verdict = replace(self.verdict, deep=len(sample))
        outcomes = (outcome for outcome in self._ledgers.outcomes(DONE) if outcome.ordinal in sample)
        with tempfile.TemporaryDirectory(prefix="gpupipe-verify-") as scratch:
            place = replace(self._place, staging=Path(scratch))
            with closing(Again(self._job, place)) as again:
                for outcome in outcomes:
                    item = self._plan.item(outcome.ordinal)
                    path = self._job.input_file(item)
                    where = self._out if path is None else Path(path)
                    if (what := change(outcome.fingerprint, path)) != "same":  # no damage, so nothing to repair
                        yield Fault(where, f"the input of item {outcome.ordinal} is {what} since it was done")
                    elif text := again.difference(outcome.ordinal, item, outcome.fingerprint, outcome.checksum):
                        yield Fault(where, text, (outcome.ordinal,))


def _send_back(bookkeeping: Path, plan: Plan, job: Job, layout: dict[str, int], damaged: list[int]) -> None:
    """Commit the items as pending, each in the ledger of the run shard that owns it."""
    total = max(1, layout["total"])
    shards = np.array(damaged, dtype=np.int64) // job.shard_size % total
    for shard in np.unique(shards).tolist():
        ordinals = [ordinal for ordinal, owner in zip(damaged, shards, strict=True) if owner == shard]
        event = Event(time.time(), "redo", -1, -1, f"gpupipe verify --repair: {len(ordinals)} damaged items")
        folder = bookkeeping / f"shard-{shard}"
        remove_tree(folder / "complete")
        with closing(Ledger(folder / "ledger.db", plan.hash)) as ledger:
            ledger.commit([Outcome(n, PENDING, 0, epoch=layout["epoch"]) for n in ordinals], events=[event])


def _line(fault: Fault, out: Path) -> str:
    return f"{_named(fault.path, out)}: {fault.text}"


def _named(path: Path, out: Path) -> str:
    return str(path.relative_to(out) if path.is_relative_to(out) else path)

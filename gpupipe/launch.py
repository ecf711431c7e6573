"""A run on this machine: plan or continue, claim the output, supervise the workers, finish the dataset."""

from __future__ import annotations

import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from gpupipe import __version__, planning, redo
from gpupipe import plan as plans
from gpupipe.checkpoint import Checkpoint
from gpupipe.failures import write_failures
from gpupipe.job import Dataset, Job, class_path
from gpupipe.ledger import Ledger
from gpupipe.ledgers import Ledgers
from gpupipe.machine import memory_bytes, usable_cores
from gpupipe.outcome import PENDING, Event, Outcome, RunRecord
from gpupipe.ownership import Ownership, refuse_links
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.posts import Post
from gpupipe.progress import Reporter
from gpupipe.redo import Choice
from gpupipe.remains import FAILURES, Remains
from gpupipe.settings import Run
from gpupipe.sinks.base import Place, Sink
from gpupipe.summary import INTERRUPTED, Summary, summarize
from gpupipe.supervisor import Supervisor

__all__ = ["RECYCLE_SECONDS", "Run", "check", "retry", "run"]

RECYCLE_SECONDS = 3600.0  # a new worker costs half a second


def run(job: Job, how: Run, reporter: Reporter) -> Summary:
    """Run or continue a job to its end.

    Raises
    ------
    UsageError
        Nothing was started.
    LockedError, OutputError, StoppedError
        The run ended early; the same command continues.
    """
    check(job, how)
    posts = _posts(job, how, reporter)
    source = planning.source_facts(job.source())
    planning.make_output(how.output)
    bookkeeping = how.output / BOOKKEEPING
    if how.overwrite and plans.exists(bookkeeping):
        refuse_links(bookkeeping)
        planning.write_plan(job, bookkeeping, source).discard()  # input that cannot be read costs nothing
        planning.remove_output(job, how.output)
    with Ownership(bookkeeping, how.shard, how.total_shards) as claim:
        plan = planning.load_or_make_plan(job, how.output, how.overwrite, source, reporter)
        return _run_plan(job, how, posts, reporter, claim, plan, None)


def retry(job: Job, how: Run, choice: Choice, reporter: Reporter) -> Summary:
    """Try failed items of a planned output again, and work what is pending; raises like :func:`run`.

    Parameters
    ----------
    job : Job
        As the plan has it.
    how : Run
        No ``overwrite``.
    choice : Choice
        Which of the failed items.
    reporter : Reporter
        Shows it.
    """
    check(job, how)
    posts = _posts(job, how, reporter)
    planning.make_output(how.output)
    bookkeeping = how.output / BOOKKEEPING
    with Ownership(bookkeeping, how.shard, how.total_shards) as claim:
        plan = Plan(bookkeeping / "plan")
        for text in planning.left_alone(job, plan):
            reporter.notice(text)
        return _run_plan(job, how, posts, reporter, claim, plan, choice)


def check(job: Job, how: Run) -> Path:
    """Look whether a run can begin; nothing is altered.

    Returns
    -------
    Path
        The output folder, or the nearest folder above it that exists.

    Raises
    ------
    UsageError
        It cannot: the settings, the job's options, the output's place or the checkpoint file say why.
    """
    how.check()
    job.check()
    there = planning.check_place(how.output)
    if how.checkpoint_file is not None:
        planning.check_checkpoint(how.checkpoint_file, job, how.output)
    return there


def _posts(job: Job, how: Run, reporter: Reporter) -> list[Post]:
    posts, notices = how.posts(job.backend)
    for text in notices:
        reporter.notice(text)
    return posts


def _run_plan(
    job: Job, how: Run, posts: list[Post], reporter: Reporter, claim: Ownership, plan: Plan, choice: Choice | None
) -> Summary:
    with closing(plan):
        claim.clear_staging()
        planning.renew(job, how.output, plan)
        place = Place(how.output, claim.bookkeeping, claim.staging, plan.count, job.shard_size)
        with closing(Ledger(claim.folder / "ledger.db", plan.hash)) as ledger:
            return _Session(job, how, posts, reporter, claim, plan, place, ledger).run(choice)


class _Session:
    """One run, with all it holds."""

    def __init__(
        self,
        job: Job,
        how: Run,
        posts: list[Post],
        reporter: Reporter,
        claim: Ownership,
        plan: Plan,
        place: Place,
        ledger: Ledger,
    ) -> None:
        self._job, self._how, self._posts, self._reporter = job, how, posts, reporter
        self._claim, self._plan, self._place, self._ledger = claim, plan, place, ledger
        self._sink: Sink = job.sink(place)
        shards = np.arange(plan.count) // place.shard_size
        self._owned = shards % how.total_shards == how.shard

    def run(self, choice: Choice | None) -> Summary:
        with self._all_ledgers() as ledgers:
            self._states = ledgers.states(self._plan.count)
            self._redo(ledgers, choice)
        self._checkpoint = Checkpoint(self._how.checkpoint_file, self._place.staging, self._ledger, self._states)
        if not self._owned.any():
            self._reporter.notice(
                f"no item belongs to run shard {self._how.shard}: {self._place.shards} output shards for "
                f"{self._how.total_shards} run shards; a smaller shard size spreads the items"
            )
        remains = Remains(self._place.out)
        pending = bool((self._states[self._owned] == PENDING).any())
        if pending:
            self._claim.unmark()
            remains.remove(self._job.remains())
        self._finished_before = (
            not pending and self._claim.all_complete(self._plan.hash) and remains.standing(self._job.remains())
        )
        workers = len(self._posts)
        supervisor = Supervisor(
            setup=self._setup(workers), plan=self._plan, states=self._states, owned=self._owned, ledger=self._ledger,
            epoch=self._claim.epoch, sink=self._sink, place=self._place, posts=self._posts, reporter=self._reporter,
            group_starts=self._plan.starts, job=self._job, record=self._record(workers),
            fail_fast=self._how.fail_fast, item_timeout=self._how.item_timeout,
            max_failure_rate=None if self._how.continue_on_error else self._how.max_failure_rate,
            on_commit=self._checkpoint.write,
        )  # fmt: skip
        with _interrupts(supervisor):
            supervisor.run()
        return self._end(supervisor, workers)

    @contextmanager
    def _all_ledgers(self) -> Iterator[Ledgers]:
        ledgers = Ledgers(self._place.bookkeeping, self._claim.epoch, self._plan.count)
        try:
            yield ledgers
        finally:
            ledgers.close()

    def _redo(self, ledgers: Ledgers, choice: Choice | None) -> None:
        """Items that shall be worked again are pending, durably, before anything else happens."""
        changes = redo.changes(self._job, self._plan, ledgers, self._owned)
        chosen = [] if choice is None else choice.ordinals(self._job, self._plan, ledgers, self._owned)
        notices = [
            (changes.failed, f"{len(changes.failed)} items failed before and have a new input: done again"),
            (changes.done, f"{len(changes.done)} items have another input than when they were done: done again"),
            (chosen, f"{len(chosen)} items that failed are tried again"),
        ]
        again = sorted({*changes.failed, *changes.done, *chosen})
        texts = [text for ordinals, text in notices if ordinals]
        if again:
            events = [Event(time.time(), "redo", -1, -1, text) for text in texts]
            self._ledger.commit([Outcome(n, PENDING, 0, epoch=self._claim.epoch) for n in again], events=events)
            self._states[again] = PENDING
        if changes.gone:
            texts.append(f"the inputs of {changes.gone} done items are gone; what was made of them stays")
        for text in texts:
            self._reporter.notice(text)

    def _setup(self, workers: int) -> dict[str, Any]:
        return {
            "bookkeeping": str(self._place.bookkeeping),
            "job": class_path(self._job),
            "options": self._job.options(),
            "inputs": self._job.inputs(),
            "out": str(self._place.out),
            "staging": str(self._place.staging),
            "count": self._plan.count,
            "shard_size": self._place.shard_size,
            "fingerprint": self._how.fingerprint,
            "memory_bytes": self._how.memory_per_worker,
            "recycle_bytes": (self._how.memory_per_worker or memory_bytes() // workers) // 2,
            "recycle_seconds": RECYCLE_SECONDS,
            "audit": self._how.audit,
            "spare": workers < usable_cores(),
        }

    def _record(self, workers: int) -> RunRecord:
        how = {key: value for key, value in asdict(self._how).items() if key != "output"}
        facts = {
            "how": {key: str(value) if isinstance(value, Path) else value for key, value in how.items()},
            "machine": {
                "cores": usable_cores(),
                "memory_bytes": memory_bytes(),
                "system": platform.platform(),
                "python": platform.python_version(),
                "gpupipe": __version__,
            },
            "asked_workers": workers,
            "posts": dict(Counter(post.label for post in self._posts)),
        }
        return RunRecord(time.time(), host=os.uname().nodename, pid=os.getpid(), facts=facts)

    # ---- the end of a run

    def _end(self, supervisor: Supervisor, workers: int) -> Summary:
        shown = supervisor.snapshot
        complete = False
        if shown.left == 0:
            self._claim.mark(self._plan.hash)
            complete = self._claim.all_complete(self._plan.hash)
        if complete and not self._finished_before:
            planning.renew(self._job, self._place.out, self._plan)  # another part of the run may have asked otherwise
            self._job.finish(Dataset(self._place, self._plan, self._outcomes))
        self._checkpoint.write(last=True)
        whole = complete or self._how.total_shards == 1
        failures = (self._place.out if whole else self._claim.folder) / FAILURES
        reasons = write_failures(failures, self._job, self._plan, self._outcomes(), self._owned, self._place.staging)
        if complete and not self._finished_before:
            Remains(self._place.out).record(self._job.remains())
        if shown.left == 0 and not complete:
            self._reporter.notice(
                f"run shard {self._how.shard} of {self._how.total_shards} is complete; "
                "the last of them to end writes the index"
            )
        return summarize(
            self._job.name, self._place.out, shown, workers, reasons, failures, complete, supervisor.stop_reason,
            self._how.continue_on_error,
        )  # fmt: skip

    def _outcomes(self, state: int | None = None) -> Iterator[Outcome]:
        with self._all_ledgers() as ledgers:
            yield from ledgers.outcomes(state)


@contextmanager
def _interrupts(supervisor: Supervisor) -> Iterator[None]:
    """First Ctrl-C or SIGTERM: every worker finishes its item. Second: at once; the ledger knows what is done."""

    def handle(number: int, frame: FrameType | None) -> None:
        if supervisor.stop_reason:
            raise KeyboardInterrupt
        supervisor.stop(INTERRUPTED)

    try:
        before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: signals are the caller's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

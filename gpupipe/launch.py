"""A run on this machine: plan or continue, claim the output, supervise the workers, finish the dataset."""

from __future__ import annotations

import json
import os
import platform
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from gpupipe import __version__, planning, redo
from gpupipe import plan as plans
from gpupipe.errors import UsageError
from gpupipe.fingerprint import KINDS, Kind
from gpupipe.job import Dataset, Job, class_path
from gpupipe.ledger import Ledger
from gpupipe.ledgers import Ledgers
from gpupipe.machine import memory_bytes, usable_cores
from gpupipe.outcome import DONE, FAILED, PENDING, Event, Outcome, RunRecord
from gpupipe.ownership import MAX_SHARDS, Ownership, refuse_links
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.posts import Post, assign
from gpupipe.progress import Reporter, Snapshot
from gpupipe.redo import Choice
from gpupipe.remains import FAILURES, Remains
from gpupipe.sinks.base import Place, Sink
from gpupipe.sinks.files import publish
from gpupipe.summary import EXIT_DIFFERENT, EXIT_DONE, EXIT_FAILED_ITEMS, EXIT_INTERRUPTED, Summary, bottleneck
from gpupipe.supervisor import Supervisor

INTERRUPTED = "interrupted"
MAX_FAILURE_RATE = 0.5
MIN_MEMORY, MAX_MEMORY = 256 << 20, 1 << 50
MAX_WORKERS = 4096
RECYCLE_SECONDS = 3600.0  # a new worker costs half a second
_CHECKPOINT_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """How a job is run; nothing here changes a byte of the output.

    Attributes
    ----------
    output : Path
    workers : int or None
        Worker processes on CPU cores; None for one a usable core, less those that GPU workers need.
    gpus : str or int or None
        ``"all"``, or how many GPUs; None for all.
    gpu_ids : tuple of str
        Index or UUID of each GPU instead; a repeated one has so many shares.
    workers_per_gpu : int
        Processes a GPU, or a share of one.
    audit : float
        Share of the items decoded on a GPU that are made again on the CPU and compared.
    shard, total_shards : int
        Run shard I of N.
    overwrite : bool
        Remove what an earlier run left and start anew.
    fail_fast : bool
        Stop at the first failed item.
    continue_on_error : bool
        Exit 0 though items failed.
    item_timeout : float or None
        Seconds after which an item's worker is taken to hang; None for the job's own judgement.
    max_failure_rate : float or None
        Share of failed items that stops the run, judged after 100 items and not under `continue_on_error`; None for no
        bound.
    memory_per_worker : int or None
        Bytes of private memory; None sets no bound.
    fingerprint : str
        What identifies an input: ``"stat"`` (size and time) or ``"content"``.
    checkpoint_file : Path or None
        Exported for monitoring scripts; never read.
    """

    output: Path
    workers: int | None = None
    gpus: str | int | None = None
    gpu_ids: tuple[str, ...] = ()
    workers_per_gpu: int = 1
    audit: float = 0.0
    shard: int = 0
    total_shards: int = 1
    overwrite: bool = False
    fail_fast: bool = False
    continue_on_error: bool = False
    item_timeout: float | None = None
    max_failure_rate: float | None = MAX_FAILURE_RATE
    memory_per_worker: int | None = None
    fingerprint: Kind = "stat"
    checkpoint_file: Path | None = None

    def posts(self, backend: str) -> tuple[list[Post], list[str]]:
        """The places of the workers: as many as are asked for, and as fit into memory; and what there is to say.

        Raises
        ------
        UsageError
            The GPUs asked for are not there.
        """
        posts, notices = assign(backend, self.workers, self.gpus, self.gpu_ids, self.workers_per_gpu)
        each = self.memory_per_worker
        fit = len(posts) if each is None else max(1, memory_bytes() // each)
        if fit < len(posts):
            notices.append(
                f"{len(posts)} workers of {_gib(each or 0)} do not fit into {_gib(memory_bytes())}: {fit} run"
            )
        if self.audit and not any(post.device for post in posts):
            raise UsageError(
                f"--audit {self.audit:g} compares GPU and CPU, and no GPU is used here; see gpupipe doctor"
            )
        return posts[:fit], notices

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be."""
        if self.total_shards > MAX_SHARDS:
            raise UsageError(f"--total-shards {self.total_shards}: expected at most {MAX_SHARDS}")
        if not 0 <= self.shard < self.total_shards:
            raise UsageError(
                f"--shard {self.shard}: expected 0 to {self.total_shards - 1} (--total-shards {self.total_shards})"
            )
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--num-workers {self.workers}: expected 1 to {MAX_WORKERS}")
        if self.gpus is not None and self.gpu_ids:
            raise UsageError("--gpus says how many and --gpu-ids which: choose one")
        if self.gpus not in (None, "all") and (not isinstance(self.gpus, int) or not 1 <= self.gpus <= MAX_WORKERS):
            raise UsageError(f"--gpus {self.gpus}: expected all, or 1 to {MAX_WORKERS}")
        if not 1 <= self.workers_per_gpu <= MAX_WORKERS:
            raise UsageError(f"--num-workers-per-gpu {self.workers_per_gpu}: expected 1 to {MAX_WORKERS}")
        if not 0 <= self.audit <= 1:
            raise UsageError(f"--audit {self.audit}: expected a share, from 0 to 1")
        if self.checkpoint_file is not None and not self.checkpoint_file.absolute().parent.is_dir():
            raise UsageError(f"--checkpoint-file {self.checkpoint_file}: no such folder")
        if self.item_timeout is not None and self.item_timeout <= 0:
            raise UsageError(f"--item-timeout {self.item_timeout}: expected seconds above 0")
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max-failure-rate {self.max_failure_rate}: expected a share, from 0 to 1")
        if self.memory_per_worker is not None and self.memory_per_worker < MIN_MEMORY:
            raise UsageError(
                f"--memory-per-worker {self.memory_per_worker}: expected at least {MIN_MEMORY >> 20} MiB, which a "
                "worker needs for itself"
            )
        if self.memory_per_worker is not None and self.memory_per_worker > MAX_MEMORY:
            raise UsageError(f"--memory-per-worker {self.memory_per_worker}: expected at most {MAX_MEMORY >> 40} TiB")
        if self.fingerprint not in KINDS:
            raise UsageError(f"--fingerprint {self.fingerprint!r}: expected one of {', '.join(KINDS)}")
        if self.overwrite and self.total_shards > 1:
            raise UsageError("--overwrite removes the whole output, not one run shard of it: remove the folder first")


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
        return _run_plan(job, how, posts, reporter, claim, Plan(bookkeeping / "plan"), choice)


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
        self._exported = float("-inf")

    def run(self, choice: Choice | None) -> Summary:
        with self._all_ledgers() as ledgers:
            self._states = ledgers.states(self._plan.count)
            self._redo(ledgers, choice)
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
            on_commit=self._export,
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

    def _export(self, last: bool = False) -> None:
        """The users' monitoring file: indices done, and a time such that indices / (now - time) is the rate."""
        path = self._how.checkpoint_file
        if path is None or (not last and time.monotonic() - self._exported < _CHECKPOINT_SECONDS):
            return
        self._exported = time.monotonic()
        active = sum(record.seconds for record in self._ledger.runs())
        text = json.dumps(
            {"processed_indices": np.flatnonzero(self._states == DONE).tolist(), "timestamp": time.time() - active}
        )
        # Beside it a kill would leave a rest for good: ours is swept.
        ours = self._place.staging
        publish(path, [text.encode()], ours if ours.stat().st_dev == path.absolute().parent.stat().st_dev else None)

    # ---- the end of a run

    def _end(self, supervisor: Supervisor, workers: int) -> Summary:
        shown = supervisor.snapshot
        complete = False
        if shown.left == 0:
            self._claim.mark(self._plan.hash)
            complete = self._claim.all_complete(self._plan.hash)
        if complete and not self._finished_before:
            self._job.finish(Dataset(self._place, self._plan, self._outcomes))
        self._export(last=True)
        whole = complete or self._how.total_shards == 1
        failures = (self._place.out if whole else self._claim.folder) / FAILURES
        reasons = self._write_failures(failures)
        if complete and not self._finished_before:
            Remains(self._place.out).record(self._job.remains())
        if shown.left == 0 and not complete:
            self._reporter.notice(
                f"run shard {self._how.shard} of {self._how.total_shards} is complete; "
                "the last of them to end writes the index"
            )
        return _summary(self._job, self._how, shown, workers, reasons, failures, complete, supervisor.stop_reason)

    def _outcomes(self, state: int | None = None) -> Iterator[Outcome]:
        with self._all_ledgers() as ledgers:
            yield from ledgers.outcomes(state)

    def _write_failures(self, path: Path) -> Counter[str]:
        """One JSON line a failed item, by ordinal; the file is there, and empty, where nothing failed."""
        reasons: Counter[str] = Counter()

        def lines() -> Iterator[bytes]:
            for outcome in self._outcomes():
                if outcome.state == FAILED:
                    if self._owned[outcome.ordinal]:
                        reasons[outcome.error] += 1
                    text = json.dumps(failure(self._job, self._plan, outcome), ensure_ascii=False)
                    yield text.encode(errors="backslashreplace") + b"\n"

        publish(path, lines(), self._place.staging)
        return reasons


def failure(job: Job, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """A failed item as ``failed.jsonl`` names it."""
    return {
        "id": job.item_id(outcome.ordinal, plan.item(outcome.ordinal)),
        "ordinal": outcome.ordinal,
        "stage": outcome.stage,
        "error": outcome.error,
        "message": outcome.message,
        "attempts": outcome.attempts,
    }


def _summary(
    job: Job,
    how: Run,
    shown: Snapshot,
    workers: int,
    reasons: Counter[str],
    failures: Path,
    complete: bool,
    stop_reason: str,
) -> Summary:
    worked = shown.done + shown.failed - shown.earlier
    if stop_reason == INTERRUPTED:
        code = EXIT_INTERRUPTED
    elif shown.differences:
        code = EXIT_DIFFERENT
    elif shown.failed and (shown.left or not how.continue_on_error):
        code = EXIT_FAILED_ITEMS
    else:
        code = EXIT_DONE
    cores = min(workers, usable_cores())
    return Summary(
        job=job.name,
        output=str(how.output),
        items=shown.total,
        done=shown.done,
        failed=shown.failed,
        pending=shown.left,
        earlier=shown.earlier,
        seconds=shown.seconds,
        items_per_second=worked / shown.seconds if shown.seconds > 0 else 0.0,
        reasons=dict(reasons.most_common()),
        failures_file=str(failures) if shown.failed else None,
        workers=workers,
        cpu_seconds=shown.cpu_seconds,
        stages=dict(shown.stages),
        bottleneck=bottleneck(shown.stages),
        ceiling_share=min(1.0, shown.cpu_seconds / (shown.seconds * cores)) if worked and shown.seconds > 0 else None,
        complete=complete,
        stop_reason=stop_reason,
        exit_code=code,
        audited=shown.audited,
        differences=shown.differences,
    )


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


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.1f} GiB"

"""A run on this machine: plan or continue, claim the output, supervise the workers, finish the dataset."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from gpupipe import ownership
from gpupipe import plan as plans
from gpupipe.errors import UsageError
from gpupipe.job import Dataset, Job, class_path
from gpupipe.ledger import DONE, FAILED, PENDING, Ledger, Ledgers, Outcome
from gpupipe.machine import usable_cores
from gpupipe.ownership import Ownership
from gpupipe.plan import BOOKKEEPING, Plan, PlanWriter
from gpupipe.progress import Reporter, Snapshot
from gpupipe.sinks.base import Place, Sink
from gpupipe.sinks.files import output_errors, publish, remove_tree, sync_folder
from gpupipe.summary import EXIT_DONE, EXIT_FAILED_ITEMS, EXIT_INTERRUPTED, Summary, bottleneck
from gpupipe.supervisor import Supervisor

INTERRUPTED = "interrupted"
_CHECKPOINT_SECONDS = 5.0


@dataclass(frozen=True)
class Run:
    """How a job is run; nothing here changes a byte of the output.

    Attributes
    ----------
    output : Path
    workers : int or None
        Worker processes; None for one a usable core.
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
    checkpoint_file : Path or None
        Exported for monitoring scripts; never read.
    """

    output: Path
    workers: int | None = None
    shard: int = 0
    total_shards: int = 1
    overwrite: bool = False
    fail_fast: bool = False
    continue_on_error: bool = False
    item_timeout: float | None = None
    checkpoint_file: Path | None = None

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be."""
        if not 0 <= self.shard < self.total_shards:
            raise UsageError(
                f"--shard {self.shard}: expected 0 to {self.total_shards - 1} (--total-shards {self.total_shards})"
            )
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--num-workers {self.workers}: expected at least 1")
        if self.checkpoint_file is not None and not self.checkpoint_file.absolute().parent.is_dir():
            raise UsageError(f"--checkpoint-file {self.checkpoint_file}: no such folder")
        if self.item_timeout is not None and self.item_timeout <= 0:
            raise UsageError(f"--item-timeout {self.item_timeout}: expected seconds above 0")
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
    how.check()
    job.check()
    _check_output(how.output)
    bookkeeping = how.output / BOOKKEEPING
    if how.overwrite and plans.exists(bookkeeping):
        _write_plan(job, bookkeeping, _source_facts(job.source())).discard()  # input that cannot be read costs nothing
        _remove_output(job, how.output)
    with Ownership(bookkeeping, how.shard, how.total_shards) as claim:
        plan = _load_or_make_plan(job, how, bookkeeping, reporter)
        claim.clear_staging()
        place = Place(how.output, bookkeeping, claim.staging, plan.count, job.shard_size)
        ledger = Ledger(claim.folder / "ledger.db", plan.hash)
        try:
            return _Session(job, how, reporter, claim, plan, place, ledger).run()
        finally:
            ledger.close()
            plan.close()


class _Session:
    """One run, with all it holds."""

    def __init__(
        self, job: Job, how: Run, reporter: Reporter, claim: Ownership, plan: Plan, place: Place, ledger: Ledger
    ) -> None:
        self._job, self._how, self._reporter = job, how, reporter
        self._claim, self._plan, self._place, self._ledger = claim, plan, place, ledger
        self._sink: Sink = job.sink(place)
        shards = np.arange(plan.count) // place.shard_size
        self._owned = shards % how.total_shards == how.shard
        self._exported = float("-inf")

    def run(self) -> Summary:
        with self._all_ledgers() as ledgers:
            self._states = ledgers.states(self._plan.count)
        self._redo_changed()
        if not self._owned.any():
            self._reporter.notice(
                f"no item belongs to run shard {self._how.shard}: {self._place.shards} output shards for "
                f"{self._how.total_shards} run shards; a smaller shard size spreads the items"
            )
        remains = [self._place.out / name for name in self._job.remains()]
        pending = bool((self._states[self._owned] == PENDING).any())
        if pending:
            self._claim.unmark()
            for path in remains:  # they speak of a whole dataset, which this is not for now
                remove_tree(path)
        self._finished_before = (
            not pending and self._claim.all_complete(self._plan.hash) and all(path.exists() for path in remains)
        )
        workers = self._how.workers or usable_cores()
        supervisor = Supervisor(
            setup=self._setup(), plan=self._plan, states=self._states, owned=self._owned, ledger=self._ledger,
            epoch=self._claim.epoch, sink=self._sink, place=self._place, workers=workers, reporter=self._reporter,
            group_starts=self._plan.starts, job=self._job, fail_fast=self._how.fail_fast,
            item_timeout=self._how.item_timeout,
            on_commit=self._export,
        )  # fmt: skip
        with _interrupts(supervisor):
            supervisor.run()
        return self._end(supervisor, workers)

    @contextmanager
    def _all_ledgers(self) -> Iterator[Ledgers]:
        ledgers = Ledgers(self._place.bookkeeping, self._claim.epoch)
        try:
            yield ledgers
        finally:
            ledgers.close()

    def _redo_changed(self) -> None:
        """Failed items whose input is another file now (it was missing, or was mended) are pending again."""
        changed = [
            Outcome(failed.ordinal, PENDING, 0, epoch=self._claim.epoch)
            for failed in self._outcomes(FAILED)
            if self._owned[failed.ordinal]
            and failed.fingerprint != self._job.fingerprint(self._plan.item(failed.ordinal))
        ]
        if changed:
            self._ledger.commit(changed)
            self._states[[outcome.ordinal for outcome in changed]] = PENDING
            self._reporter.notice(f"{len(changed)} items failed before and have a new input: done again")

    def _setup(self) -> dict[str, Any]:
        return {
            "bookkeeping": str(self._place.bookkeeping),
            "job": class_path(self._job),
            "options": self._job.options(),
            "inputs": self._job.inputs(),
            "out": str(self._place.out),
            "staging": str(self._place.staging),
            "count": self._plan.count,
            "shard_size": self._place.shard_size,
        }

    def _export(self, last: bool = False) -> None:
        """The users' monitoring file: indices done, and a time such that indices / (now - time) is the rate."""
        path = self._how.checkpoint_file
        if path is None or (not last and time.monotonic() - self._exported < _CHECKPOINT_SECONDS):
            return
        self._exported = time.monotonic()
        active = float(self._ledger.meta("active_seconds") or 0.0)
        text = json.dumps(
            {"processed_indices": np.flatnonzero(self._states == DONE).tolist(), "timestamp": time.time() - active}
        )
        publish(path, [text.encode()])

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
        failures = (self._place.out if whole else self._claim.folder) / "failed.jsonl"
        reasons = self._write_failures(failures)
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


def _check_output(output: Path) -> None:
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{output}: cannot be made ({error.strerror}). Choose another output folder.") from error
    if not os.access(output, os.W_OK | os.X_OK):
        raise UsageError(f"{output}: not writable for this user. Choose another output folder.")


def _source_facts(path: Path) -> dict[str, Any]:
    stat = path.stat()
    return {"path": str(path.absolute()), "size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _load_or_make_plan(job: Job, how: Run, bookkeeping: Path, reporter: Reporter) -> Plan:
    """The frozen plan, if it is of the same configuration and inputs; a new one where there is none."""
    source = _source_facts(job.source())
    if not plans.exists(bookkeeping):
        place = Place(how.output, bookkeeping, bookkeeping, 0, job.shard_size)
        if not how.overwrite and (there := job.sink(place).foreign()):
            raise UsageError(
                f"{how.output}: holds {there}, which no run of gpupipe recorded. "
                "Choose another output folder, or --overwrite."
            )
        writer = _write_plan(job, bookkeeping, source)
        try:
            return writer.publish()
        except BaseException:
            writer.discard()
            raise
    plan = Plan(bookkeeping / "plan")
    lines = plans.differences(plan, job.name, job.options())
    if not lines and plan.source != source:
        writer = _write_plan(job, bookkeeping, source)
        if writer.items_hash != plan.items_hash:
            lines.append(
                f"items: {plan.count} from {plan.source['path']} there, "
                f"{writer.count} others from {source['path']} asked"
            )
        writer.discard()
    if lines:
        plan.close()
        raise UsageError(
            f"{how.output}: made with another configuration. Use another output folder, or --overwrite.\n  "
            + "\n  ".join(lines)
        )
    for key, value in job.inputs().items():
        if plan.inputs.get(key) != value:
            reporter.notice(f"{key} is {value} now; the plan was made with {plan.inputs.get(key)}")
    return plan


def _write_plan(job: Job, bookkeeping: Path, source: dict[str, Any]) -> PlanWriter:
    writer = PlanWriter(bookkeeping, job.name, job.options(), job.inputs(), source)
    try:
        job.write_items(writer)
    except BaseException:
        writer.discard()
        raise
    return writer


def _remove_output(job: Job, output: Path) -> None:
    """Remove what the plan on disk says was made here, and the bookkeeping; nothing else.

    A kill at any moment leaves either an output that is as it was or one that is known to be unfinished: the ledgers
    go first, the plan, which says what there is to remove, goes last.
    """
    bookkeeping = output / BOOKKEEPING
    with ownership.alone(bookkeeping), closing(Plan(bookkeeping / "plan")) as plan:
        if plan.job != job.name:
            raise UsageError(f"{output}: made by the job {plan.job}. Remove the folder yourself, or choose another.")
        try:
            made: Job = type(job)(**plan.options, **plan.inputs)
        except TypeError as error:
            raise UsageError(f"{output}: planned by another version ({error}). Remove the folder yourself.") from error
        for shard in bookkeeping.glob("shard-*"):
            for path in [*shard.glob("ledger.db*"), shard / "complete"]:
                remove_tree(path)
            sync_folder(shard)
        place = Place(output, bookkeeping, bookkeeping, plan.count, made.shard_size)
        names = (made.blob_name(ordinal, item) for ordinal, item in enumerate(plan.items()))
        made.sink(place).remove(name for name in names if name is not None)
        for name in [*made.remains(), "failed.jsonl"]:
            remove_tree(output / name)
        with output_errors(bookkeeping):
            for path in [*bookkeeping.iterdir(), *bookkeeping.glob("shard-*/*")]:
                # A lock may be held by a run that is just starting: its file stays.
                if path.name not in ownership.LOCKS and path.name != "plan" and not path.name.startswith("shard-"):
                    remove_tree(path)
        remove_tree(bookkeeping / "plan")

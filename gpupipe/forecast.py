"""What a run would do, from what is there and from trying a few of its items; it leaves nothing behind.

``--dry-run``: the plan is made elsewhere and thrown away, or the output's own is read; then :mod:`gpupipe.trial`.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe import ownership, planning, redo
from gpupipe import plan as plans
from gpupipe.estimate import Range, longer, output_bytes, run_seconds, size_text, write_rate
from gpupipe.job import Job
from gpupipe.launch import check
from gpupipe.ledgers import Ledgers
from gpupipe.machine import memory_bytes, usable_cores
from gpupipe.outcome import DONE, FAILED, PENDING
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.progress import Reporter
from gpupipe.settings import Run
from gpupipe.sinks.base import Place
from gpupipe.summary import EXIT_DONE, EXIT_USAGE
from gpupipe.trial import MAX_PROBED, PATIENCE_SECONDS, Bench, Survey, Trial
from gpupipe.watchdog import patience

SEED = 42


@dataclass(frozen=True)
class Items:
    """The items of the run shard as they are now.

    Attributes
    ----------
    total, pending, done, failed : int
        By the ledger; ``total = pending + done + failed``.
    changed_done, changed_failed : int
        Of those done and failed, the ones whose input is another now: they would be done again.
    gone : int
        Of those done, the ones whose input is no more: they stay.
    to_do : int
        What a run would work.
    """

    total: int
    pending: int
    done: int
    failed: int
    changed_done: int
    changed_failed: int
    gone: int
    to_do: int


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes
    ----------
    job, output : str
    shard, total_shards : int
    planned : bool
        The output holds a plan, which the run would continue.
    running : list of str
        Runs at work on it.
    items : Items
    survey : Survey
        Of a sample of the items to do.
    trial : Trial
        Of the first of that sample.
    workers, cores : int
        Processes that would run; cores that they may use.
    seconds : Range or None
        Of the run: of its workers, or of writing the output where that takes longer. Supposes that time goes down with
        the number of workers up to that of the cores, and that the machine is otherwise as it is now.
    storage_bound : bool
        Writing takes longer.
    storage_bytes_per_second : float or None
        What the output's file system makes durable, measured with a nameless file; None where that cannot be.
    output_bytes : Range or None
        Of what is to do: lengths of files, bookkeeping and index files aside. Exact for declared rows.
    needed_bytes : int or None
        Room for that on the output's file system, whole blocks and passing copies included.
    free_bytes : int
        Room there is; with ``--overwrite``, what would be removed counts as room.
    needed_memory_bytes : int or None
        Peak of the trial's worker times the workers of its kind: those on GPUs, or those on CPU cores.
    memory_bytes : int
    problems : list of str
        Why it cannot run as asked; empty where nothing was found.
    notices : list of str
    """

    job: str
    output: str
    shard: int
    total_shards: int
    planned: bool
    running: list[str]
    items: Items
    survey: Survey
    trial: Trial
    workers: int
    cores: int
    seconds: Range | None
    storage_bound: bool
    storage_bytes_per_second: float | None
    output_bytes: Range | None
    needed_bytes: int | None
    free_bytes: int
    needed_memory_bytes: int | None
    memory_bytes: int
    problems: list[str]
    notices: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0, or that of a command that cannot be carried out."""
        return EXIT_USAGE if self.problems else EXIT_DONE

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {**asdict(self), "exit_code": self.exit_code}


def forecast(job: Job, how: Run, reporter: Reporter) -> Forecast:
    """Say what :func:`gpupipe.launch.run` would do; reads only.

    Raises
    ------
    UsageError
        As the run would.
    StoppedError
        A worker cannot start.
    """
    there = check(job, how)
    source = planning.source_facts(job.source())
    ownership.refuse_links(how.output / BOOKKEEPING)
    planned = plans.exists(how.output / BOOKKEEPING)
    with _removed_on_sigterm(), tempfile.TemporaryDirectory(prefix="gpupipe-dry-run-") as name:
        scratch = Path(name)
        bookkeeping = scratch / "bookkeeping"
        bookkeeping.mkdir()
        if planned and not how.overwrite:
            plan = planning.load_plan(job, how.output, source, bookkeeping, reporter)
            (bookkeeping / "plan").symlink_to(plan.folder.absolute())
        else:
            if planned:
                with closing(Plan(how.output / BOOKKEEPING / "plan")) as old:
                    planning.maker(job, how.output, old)
            elif not how.overwrite and there == how.output:
                planning.refuse_foreign(job, how.output, bookkeeping)
            plan = planning.make_plan(job, bookkeeping, source, reporter)
        with closing(plan):
            return _Look(job, how, plan, scratch, there, planned).forecast()


class _Look:
    """One look at a job, its plan and its output."""

    def __init__(self, job: Job, how: Run, plan: Plan, scratch: Path, there: Path, planned: bool) -> None:
        self._job, self._how, self._plan, self._scratch, self._there = job, how, plan, scratch, there
        self._planned, self._continues = planned, planned and not how.overwrite
        self._owned = np.arange(plan.count) // job.shard_size % how.total_shards == how.shard
        self._states = np.zeros(plan.count, np.uint8)
        self._notices: list[str] = []

    def forecast(self) -> Forecast:
        job, how = self._job, self._how
        items, todo, rewritten = self._items()
        random = np.random.default_rng(SEED)
        sample = [int(n) for n in random.permutation(random.choice(todo, min(MAX_PROBED, len(todo)), replace=False))]
        block = os.statvfs(self._there).f_frsize
        settings = {"fingerprint": how.fingerprint, "memory_bytes": how.memory_per_worker}
        posts, notices = how.posts(job.backend)
        self._notices += notices
        bench = Bench(job, self._plan, self._scratch, block, settings, posts[0])
        look = min(PATIENCE_SECONDS, how.item_timeout or PATIENCE_SECONDS)
        survey = bench.probe(sample, look) if sample else Survey()
        absent = survey.reasons.get("MissingInputError")
        missing = absent is not None and absent.count == survey.probed
        allowed = patience(job, self._plan, how.item_timeout)
        trial = bench.work(sample[: survey.probed], allowed) if sample and not missing else Trial()

        if posts[0].device is not None:
            self._notices.append("a GPU works many clips at a time, of which the trial worked one: it takes less time")
        if self._plan.starts is not None:
            self._notices.append("neighbours in one file share its opening: it takes less time, the more of them")
        ended = [name for name in ("crash", "hang", "memory", "stopped") if name in trial.reasons]
        if ended:
            self._notices.append(f"time and output without the items of the trial that ended it ({', '.join(ended)})")
        workers, cores = min(len(posts), max(1, items.to_do)), usable_cores()
        on_cards = posts[0].device is not None
        alike = sum((post.device is not None) == on_cards for post in posts[:workers])
        sink = job.sink(Place(*bench.folders, self._plan.count, job.shard_size))
        output, needed = output_bytes(job, sink, todo, self._states, rewritten, trial)
        if needed is not None and not self._continues:
            needed += sum(path.stat().st_size for path in self._plan.folder.iterdir())
        seconds = run_seconds(trial, items.to_do, min(workers, cores))
        rate = write_rate(self._there) if seconds and len(todo) else None
        storage_bound = False
        if rate and seconds and output:
            storage = Range(output.low / rate, output.expected / rate, output.high / rate)
            storage_bound = storage.expected > seconds.expected
            seconds = longer(seconds, storage)
        found = Forecast(
            job=job.name, output=str(how.output), shard=how.shard, total_shards=how.total_shards,
            planned=self._planned,
            running=ownership.holders(how.output / BOOKKEEPING) if self._planned else [],
            items=items, survey=survey, trial=trial, workers=workers, cores=cores,
            seconds=seconds, storage_bound=storage_bound, storage_bytes_per_second=rate,
            output_bytes=output, needed_bytes=needed,
            free_bytes=shutil.disk_usage(self._there).free + self._freed(),
            needed_memory_bytes=trial.peak_bytes * alike or None, memory_bytes=memory_bytes(),
            problems=[], notices=self._notices,
        )  # fmt: skip
        found.problems.extend(_problems(found, job, missing, on_cards))
        return found

    # ---- what there is

    def _items(self) -> tuple[Items, np.ndarray, int]:
        """The items by state, the ordinals to do, and how many of those were done before."""
        changed = redo.Changes([], [], 0)
        if self._continues:
            bookkeeping = self._how.output / BOOKKEEPING
            with closing(Ledgers(bookkeeping, ownership.read_layout(bookkeeping)["epoch"])) as ledgers:
                self._states = ledgers.states(self._plan.count)
                changed = redo.changes(self._job, self._plan, ledgers, self._owned)
        mine = self._states[self._owned]
        work = self._owned & (self._states == PENDING)
        work[[*changed.done, *changed.failed]] = True
        todo = np.flatnonzero(work)
        pending, done, failed = (int((mine == state).sum()) for state in (PENDING, DONE, FAILED))
        items = Items(len(mine), pending, done, failed, len(changed.done), len(changed.failed), changed.gone, len(todo))
        return items, todo, len(changed.done)

    def _freed(self) -> int:
        """Bytes that ``--overwrite`` would remove."""
        if not (self._planned and self._how.overwrite):
            return 0
        bookkeeping = self._how.output / BOOKKEEPING
        with closing(Ledgers(bookkeeping, ownership.read_layout(bookkeeping)["epoch"])) as ledgers:
            return sum(outcome.nbytes for outcome in ledgers.outcomes(DONE))


def _problems(found: Forecast, job: Job, missing: bool, on_cards: bool) -> Iterator[str]:
    if missing:
        folders = [f"--{key.replace('_', '-')} {value}" for key, value in job.inputs().items() if _is_folder(value)]
        yield (
            f"none of {found.survey.probed} sampled inputs is there. Check "
            f"{' and '.join(folders) or 'where the inputs are'}: {found.survey.reasons['MissingInputError'].example}"
        )
    if found.needed_bytes is not None and found.needed_bytes > found.free_bytes:
        yield (
            f"{found.output}: about {size_text(found.needed_bytes)} are needed, {size_text(found.free_bytes)} are free "
            "on its file system. Make space, choose another output folder, or do fewer items"
        )
    if found.needed_memory_bytes is not None and found.needed_memory_bytes > found.memory_bytes:
        peak = found.trial.peak_bytes
        fit = found.memory_bytes // peak
        fewer = "Use fewer with --gpus and --num-workers-per-gpu" if on_cards else f"Use --num-workers {fit}"
        yield (
            f"{found.needed_memory_bytes // peak} workers of {size_text(peak)} do not fit into "
            f"{size_text(found.memory_bytes)} of memory. " + (fewer if fit else "Use a machine with more")
        )


def _is_folder(value: Any) -> bool:
    return isinstance(value, str) and bool(value) and Path(value).is_dir()


@contextmanager
def _removed_on_sigterm() -> Iterator[None]:
    """Have SIGTERM end the block like Ctrl-C, so that what was made for the moment is removed."""
    if threading.current_thread() is not threading.main_thread():  # signals are the caller's business
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)

"""What a script, a thread or a notebook asks of any output: the commands that are no job, as functions.

A function takes what its command takes, under the same names. It reads no ``gpupipe.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

from gpupipe import jobs, launch, planning, verification
from gpupipe import plan as plans
from gpupipe.calls import check_backend
from gpupipe.errors import UsageError
from gpupipe.job import Job, decoding_with
from gpupipe.plan import BOOKKEEPING, Plan, folder_of
from gpupipe.redo import Choice
from gpupipe.reports import final
from gpupipe.settings import run_of
from gpupipe.shown import StrPath, run_shown, unless_interrupted
from gpupipe.sinks import pickles
from gpupipe.summary import Summary
from gpupipe.verification import Verdict


def status(output_dir: StrPath) -> dict[str, Any]:
    """Say where an output stands, during a run or after it: ``gpupipe status --json``.

    Returns
    -------
    dict
        ``job, output, state, items, done, failed, pending, reasons, running, items_per_second, eta_seconds,
        active_seconds, bottleneck, stages``; JSON values.

    Raises
    ------
    UsageError
        No output of gpupipe is there.
    """
    return final.status(folder_of(Path(output_dir)))


def report(output_dir: StrPath, output: StrPath | None = None, *, pictures: int = 24, seed: int = 0) -> Path:
    """Write one HTML file that shows how an output came to be, during a run or after it: ``gpupipe report``.

    It is whole: it loads nothing and runs nothing. Failures with their next steps, a sample of the done items as
    pictures, throughput, workers, stages, ceilings, the slowest items, runs and settings.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file. Only read, but for the file itself.
    output : path, optional
        The file; default ``report.html`` in `output_dir`.
    pictures : int
        Done items to show.
    seed : int
        Of their choice.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    UsageError
        No planned output of gpupipe is there, or the file cannot be one.
    OutputError
        The file cannot be written.
    """
    from gpupipe.reports.html import page

    out = folder_of(Path(output_dir))
    return page.write(out, None if output is None else Path(output), index(pictures), index(seed))


def verify(
    output_dir: StrPath,
    *,
    deep: int = 0,
    seed: int = 0,
    repair: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Verdict:
    """Compare an output with its ledger: ``gpupipe verify``.

    Every byte is read back; missing, altered and added files are found. Reads only, unless it is to repair.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file.
    deep : int
        So many done items are also made again from their inputs and compared.
    seed : int
        Of their choice.
    repair : bool
        Have the damaged items done again by the next run, or by :func:`retry`.
    tell : callable, optional
        Called with each fault, a line of text, as it is found.

    Returns
    -------
    Verdict
        ``faults`` is empty where all is as it was written.

    Raises
    ------
    UsageError
        No output of gpupipe is there, or its plan cannot be read.
    LockedError
        A run is at work on it.
    """
    out = folder_of(Path(output_dir))
    return verification.verify(job_at(out), out, index(deep), seed, repair, tell)


def retry(
    output_dir: StrPath,
    *,
    reasons: Iterable[str] = (),
    ids: Iterable[str | int] = (),
    backend: str | None = None,
    num_workers: int | None = None,
    gpus: str | int | None = None,
    gpu_ids: Sequence[str | int] = (),
    num_workers_per_gpu: int = 1,
    item_timeout: float | None = None,
    memory_per_worker: int | None = None,
    metrics_port: int | None = None,
    progress: bool = False,
) -> Summary:
    """Try failed items of an output again, in their places, and whatever is pending: ``gpupipe retry``.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file.
    reasons : iterable of str
        Only failures of these types, as in ``failed.jsonl``; default all.
    ids : iterable of str or int
        Only these ids or ordinals; default all.
    backend : str, optional
        ``"auto"``, ``"ffmpeg"`` or ``"nvdec"``; default the one that the output was planned with.
    num_workers, gpus, gpu_ids, num_workers_per_gpu, item_timeout, memory_per_worker, metrics_port, progress
        See :func:`gpupipe.clips`.

    Returns
    -------
    Summary

    Raises
    ------
    UsageError
        No output of gpupipe is there, no failed item has that reason or id, or the inputs are not where they were.
    LockedError, OutputError, StoppedError
        See :func:`gpupipe.clips`.
    """
    given = locals()  # the parameters, by their names
    out = folder_of(Path(output_dir).absolute())
    job, choice = job_at(out, backend), Choice(frozenset(reasons), frozenset(map(str, ids)))
    run = replace(run_of(out, given), max_failure_rate=None)
    shown = run_shown(
        lambda reporter: launch.retry(job, run, choice, reporter), "items", progress, metrics_port=metrics_port
    )
    return unless_interrupted(shown)


def job_at(out: Path, backend: str | None = None) -> Job:
    """The job that an output was planned by, or with another backend; raises :class:`UsageError` where it is none."""
    check_backend(backend)
    bookkeeping = out / BOOKKEEPING
    if not plans.exists(bookkeeping):
        raise UsageError(f"{out}: no output of gpupipe here (no plan in {BOOKKEEPING})")
    with closing(Plan(bookkeeping / "plan")) as plan:
        job = planning.job_of(jobs.kind(plan.job), plan)
    return job if backend is None else decoding_with(job, backend)


def load_pickle(path: StrPath) -> Any:
    """Read a pickle of arrays, plain containers and scalars, and run nothing from it.

    Parameters
    ----------
    path : path
        ``video_input.pkl``, ``text_input.pkl``, ...

    Returns
    -------
    object
        See :func:`gpupipe.sinks.pickles.load`.

    Raises
    ------
    InputError
        It is damaged, or names anything that is not one of those; the message says what.
    OSError
        The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return pickles.load(file)

"""What the jobs' functions share: the parameters of a run, and how a job is run for a caller."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from gpupipe import launch
from gpupipe.decode import BACKENDS
from gpupipe.errors import UsageError
from gpupipe.fingerprint import Kind
from gpupipe.forecast import Forecast
from gpupipe.job import AnyJob
from gpupipe.progress import Reporter
from gpupipe.settings import Run, run_of
from gpupipe.shown import StrPath, forecast_of, run_shown, unless_interrupted
from gpupipe.summary import Summary


class RunParameters(TypedDict, total=False):
    """The parameters that every job's function has, for the overloads of it; :func:`gpupipe.clips` explains them.

    The function itself lists them, with their defaults, so that ``help`` shows them.
    """

    num_workers: int | None
    gpus: str | int | None
    gpu_ids: Sequence[str | int]
    num_workers_per_gpu: int
    shard: int
    total_shards: int
    overwrite: bool
    continue_on_error: bool
    fail_fast: bool
    max_failure_rate: float | None
    item_timeout: float | None
    memory_per_worker: int | None
    fingerprint: Kind
    checkpoint_file: StrPath | None
    metrics_port: int | None
    progress: bool


def call(
    job: AnyJob,
    output: Path,
    unit: str,
    given: Mapping[str, Any],
    work: Callable[[AnyJob, Run, Reporter], Summary] = launch.run,
) -> Summary | Forecast:
    """Run a job as its function was asked to, or say what that would be.

    Parameters
    ----------
    job : Job
        With its options and inputs.
    output : Path
        The folder; absolute.
    unit : str
        What the job calls its items.
    given : mapping of str
        The function's parameters: those of :class:`RunParameters`, ``dry_run``, and ``audit`` where it has one.
    work : callable
        :func:`gpupipe.launch.run`, or what the job has around it.

    Raises
    ------
    UsageError, LockedError, OutputError, StoppedError, KeyboardInterrupt
        See :func:`gpupipe.clips`.
    """
    run = run_of(output, given)
    if given["dry_run"]:
        return forecast_of(job, run)
    shown = run_shown(
        lambda reporter: work(job, run, reporter), unit, given["progress"], metrics_port=given["metrics_port"]
    )
    return unless_interrupted(shown)


def check_backend(backend: str | None) -> None:
    """Raise :class:`UsageError` for a name that no backend has; None is none."""
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")

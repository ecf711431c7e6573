"""Work under a display, for commands and functions alike; and what a function owes its caller at the end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from gpupipe import forecast
from gpupipe.forecast import Forecast
from gpupipe.job import Job
from gpupipe.progress import Reporter
from gpupipe.reports.live import Display, Lines, Quiet
from gpupipe.settings import Run
from gpupipe.summary import INTERRUPTED, Summary

StrPath = str | os.PathLike[str]


def run_shown(
    work: Callable[[Reporter], Summary],
    unit: str,
    progress: bool = True,
    notices: Iterable[str] = (),
    metrics_port: int | None = None,
) -> Summary:
    """Work under the display that fits stderr, or under none; commands and functions alike.

    Parameters
    ----------
    work : callable
        :func:`gpupipe.launch.run` or the like, but for the reporter.
    unit : str
        What the job calls its items.
    progress : bool
        Show a live display on a terminal, plain lines elsewhere.
    notices : iterable of str
        To say before the start.
    metrics_port : int or None
        Serve metrics there; None for nowhere.

    Returns
    -------
    Summary
        With every notice in it.
    """
    reporter: Quiet
    if not progress or sys.stderr is None:  # None where the caller closed it
        reporter = Quiet()
    elif sys.stderr.isatty():
        reporter = Display(sys.stderr, unit)
    else:
        reporter = Lines(sys.stderr, unit)
    with reporter, _served(reporter, metrics_port) as told:
        for text in notices:
            reporter.notice(text)
        summary = work(told)
    return replace(summary, notices=reporter.notices)


def _served(reporter: Reporter, port: int | None) -> AbstractContextManager[Reporter]:
    if port is None:
        return nullcontext(reporter)
    from gpupipe.reports.metrics import served

    return served(reporter, port)


def forecast_of(job: Job, run: Run, notices: Iterable[str] = ()) -> Forecast:
    """What a run of a job would do, with every notice in it; see :func:`gpupipe.forecast.forecast`."""
    reporter = Quiet()
    for text in notices:
        reporter.notice(text)
    found = forecast.forecast(job, run, reporter)
    return replace(found, notices=[*reporter.notices, *found.notices])


def unless_interrupted(summary: Summary) -> Summary:
    """The summary; raises :class:`KeyboardInterrupt` where the run was interrupted."""
    # A command says so by its exit code; a script that went on would take a part for the whole.
    if summary.stop_reason == INTERRUPTED:
        raise KeyboardInterrupt(f"{summary.output}: {summary.pending} items left; the same call continues")
    return summary


def absolute(path: StrPath) -> str:
    """The path as workers and later runs find it, from any folder."""
    return str(Path(path).absolute())

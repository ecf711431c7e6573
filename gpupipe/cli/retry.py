"""``gpupipe retry``: try failed items again, in their places, and complete the dataset."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe import api, launch
from gpupipe.cli.run import add_run_flags, run_and_report, run_asked
from gpupipe.decode import BACKENDS
from gpupipe.plan import folder_of
from gpupipe.redo import Choice


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "retry", help="try failed items again", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--reason", nargs="+", default=[], metavar="R", help="only these error types (failed.jsonl)")
    parser.add_argument("--ids", nargs="+", default=[], metavar="ID", help="only these ids or ordinals (failed.jsonl)")
    group = add_run_flags(parser)
    group.add_argument("--backend", choices=BACKENDS, help="decoder (default: as the output was planned with)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    out = folder_of(arguments.output.absolute())
    job = api.job_at(out, arguments.backend)
    run, choice = run_asked(arguments, out), Choice(frozenset(arguments.reason), frozenset(arguments.ids))
    return run_and_report(lambda reporter: launch.retry(job, run, choice, reporter), [], arguments, unit="items")

"""``gpupipe report``: how an output came to be, as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe import api
from gpupipe.cli.say import say


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "report", help="how an output came to be, as one HTML file", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--output", dest="file", type=Path, metavar="FILE", help="(default: OUT/report.html)")
    parser.add_argument("--pictures", type=int, default=24, metavar="N", help="done items to show (default: 24)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of their choice (default: 0)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    say(str(api.report(arguments.output, arguments.file, pictures=arguments.pictures, seed=arguments.seed)))
    return 0

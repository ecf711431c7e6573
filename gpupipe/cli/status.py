"""``gpupipe status``: where an output stands, during a run or after it, from any shell."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.plan import folder_of
from gpupipe.reports.final import status, status_text


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser("status", help="where an output stands", description=__doc__)
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    found = status(folder_of(arguments.output))
    say(json.dumps(found) if arguments.json else status_text(found))
    return 0

"""``gpupipe verify``: is the output what the ledger says it is."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gpupipe import api
from gpupipe.cli.say import say


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "verify", help="compare an output with its ledger", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("output", type=Path, metavar="OUT")
    parser.add_argument(
        "--deep", type=int, nargs="?", const=32, default=0, metavar="N", help="also make N items again (N: 32)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the choice of those items")
    parser.add_argument("--repair", action="store_true", help="have damaged items done again by the next run")
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    found = api.verify(
        arguments.output,
        deep=arguments.deep,
        seed=arguments.seed,
        repair=arguments.repair,
        tell=None if arguments.json else say,
    )
    say(json.dumps(asdict(found)) if arguments.json else found.text())
    return found.exit_code

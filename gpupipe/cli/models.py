"""``gpupipe models``: network files that are not part of the package: fetch them, see what is there."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say

EXIT_MISSING = 1


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "models", help="fetch network files, or list them", description=__doc__
    )
    parser.add_argument("--list", action="store_true", help="what is there; exit 1 if something is missing")
    parser.set_defaults(run=_list)
    actions = parser.add_subparsers(metavar="ACTION")
    fetch = actions.add_parser("fetch", help="get networks and keep them in the cache folder")
    fetch.add_argument("what", choices=["mediapipe"], help="mediapipe: the networks for keypoints")
    fetch.add_argument(
        "--from", dest="source", type=Path, metavar="PATH", help="a wheel or a folder on this machine, not a download"
    )
    fetch.add_argument(
        "--environment",
        action="store_true",
        help="also MediaPipe itself, in a virtual environment of its own (1 GB), for comparing with it",
    )
    fetch.set_defaults(run=_fetch)


def _fetch(arguments: argparse.Namespace) -> int:
    from gpupipe.ops.keypoints.models import fetch

    say(f"networks: {fetch(arguments.source)}")
    if arguments.environment:
        from gpupipe.ops.keypoints.original import make_environment

        say(f"MediaPipe's interpreter: {make_environment()}")
    return 0


def _list(_: argparse.Namespace) -> int:
    from gpupipe.ops.keypoints.models import FETCH, cache_folder, held

    states = list(held())
    say(str(cache_folder()))
    for model, state in states:
        say(f"  {state:8} {model.nbytes:>10,} {model.sha256[:12]} {model.path}")
    if all(state == "there" for _, state in states):
        return 0
    say(f"Run: {FETCH}")
    return EXIT_MISSING

"""``gpupipe keypoints view``: what is in a file or folder of keypoints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "view",
        help="what is in a file of keypoints",
        description="Say what is in a run's output, a pickle of keypoints or a folder of prepare: videos, frames, "
        "what was found in them, picture sizes, ranges of x, y and z, the first frames.",
        allow_abbrev=False,
    )
    parser.add_argument("keypoints", type=Path, metavar="FILE")
    parser.add_argument("--detailed", action="store_true", help="also a line a video, means and deviations")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="(default: all)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.dataset import open_landmarks
    from gpupipe.landmarks.describe import view_lines

    try:
        with open_landmarks(arguments.keypoints) as landmarks:
            say(f"{arguments.keypoints}:")
            for line in view_lines(landmarks, arguments.splits, arguments.detailed):
                say(line)
    except InputError as error:
        raise UsageError(str(error)) from error
    return 0

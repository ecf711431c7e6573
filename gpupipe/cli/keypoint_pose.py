"""``gpupipe keypoints pose``: ``.pose`` files, one a video."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "pose",
        help=".pose files, one a video",
        description="Write DIR/{split}/{video}.pose, which the pose-format package reads: MediaPipe's parts, x and y "
        "in pixels.",
        allow_abbrev=False,
    )
    parser.add_argument("keypoints", type=Path, metavar="KEYPOINTS", help="a run's output, or a pickle of keypoints")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="(default: all)")
    parser.add_argument("--fps", type=float, metavar="F", help="(default: as the frames' times say, 25 without)")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.dataset import open_landmarks
    from gpupipe.landmarks.pose_file import write_pose_files

    try:
        with open_landmarks(arguments.keypoints) as landmarks:
            count = write_pose_files(landmarks, arguments.output_dir, arguments.fps, arguments.splits)
    except InputError as error:
        raise UsageError(str(error)) from error
    say(f"{count:,} .pose files in {arguments.output_dir}")
    return 0

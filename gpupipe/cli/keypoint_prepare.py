"""``gpupipe keypoints prepare``: arrays to train on, a file a split."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "prepare",
        help="arrays to train on, a file a split",
        description="Write {split}_keypoints.npz (keypoints float32 [N, 143, 3], image_paths, video_ids, valid bool "
        "[N, 4]) and {split}_stats.json.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--keypoints-file", type=Path, required=True, metavar="FILE", help="a pickle of keypoints, or a run's output"
    )
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="(default: all)")
    parser.add_argument("--normalize", action="store_true", help="clip x, y and z to 0 to 1")
    parser.add_argument("--drop-empty", action="store_true", help="leave out frames in which nothing was found")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.dataset import open_landmarks
    from gpupipe.landmarks.npz_file import SUFFIX, prepare

    try:
        with open_landmarks(arguments.keypoints_file) as landmarks:
            made = prepare(landmarks, arguments.output_dir, arguments.splits, arguments.normalize, arguments.drop_empty)
    except InputError as error:
        raise UsageError(str(error)) from error
    for stats in made:
        path = arguments.output_dir / f"{stats['split']}{SUFFIX}"
        say(f"{stats['split']}: {stats['num_samples']:,} frames of {stats['num_videos']:,} videos in {path}")
    return 0

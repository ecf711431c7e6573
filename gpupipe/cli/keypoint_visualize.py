"""``gpupipe keypoints visualize``: points drawn over pictures, for people to judge."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "visualize",
        help="points drawn over pictures",
        description="Draw points over the pictures they were found in: DIR/{split}.png with frames chosen at random, "
        "and DIR/{split}/{video}.mp4 for the videos asked for. Orange is the person's own left, blue their right.",
        allow_abbrev=False,
    )
    parser.add_argument("keypoints", type=Path, metavar="FILE", help="a run's output, or a pickle of keypoints")
    parser.add_argument(
        "--num-samples", type=int, default=10, metavar="N", help="frames a sheet, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="(default: all)")
    parser.add_argument("--videos", nargs="+", default=(), metavar="ID", help="also these videos, as videos")
    parser.add_argument("--num-videos", type=int, default=0, metavar="N", help="also N more of each split, at random")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of what is at random (default: %(default)s)")
    parser.add_argument(
        "--dataset-path", type=Path, metavar="D", help="where the pictures are now (default: where FILE says)"
    )
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=Path("keypoint_visualizations"),
        metavar="DIR",
        help="(default: %(default)s)",
    )
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.dataset import open_landmarks
    from gpupipe.landmarks.overlays import write_overlays

    try:
        with open_landmarks(arguments.keypoints) as landmarks:
            for path in write_overlays(
                landmarks,
                arguments.output_dir,
                num_samples=arguments.num_samples,
                splits=arguments.splits,
                videos=arguments.videos,
                num_videos=arguments.num_videos,
                seed=arguments.seed,
                root=arguments.dataset_path,
                stream=landmarks.stream,
                note=str(arguments.keypoints),
            ):
                say(str(path))
    except InputError as error:
        raise UsageError(str(error)) from error
    return 0

"""``gpupipe keypoints``: image folders and videos in, body keypoints out; and what people do with them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli import (
    keypoint_check,
    keypoint_merge,
    keypoint_pose,
    keypoint_prepare,
    keypoint_view,
    keypoint_visualize,
)
from gpupipe.cli.run import add_job_flags, add_shard_size, add_video_flags, check_given, run_job
from gpupipe.errors import UsageError
from gpupipe.shown import absolute

EXTRACT = "extract"
"""The job itself, meant where no other word follows."""


_COMPANIONS = {
    "merge": keypoint_merge,
    "prepare": keypoint_prepare,
    "pose": keypoint_pose,
    "check": keypoint_check,
    "view": keypoint_view,
    "visualize": keypoint_visualize,
}


def whole(words: list[str]) -> list[str]:
    """The command line with the word for the job itself, which people may leave out."""
    if words[:1] != ["keypoints"] or words[1:2] in (["-h"], ["--help"]):
        return words
    return words if words[1:2] and words[1] in (EXTRACT, *_COMPANIONS) else [words[0], EXTRACT, *words[1:]]


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand, which has some of its own; returns the job's."""
    group: argparse.ArgumentParser = commands.add_parser(
        "keypoints", help="image folders and videos to body keypoints", description=__doc__, allow_abbrev=False
    )
    inner = group.add_subparsers(dest="keypoints", required=True, metavar="COMMAND")
    job = _add_extract(inner)
    for companion in _COMPANIONS.values():
        companion.add(inner)
    return job


def _add_extract(commands: Any) -> argparse.ArgumentParser:
    from gpupipe.ops.keypoints.executors import EXECUTORS, MODES, PRECISIONS

    parser: argparse.ArgumentParser = commands.add_parser(
        EXTRACT, help="find the keypoints (the default)", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--dataset-path", metavar="D", help="tree or folder of pictures or videos, video, or list")
    parser.add_argument(
        "--output-path",
        type=Path,
        default=Path("phoenix_keypoints_full.pkl"),
        metavar="OUT",
        help="folder of shards, or a pickle (.pkl) with that folder beside it (default: %(default)s)",
    )
    parser.add_argument("--splits", nargs="+", default=[], metavar="S", help="(default: train dev test, else all)")
    parser.add_argument("--max-samples-per-split", type=int, metavar="N", help="the first N videos of each split")
    parser.add_argument("--mode", choices=MODES, default="stateless", help="(default: %(default)s)")
    parser.add_argument(
        "--min-detection-confidence", type=float, default=0.5, metavar="C", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--min-tracking-confidence", type=float, default=0.5, metavar="C", help="(default: %(default)s)"
    )
    parser.add_argument("--fps", type=float, default=0.0, metavar="R", help="pictures a second of videos (0: all)")
    add_video_flags(parser)
    parser.add_argument("--annotations", metavar="CSV", help="(default: the tree's own, as PHOENIX has them)")
    parser.add_argument("--drop-empty", action="store_true", help="leave frames with nobody out of the pickle")
    parser.add_argument("--pose-dir", metavar="DIR", help="also write a .pose file for each video there")
    parser.add_argument("--executor", choices=EXECUTORS, default="auto", help="(default: %(default)s)")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="of torch (default: %(default)s)")
    add_shard_size(parser)
    parser.add_argument("--temp-dir", metavar="DIR", help="accepted; what is half done lies beside the output")
    add_job_flags(parser)
    parser.set_defaults(run=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.jobs import keypoint_poses
    from gpupipe.jobs.keypoint_plan import dataset_folder, planned
    from gpupipe.jobs.keypoints import KeypointsJob

    check_given(arguments, "dataset_path")
    if arguments.audit:
        raise UsageError("--audit compares bytes, and a GPU gives keypoints other last bits than a CPU: leave it out")
    output, pickle = dataset_folder(arguments.output_path.absolute())
    job = KeypointsJob(
        mode=arguments.mode,
        splits=list(arguments.splits),
        max_samples_per_split=arguments.max_samples_per_split,
        min_detection_confidence=arguments.min_detection_confidence,
        min_tracking_confidence=arguments.min_tracking_confidence,
        fps=arguments.fps,
        stream=arguments.stream,
        max_pixels=arguments.max_pixels,
        drop_empty=arguments.drop_empty,
        shard_size=arguments.shard_size,
        executor=arguments.executor,
        precision=arguments.precision,
        dataset_path=absolute(arguments.dataset_path),
        annotations_path="" if arguments.annotations is None else absolute(arguments.annotations),
        pickle=pickle,
        pose_dir="" if arguments.pose_dir is None else absolute(arguments.pose_dir),
    )
    job = planned(job, output, arguments.backend, arguments.overwrite)
    return run_job(job, arguments, output, job.items, keypoint_poses.run)

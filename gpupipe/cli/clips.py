"""``gpupipe clips``: video and text pairs in, training-ready frames out."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.run import add_job_flags, add_shard_size, add_video_flags, check_given, run_job
from gpupipe.shown import absolute


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the subcommand."""
    from gpupipe.jobs.clip_splits import SPLIT_MODES
    from gpupipe.jobs.clips import FORMATS

    parser: argparse.ArgumentParser = commands.add_parser(
        "clips", help="video and text pairs to frame tensors and tokens", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--pairs-json", metavar="F", help="JSON list (or JSONL) of pairs")
    parser.add_argument("--clips-dir", metavar="DIR", help="folder of the cut clips")
    parser.add_argument("--videos-dir", metavar="DIR", help="folder of uncut videos, instead of --clips-dir")
    parser.add_argument("--output-dir", type=Path, metavar="OUT")
    parser.add_argument("--format", choices=FORMATS, default="samples", help="(default: %(default)s)")
    parser.add_argument("--num-frames", type=int, default=16, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--frame-height", type=int, default=160, metavar="H", help="(default: %(default)s)")
    parser.add_argument("--frame-width", type=int, default=256, metavar="W", help="(default: %(default)s)")
    parser.add_argument("--split-mode", choices=SPLIT_MODES, default="random", help="(default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=42, metavar="S", help="of splits and --max-samples (default: %(default)s)"
    )
    parser.add_argument("--max-samples", type=int, metavar="N", help="a seeded choice of N pairs")
    add_video_flags(parser)
    parser.add_argument("--strict", action="store_true", help="decode every packet, fail on any fault")
    parser.add_argument("--allow-partial", action="store_true", help="sample from the frames before the first fault")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="take the frame that costs least to decode within so many seconds of the wanted one (default: 0, exact)",
    )
    parser.add_argument("--all-frames", action="store_true", help="keep every frame (samples and webdataset)")
    add_shard_size(parser)
    add_job_flags(parser)
    parser.set_defaults(run=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.jobs.clips import ClipsJob

    check_given(arguments, "pairs_json", "output_dir")
    job = ClipsJob(
        num_frames=arguments.num_frames,
        frame_height=arguments.frame_height,
        frame_width=arguments.frame_width,
        split_mode=arguments.split_mode,
        seed=arguments.seed,
        max_samples=arguments.max_samples,
        format=arguments.format,
        strict=arguments.strict,
        allow_partial=arguments.allow_partial,
        all_frames=arguments.all_frames,
        tolerance=arguments.tolerance,
        stream=arguments.stream,
        max_pixels=arguments.max_pixels,
        shard_size=arguments.shard_size,
        pairs_json=absolute(arguments.pairs_json),
        clips_dir=None if arguments.clips_dir is None else absolute(arguments.clips_dir),
        videos_dir=None if arguments.videos_dir is None else absolute(arguments.videos_dir),
        backend=arguments.backend,
    )
    return run_job(job, arguments, arguments.output_dir.absolute(), unit="clips")

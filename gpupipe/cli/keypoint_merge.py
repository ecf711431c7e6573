"""``gpupipe keypoints merge``: several files of keypoints as one pickle."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "merge",
        help="several files of keypoints as one pickle",
        description="Write the frames of several files of keypoints into one pickle, in the files' order. Of frames "
        "with the same path in a split the first is kept.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--input-files", type=Path, nargs="+", required=True, metavar="FILE", help="pickles, or outputs of a run"
    )
    parser.add_argument("--output-path", type=Path, required=True, metavar="OUT.pkl")
    parser.add_argument("--drop-empty", action="store_true", help="leave out frames in which nothing was found")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT also if it is another kind of file")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.merge import merge

    try:
        merged = merge(arguments.input_files, arguments.output_path, arguments.drop_empty, arguments.overwrite)
    except InputError as error:
        raise UsageError(str(error)) from error
    for split, made in merged.items():
        counts = made.counts
        say(
            f"{split}: {counts.total:,} frames, {counts.success:,} with somebody, {counts.total - counts.success:,} "
            f"without; {made.duplicates:,} duplicates left out"
        )
    say(str(arguments.output_path))
    return 0

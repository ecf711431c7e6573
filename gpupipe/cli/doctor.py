"""``gpupipe doctor``: what this machine and this installation can do, and what is missing for the rest."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from typing import Any

from gpupipe.cli.say import say

EXIT_MISSING = 1
_PIPE_COLUMNS = 120


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "doctor", help="driver, GPUs, packages: what works here and what does not", description=__doc__
    )
    parser.add_argument(
        "--require",
        nargs="+",
        default=[],
        metavar="WHAT",
        help="look at these alone, and exit 1 if one is missing: cuda, nvdec, nvjpg, dali, nvml, ffmpeg, torch, "
        "keypoints, mediapipe, faiss, kvikio",
    )
    parser.add_argument("--json", action="store_true", help="as one JSON object")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.doctor import examine

    required = [word for words in arguments.require for word in words.replace(",", " ").split()]
    found = examine(required)
    if arguments.json:
        say(json.dumps(found.to_json()))
    else:
        from gpupipe.reports.doctor import doctor_text, required_text

        colour = sys.stdout.isatty()
        width = shutil.get_terminal_size().columns if colour else _PIPE_COLUMNS
        say((required_text if required else doctor_text)(found, width, colour))
    return EXIT_MISSING if required and found.missing else 0

"""``gpupipe keypoints check``: how far an extraction is, and what it found."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from gpupipe.cli.say import say
from gpupipe.errors import InputError, UsageError
from gpupipe.plan import BOOKKEEPING, folder_of
from gpupipe.reports.final import status, status_text

_SECONDS = 1.0


def add(commands: Any) -> None:
    """Add the subcommand."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="how far an extraction is, and what it found",
        description="Say how far a run is (on a terminal, until it ends), and, of a complete output or of any pickle "
        "of keypoints, how many videos and frames each split has and in how many each part was found.",
        allow_abbrev=False,
    )
    parser.add_argument("output", type=Path, metavar="FILE", help="a run's output, or a pickle of keypoints")
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from gpupipe.landmarks.dataset import open_landmarks
    from gpupipe.landmarks.describe import check_lines

    output: Path = arguments.output
    folder, found = folder_of(output), None
    if (folder / BOOKKEEPING).is_dir():
        found = _watched(folder) if sys.stdout.isatty() else status(folder)
        say(status_text(found))
        if found["state"] != "complete":
            return 0
    try:
        with open_landmarks(output) as landmarks:
            if found is None:
                say(f"{output}:")
            for line in check_lines(landmarks):
                say(line)
    except InputError as error:
        raise UsageError(str(error)) from error
    return 0


def _watched(folder: Path) -> dict[str, Any]:
    """The state of an output, once no run holds it; until then it is on the terminal."""
    from rich.live import Live
    from rich.text import Text

    found = status(folder)
    if not found["running"]:
        return found
    with Live(Text(status_text(found)), auto_refresh=False, transient=True) as live:
        while found["running"]:
            live.update(Text(status_text(found)), refresh=True)
            time.sleep(_SECONDS)
            found = status(folder)
    return found

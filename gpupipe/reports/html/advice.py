"""What to do about each reason of failure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Advice:
    """A sentence, and a command to go with it; empty where there is none."""

    text: str
    command: str = ""


_PROBE = "ffprobe -v error -show_streams -count_frames FILE"
_AGAIN = "A run of the same command then takes it up: failed items are tried again once their file has changed."
_FIXED = {
    "MissingInputError": Advice(f"Put the file where the message says it is looked for. {_AGAIN}"),
    "NoVideoError": Advice(f"See what is in the file, and replace it. {_AGAIN}", _PROBE),
    "TruncatedError": Advice(
        f"Get the file again. {_AGAIN} Or, for clips, make another output with --allow-partial, which takes the frames "
        "before the fault."
    ),
    "CorruptError": Advice(
        f"Get the file again. {_AGAIN} Or, for clips, make another output with --allow-partial, which takes the frames "
        "before the fault.",
        _PROBE,
    ),
    "UnsupportedError": Advice(f"Convert the file to something that is read. {_AGAIN}", "ffmpeg -i FILE NEW.mp4"),
    "DecodeError": Advice(f"See whether FFmpeg alone can read the file, and replace it. {_AGAIN}", _PROBE),
    "InputError": Advice(
        "The entry itself cannot be worked, as the message says. A corrected input list is another plan: give it an "
        "output folder of its own."
    ),
}
_RETRIED = {
    "crash": (
        "The decoder took its process down, twice. See whether FFmpeg alone survives the file "
        "(ffmpeg -i FILE -f null -), keep it out, or report it; to try once more:",
        "",
    ),
    "hang": ("If the item only needs long, give it longer:", " --item-timeout 3600"),
    "memory": (
        "The item needs more memory than a worker is granted. Raise that, or use a larger machine:",
        " --memory-per-worker 8G",
    ),
    "PermissionError": ("Let this user read the file, then:", ""),
    "OSError": ("Reading failed, and the storage may be to blame. Once it is well:", ""),
}


def advice(reason: str, out: Path) -> Advice:
    """The next step for items that failed with `reason`."""
    if reason in _FIXED:
        return _FIXED[reason]
    text, flags = _RETRIED.get(
        reason, ("No error that is known of bad files: please report it with its message. To try once more:", "")
    )
    return Advice(text, f"gpupipe retry {shlex.quote(str(out))} --reason {shlex.quote(reason)}{flags}")

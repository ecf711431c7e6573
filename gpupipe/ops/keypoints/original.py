"""The real MediaPipe, in a virtual environment of its own: it wants NumPy 1 and a Python of 3.12 at most.

It is the measure that the keypoints are held against; gpupipe itself never imports it.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from gpupipe.errors import MissingInputError, UsageError
from gpupipe.ops.keypoints.models import FETCH, VERSION, cache_folder, run_pip
from gpupipe.sinks.files import output_errors, remove_tree

_INTERPRETERS = ("python3.11", "python3.12", "python3.10", "python3.9")
_RANGE = ((3, 9), (3, 12))


def environment_folder() -> Path:
    """Where its virtual environment lies."""
    return cache_folder() / f"environment-{VERSION}"


def original_python() -> Path:
    """The interpreter that can import MediaPipe.

    Raises
    ------
    MissingInputError
        The environment was not made.
    """
    python = environment_folder() / "bin" / "python"
    if not (environment_folder() / "complete").is_file():
        raise MissingInputError(f"{environment_folder()}: no MediaPipe there. Run: {FETCH} --environment")
    return python


def make_environment() -> Path:
    """Make the environment, 1 GB with what MediaPipe asks for; it counts as made only when all of it is there.

    Returns
    -------
    Path
        Its interpreter.

    Raises
    ------
    UsageError
        There is no interpreter it runs on, or pip failed.
    OutputError
    """
    folder = environment_folder()
    if (folder / "complete").is_file():
        return original_python()
    python = _interpreter()
    remove_tree(folder)  # one that was never completed
    with output_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([python, "-m", "venv", str(folder)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(f"{python} -m venv {folder} failed: {done.stdout.strip()}{done.stderr.strip()}")
    run_pip([str(folder / "bin" / "python")], ["install", f"mediapipe=={VERSION}", "numpy<2"])
    with output_errors(folder):
        (folder / "complete").touch()
    return original_python()


def _interpreter() -> str:
    if _RANGE[0] <= sys.version_info[:2] <= _RANGE[1]:
        return sys.executable
    for name in _INTERPRETERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise UsageError(
        f"MediaPipe {VERSION} runs on Python 3.9 to 3.12; this is {sys.version.split()[0]} and none of "
        f"{', '.join(_INTERPRETERS)} is on the PATH. Install one of them"
    )

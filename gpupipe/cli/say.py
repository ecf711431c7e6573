"""Writing to standard output, whoever reads it or has stopped to."""

from __future__ import annotations

import os
import sys

from gpupipe.errors import OutputError


def say(text: str) -> None:
    """Print a text whole. A reader that has gone (``| head``) is no error: what was done stands.

    Raises
    ------
    OutputError
        Standard output is a file that cannot be written.
    """
    try:
        print(text, flush=True)
    except BrokenPipeError:
        _drop()
    except OSError as error:
        _drop()
        raise OutputError(error.errno or 0, f"cannot write to standard output: {error.strerror}") from error


def _drop() -> None:
    # What is still buffered would fail again when the interpreter ends.
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)

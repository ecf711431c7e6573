"""What is too long for memory until it is written: a nameless file beside the output."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from gpupipe.sinks.files import Buffer, output_errors, write_at

_CHUNK = 1 << 22


class Spool:
    """A nameless file; gone with the last that reads it.

    Parameters
    ----------
    folder : Path
        On whose file system it lies.

    Raises
    ------
    OutputError
        Here and in :meth:`write`: the storage does not take it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with output_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
            # Of its own: where an error's traceback holds this, a file object might be found unclosed before it.
            self._fd = os.dup(file.fileno())

    def write(self, data: Buffer, offset: int) -> int:
        """Put bytes from `offset` on; returns how many."""
        with output_errors(self._folder):
            return write_at(self._fd, [data], offset)

    def pieces(self, nbytes: int) -> Iterator[Buffer]:
        """The first so many bytes, a few megabytes at a time."""
        for offset in range(0, nbytes, _CHUNK):
            yield os.pread(self._fd, min(_CHUNK, nbytes - offset), offset)

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)

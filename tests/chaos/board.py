"""A board: what a process is doing and how far it is, in a file that others can read, also after its death."""

from __future__ import annotations

import mmap
import os
import struct
from contextlib import contextmanager
from pathlib import Path

_NAME = struct.Struct("<32s")
_COUNT = struct.Struct("@q")
_SIZE = 64


class Board:
    """`phase` is what it does at this moment, empty for nothing in particular; `count` how much it has settled."""

    def __init__(self, path: Path, new: bool = False) -> None:
        fd = os.open(path, os.O_RDWR | (os.O_CREAT if new else 0))
        try:
            if new:
                os.ftruncate(fd, _SIZE)
            self._map = mmap.mmap(fd, _SIZE)
        finally:
            os.close(fd)
        self._count = 0

    @property
    def phase(self) -> str:
        return _NAME.unpack_from(self._map, 8)[0].rstrip(b"\0").decode()

    @phase.setter
    def phase(self, name: str) -> None:
        _NAME.pack_into(self._map, 8, name.encode())

    @property
    def count(self) -> int:
        return _COUNT.unpack_from(self._map, 0)[0]

    def settle(self) -> None:
        self._count += 1
        _COUNT.pack_into(self._map, 0, self._count)

    @contextmanager
    def during(self, phase: str):
        """The block is `phase`."""
        before, self.phase = self.phase, phase
        yield
        self.phase = before  # not after an error: what a process was doing when it died is what is asked for

    def watch(self, owner: object, name: str, phase: str) -> None:
        """Have every call of a function show as `phase`."""
        function = getattr(owner, name)

        def watched(*arguments, **words):
            with self.during(phase):
                return function(*arguments, **words)

        setattr(owner, name, watched)


_boards: dict[Path, Board] = {}


def mine(folder: str) -> Board:
    """The board of this process, in a folder where there is one for each."""
    path = Path(folder, f"board-{os.getpid()}")
    if path not in _boards:
        _boards[path] = Board(path, new=True)
    return _boards[path]


def of(folder: str | Path, pid: int) -> Board | None:
    """The board of another process; None until it has one."""
    path = Path(folder, f"board-{pid}")
    try:
        return Board(path) if path.stat().st_size == _SIZE else None
    except FileNotFoundError:
        return None

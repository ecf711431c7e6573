"""The identity of an input file: what tells, on a later run, that it is another file now.

``size:mtime_ns``, followed by ``:`` and the XXH3-128 of its bytes where contents are asked for. A file of the same size
and time counts as the same; one that was only touched or copied is the same by its contents. A folder has the sum of
its files' sizes, the latest of their times, and the contents of all of them.
"""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISDIR
from typing import Literal

import xxhash

from gpupipe.sinks.files import file_hash

Kind = Literal["stat", "content"]
KINDS: tuple[Kind, ...] = ("stat", "content")
ABSENT = "absent"
PATIENCE_SECONDS = 120.0

Change = Literal["same", "changed", "gone"]


def fingerprint(path: str | None, kind: Kind = "stat") -> str:
    """Of the file as it is; ``"absent"`` where there is none, empty where no file is named."""
    if path is None:
        return ""
    there = _look(path)
    if there is None:
        return ABSENT
    quick = f"{there[0]}:{there[1]}"
    digest = _digest(path) if kind == "content" else ""
    return f"{quick}:{digest}" if digest else quick


def change(before: str, path: str | None) -> Change:
    """What became of the file that had the fingerprint `before`."""
    if path is None:
        return "same" if not before else "changed"
    there = _look(path)
    if there is None:
        return "same" if before == ABSENT else "gone"
    size, _, rest = before.partition(":")
    mtime_ns, _, digest = rest.partition(":")
    if size != str(there[0]):
        return "changed"
    return "same" if mtime_ns == str(there[1]) or (digest and digest == _digest(path)) else "changed"


def patience_seconds(path: str | None, pace: float) -> float:
    """Seconds that an item may take: :data:`PATIENCE_SECONDS`, and ten times `pace` for every megabyte of its input.

    With a pace of 1 a hundred times what decoding all of it takes on a slow core, so that only what hangs is ended.
    """
    there = None if path is None else _look(path)
    return PATIENCE_SECONDS + pace * (0 if there is None else there[0]) / 1e5


def _look(path: str) -> tuple[int, int] | None:
    """Size in bytes and time in ns; None where nothing is there."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - a resume does this for every item: making a Path costs more
        if not S_ISDIR(stat.st_mode):
            return stat.st_size, stat.st_mtime_ns
        with os.scandir(path) as entries:
            inside = [_stat_of(entry) for entry in entries]
    except (OSError, ValueError):  # a name that no file can have
        return None
    return sum(one.st_size for one in inside), max([stat.st_mtime_ns, *(one.st_mtime_ns for one in inside)])


def _stat_of(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError:  # a link to nothing: the link itself then
        return entry.stat(follow_symlinks=False)


def _digest(path: str) -> str:
    """Of the bytes; empty where they cannot be read, which the item's own reading will say."""
    there = Path(path)
    try:
        if not there.is_dir():
            return file_hash(there)
        names = sorted(one.name for one in there.iterdir() if one.is_file())
        return xxhash.xxh3_128_hexdigest(
            "".join(f"{name}\0{file_hash(there / name)}\0" for name in names).encode(errors="surrogateescape")
        )
    except OSError:
        return ""

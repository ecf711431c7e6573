"""The identity of an input file: what tells, on a later run, that it is another file now.

``size:mtime_ns``, followed by ``:`` and the XXH3-128 of its bytes where contents are asked for. A file of the same size
and time counts as the same; one that was only touched or copied is the same by its contents.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

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
    stat = _stat(path)
    if stat is None:
        return ABSENT
    quick = f"{stat.st_size}:{stat.st_mtime_ns}"
    digest = _digest(path) if kind == "content" else ""
    return f"{quick}:{digest}" if digest else quick


def change(before: str, path: str | None) -> Change:
    """What became of the file that had the fingerprint `before`."""
    if path is None:
        return "same" if not before else "changed"
    stat = _stat(path)
    if stat is None:
        return "same" if before == ABSENT else "gone"
    size, _, rest = before.partition(":")
    mtime_ns, _, digest = rest.partition(":")
    if size != str(stat.st_size):
        return "changed"
    return "same" if mtime_ns == str(stat.st_mtime_ns) or (digest and digest == _digest(path)) else "changed"


def patience_seconds(path: str | None) -> float:
    """Seconds that an item may take: :data:`PATIENCE_SECONDS`, and ten seconds more for every megabyte of its file.

    A hundred times what decoding all of it takes on a slow core, so that only what hangs is ended.
    """
    stat = None if path is None else _stat(path)
    return PATIENCE_SECONDS + (0 if stat is None else stat.st_size) / 1e5


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116 - a resume does this for every item: making a Path costs more
    except (OSError, ValueError):  # a name that no file can have
        return None


def _digest(path: str) -> str:
    """Of the bytes; empty where they cannot be read, which the item's own reading will say."""
    try:
        return file_hash(Path(path))
    except OSError:
        return ""

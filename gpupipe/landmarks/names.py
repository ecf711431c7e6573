"""Names in keypoint files: which splits are asked for, and what may become the name of a file."""

from __future__ import annotations

from collections.abc import Sequence

from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import Landmarks

_MAX_BYTES = 200


def chosen_splits(landmarks: Landmarks, splits: Sequence[str] | None) -> tuple[str, ...]:
    """The splits asked for, in the file's order; all of them for None.

    Raises
    ------
    UsageError
        One is not there.
    """
    there = tuple(landmarks.splits)
    if splits is None:
        return there
    for split in splits:
        if split not in there:
            raise UsageError(f"split {split!r}: not there; these are: {', '.join(there) or 'none'}")
    return tuple(split for split in there if split in splits)


def file_name(what: str, name: str) -> str:
    """The name, if it can be that of a file and leads to no other folder.

    Raises
    ------
    InputError
        It cannot.
    """
    nbytes = len(name.encode("utf-8", "surrogatepass"))
    if name in ("", ".", "..") or "/" in name or "\0" in name or nbytes > _MAX_BYTES:
        raise InputError(
            f"{what} {name[:100]!r}: cannot be the name of a file; expected 1 to {_MAX_BYTES} bytes without '/'"
        )
    return name

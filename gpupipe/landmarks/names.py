"""Names in keypoint files: the splits asked for, the videos of a split, their stream, what may become a file's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import Clip, Landmarks

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


def whole_videos(landmarks: Landmarks, split: str) -> Iterator[tuple[str, Iterator[Clip]]]:
    """The videos of a split, each with its parts, which are to be read before the next video is asked for.

    Raises
    ------
    InputError
        A video comes in two places.
    """
    met = set()
    for video, parts in groupby(landmarks.clips(split), key=lambda clip: clip.video):
        if video in met:
            raise InputError(
                f"{split}/{video}: its frames come in several places, and here a video is one run of frames; "
                "put them together first"
            )
        met.add(video)
        yield video, parts


def stream_of(words: Any) -> int | None:
    """The index of the videos' stream that the words of a dataset name, whatever they are; None where they do not."""
    stream = words.get("stream") if isinstance(words, dict) else None
    return stream if type(stream) is int and stream >= 0 else None


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

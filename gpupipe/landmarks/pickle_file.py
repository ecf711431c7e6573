"""The pickle of keypoints that people know: a dict of splits with three lists each, written as it comes."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from gpupipe.errors import InputError
from gpupipe.landmarks.clip import Clip, Landmarks
from gpupipe.landmarks.packing import keypoint_info
from gpupipe.landmarks.parts import Counts, without_empty
from gpupipe.landmarks.pickle_frame import frame_bodies
from gpupipe.sinks.files import create, output_errors, staged_beside
from gpupipe.sinks.pickles import Growing, body

RESERVED = ("stats", "keypoint_info", "dataset_info")
"""Keys beside those of the splits."""

LISTS = ("keypoints", "image_paths", "video_ids")
_SPOOL = 1 << 23  # bytes of a list kept in memory until it is its turn


def write_pickle(
    path: Path,
    landmarks: Landmarks,
    info: Mapping[str, Any],
    drop_empty: bool = False,
    unlisted: Callable[[str], Counts] | None = None,
) -> dict[str, Counts]:
    """Write ``{split: {"keypoints", "image_paths", "video_ids"}, "stats", "keypoint_info", "dataset_info"}``.

    Plain ``pickle.load`` reads it, with NumPy 1.26 and 2; the bytes depend on the values alone. Memory is that of one
    part of a clip.

    Parameters
    ----------
    path : Path
        The file; it is there whole or not at all, see :func:`gpupipe.sinks.files.staged_beside`.
    landmarks : Landmarks
        543 or 143 points; of the face 68 are kept.
    info : mapping
        ``dataset_info``: plain values.
    drop_empty : bool
        Leave out frames in which nothing was found; they are counted.
    unlisted : callable or None
        What is to be counted of a split beside its frames. None: nothing, and the time is not known.

    Returns
    -------
    dict of str to Counts
        By split, as in ``stats``.

    Raises
    ------
    InputError
        A split has the name of another key; or as `landmarks` raises it.
    OutputError
        The file cannot be written.
    """
    for split in landmarks.splits:
        if split in RESERVED:
            raise InputError(f"split {split!r}: a pickle of keypoints has something else under that key; rename it")
    stats: dict[str, Counts] = {}
    with output_errors(path), staged_beside(path) as partial, os.fdopen(create(partial), "wb", 1 << 20) as file:
        file.write(b"\x80\x04")
        whole = Growing(file.write, dict)
        for split in landmarks.splits:
            whole.element()
            file.write(body(split))
            stats[split] = _write_split(file, landmarks, split, drop_empty, partial.parent)
            stats[split] += Counts(seconds=math.nan) if unlisted is None else unlisted(split)
        words = {split: counts.to_json() for split, counts in stats.items()}
        for key, value in zip(RESERVED, (words, keypoint_info(), dict(info)), strict=True):
            whole.element()
            file.write(body(key) + body(value))
        whole.close()
        file.write(b".")
    return stats


def _write_split(file: IO[bytes], landmarks: Landmarks, split: str, drop_empty: bool, folder: Path) -> Counts:
    """Write the three lists of a split; the later two wait in a file of their own while the first is written."""
    counts = Counts()
    with (
        SpooledTemporaryFile(_SPOOL, dir=str(folder)) as paths,
        SpooledTemporaryFile(_SPOOL, dir=str(folder)) as videos,
    ):
        lists = Growing(file.write, dict)
        lists.element()
        file.write(body(LISTS[0]))
        writers = [_ListWriter(out) for out in (file, paths, videos)]
        for clip in landmarks.clips(split):
            counts.add(clip)
            _write_clip(writers, without_empty(clip) if drop_empty else clip)
        for writer in writers:
            writer.close()
        for key, spool in zip(LISTS[1:], (paths, videos), strict=True):
            lists.element()
            file.write(body(key))
            spool.seek(0)
            shutil.copyfileobj(spool, file, 1 << 20)
        lists.close()
    return counts


def _write_clip(writers: list[_ListWriter], clip: Clip) -> None:
    frames, paths, videos = writers
    for piece in frame_bodies(clip):
        frames.add(piece)
    for path in clip.paths:
        paths.add(body(path))
    video = body(clip.video)
    for _ in range(len(clip)):
        videos.add(video)


class _ListWriter:
    def __init__(self, file: IO[bytes]) -> None:
        self._write = file.write
        self._list = Growing(file.write, list)
        self.close = self._list.close

    def add(self, piece: bytes) -> None:
        self._list.element()
        self._write(piece)

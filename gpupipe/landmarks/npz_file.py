"""``{split}_keypoints.npz`` for training, and ``{split}_stats.json`` beside it: written as they come; read again."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from tokenize import TokenError
from typing import IO, Any

import numpy as np

from gpupipe.closing import Closing
from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import Clip, Landmarks
from gpupipe.landmarks.names import chosen_splits, file_name
from gpupipe.landmarks.packing import PACKED_PARTS, PACKED_POINTS, VALID_COLUMN, packed
from gpupipe.landmarks.parts import FRAMES, Counts, parts, without_empty
from gpupipe.ops.keypoints.points import PARTS
from gpupipe.sinks.files import create, output_errors, publish, staged
from gpupipe.sinks.npy import npy_header

SUFFIX = "_keypoints.npz"
_USUAL = ("train", "dev", "val", "test")  # splits in the order people name them; others follow by name
_ARRAYS = {"keypoints": ("f", (PACKED_POINTS, 3)), "image_paths": ("U", ()), "video_ids": ("U", ()),
           "valid": ("b", (len(PARTS),))}  # fmt: skip
_MAX_TEXT = 1 << 18  # bytes of a path or video id, four a letter


def prepare(
    landmarks: Landmarks,
    folder: Path,
    splits: Sequence[str] | None = None,
    normalize: bool = False,
    drop_empty: bool = False,
) -> list[dict[str, Any]]:
    """Write the arrays of each split, and what is in them in numbers.

    ``{split}_keypoints.npz`` holds ``keypoints`` float32 [N, 143, 3] (face, left hand, right hand, pose; zeros where
    not found), ``image_paths`` and ``video_ids`` (text [N]), ``valid`` bool [N, 4] (pose, left hand, right hand, face).
    ``numpy.load`` reads it without pickles. Memory is that of one part of a clip; on disk it needs twice the room of
    the largest split for a while.

    Parameters
    ----------
    landmarks : Landmarks
        543 or 143 points; of the face 68 are kept.
    folder : Path
        Made where it is not there; files of the same names are replaced.
    splits : sequence of str or None
        All for None.
    normalize : bool
        Clip x, y and z to 0 to 1.
    drop_empty : bool
        Leave out frames in which nothing was found.

    Returns
    -------
    list of dict
        What ``{split}_stats.json`` has, by split.

    Raises
    ------
    UsageError
        A split asked for is not there, or the folder is a file.
    InputError
        A split has a name that no file can have; or as `landmarks` raises it.
    OutputError
        Something cannot be written.
    """
    names = chosen_splits(landmarks, splits)
    for split in names:
        file_name("split", f"{split}{SUFFIX}")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder}: is a file; expected a folder, or a name that is free")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    made = []
    for split in names:
        stats = _write_npz(folder / f"{split}{SUFFIX}", landmarks, split, normalize, drop_empty)
        text = json.dumps(stats, indent=2, ensure_ascii=False) + "\n"
        publish(folder / f"{split}_stats.json", [text.encode(errors="backslashreplace")])
        made.append(stats)
    return made


def _write_npz(path: Path, landmarks: Landmarks, split: str, normalize: bool, drop_empty: bool) -> dict[str, Any]:
    with output_errors(path), ExitStack() as opened:
        # How many frames there are, and how long the longest path, stands before the first: they wait in files.
        spools = {name: opened.enter_context(TemporaryFile(dir=path.parent)) for name in _ARRAYS}
        tally = _Tally()
        for clip in landmarks.clips(split):
            kept = without_empty(clip) if drop_empty else clip
            points = packed(kept.points)
            tally.add(kept)
            spools["keypoints"].write((np.clip(points, 0, 1) if normalize else points).astype("<f4", copy=False).data)
            spools["valid"].write(np.ascontiguousarray(kept.valid).data)
            for name, texts in (("image_paths", list(kept.paths)), ("video_ids", [kept.video] * len(kept))):
                spools[name].write(json.dumps(texts).encode() + b"\n")
        partial = opened.enter_context(staged(path, None))
        file = opened.enter_context(os.fdopen(create(partial), "w+b", 1 << 20))
        archive = opened.enter_context(zipfile.ZipFile(file, "w", zipfile.ZIP_STORED))
        for name, (kind, shape) in _ARRAYS.items():
            dtype = {"f": "<f4", "b": "|b1"}.get(kind, f"<U{tally.letters[name]}")
            with _member(archive, f"{name}.npy") as member:
                member.write(npy_header((tally.frames, *shape), dtype))
                spools[name].seek(0)
                if kind == "U":
                    for line in spools[name]:
                        member.write(np.array(json.loads(line), dtype).tobytes())
                else:
                    shutil.copyfileobj(spools[name], member, 1 << 20)
    return {
        "split": split,
        "num_samples": tally.frames,
        "num_videos": len(tally.videos),
        "keypoint_shape": [tally.frames, PACKED_POINTS, 3],
        **{f"{part}_detected": int(tally.found[VALID_COLUMN[part]]) for part in PACKED_PARTS},
    }


class _Tally:
    """What is counted on the way."""

    def __init__(self) -> None:
        self.frames = 0
        self.videos: set[str] = set()
        self.found = np.zeros(len(PARTS), np.int64)
        self.letters = {"keypoints": 0, "valid": 0, "image_paths": 1, "video_ids": 1}  # numpy has no text of none

    def add(self, clip: Clip) -> None:
        self.frames += len(clip)
        self.found += clip.valid.sum(axis=0)
        if len(clip):
            self.videos.add(clip.video)
            self.letters["image_paths"] = max(self.letters["image_paths"], *map(len, clip.paths))
            self.letters["video_ids"] = max(self.letters["video_ids"], len(clip.video))


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """A member to write, its metadata constant."""
    info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
    info.create_system, info.external_attr = 3, 0o644 << 16
    return archive.open(info, "w", force_zip64=True)


class NpzFolder(Closing):
    """Reads a folder that :func:`prepare` wrote, a part of a clip at a time.

    Parameters
    ----------
    folder : Path

    Raises
    ------
    InputError
        A file of it is damaged or holds something else.
    """

    points = PACKED_POINTS
    stream: int | None = None  # its files have no word for it

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._splits = sorted(
            self.found(folder), key=lambda split: (_USUAL.index(split) if split in _USUAL else len(_USUAL), split)
        )
        for split in self._splits:
            with self._opened(split):
                pass

    @staticmethod
    def found(folder: Path) -> list[str]:
        """The splits that have a file there."""
        return [path.name.removesuffix(SUFFIX) for path in folder.glob(f"?*{SUFFIX}")]

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits: train, dev, val, test, then others by name."""
        return list(self._splits)

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split; a part of one ends at each 1,024th frame."""
        with self._opened(split) as members:
            count = members["keypoints"].count
            for start in range(0, count, FRAMES):
                frames = min(FRAMES, count - start)
                arrays = {name: member.read(frames) for name, member in members.items()}
                shapes, readable = np.zeros((frames, 2), np.int32), np.ones(frames, np.bool_)
                yield from parts(
                    split, arrays["video_ids"].tolist(), arrays["image_paths"].tolist(), arrays["keypoints"],
                    arrays["valid"], shapes, readable,
                )  # fmt: skip

    def unlisted(self, split: str) -> Counts:
        """Nothing but a time that is not known: every frame is listed."""
        return Counts(seconds=math.nan)

    def close(self) -> None:
        """Nothing is open between two clips."""

    @contextmanager
    def _opened(self, split: str) -> Iterator[dict[str, _Member]]:
        path = self._folder / f"{split}{SUFFIX}"
        with ExitStack() as opened:
            try:
                archive = opened.enter_context(zipfile.ZipFile(path))
                members = {
                    name: _Member(opened.enter_context(archive.open(f"{name}.npy")), f"{path}: {name}", kind, shape)
                    for name, (kind, shape) in _ARRAYS.items()
                }
            except KeyError as error:
                raise InputError(f"{path}: {error.args[0]}; expected {', '.join(_ARRAYS)}.") from error
            except _DAMAGE as error:
                raise InputError(f"{path}: is damaged or no .npz file ({_brief(error)}). Run prepare again.") from error
            if len({member.count for member in members.values()}) != 1:
                counts = ", ".join(f"{member.count} {name}" for name, member in members.items())
                raise InputError(f"{path}: holds {counts}; expected as many of each.")
            yield members


class _Member:
    """One array of an archive, read row by row."""

    def __init__(self, file: IO[bytes], where: str, kind: str, shape: tuple[int, ...]) -> None:
        self._file, self._where = file, where
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        found, fortran, self._dtype = read(file)
        if (
            self._dtype.kind != kind
            or found[1:] != shape
            or not found
            or (fortran and shape)
            or not 0 < self._dtype.itemsize <= _MAX_TEXT
        ):
            expected = {"f": "float32", "b": "bool", "U": "text"}[kind]
            raise InputError(
                f"{where}: is {self._dtype} {list(found)}; expected {expected} {['N', *shape]} in C order."
            )
        self.count: int = found[0]
        self._shape = shape

    def read(self, rows: int) -> Any:
        """The next `rows` rows."""
        nbytes = rows * math.prod(self._shape) * self._dtype.itemsize
        try:
            data = self._file.read(nbytes)
        except _DAMAGE as error:
            raise InputError(f"{self._where}: is damaged ({_brief(error)}). Run prepare again.") from error
        if len(data) != nbytes:
            raise InputError(f"{self._where}: is cut short. Run prepare again.")
        array = np.frombuffer(bytearray(data), self._dtype).reshape(rows, *self._shape)
        return array.astype(np.float32, copy=False) if self._dtype.kind == "f" else array


_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, ValueError, TypeError, SyntaxError, RecursionError, TokenError,
           NotImplementedError, RuntimeError, OSError)  # fmt: skip


def _brief(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error))[:200]

"""Pickles of keypoints whoever wrote them: their structure, checked, as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.closing import Closing
from gpupipe.errors import InputError
from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.names import stream_of
from gpupipe.landmarks.packing import PACKED_COUNTS, PACKED_PARTS, PACKED_POINTS, PACKED_SLICES, VALID_COLUMN
from gpupipe.landmarks.parts import Counts, parts
from gpupipe.landmarks.pickle_file import LISTS, RESERVED
from gpupipe.ops.keypoints.points import PARTS
from gpupipe.sinks.pickles import load

_MAX_SIDE = (1 << 31) - 1


class LoadedPickle(Closing):
    """Reads a pickle of keypoints whole into memory, by the restricted unpickler; nothing in it is run.

    It may lack ``stats`` and the other words, a frame may be None or lack ``image_shape``, parts may have any plain
    numeric dtype.

    Parameters
    ----------
    path : Path

    Attributes
    ----------
    stream : int or None
        Of its videos, see :class:`gpupipe.landmarks.pictures.Pictures`.

    Raises
    ------
    InputError
        It is no such pickle: the message says what was found where.
    OSError
        It cannot be read.
    """

    points = PACKED_POINTS

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            data = load(file)
        splits = _checked_splits(path, data)
        self._stats = data.get("stats")
        self.stream = stream_of(data.get("dataset_info"))
        self._clips: dict[str, list[Clip]] = {}
        for split, lists in splits.items():
            arrays = _arrays(lists["keypoints"], f"{path}: {split}")
            self._clips[split] = list(parts(split, lists["video_ids"], lists["image_paths"], *arrays))

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the file's order."""
        return list(self._clips)

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split."""
        return iter(self._clips[split])

    def unlisted(self, split: str) -> Counts:
        """What the file counts of a split beside the frames it lists."""
        return unlisted_counts(self._stats, split, sum(map(len, self._clips[split])))

    def close(self) -> None:
        """Let go of what was read."""
        self._clips = {}


def unlisted_counts(stats: Any, split: str, listed: int) -> Counts:
    """What `stats`, whatever it is, counts of a split beside the frames listed: those dropped, and the time it took."""
    counts = stats.get(split) if isinstance(stats, dict) else None
    if not isinstance(counts, dict):
        return Counts(seconds=math.nan)
    seconds = counts.get("total_time")
    known = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and math.isfinite(seconds)
    dropped = max(0, _count(counts.get("total")) - listed)
    nobody, unreadable = _count(counts.get("nobody")), _count(counts.get("unreadable"))
    if nobody + unreadable != dropped:  # an old file: it does not say why
        nobody = unreadable = 0
    return Counts(dropped, 0, nobody, unreadable, float(seconds) if known and seconds is not None else math.nan)


def _count(value: Any) -> int:
    """A count of frames; 0 for what is none."""
    return int(value) if isinstance(value, (int, np.integer)) and value > 0 else 0


def _checked_splits(path: Path, data: Any) -> dict[str, dict[str, list[Any]]]:
    if type(data) is not dict:
        raise InputError(f"{path}: holds {_words(data)}; expected a dict of splits with {', '.join(LISTS)}.")
    splits: dict[str, dict[str, list[Any]]] = {}
    for split, lists in data.items():
        where = f"{path}: {_short(split)}"
        if split in RESERVED:
            continue
        if type(split) is not str:
            raise InputError(f"{where}: a key is {_words(split)}; expected the names of splits.")
        if type(lists) is not dict or not set(LISTS) <= set(lists):
            raise InputError(f"{where}: is {_words(lists)}; expected a dict with the lists {', '.join(LISTS)}.")
        for name in LISTS:
            if type(lists[name]) is not list:
                raise InputError(f"{where}: {name} is {_words(lists[name])}; expected a list.")
        if len({len(lists[name]) for name in LISTS}) != 1:
            counts = ", ".join(f"{len(lists[name])} {name}" for name in LISTS)
            raise InputError(f"{where}: {counts}; expected as many of each.")
        for name in LISTS[1:]:
            wrong = next((place for place, word in enumerate(lists[name]) if type(word) is not str), None)
            if wrong is not None:
                raise InputError(f"{where}: {name}[{wrong}] is {_words(lists[name][wrong])}; expected text.")
        splits[split] = lists
    return splits


def _arrays(entries: list[Any], where: str) -> tuple[Any, Any, Any, Any]:
    """Points, valid, shapes and readable of a split's frames."""
    points = np.zeros((len(entries), PACKED_POINTS, 3), np.float32)
    valid = np.zeros((len(entries), len(PARTS)), np.bool_)
    shapes = np.zeros((len(entries), 2), np.int32)
    readable = np.ones(len(entries), np.bool_)
    for place, entry in enumerate(entries):
        if entry is None:
            readable[place] = False
            continue
        at = f"{where}: keypoints[{place}]"
        if type(entry) is not dict or not set(PACKED_PARTS) & set(entry):
            raise InputError(f"{at} is {_words(entry)}; expected a dict of {', '.join(PACKED_PARTS)}, or None.")
        for part in PACKED_PARTS:
            if entry.get(part) is not None:
                points[place, PACKED_SLICES[part]] = _part(entry[part], part, at)
                valid[place, VALID_COLUMN[part]] = True
        if entry.get("image_shape") is not None:
            shapes[place] = _shape(entry["image_shape"], at)
        readable[place] = valid[place].any() or entry.get("image_shape", ()) is not None
    return points, valid, shapes, readable


def _part(value: Any, part: str, at: str) -> Any:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError):
        array = np.array(None)
    expected = (PACKED_COUNTS[part], 3)
    if array.dtype.kind not in "fiu" or array.shape != expected:
        raise InputError(f"{at}: {part} is {_words(value)}; expected {list(expected)} numbers, or None.")
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite
        return array.astype(np.float32)


def _shape(value: Any, at: str) -> tuple[int, int]:
    sides = list(value) if isinstance(value, (tuple, list)) else []
    if len(sides) in (2, 3) and all(isinstance(side, (int, np.integer)) and 0 <= side <= _MAX_SIDE for side in sides):
        return int(sides[0]), int(sides[1])
    raise InputError(f"{at}: image_shape is {_words(value)}; expected (height, width).")


def _words(value: Any) -> str:
    """A value in a few words, however large it is."""
    if isinstance(value, np.ndarray):
        return f"an array {value.dtype} {list(value.shape)}"
    if isinstance(value, dict):
        keys = ", ".join(_short(key) for key in list(value)[:8])
        return f"a dict of {keys}" if keys else "an empty dict"
    if isinstance(value, (list, tuple, set, frozenset)):
        return f"a {type(value).__name__} of {len(value)}"
    return _short(value)


def _short(value: Any) -> str:
    if isinstance(value, (str, bytes)):
        return repr(value[:40])
    small = value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and value.bit_length() < 64)
    return repr(value) if small else f"a {type(value).__name__}"

"""Several files of keypoints as one: in the files' order, each picture once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.dataset import LandmarkFile, open_landmarks, open_pickle
from gpupipe.landmarks.packing import PACKED_POINTS, packed
from gpupipe.landmarks.parts import Counts, chosen
from gpupipe.landmarks.pickle_file import write_pickle
from gpupipe.plan import BOOKKEEPING


class Merged:
    """Files of keypoints one after another; of frames with the same path in a split the first is kept.

    Parameters
    ----------
    files : sequence of LandmarkFile
        Open; closed by whoever opened them.

    Attributes
    ----------
    duplicates : dict of str to int
        Frames left out of each split, once its clips were asked for to the end.
    """

    points = PACKED_POINTS

    def __init__(self, files: Sequence[LandmarkFile]) -> None:
        self._files = files
        self.duplicates: dict[str, int] = {}

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the order in which the files have them first."""
        return list(dict.fromkeys(split for file in self._files for split in file.splits))

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split, 143 points, file by file."""
        seen: set[bytes] = set()  # 16 bytes a path: a million of them are 100 MB
        self.duplicates[split] = 0
        for file in self._having(split):
            for clip in file.clips(split):
                new = np.ones(len(clip), np.bool_)
                for place, path in enumerate(clip.paths):
                    digest = xxhash.xxh3_128_digest(path.encode("utf-8", "surrogatepass"))
                    new[place] = digest not in seen
                    seen.add(digest)
                self.duplicates[split] += len(clip) - int(new.sum())
                if new.any():
                    yield replace(chosen(clip, new), points=packed(clip.points[new]))

    def unlisted(self, split: str) -> Counts:
        """What the files count of a split beside the frames they list, together."""
        return sum((file.unlisted(split) for file in self._having(split)), Counts())

    def close(self) -> None:
        """The files are not this object's."""

    def _having(self, split: str) -> list[LandmarkFile]:
        return [file for file in self._files if split in file.splits]


@dataclass(frozen=True, slots=True)
class MergedSplit:
    """What became of a split.

    Attributes
    ----------
    counts : Counts
        As in the merged file's ``stats``.
    duplicates : int
        Frames left out, since an earlier one has the same path.
    """

    counts: Counts
    duplicates: int


def merge(
    inputs: Sequence[Path], output: Path, drop_empty: bool = False, overwrite: bool = False
) -> dict[str, MergedSplit]:
    """Write the frames of several files of keypoints into one pickle.

    Files come in the order given. Of frames with the same path in a split the first is kept. ``stats`` are counted of
    the frames kept, and what a file counts beside the frames it lists (dropped ones, the time) is added.

    Parameters
    ----------
    inputs : sequence of Path
        As :func:`gpupipe.landmarks.dataset.open_landmarks` takes them.
    output : Path
        A pickle, replaced where it is one of keypoints.
    drop_empty : bool
        Leave out frames in which nothing was found.
    overwrite : bool
        Replace also another file.

    Returns
    -------
    dict of str to MergedSplit
        By split.

    Raises
    ------
    UsageError
        The output is one of the inputs, belongs to a run, or would replace another file.
    InputError
        An input cannot be read.
    OutputError
        The output cannot be written.
    """
    _check_output(inputs, output, overwrite)
    with ExitStack() as opened:
        files: list[LandmarkFile] = []
        for path in inputs:
            files.append(open_landmarks(path))
            opened.callback(files[-1].close)
        merged = Merged(files)
        words: dict[str, Any] = {"merged_from": [str(path) for path in inputs]}
        if len(streams := {file.stream for file in files}) == 1 and streams != {None}:
            words["stream"] = streams.pop()
        counts = write_pickle(output, merged, words, drop_empty, unlisted=merged.unlisted)
    return {split: MergedSplit(count, merged.duplicates[split]) for split, count in counts.items()}


def _check_output(inputs: Sequence[Path], output: Path, overwrite: bool) -> None:
    for path in inputs:
        if path.exists() and output.exists() and path.samefile(output):
            raise UsageError(f"{output}: is one of the files to merge; choose another name for the result")
    if output.with_name(f"{output.name}{BOOKKEEPING}").exists():
        raise UsageError(f"{output}: is the output of a run, which writes it again; choose another name for the result")
    if output.is_dir() or not output.parent.is_dir():
        raise UsageError(f"{output}: expected the name of a file in a folder that is there")
    if output.exists() and not overwrite:
        try:
            open_pickle(output).close()
        except InputError as error:
            raise UsageError(
                f"{output}: is there and no pickle of keypoints; choose another name, or --overwrite"
            ) from error

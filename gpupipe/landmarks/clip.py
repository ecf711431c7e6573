"""The points of one clip's frames, as every reader of keypoint files hands them out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gpupipe.ops.keypoints.points import Floats

DONE, FAILED = "done", "failed"


@dataclass(frozen=True, slots=True)
class Clip:
    """Consecutive frames of one video in one split; a long one may come in several parts.

    Attributes
    ----------
    split, video : str
    paths : sequence of str [T]
        Of each frame's picture, ``{path of the video}#{frame}`` for a frame of a video file.
    points : ndarray, float32 [T, K, 3]
        K is 543, in the order of :data:`gpupipe.ops.keypoints.points.PARTS`, or 143 where the file keeps only those:
        face 68, left hand 21, right hand 21, pose 33. Zeros where not valid.
    valid : ndarray, bool [T, 4]
        By part, in the order of :data:`gpupipe.ops.keypoints.points.PARTS`, whatever K is.
    visibility : ndarray, float32 [T, 33] or None
        None where the file has none.
    shapes : ndarray, int32 [T, 2]
        Upright (height, width) of each picture in pixels; zeros where it is not known.
    pts_seconds : ndarray, float64 [T]
        NaN where the file has none.
    readable : ndarray, bool [T]
        False where the picture could not be read: then nothing is valid.
    """

    split: str
    video: str
    paths: Sequence[str]
    points: Floats
    valid: npt.NDArray[np.bool_]
    visibility: Floats | None
    shapes: npt.NDArray[np.int32]
    pts_seconds: npt.NDArray[np.float64]
    readable: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.paths)


class Landmarks(Protocol):
    """One file or folder of keypoints, opened for reading; memory is bounded by a few thousand frames where the file
    allows it.
    """

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the file's order."""

    @property
    def points(self) -> int:
        """K, 543 or 143."""

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split, in the file's order; may be asked again."""

    def close(self) -> None:
        """Give the files back."""

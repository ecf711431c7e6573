"""The 543 points of one person: which part is where in an array, and which of them people keep of the face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

PARTS = ("pose", "left_hand", "right_hand", "face")
"""Parts in the order of ``valid`` and of the points; left and right are the person's own."""

COUNTS = {"pose": 33, "left_hand": 21, "right_hand": 21, "face": 468}

POINTS = sum(COUNTS.values())
"""K, 543."""

SLICES = {
    part: slice(sum(COUNTS[before] for before in PARTS[:place]), sum(COUNTS[name] for name in PARTS[: place + 1]))
    for place, part in enumerate(PARTS)
}
"""Rows of each part in an array of all points."""

FACE_68 = (
    *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400),  # contour
    *(107, 55, 65, 52, 53, 336, 296, 334, 293, 300),  # right brow, left brow
    *(19, 1, 2, 5, 4, 6, 98, 97, 94),  # nose
    *(33, 7, 163, 144, 145, 153, 362, 382, 381, 380, 374, 373),  # right eye, left eye
    *(61, 146, 91, 181, 84, 17, 314, 405, 320, 307, 375, 321),  # outer mouth
    *(78, 95, 88, 178, 87, 14, 317, 402),  # inner mouth
)
"""Of the face's 468 points, the 68 that datasets of signing keep, in their order."""


@dataclass(frozen=True, slots=True)
class Keypoints:
    """The points of one image.

    Attributes
    ----------
    points : ndarray, float32 [543, 3]
        x and y in shares of the image's width and height, not clipped; z relative, in shares of the width. Zeros
        where the part is not valid.
    visibility : ndarray, float32 [33]
        Of the pose's points, 0 to 1; zeros where there is no pose.
    valid : ndarray, bool [4]
        Whether each of :data:`PARTS` was found.
    """

    points: Floats
    visibility: Floats
    valid: npt.NDArray[np.bool_]

    @classmethod
    def nobody(cls) -> Keypoints:
        """Room for one image's points, nothing found yet."""
        return cls(
            np.zeros((POINTS, 3), np.float32), np.zeros(COUNTS["pose"], np.float32), np.zeros(len(PARTS), np.bool_)
        )

    def clear(self) -> None:
        """Nothing found."""
        self.points[:] = 0
        self.visibility[:] = 0
        self.valid[:] = False

    def part(self, name: str) -> Floats | None:
        """One part's points, float32 [its count, 3]; None if it was not found."""
        return self.points[SLICES[name]] if self.valid[PARTS.index(name)] else None

    def put(self, name: str, points: Any) -> None:
        """Set one part's points and mark it found."""
        self.points[SLICES[name]] = points
        self.valid[PARTS.index(name)] = True

"""The 143 points that people train on, out of the 543: which they are, and in what order they are packed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpupipe.ops.keypoints.points import COUNTS, FACE_68, PARTS, POINTS, SLICES, Floats

PACKED_PARTS = ("face", "left_hand", "right_hand", "pose")
"""Parts in the order in which their points are packed; ``valid`` keeps the order of ``PARTS``."""

PACKED_COUNTS = {part: len(FACE_68) if part == "face" else COUNTS[part] for part in PACKED_PARTS}

PACKED_POINTS = sum(PACKED_COUNTS.values())
"""143."""

PACKED_SLICES = {
    part: slice(start, start + PACKED_COUNTS[part])
    for part, start in zip(PACKED_PARTS, np.cumsum([0, *PACKED_COUNTS.values()]).tolist(), strict=False)
}
"""Rows of each part in an array of the packed points."""

VALID_COLUMN = {part: PARTS.index(part) for part in PACKED_PARTS}
"""Column of each part in ``valid``."""

PACKED_INDICES = np.concatenate(
    [
        SLICES[part].start + np.array(FACE_68 if part == "face" else range(COUNTS[part]), np.int64)
        for part in PACKED_PARTS
    ]
)
"""int64 [143]: which of the 543 points each packed one is."""


def packed(points: Floats) -> Floats:
    """The packed points of frames.

    Parameters
    ----------
    points : ndarray, float32 [T, 543, 3] or [T, 143, 3]
        143 are packed already.

    Returns
    -------
    ndarray, float32 [T, 143, 3]
        C-contiguous.
    """
    if points.shape[1] == POINTS:
        return np.take(points, PACKED_INDICES, axis=1)
    return np.ascontiguousarray(points)


def keypoint_info() -> dict[str, Any]:
    """What the numbers of a file of packed points mean, for whoever opens it."""
    return {
        **PACKED_COUNTS,
        "total": PACKED_POINTS,
        "order": list(PACKED_PARTS),
        "face_indices": list(FACE_68),
        "coordinates": "x and y in shares of the picture's width and height, not clipped; z relative",
        "sides": "left and right are the person's own",
    }

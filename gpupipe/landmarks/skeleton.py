"""The 543 points as a figure: their names, the lines between them, and where a file's arrays have each part.

Names and lines are MediaPipe's (``PoseLandmark``, ``HandLandmark``, ``POSE_CONNECTIONS``, ``HAND_CONNECTIONS``,
``FACEMESH_TESSELATION``, ``FACEMESH_CONTOURS``, version 0.10.21); the triangles of the face lie beside this file.
"""

from __future__ import annotations

import gzip
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.packing import PACKED_SLICES
from gpupipe.ops.keypoints.points import COUNTS, FACE_68, PARTS, POINTS, SLICES

Lines = tuple[tuple[int, int], ...]
"""Pairs of points, by their numbers within the part."""

_TRIANGLES = Path(__file__).with_name("face_triangles.txt.gz")
_SIDES = ("LEFT", "RIGHT")

POSE_POINTS = (
    "NOSE",
    *(f"{side}_EYE{end}" for side in _SIDES for end in ("_INNER", "", "_OUTER")),
    *(f"{side}_EAR" for side in _SIDES),
    *(f"MOUTH_{side}" for side in _SIDES),
    *(
        f"{side}_{joint}"
        for joint in ("SHOULDER", "ELBOW", "WRIST", "PINKY", "INDEX", "THUMB", "HIP", "KNEE", "ANKLE", "HEEL")
        for side in _SIDES
    ),
    *(f"{side}_FOOT_INDEX" for side in _SIDES),
)
"""Names of the pose's points; left is the person's own."""

HAND_POINTS = (
    "WRIST",
    *(f"THUMB_{joint}" for joint in ("CMC", "MCP", "IP", "TIP")),
    *(f"{finger}_FINGER_{joint}" for finger in ("INDEX", "MIDDLE", "RING") for joint in ("MCP", "PIP", "DIP", "TIP")),
    *(f"PINKY_{joint}" for joint in ("MCP", "PIP", "DIP", "TIP")),
)
"""Names of a hand's points."""


def _chains(*chains: tuple[int, ...]) -> Lines:
    return tuple(line for chain in chains for line in pairwise(chain))


POSE_LINES = _chains(
    *((0, 1, 2, 3, 7), (0, 4, 5, 6, 8), (9, 10)),
    *((11, 12), (11, 23), (12, 24), (23, 24)),
    *((11, 13, 15, 17, 19), (15, 19), (15, 21), (12, 14, 16, 18, 20), (16, 20), (16, 22)),
    *((23, 25, 27, 29, 31), (27, 31), (24, 26, 28, 30, 32), (28, 32)),
)
"""35 lines."""

HAND_LINES = _chains(
    *((0, 1, 2, 3, 4), (0, 5, 6, 7, 8), (5, 9, 10, 11, 12), (9, 13, 14, 15, 16), (0, 17, 18, 19, 20), (13, 17)),
)
"""21 lines."""

FACE_OUTLINES = {
    "middle": _chains(
        (
            *(10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152),
            *(148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10),
        ),
        (61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61),
        (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78),
    ),
    "left": _chains(
        *((276, 283, 282, 295, 285), (300, 293, 334, 296, 336)),
        (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263),
    ),
    "right": _chains(
        *((46, 53, 52, 65, 55), (70, 63, 105, 66, 107)),
        (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33),
    ),
}
"""124 lines, of the 468 points: around the face and its lips; the person's left brow and eye; the right ones."""


def part_slices(points: int) -> dict[str, slice]:
    """Where each of :data:`PARTS` is, in their order, in an array of `points` points, 543 or 143."""
    return SLICES if points == POINTS else {part: PACKED_SLICES[part] for part in PARTS}


def face_points(points: int) -> tuple[int, ...]:
    """Numbers in the mesh of 468 of the face's points that arrays of `points` points keep."""
    return tuple(range(COUNTS["face"])) if points == POINTS else FACE_68


@cache
def face_outlines(points: int) -> dict[str, Lines]:
    """Those of :data:`FACE_OUTLINES` with both ends in arrays of `points` points, by their place in the part."""
    return {side: _kept(lines, face_points(points)) for side, lines in FACE_OUTLINES.items()}


def face_mesh(points: int) -> Lines:
    """Each side of every triangle of the face, in its direction, by the ends' place in arrays of `points` points."""
    sides = tuple(
        (int(a), int(b)) for one, two, three in _triangles() for a, b in ((one, two), (two, three), (three, one))
    )
    return _kept(sides, face_points(points))


@cache
def _triangles() -> npt.NDArray[np.int64]:
    """int64 [852, 3]."""
    text = gzip.decompress(_TRIANGLES.read_bytes()).decode("ascii")
    return np.array(text.split(), np.int64).reshape(-1, 3)


def _kept(lines: Lines, kept: tuple[int, ...]) -> Lines:
    place = {point: number for number, point in enumerate(kept)}
    return tuple((place[a], place[b]) for a, b in lines if a in place and b in place)

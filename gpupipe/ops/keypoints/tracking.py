"""Regions that follow from the last frame's points, and when they are kept instead of what is newly found."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpupipe.ops.keypoints.geometry import (
    F,
    Frame,
    Roi,
    grown,
    normalized_angle,
    roi_of_landmarks,
    rotation_between,
)
from gpupipe.ops.keypoints.graph import Grow
from gpupipe.ops.keypoints.points import Floats

_PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)  # all but the fingers' ends
_INDEX, _MIDDLE, _RING = 5, 9, 13  # their roots
_PALM_GROW = Grow(2.0, -0.1)
_FACE_GROW = Grow(1.5, 0.0)
_FACE_EYES = (33, 263)


@dataclass(frozen=True, slots=True)
class Keep:
    """How far a new region may be from the one of the last points, for that to be kept.

    Attributes
    ----------
    degrees : float
        Of rotation.
    shift, scale : float
        Shares of the new region's sides.
    margin : float
        By how much the new region is made larger (below 0: smaller) before all last points must be inside.
    """

    degrees: float
    shift: float
    scale: float
    margin: float


HAND_KEEP = Keep(40.0, 0.2, 0.4, -0.1)
FACE_KEEP = Keep(15.0, 0.1, 0.3, -0.2)


def region_of_hand(points: Floats, frame: Frame) -> Roi:
    """Region around a hand's points [21, 3]."""
    width, height = (float(side) for side in frame)
    xs, ys = points[list(_PALM), 0].astype(np.float64), points[list(_PALM), 1].astype(np.float64)
    start, (x, y) = points[0], ((points[_INDEX] + points[_RING]) / F(2) + points[_MIDDLE])[:2] / F(2)
    turned = normalized_angle(
        F(math.pi / 2 - math.atan2(-(float(y) - float(start[1])) * height, (float(x) - float(start[0])) * width))
    )
    middle_x, middle_y = (xs.max() + xs.min()) / 2, (ys.max() + ys.min()) / 2
    sin, cos = math.sin(-float(turned)), math.cos(-float(turned))
    across, down = (xs - middle_x) * width, (ys - middle_y) * height
    along, beside = across * cos - down * sin, across * sin + down * cos
    x, y = (along.max() + along.min()) / 2, (beside.max() + beside.min()) / 2
    around = Roi(
        F((x * cos + y * sin) / width + middle_x),
        F((-x * sin + y * cos) / height + middle_y),
        F((along.max() - along.min()) / width),
        F((beside.max() - beside.min()) / height),
        turned,
    )
    return grown(around, frame, _PALM_GROW)


def region_of_face(points: Floats, frame: Frame) -> Roi:
    """Region around a face's points [468, 3]."""
    (ax, ay), (bx, by) = points[list(_FACE_EYES), :2]
    turned = rotation_between((ax, ay), (bx, by), frame, 0.0)
    return grown(roi_of_landmarks(points, turned), frame, _FACE_GROW)


def followed(points: Floats, last: Roi, new: Roi, frame: Frame, keep: Keep) -> Roi:
    """The region of the last points, if it is near the new one and they are inside of that; else the new one."""
    width, height = (float(side) for side in frame)
    sin, cos = math.sin(-float(new.rotation)), math.cos(-float(new.rotation))

    def turned(x: Any, y: Any) -> tuple[Any, Any]:
        across, down = x * width, y * height
        return across * cos - down * sin, across * sin + down * cos

    last_x, last_y = turned(float(last.x), float(last.y))
    new_x, new_y = turned(float(new.x), float(new.y))
    new_width, new_height = float(new.width) * width, float(new.height) * height
    turn = math.degrees(float(last.rotation) - float(new.rotation))
    turn -= 360 * round(turn / 360)
    near = (
        abs(turn) <= keep.degrees
        and abs(last_x - new_x) <= new_width * keep.shift
        and abs(last_y - new_y) <= new_height * keep.shift
        and abs(float(last.width) * width - new_width) <= new_width * keep.scale
        and abs(float(last.height) * height - new_height) <= new_height * keep.scale
    )
    if not near:
        return new
    x, y = turned(points[:, 0].astype(np.float64), points[:, 1].astype(np.float64))
    reach_x, reach_y = new_width * (1 + keep.margin) / 2, new_height * (1 + keep.margin) / 2
    inside = (np.abs(x - new_x) < reach_x) & (np.abs(y - new_y) < reach_y)
    return last if bool(inside.all()) else new

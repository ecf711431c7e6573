"""Regions of an image and points in them: in float32, in the order of MediaPipe's C++.

One unit in the last place of a region moves its crop's grid of 1/32 pixel, and points by 0.01 to 0.3 pixels; so the
order of operations here is part of the definition. Where the original calls sine, cosine or arc tangent of a float, the
double function is rounded.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gpupipe.ops.keypoints.graph import Grow
from gpupipe.ops.keypoints.points import Floats

F = np.float32
Point = tuple[F, F]
"""x and y."""


class Frame(NamedTuple):
    """An image's sides in pixels, as floats."""

    width: F
    height: F


class Roi(NamedTuple):
    """A rotated rectangle: centre, sides, clockwise radians. In shares of the image's sides, or in pixels."""

    x: F
    y: F
    width: F
    height: F
    rotation: F


WHOLE = Roi(F(0.5), F(0.5), F(1), F(1), F(0))


def rotation_between(start: Point, end: Point, frame: Frame, target: float) -> F:
    """How far a line is turned from the direction `target`, in [-pi, pi)."""
    dx, dy = end[0] * frame.width - start[0] * frame.width, end[1] * frame.height - start[1] * frame.height
    return normalized_angle(F(target) - F(math.atan2(-dy, dx)))


def normalized_angle(angle: F) -> F:
    """The same angle in [-pi, pi)."""
    wide = float(angle)
    return F(wide - 2 * math.pi * float(np.floor((wide + math.pi) / (2 * math.pi))))


def roi_between(start: Point, end: Point, frame: Frame, target: float) -> Roi:
    """The square around `start` that reaches to `end`."""
    width, height = frame
    x, y = start[0] * width, start[1] * height
    dx, dy = end[0] * width - x, end[1] * height - y
    side = np.sqrt(dx * dx + dy * dy) * F(2)
    return Roi(x / width, y / height, side / width, side / height, rotation_between(start, end, frame, target))


def hand_roi(wrist: Point, pinky: Point, index: Point, frame: Frame, target: float) -> Roi:
    """The square around the middle finger's root that reaches to the wrist."""
    width, height = frame
    x = (F(2) * (index[0] * width) + pinky[0] * width) / F(3)
    y = (F(2) * (index[1] * height) + pinky[1] * height) / F(3)
    dx, dy = x - wrist[0] * width, y - wrist[1] * height
    side = np.sqrt(dx * dx + dy * dy) * F(2)
    turned = normalized_angle(F(target) - F(math.atan2(-dy, dx)))
    return Roi(x / width, y / height, side / width, side / height, turned)


def roi_of_landmarks(points: Floats, rotation: F) -> Roi:
    """Bounding box of points [K, 2+]; its centre is the low edge plus half the side."""
    low, high = points[:, :2].min(axis=0), points[:, :2].max(axis=0)
    width, height = high - low
    return Roi(low[0] + width / F(2), low[1] + height / F(2), width, height, rotation)


def roi_of_keypoints(points: Floats, rotation: F) -> Roi:
    """Bounding box of points [K, 2]; its centre is the mean of the edges."""
    low, high = points.min(axis=0), points.max(axis=0)
    width, height = high - low
    return Roi((low[0] + high[0]) / F(2), (low[1] + high[1]) / F(2), width, height, rotation)


def grown(roi: Roi, frame: Frame, grow: Grow) -> Roi:
    """The region around it."""
    x, y, width, height, rotation = roi
    shift, scale = F(grow.shift), F(grow.scale)
    if rotation == 0:
        y = y + height * shift
    else:
        sideways = frame.width * width * F(0)
        along = frame.height * height * shift
        sin, cos = F(math.sin(rotation)), F(math.cos(rotation))
        x = x + (sideways * cos - along * sin) / frame.width
        y = y + (sideways * sin + along * cos) / frame.height
    side = max(width * frame.width, height * frame.height)
    return Roi(x, y, side / frame.width * scale, side / frame.height * scale, rotation)


def in_pixels(roi: Roi, frame: Frame, letterbox: bool) -> tuple[Roi, Point]:
    """The region in pixels, made square by padding if wanted; and the padding at each side, shares of the square.

    Raises
    ------
    ValueError
        The region has no extent.
    """
    x, y, width, height = roi.x * frame.width, roi.y * frame.height, roi.width * frame.width, roi.height * frame.height
    if not (0 < width < np.inf and 0 < height < np.inf and np.isfinite(x) and np.isfinite(y)):
        raise ValueError(f"a region of {width} x {height} pixels at {x}, {y}")
    if not letterbox:
        return Roi(x, y, width, height, roi.rotation), (F(0), F(0))
    aspect = height / width
    if aspect < 1:
        return Roi(x, y, width, width, roi.rotation), (F(0), (F(1) - aspect) / F(2))
    return Roi(x, y, height, height, roi.rotation), ((F(1) - F(1) / aspect) / F(2), F(0))


def without_padding(points: Floats, padding: Point) -> Floats:
    """Points [K, 2] or [K, 3] in shares of the square, in shares of what it was made of."""
    across, down = F(1) - F(2) * padding[0], F(1) - F(2) * padding[1]
    inner = points.copy()
    inner[:, 0] = (points[:, 0] - padding[0]) / across
    inner[:, 1] = (points[:, 1] - padding[1]) / down
    inner[:, 2:] = points[:, 2:] / across
    return inner


def projected(points: Floats, roi: Roi) -> Floats:
    """Points [K, 2] or [K, 3] in shares of a region, in shares of the image."""
    sin, cos = F(math.sin(roi.rotation)), F(math.cos(roi.rotation))
    x, y = points[:, 0] - F(0.5), points[:, 1] - F(0.5)
    outer = points.copy()
    outer[:, 0] = (cos * x - sin * y) * roi.width + roi.x
    outer[:, 1] = (sin * x + cos * y) * roi.height + roi.y
    outer[:, 2:] = points[:, 2:] * roi.width
    return outer


def projected_keypoints(points: Floats, pixels: Roi, frame: Frame) -> Floats:
    """A detection's keypoints [K, 2] in shares of a region (given in pixels), in shares of the image.

    The original multiplies by one matrix here, which rounds otherwise than :func:`projected`.
    """
    x, y, width, height, rotation = pixels
    sin, cos = F(math.sin(rotation)), F(math.cos(rotation))
    half, across, down = F(0.5), F(1) / frame.width, F(1) / frame.height
    outer = np.empty_like(points)
    outer[:, 0] = (
        points[:, 0] * (width * cos * across)
        + points[:, 1] * (-height * sin * across)
        + (-half * width * cos + half * height * sin + x) * across
    )
    outer[:, 1] = (
        points[:, 0] * (width * sin * down)
        + points[:, 1] * (height * cos * down)
        + (-half * height * cos - half * width * sin + y) * down
    )
    return outer

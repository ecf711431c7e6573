"""Regions and points of many images at once: :mod:`gpupipe.ops.keypoints.geometry` in torch, the same to the bit.

Regions are float32 ``[N, 5]`` (centre x and y, width, height, clockwise radians), frames float32 ``[N, 2]`` (width and
height in pixels), points float32 ``[N, K, 2+]``.

Nothing is divided by a number of Python's: on a GPU torch multiplies with its reciprocal, which rounds otherwise.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from gpupipe.ops.keypoints.graph import Grow

WHOLE = (0.5, 0.5, 1.0, 1.0, 0.0)
"""Region of the whole image, in shares of its sides."""


def over(values: Any, divisor: float) -> Any:
    """Quotients, rounded once."""
    return values / torch.full_like(values, divisor)


def sigmoid(values: Any) -> Any:
    """``1 / (1 + exp(-x))``, the exponential rounded to float32."""
    return 1 / (1 + (-values.double()).exp().float())


def rotation_between(start: Any, end: Any, frames: Any, target: float) -> Any:
    """How far lines from ``[N, 2]`` to ``[N, 2]`` are turned from the direction `target`, in [-pi, pi)."""
    return _turned(end * frames - start * frames, target)


def roi_between(start: Any, end: Any, frames: Any, target: float) -> Any:
    """The squares around `start` that reach to `end`."""
    middle = start * frames
    reach = end * frames - middle
    return _square(middle, reach, frames, _turned(reach, target))


def hand_roi(wrist: Any, pinky: Any, index: Any, frames: Any, target: float) -> Any:
    """The squares around the middle finger's root that reach to the wrist."""
    middle = over(2 * (index * frames) + pinky * frames, 3)
    reach = middle - wrist * frames
    return _square(middle, reach, frames, _turned(reach, target))


def roi_of_landmarks(points: Any, rotation: Any) -> Any:
    """Bounding boxes; a centre is the low edge plus half the side."""
    low, high = points[..., :2].amin(1), points[..., :2].amax(1)
    sides = high - low
    return torch.cat([low + sides * 0.5, sides, rotation[:, None]], 1)


def roi_of_keypoints(points: Any, rotation: Any) -> Any:
    """Bounding boxes; a centre is the mean of the edges."""
    low, high = points.amin(1), points.amax(1)
    return torch.cat([(low + high) * 0.5, high - low, rotation[:, None]], 1)


def grown(regions: Any, frames: Any, grow: Grow) -> Any:
    """The regions around them."""
    x, y, width, height, rotation = regions.unbind(1)
    across, down = frames.unbind(1)
    sin, cos = _sine(rotation), _cosine(rotation)
    sideways, along = across * width * 0, down * height * grow.shift
    upright = rotation == 0
    moved_x = torch.where(upright, x, x + (sideways * cos - along * sin) / across)
    moved_y = torch.where(upright, y + height * grow.shift, y + (sideways * sin + along * cos) / down)
    wide, high = width * across, height * down
    side = torch.where(high > wide, high, wide)
    return torch.stack([moved_x, moved_y, side / across * grow.scale, side / down * grow.scale, rotation], 1)


def in_pixels(regions: Any, frames: Any, letterbox: bool) -> tuple[Any, Any, Any]:
    """The regions in pixels, made square by padding if wanted; the padding; and which have an extent at all.

    Returns
    -------
    regions : Tensor, float32 [N, 5]
    padding : Tensor, float32 [N, 2]
        At each side, shares of the square.
    real : Tensor, bool [N]
    """
    places, sides = regions[:, :2] * frames, regions[:, 2:4] * frames
    real = (places.isfinite() & (sides > 0) & sides.isfinite()).all(1)
    if letterbox:
        width, height = sides.unbind(1)
        aspect = height / width
        flat = aspect < 1
        zero = torch.zeros_like(aspect)
        padding = torch.stack(
            [torch.where(flat, zero, (1 - 1 / aspect) * 0.5), torch.where(flat, (1 - aspect) * 0.5, zero)], 1
        )
        sides = torch.where(flat, width, height)[:, None].expand(-1, 2)
    else:
        padding = torch.zeros_like(sides)
    return torch.cat([places, sides, regions[:, 4:]], 1), padding, real


def without_padding(points: Any, padding: Any) -> Any:
    """Points in shares of the square, in shares of what it was made of."""
    inner = 1 - 2 * padding[:, None]
    return torch.cat([(points[..., :2] - padding[:, None]) / inner, points[..., 2:] / inner[..., :1]], 2)


def projected(points: Any, regions: Any) -> Any:
    """Points in shares of regions, in shares of the images."""
    x, y, width, height, rotation = regions[:, None].unbind(2)
    sin, cos = _sine(rotation), _cosine(rotation)
    across, down = points[..., 0] - 0.5, points[..., 1] - 0.5
    outer = torch.stack([(cos * across - sin * down) * width + x, (sin * across + cos * down) * height + y], 2)
    return torch.cat([outer, points[..., 2:] * width[..., None]], 2)


def projected_keypoints(points: Any, pixels: Any, frames: Any) -> Any:
    """Detections' keypoints ``[N, K, 2]`` in shares of regions (given in pixels), in shares of the images."""
    x, y, width, height, rotation = pixels[:, None].unbind(2)
    sin, cos = _sine(rotation), _cosine(rotation)
    across, down = (1 / frames)[:, None].unbind(2)
    first, second = points.unbind(2)
    return torch.stack(
        [
            first * (width * cos * across)
            + second * (-height * sin * across)
            + (-0.5 * width * cos + 0.5 * height * sin + x) * across,
            first * (width * sin * down)
            + second * (height * cos * down)
            + (-0.5 * height * cos - 0.5 * width * sin + y) * down,
        ],
        2,
    )


def _square(middle: Any, reach: Any, frames: Any, rotation: Any) -> Any:
    dx, dy = reach.unbind(1)
    side = (dx * dx + dy * dy).double().sqrt().float() * 2  # torch's root of floats is not always rounded correctly
    return torch.cat([middle / frames, side[:, None] / frames, rotation[:, None]], 1)


def _turned(reach: Any, target: float) -> Any:
    dx, dy = reach.double().unbind(1)
    wide = (target - torch.atan2(-dy, dx).float()).double()  # then the same angles in [-pi, pi)
    return (wide - 2 * math.pi * over(wide + math.pi, 2 * math.pi).floor()).float()


def _sine(angles: Any) -> Any:
    return angles.double().sin().float()


def _cosine(angles: Any) -> Any:
    return angles.double().cos().float()

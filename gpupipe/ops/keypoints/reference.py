"""The three steps that walk over arrays (crop, detect, refine), in NumPy: their definition, and slow."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import numpy.typing as npt

from gpupipe.ops.keypoints.geometry import F, Roi
from gpupipe.ops.keypoints.graph import HEATMAP_CONFIDENCE, HEATMAP_KERNEL, OVERLAP, SCORE_BOUND, Crop, Detector
from gpupipe.ops.keypoints.points import Floats

Doubles = npt.NDArray[np.float64]

_GRID = 32  # steps a pixel is divided in


def crop(image: npt.NDArray[np.uint8], pixels: Roi, how: Crop, out: Floats) -> None:
    """Cut a region out of an image: bilinear on a grid of 1/32 pixel, rounded to 8 bits, then to float.

    Parameters
    ----------
    image : ndarray, uint8 [H, W, 3]
        RGB.
    pixels : Roi
        The region, in pixels.
    how : Crop
        Size, range and border.
    out : ndarray, float32 [size, size, 3]
        Written.
    """
    a = _to_image(pixels, how.size)
    columns = np.arange(how.size, dtype=np.float64)
    rows = columns[:, None]
    scale = a[6] * columns + (a[7] * rows + a[8])
    scale = np.divide(_GRID, scale, out=np.zeros_like(scale), where=scale != 0)
    x = _grid_steps((a[0] * columns + (a[1] * rows + a[2])) * scale)
    y = _grid_steps((a[3] * columns + (a[4] * rows + a[5])) * scale)
    left, top, right, lower = x >> 5, y >> 5, x & 31, y & 31
    total = np.zeros((how.size, how.size, 3), np.int64)
    for down, weight_y in ((0, _GRID - lower), (1, lower)):
        for across, weight_x in ((0, _GRID - right), (1, right)):
            at_x, at_y = left + across, top + down
            held_x, held_y = at_x.clip(0, image.shape[1] - 1), at_y.clip(0, image.shape[0] - 1)
            weight = weight_y * weight_x
            if how.zeros:
                weight = weight * ((at_x == held_x) & (at_y == held_y))
            total += image[held_y, held_x] * weight[:, :, None]
    out[...] = codes(how.low)[(total + 512) >> 10]


def detect(boxes: Floats, scores: Floats, detector: Detector, confidence: float) -> Floats | None:
    """The best detection's keypoints, weighted with those of all that overlap it.

    Parameters
    ----------
    boxes : ndarray, float32 [N, 4 + 2 K]
        Centre, sides and keypoints, pixels of the network's input, from each anchor.
    scores : ndarray, float32 [N]
        Logits.
    detector : Detector
        Its anchors and unit.
    confidence : float
        Detections of less are left out.

    Returns
    -------
    ndarray, float32 [K, 2], or None
        Keypoints in shares of the input.
    """
    bounded = scores.clip(-F(SCORE_BOUND), F(SCORE_BOUND))
    likely = sigmoid(bounded)
    kept = np.flatnonzero(likely >= F(confidence))
    raw, score = boxes[kept] / F(detector.size), likely[kept]
    centre, half = raw[:, :2] + anchors(detector)[kept], raw[:, 2:4] / F(2)
    low, side = centre - half, (centre + half) - (centre - half)
    whole = (side >= 0).all(axis=1)
    raw, score, low, side, kept = raw[whole], score[whole], low[whole], side[whole], kept[whole]
    if len(kept) == 0:
        return None
    order = np.argsort(-score, kind="stable")
    raw, score, low, side, kept = raw[order], score[order], low[order], side[order], kept[order]
    high = low + side
    common = np.maximum(np.minimum(high, high[0]) - np.maximum(low, low[0]), F(0))
    shared, area = common[:, 0] * common[:, 1], (high - low)[:, 0] * (high - low)[:, 1]
    union = area + area[0] - shared
    same = np.divide(shared, union, out=np.zeros_like(union), where=union > 0) > F(OVERLAP)
    if not same.any():  # a box without area
        same[0] = True
    points = raw[same, 4:].reshape(same.sum(), -1, 2) + anchors(detector)[kept[same], None]
    weights = score[same]
    keypoints: Floats = running_sum(points * weights[:, None, None]) / running_sum(weights)
    return keypoints


def refine(points: Floats, heatmap: Floats) -> Floats:
    """Move points to the mean of the heatmap around them, where the heatmap is sure.

    Parameters
    ----------
    points : ndarray, float32 [K, 3]
        In shares of the input.
    heatmap : ndarray, float32 [h, w, K]
        Logits.

    Returns
    -------
    ndarray, float32 [K, 3]
    """
    height, width, _ = heatmap.shape
    reach = HEATMAP_KERNEL // 2
    refined = points.copy()
    for place, (x, y) in enumerate(points[:, :2]):
        at_x, at_y = x * F(width), y * F(height)
        if not (-1 < at_x < width and -1 < at_y < height):  # what is between -1 and 0 is truncated to 0
            continue
        column, row = int(at_x), int(at_y)
        columns = slice(max(0, column - reach), min(width, column + reach + 1))
        rows = slice(max(0, row - reach), min(height, row + reach + 1))
        likely = sigmoid(heatmap[rows, columns, place])
        total = running_sum(likely.ravel())
        if likely.max() >= F(HEATMAP_CONFIDENCE):
            across = np.arange(columns.start, columns.stop, dtype=np.float32)
            down = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None]
            refined[place, 0] = running_sum((likely * across).ravel()) / F(width) / total
            refined[place, 1] = running_sum((likely * down).ravel()) / F(height) / total
    return refined


def sigmoid(values: Floats) -> Floats:
    """``1 / (1 + exp(-x))``, the exponential rounded to float32."""
    with np.errstate(over="ignore"):  # of 1e38 and more: the result is then 0
        likely: Floats = F(1) / (F(1) + np.exp(-values.astype(np.float64)).astype(np.float32))
    return likely


def running_sum(values: Floats) -> Floats:
    """Sum along the first axis, term after term: NumPy's own sum adds in pairs."""
    total: Floats = np.cumsum(values, axis=0, dtype=np.float32)[-1]
    return total


@cache
def codes(low: float) -> Floats:
    """Float of each 8-bit code, float32 [256]: one rounding, as a fused multiply-add does it."""
    scale = F((1 - low) / 255)
    table: Floats = (np.arange(256) * float(scale) + low).astype(np.float32)
    return table


@cache
def anchors(detector: Detector) -> Floats:
    """Centres of a detector's anchors, float32 [N, 2], in shares of its input."""
    found: list[npt.NDArray[np.float32]] = []
    for stride in sorted(set(detector.strides)):
        cells = -(-detector.size // stride)
        middle = ((np.arange(cells) + 0.5) / cells).astype(np.float32)
        grid = np.stack([np.tile(middle, cells), np.repeat(middle, cells)], axis=1)
        found.append(np.repeat(grid, 2 * detector.strides.count(stride), axis=0))
    return np.concatenate(found)


def _grid_steps(values: Doubles) -> npt.NDArray[np.int64]:
    # What lies outside of 32 bits is as far outside of the image as their edge; what is no number, too.
    bounded: Doubles = np.where(values > -(2.0**31), values, -(2.0**31)).clip(max=2.0**31 - 1)
    return np.rint(bounded).astype(np.int64)


def _to_image(pixels: Roi, size: int) -> list[float]:
    """The 3 x 3 matrix, row after row, from pixels of the crop to pixels of the image."""
    corners = _corners(pixels)
    side = float(size)
    targets = [(0.0, side), (0.0, 0.0), (side, 0.0), (side, side)]
    left: list[list[float]] = []
    right: list[float] = []
    for axis in (0, 1):
        for (x, y), target in zip(corners, targets, strict=True):
            to = target[axis]
            first = [float(x), float(y), 1.0, 0.0, 0.0, 0.0]
            row = first if axis == 0 else first[3:] + first[:3]
            left.append([*row, float(-x * F(to)), float(-y * F(to))])
            right.append(to)
    return _inverse([*_solved(left, right), 1.0])


def _corners(pixels: Roi) -> list[tuple[F, F]]:
    """Lower left, upper left, upper right, lower right of an upright region."""
    degrees = F(float(pixels.rotation * F(180)) / math.pi)
    turned = float(degrees) * math.pi / 180
    half_cos, half_sin = F(math.cos(turned)) * F(0.5), F(math.sin(turned)) * F(0.5)
    x, y, width, height, _ = pixels
    lower = (x - half_sin * height - half_cos * width, y + half_cos * height - half_sin * width)
    upper = (x + half_sin * height - half_cos * width, y - half_cos * height - half_sin * width)
    return [lower, upper, (F(2) * x - lower[0], F(2) * y - lower[1]), (F(2) * x - upper[0], F(2) * y - upper[1])]


def _solved(a: list[list[float]], b: list[float]) -> list[float]:
    """Gaussian elimination with the largest pivot, in the order of OpenCV's LU."""
    count = len(b)
    for i in range(count):
        pivot = max(range(i, count), key=lambda row: abs(a[row][i]))  # the first of equals
        a[i], a[pivot], b[i], b[pivot] = a[pivot], a[i], b[pivot], b[i]
        scale = -1 / a[i][i]
        for j in range(i + 1, count):
            alpha = a[j][i] * scale
            for k in range(i + 1, count):
                a[j][k] += alpha * a[i][k]
            b[j] += alpha * b[i]
    for i in reversed(range(count)):
        total = b[i]
        for k in range(i + 1, count):
            total -= a[i][k] * b[k]
        b[i] = total / a[i][i]
    return b


def _inverse(m: list[float]) -> list[float]:
    """Of a 3 x 3 matrix, by its cofactors."""
    a, b, c, d, e, f, g, h, i = m
    scale = 1 / (a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g))
    return [
        (e * i - f * h) * scale, (c * h - b * i) * scale, (b * f - c * e) * scale,
        (f * g - d * i) * scale, (a * i - c * g) * scale, (c * d - a * f) * scale,
        (d * h - e * g) * scale, (b * g - a * h) * scale, (a * e - b * d) * scale,
    ]  # fmt: skip

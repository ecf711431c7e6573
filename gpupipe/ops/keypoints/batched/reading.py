"""What many images' raw outputs say: detections and refined points, as :mod:`gpupipe.ops.keypoints.reference` defines.

Sums are taken in one order whatever the image's place in its batch. The detections' are of doubles here, and so differ
from the definition's by a last place now and then; all else is the same to the bit.
"""

from __future__ import annotations

from typing import Any

import torch

from gpupipe.ops.keypoints.batched.regions import over, sigmoid
from gpupipe.ops.keypoints.graph import HEATMAP_CONFIDENCE, HEATMAP_KERNEL, OVERLAP, SCORE_BOUND, Detector


def detect(boxes: Any, scores: Any, anchors: Any, detector: Detector, confidence: float) -> tuple[Any, Any]:
    """The best detections' keypoints, each weighted with those of all that overlap it.

    Parameters
    ----------
    boxes : Tensor, float32 [N, A, 4 + 2 K]
        Centre, sides and keypoints, pixels of the network's input, from each anchor.
    scores : Tensor, float32 [N, A]
        Logits.
    anchors : Tensor, float32 [A, 2]
        Their centres, in shares of the input.
    detector : Detector
        Its unit.
    confidence : float
        Detections of less are left out.

    Returns
    -------
    keypoints : Tensor, float32 [N, K, 2]
        In shares of the input; of no meaning where nothing was found.
    found : Tensor, bool [N]
    """
    likely = sigmoid(scores.clamp(-SCORE_BOUND, SCORE_BOUND))
    raw = over(boxes, detector.size)
    centre, half = raw[..., :2] + anchors, raw[..., 2:4] * 0.5
    low = centre - half
    side = (centre + half) - low
    kept = (likely >= confidence) & (side >= 0).all(2)
    weights = torch.where(kept, likely, 0)
    best = weights.argmax(1, keepdim=True)  # the first of equals
    high = low + side

    def of_best(values: Any) -> Any:
        return values.gather(1, best[..., None].expand(-1, -1, 2))

    common = (torch.minimum(high, of_best(high)) - torch.maximum(low, of_best(low))).clamp(min=0).prod(2)
    area = (high - low).prod(2)
    union = area + area.gather(1, best) - common
    same = kept & (common / union > OVERLAP)
    alone = torch.zeros_like(same).scatter(1, best, True) & kept
    same = torch.where(same.any(1, keepdim=True), same, alone)  # a box without area overlaps nothing
    weights = torch.where(same, weights, 0)
    points = raw[..., 4:].unflatten(2, (-1, 2)) + anchors[:, None]
    # What is no number must not reach the sum by a weight of 0.
    weighted = torch.where(same[..., None, None], points * weights[..., None, None], 0)
    total = _folded(weights.double())
    return (_folded(weighted.double()) / total[:, None, None]).float(), kept.any(1)


def refine(points: Any, heatmaps: Any) -> Any:
    """Move points to the mean of their heatmap around them, where it is sure.

    Parameters
    ----------
    points : Tensor, float32 [N, K, 3]
        In shares of the input.
    heatmaps : Tensor, float32 [N, h, w, K]
        Logits.

    Returns
    -------
    Tensor, float32 [N, K, 3]
    """
    _, height, width, _ = heatmaps.shape
    at_x, at_y = points[..., 0] * width, points[..., 1] * height
    inside = (at_x > -1) & (at_x < width) & (at_y > -1) & (at_y < height)  # what is between -1 and 0 becomes 0
    column, row = (torch.where(inside, at, 0).long() for at in (at_x, at_y))
    reach = torch.arange(HEATMAP_KERNEL, device=points.device) - HEATMAP_KERNEL // 2
    rows, columns = row[..., None, None] + reach[:, None], column[..., None, None] + reach
    exists = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    places = (rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)).flatten(2)
    near = heatmaps.permute(0, 3, 1, 2).flatten(2).gather(2, places)
    likely = torch.where(exists.flatten(2), sigmoid(near), 0)
    weights = torch.stack([torch.ones_like(places), *(each.expand_as(exists).flatten(2) for each in (columns, rows))])
    terms = likely * weights
    total, across, down = _added(terms)
    sure = inside & (likely.amax(2) >= HEATMAP_CONFIDENCE)
    x, y = over(across, width) / total, over(down, height) / total
    moved = torch.stack([x, y, points[..., 2]], 2)
    return torch.where(sure[..., None], moved, points)


def _folded(values: Any) -> Any:
    """Sums along the second axis, its second half added to its first until one is left: the same order everywhere."""
    count = 1 << (values.shape[1] - 1).bit_length()
    held = torch.zeros((values.shape[0], count, *values.shape[2:]), dtype=values.dtype, device=values.device)
    held[:, : values.shape[1]] = values
    while count > 1:
        count //= 2
        held = held[:, :count] + held[:, count:]
    return held[:, 0]


def _added(terms: Any) -> Any:
    """Sums along the last axis, term after term."""
    total = torch.zeros_like(terms[..., 0])
    for term in terms.unbind(-1):
        total = total + term
    return total

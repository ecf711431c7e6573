"""The three steps that walk over arrays, in native code: to the bit what gpupipe/ops/keypoints/reference.py defines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpupipe import _native
from gpupipe.ops.keypoints.geometry import Roi
from gpupipe.ops.keypoints.graph import HEATMAP_CONFIDENCE, HEATMAP_KERNEL, OVERLAP, SCORE_BOUND, Crop, Detector
from gpupipe.ops.keypoints.points import Floats
from gpupipe.ops.keypoints.reference import anchors, codes


def crop(image: npt.NDArray[np.uint8], pixels: Roi, how: Crop, out: Floats) -> None:
    """Cut a region out of an image."""
    _native.crop_region(image, pixels, how.zeros, codes(how.low), out)


def detect(boxes: Floats, scores: Floats, detector: Detector, confidence: float) -> Floats | None:
    """The best detection's keypoints."""
    keypoints = np.empty(boxes.shape[1] - 4, np.float32)
    found = _native.best_detection(
        boxes,
        scores,
        anchors(detector),
        size=detector.size,
        score_bound=SCORE_BOUND,
        confidence=confidence,
        overlap=OVERLAP,
        out=keypoints,
    )
    return keypoints.reshape(-1, 2) if found else None


def refine(points: Floats, heatmap: Floats) -> Floats:
    """Move points to the mean of the heatmap around them."""
    refined = points.copy(order="C")
    _native.refine_points(heatmap, HEATMAP_KERNEL, HEATMAP_CONFIDENCE, refined)
    return refined

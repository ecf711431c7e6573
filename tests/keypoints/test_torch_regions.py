"""Regions, detections and refined points of many images at once: what the definitions for one image say."""

import math

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="pip install torch")

from gpupipe.ops.keypoints import geometry, graph, reference  # noqa: E402
from gpupipe.ops.keypoints.batched import reading, regions  # noqa: E402
from gpupipe.ops.keypoints.geometry import F, Frame, Roi  # noqa: E402

COUNT = 300

LAST_PLACE = 1.2e-7
"""Relative: detections are summed in double and rounded once, by definition in float."""

DRAW = np.random.default_rng(0)
SIDES = DRAW.integers(1, 2000, (COUNT, 2)).astype(np.float32)
FRAMES = [Frame(*sides) for sides in SIDES]
ONE, OTHER, THIRD = (DRAW.normal(0.5, 0.5, (COUNT, 2)).astype(np.float32) for _ in range(3))
ROIS = np.column_stack(
    [DRAW.normal(0.5, 0.5, (COUNT, 2)), DRAW.uniform(0.01, 2, (COUNT, 2)), DRAW.uniform(-4, 4, COUNT)]
).astype(np.float32)
ROIS[::7, 4] = 0
POINTS = DRAW.normal(0.5, 0.5, (COUNT, 11, 3)).astype(np.float32)


def given(*arrays):
    return [torch.from_numpy(array.copy()) for array in arrays]


def same(ours, defined):
    np.testing.assert_array_equal(ours.numpy(), np.array(defined))


@pytest.mark.parametrize("target", [0.0, math.pi / 2, -math.pi / 2])
def test_rotations_and_squares(target):
    pairs = list(zip(ONE, OTHER, FRAMES, strict=True))
    same(
        regions.rotation_between(*given(ONE, OTHER, SIDES), target),
        [geometry.rotation_between(a, b, frame, target) for a, b, frame in pairs],
    )
    same(
        regions.roi_between(*given(ONE, OTHER, SIDES), target),
        [geometry.roi_between(a, b, frame, target) for a, b, frame in pairs],
    )
    same(
        regions.hand_roi(*given(ONE, OTHER, THIRD, SIDES), target),
        [geometry.hand_roi(a, b, c, frame, target) for (a, b, frame), c in zip(pairs, THIRD, strict=True)],
    )


def test_boxes():
    same(
        regions.roi_of_landmarks(*given(POINTS, ROIS[:, 4])),
        [geometry.roi_of_landmarks(points, roi[4]) for points, roi in zip(POINTS, ROIS, strict=True)],
    )
    same(
        regions.roi_of_keypoints(*given(POINTS[..., :2], ROIS[:, 4])),
        [geometry.roi_of_keypoints(points[:, :2], roi[4]) for points, roi in zip(POINTS, ROIS, strict=True)],
    )


@pytest.mark.parametrize("grow", [graph.POSE_GROW, graph.HAND_GROW, graph.RECROP_GROW, graph.FACE_GROW])
def test_growing(grow):
    defined = [geometry.grown(Roi(*roi), frame, grow) for roi, frame in zip(ROIS, FRAMES, strict=True)]
    same(regions.grown(*given(ROIS, SIDES), grow), defined)


@pytest.mark.parametrize("letterbox", [False, True])
def test_pixels_and_back(letterbox):
    pixels, padding, real = regions.in_pixels(*given(ROIS, SIDES), letterbox)
    defined = [geometry.in_pixels(Roi(*roi), frame, letterbox) for roi, frame in zip(ROIS, FRAMES, strict=True)]
    assert real.all()
    same(pixels, [square for square, _ in defined])
    same(padding, [sides for _, sides in defined])
    paired = list(zip(POINTS, defined, FRAMES, strict=True))
    same(
        regions.without_padding(*given(POINTS), padding),
        [geometry.without_padding(points, sides) for points, (_, sides), _ in paired],
    )
    same(
        regions.projected_keypoints(*given(POINTS[..., :2]), pixels, *given(SIDES)),
        [geometry.projected_keypoints(points[:, :2], square, frame) for points, (square, _), frame in paired],
    )


def test_projection():
    defined = [geometry.projected(points, Roi(*roi)) for points, roi in zip(POINTS, ROIS, strict=True)]
    same(regions.projected(*given(POINTS, ROIS)), defined)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_regions_without_extent_are_none(place, value):
    roi = np.array([0.5, 0.5, 1, 1, 0], np.float32)
    roi[place] = value
    with pytest.raises(ValueError):
        geometry.in_pixels(Roi(*roi), Frame(F(4), F(4)), True)
    for wrong in (roi, np.array([0.5, 0.5, 0, 1, 0], np.float32), np.array([0.5, 0.5, 1, -1, 0], np.float32)):
        assert not regions.in_pixels(*given(wrong[None], np.full((1, 2), 4, np.float32)), True)[2].item()


def test_sigmoid():
    values = np.concatenate([DRAW.normal(0, 30, 5000), [-1e30, 1e30, 0]]).astype(np.float32)
    same(regions.sigmoid(*given(values)), reference.sigmoid(values))


# ---- detections


def raw_boxes(seed, detector, likely):
    draw = np.random.default_rng(seed)
    count = len(reference.anchors(detector))
    boxes = draw.normal(0, detector.size / 20, (count, 12)).astype(np.float32)
    boxes[:, 2:4] = draw.uniform(detector.size / 20, detector.size / 2, (count, 2))
    scores = draw.normal(-4, 1, count).astype(np.float32)
    first = int(draw.integers(0, count - likely))
    scores[first : first + likely] = draw.normal(1, 1, likely)
    return boxes, scores


def detected(boxes, scores, detector, confidence=0.5):
    anchors = torch.from_numpy(reference.anchors(detector).copy())
    return reading.detect(*given(boxes, scores), anchors, detector, confidence)


@pytest.mark.parametrize("detector", [graph.POSE_DETECTOR, graph.FACE_DETECTOR], ids=["pose", "face"])
def test_detections(detector):
    raw = [raw_boxes(seed, detector, likely) for seed in range(6) for likely in (0, 1, 5, 40)]
    boxes, scores = (np.stack(arrays) for arrays in zip(*raw, strict=True))
    keypoints, found = detected(boxes, scores, detector)
    for ours, here, (box, score) in zip(keypoints.numpy(), found.tolist(), raw, strict=True):
        defined = reference.detect(box, score, detector, 0.5)
        assert here == (defined is not None)
        if here:
            np.testing.assert_allclose(ours, defined, rtol=LAST_PLACE * 4, atol=LAST_PLACE)


def test_detections_at_the_edges():
    """A box without area, inverted ones, no numbers, equals, the confidence itself; one case an image."""
    detector = graph.FACE_DETECTOR
    count = len(reference.anchors(detector))
    boxes, scores = np.zeros((8, count, 16), np.float32), np.full((8, count), -50, np.float32)
    boxes[..., 2:4] = 60
    scores[0, 2], boxes[0, 2, 2:4] = 3, 0
    scores[1, :3], boxes[1, 0, 2] = (9, np.nan, 1), -1
    scores[2, [4, 600]] = 2
    scores[3, 0] = 0
    scores[4, :2], boxes[4, 1, 4:] = (3, 0), np.nan
    scores[5, :2], boxes[5, 1, 2], boxes[5, 1, 4:] = (3, 2), np.nan, np.nan
    scores[7, :2], boxes[7, 0, 3], boxes[7, 1, 4:] = (3, 2), -1, 5
    keypoints, found = detected(boxes, scores, detector)
    assert found.tolist() == [True] * 6 + [False, True]
    for place in np.flatnonzero(found.numpy()):
        with np.errstate(invalid="ignore"):
            defined = reference.detect(boxes[place], scores[place], detector, 0.5)
        np.testing.assert_allclose(keypoints[place].numpy(), defined, rtol=LAST_PLACE * 4, atol=LAST_PLACE)
    assert detected(boxes[3:4], scores[3:4], detector, 0.5001)[1].tolist() == [False]


# ---- refinement


@pytest.mark.parametrize("spread", [0.0, 4.0])
def test_refinement(spread):
    heatmaps = DRAW.normal(-2, spread, (12, 64, 64, 39)).astype(np.float32)
    points = DRAW.uniform(-0.3, 1.3, (12, 39, 3)).astype(np.float32)
    points[0, :6, 0] = np.nan, np.inf, -np.inf, 1e30, 1.0, -1 / 128
    defined = [reference.refine(each, heatmap) for each, heatmap in zip(points, heatmaps, strict=True)]
    same(reading.refine(*given(points, heatmaps)), defined)


def test_refinement_where_a_heatmap_is_no_number():
    heatmaps, points = np.zeros((2, 16, 16, 2), np.float32), np.full((2, 2, 3), 0.5, np.float32)
    heatmaps[0, 0, 0] = np.nan  # out of reach
    same(
        reading.refine(*given(points, heatmaps)),
        [reference.refine(each, heatmap) for each, heatmap in zip(points, heatmaps, strict=True)],
    )

"""Crop, detect and refine: the definition in NumPy and the native code, bit for bit; and what they do at the edges."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpupipe import _native
from gpupipe.ops.keypoints.geometry import F, Roi
from gpupipe.ops.keypoints.graph import FACE_DETECTOR, NETWORKS, POSE_DETECTOR, Crop, Detector
from gpupipe.ops.keypoints.reference import anchors, codes, sigmoid
from gpupipe.ops.keypoints.stages import NATIVE, REFERENCE

LEVELS = _native.simd_levels()
CROPS = [Crop(size, low, zeros, True) for size in (1, 7, 32) for low in (0.0, -1.0) for zeros in (False, True)]
SMALL = Detector(16, (8, 8))
finite = st.floats(-1e3, 1e3, width=32)


@pytest.fixture(params=LEVELS)
def level(request):
    _native.set_simd(request.param)
    yield request.param
    _native.set_simd(None)


def cropped(steps, image, pixels, how):
    out = np.full((how.size, how.size, 3), np.nan, np.float32)
    steps.crop(image, Roi(*(F(number) for number in pixels)), how, out)
    return out


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


# ---- crop


@pytest.mark.parametrize("name", LEVELS)
@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    region=st.tuples(finite, finite, st.floats(0.125, 2e3, width=32), st.floats(0.125, 2e3, width=32)),
    turned=st.floats(-7, 7, width=32),
    how=st.sampled_from(CROPS),
)
def test_native_crops_are_the_definition(name, size, region, turned, how):
    image = picture(*size)
    _native.set_simd(name)
    try:
        ours = cropped(NATIVE, image, (*region, turned), how)
    finally:
        _native.set_simd(None)
    np.testing.assert_array_equal(ours, cropped(REFERENCE, image, (*region, turned), how))


@pytest.mark.parametrize("network", NETWORKS)
def test_native_crops_of_networks_are_the_definition(level, network):
    image, how = picture(120, 90), NETWORKS[network].crop
    for pixels in ((45, 60, 70, 70, 0.4), (0, 0, 120, 120, -3), (45, 60, 90, 120, 0), (89, 119, 3, 3, 1)):
        np.testing.assert_array_equal(cropped(NATIVE, image, pixels, how), cropped(REFERENCE, image, pixels, how))


@pytest.mark.parametrize(
    "pixels", [(1e30, 0, 5, 5, 0), (0, -1e30, 5, 5, 1), (9, 9, 1e30, 1e30, 0), (9, 9, 1e-30, 1, 0)]
)
@pytest.mark.parametrize("zeros", [False, True])
def test_monstrous_regions_do_no_harm(level, pixels, zeros):
    with np.errstate(all="ignore"):
        ours = cropped(NATIVE, picture(20, 20), pixels, Crop(16, 0.0, zeros, True))
    assert ((ours >= 0) & (ours <= 1)).all()


@pytest.mark.parametrize("steps", [REFERENCE, NATIVE])
def test_an_upright_crop_of_the_same_size_is_the_image(steps):
    image = picture(32, 32)
    found = cropped(steps, image, (16, 16, 32, 32, 0), Crop(32, 0.0, True, True))
    np.testing.assert_array_equal(found, codes(0.0)[image])


@pytest.mark.parametrize("steps", [REFERENCE, NATIVE])
def test_a_quarter_turn_turns(steps):
    image = picture(32, 32)
    found = cropped(steps, image, (16, 16, 32, 32, np.pi / 2), Crop(32, 0.0, False, True))
    # A region turned clockwise shows the image turned back. Its first line is the edge itself, beside the last pixels.
    np.testing.assert_array_equal(found[1:], codes(0.0)[np.rot90(image)][:-1])


@pytest.mark.parametrize("steps", [REFERENCE, NATIVE])
def test_outside_is_black_or_the_edge(steps):
    image = np.full((8, 8, 3), 255, np.uint8)
    away = (100, 100, 8, 8, 0)
    assert (cropped(steps, image, away, Crop(8, -1.0, True, True)) == -1).all()
    assert (cropped(steps, image, away, Crop(8, -1.0, False, True)) == codes(-1.0)[255]).all()


def test_codes_reach_both_ends():
    for low in (0.0, -1.0):
        assert codes(low)[0] == low
        assert codes(low)[255] == pytest.approx(1, abs=2e-7)  # the original's range ends one step above 1
        assert (np.diff(codes(low)) > 0).all()


def test_native_crops_refuse_what_does_not_fit():
    image, out = picture(8, 8), np.empty((4, 4, 3), np.float32)
    region, table = (4.0, 4.0, 8.0, 8.0, 0.0), codes(0.0)
    for wrong in (
        (image[:, :, :2].copy(), region, False, table, out),
        (image[::2], region, False, table, out),
        (image[:0], region, False, table, out),
        (image, region, False, table[:255].copy(), out),
        (image, region, False, table, np.empty((4, 5, 3), np.float32)),
        (image, region, False, table, np.empty((4, 4, 4), np.float32)),
        (image, region[:4], False, table, out),
    ):
        with pytest.raises(ValueError):
            _native.crop_region(*wrong)


# ---- detect


def detections(seed, detector, likely):
    """Raw output with about this many boxes that count, near one another."""
    draw = np.random.default_rng(seed)
    count = len(anchors(detector))
    boxes = draw.normal(0, detector.size / 20, (count, 12)).astype(np.float32)
    boxes[:, 2:4] = draw.uniform(detector.size / 20, detector.size / 2, (count, 2))
    scores = draw.normal(-4, 1, count).astype(np.float32)
    first = int(draw.integers(0, max(1, count - likely)))
    scores[first : first + likely] = draw.normal(1, 1, min(likely, count - first))
    return boxes, scores


@pytest.mark.parametrize("detector", [POSE_DETECTOR, FACE_DETECTOR, SMALL])
@pytest.mark.parametrize("likely", [0, 1, 5, 40])
def test_native_detections_are_the_definition(detector, likely):
    for seed in range(8):
        boxes, scores = detections(seed, detector, likely)
        ours, defined = (steps.detect(boxes, scores, detector, 0.5) for steps in (NATIVE, REFERENCE))
        if defined is None:
            assert ours is None
        else:
            np.testing.assert_array_equal(ours, defined)


@pytest.mark.parametrize("steps", [REFERENCE, NATIVE])
class TestDetect:
    count = len(anchors(SMALL))

    def blank(self):
        boxes = np.zeros((self.count, 8), np.float32)
        boxes[:, 2:4] = 8
        return boxes, np.full(self.count, -50, np.float32)

    def test_nothing(self, steps):
        assert steps.detect(*self.blank(), SMALL, 0.5) is None

    def test_one(self, steps):
        boxes, scores = self.blank()
        scores[3] = 2
        boxes[3, 4:] = (4, 0, 0, -4)
        expected = anchors(SMALL)[3] + np.array([[0.25, 0], [0, -0.25]])
        np.testing.assert_allclose(steps.detect(boxes, scores, SMALL, 0.5), expected, atol=1e-6)

    def test_those_that_overlap_are_weighed(self, steps):
        boxes, scores = self.blank()
        scores[:2] = 3, 0  # the same place: two anchors a cell
        boxes[1, 4:] = 8
        weights = sigmoid(scores[:2])
        expected = anchors(SMALL)[0] + 0.5 * weights[1] / weights.sum()
        np.testing.assert_allclose(steps.detect(boxes, scores, SMALL, 0.5), [expected, expected], atol=1e-6)

    def test_those_elsewhere_are_not(self, steps):
        boxes, scores = self.blank()
        scores[[0, -1]] = 3, 2
        np.testing.assert_allclose(steps.detect(boxes, scores, SMALL, 0.5), anchors(SMALL)[[0, 0]], atol=1e-6)

    def test_a_box_without_area(self, steps):
        boxes, scores = self.blank()
        scores[2], boxes[2, 2:4] = 3, 0
        np.testing.assert_allclose(steps.detect(boxes, scores, SMALL, 0.5), anchors(SMALL)[[2, 2]], atol=1e-6)

    def test_inverted_and_undefined_boxes_are_left_out(self, steps):
        boxes, scores = self.blank()
        scores[:3] = 9, np.nan, 1
        boxes[0, 2] = -1
        np.testing.assert_allclose(steps.detect(boxes, scores, SMALL, 0.5), anchors(SMALL)[[2, 2]], atol=1e-6)

    def test_the_confidence_itself_counts(self, steps):
        boxes, scores = self.blank()
        scores[0] = 0
        assert steps.detect(boxes, scores, SMALL, 0.5) is not None
        assert steps.detect(boxes, scores, SMALL, 0.5001) is None


def test_anchors_lie_in_the_cells_middles():
    assert anchors(POSE_DETECTOR).shape == (2254, 2)
    assert anchors(FACE_DETECTOR).shape == (896, 2)
    np.testing.assert_allclose(
        anchors(POSE_DETECTOR)[[0, 1, 2, 56]] * 28, [[0.5, 0.5], [0.5, 0.5], [1.5, 0.5], [0.5, 1.5]]
    )
    np.testing.assert_allclose(anchors(POSE_DETECTOR)[-1] * 7, [6.5, 6.5])


def test_native_detections_refuse_what_does_not_fit():
    boxes, scores = np.zeros((4, 8), np.float32), np.zeros(4, np.float32)
    places, numbers = np.zeros((4, 2), np.float32), {"size": 16, "score_bound": 100, "confidence": 0.5, "overlap": 0.3}
    for wrong in (
        (boxes[:3].copy(), scores, places, np.empty(4, np.float32)),
        (boxes, scores, places[:3].copy(), np.empty(4, np.float32)),
        (boxes, scores, places, np.empty(3, np.float32)),
        (boxes, scores, places, np.empty(6, np.float32)),
        (boxes, scores, places, np.empty(0, np.float32)),
    ):
        with pytest.raises(ValueError):
            _native.best_detection(*wrong[:3], **numbers, out=wrong[3])


# ---- refine


@settings(max_examples=60)
@given(seed=st.integers(0, 1 << 30), height=st.integers(1, 20), width=st.integers(1, 20), spread=st.floats(0, 8))
def test_native_refinement_is_the_definition(seed, height, width, spread):
    draw = np.random.default_rng(seed)
    heatmap = draw.normal(-2, spread, (height, width, 5)).astype(np.float32)
    points = draw.uniform(-0.5, 1.5, (5, 3)).astype(np.float32)
    np.testing.assert_array_equal(NATIVE.refine(points, heatmap), REFERENCE.refine(points, heatmap))


@pytest.mark.parametrize("steps", [REFERENCE, NATIVE])
class TestRefine:
    def heatmap(self, row, column):
        heatmap = np.full((64, 64, 1), -100, np.float32)
        heatmap[row, column] = 100
        return heatmap

    def test_points_go_where_the_heatmap_is(self, steps):
        refined = steps.refine(np.array([[0.5, 0.5, 7]], np.float32), self.heatmap(30, 34))
        np.testing.assert_allclose(refined, [[34 / 64, 30 / 64, 7]], atol=1e-6)

    def test_not_beyond_the_kernel(self, steps):
        points = np.array([[0.5, 0.5, 7]], np.float32)
        np.testing.assert_array_equal(steps.refine(points, self.heatmap(27, 32)), points)

    def test_not_where_it_is_unsure(self, steps):
        points = np.array([[0.5, 0.5, 7]], np.float32)
        np.testing.assert_array_equal(steps.refine(points, np.full((64, 64, 1), -0.01, np.float32)), points)

    @pytest.mark.parametrize("x", [1.0, -0.1, 1e30, np.inf, -np.inf, np.nan])
    def test_not_outside(self, steps, x):
        points = np.array([[x, 0.5, 7]], np.float32)
        np.testing.assert_array_equal(steps.refine(points, self.heatmap(32, 0)), points)

    def test_the_points_given_stay(self, steps):
        points = np.array([[0.5, 0.5, 7]], np.float32)
        steps.refine(points, self.heatmap(30, 34))
        np.testing.assert_array_equal(points, np.array([[0.5, 0.5, 7]], np.float32))


def test_native_refinement_refuses_what_does_not_fit():
    for heatmap, points in (((4, 4, 2), (3, 3)), ((4, 4, 2), (2, 2)), ((0, 4, 2), (2, 3))):
        with pytest.raises(ValueError):
            _native.refine_points(np.zeros(heatmap, np.float32), 9, 0.5, np.zeros(points, np.float32))

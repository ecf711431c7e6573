"""What the sequential modes remember: smoothing, and regions kept from the last frame."""

import numpy as np
import pytest

from gpupipe.ops.keypoints.geometry import F, Frame, Roi
from gpupipe.ops.keypoints.smoothing import STEP_SECONDS, LowPass, OneEuro
from gpupipe.ops.keypoints.tracking import FACE_KEEP, HAND_KEEP, followed, region_of_face, region_of_hand

FRAME = Frame(F(400), F(200))


def roi(x=0.5, y=0.5, width=0.2, height=0.4, degrees=0.0):
    return Roi(F(x), F(y), F(width), F(height), F(np.radians(degrees)))


def values(*numbers):
    return np.array(numbers, np.float32)


def test_low_pass_begins_with_the_first_value():
    smooth, alpha = LowPass(), values(0.25)
    np.testing.assert_array_equal(smooth.apply(values(8, 0), alpha), [8, 0])
    np.testing.assert_array_equal(smooth.apply(values(4, 4), alpha), [7, 1])
    np.testing.assert_array_equal(smooth.raw, [4, 4])


def test_one_euro_holds_what_rests_and_follows_what_moves():
    slow, fast = OneEuro(0.05, 80.0), OneEuro(0.05, 80.0)
    slow.apply(values(0.0), 1.0)
    fast.apply(values(0.0), 1.0)
    assert slow.apply(values(1e-4), 1.0)[0] < 0.1e-4
    assert fast.apply(values(10.0), 1.0)[0] > 9.9


def test_one_euro_by_its_formula():
    euro, cutoff, beta, scale = OneEuro(0.01, 10.0), 0.01, 10.0, 0.5
    euro.apply(values(1.0), scale)

    def alpha(hertz):
        return 1 / (1 + 1 / (2 * np.pi * hertz * STEP_SECONDS))

    speed = alpha(1.0) * (1.5 - 1.0) * scale / STEP_SECONDS
    believed = alpha(cutoff + beta * abs(speed))
    assert euro.apply(values(1.5), scale)[0] == pytest.approx(1.0 + 0.5 * believed, rel=1e-5)


INSIDE = np.array([[0.48, 0.5, 0], [0.52, 0.45, 0], [0.5, 0.55, 0]], np.float32)


@pytest.mark.parametrize("keep", [HAND_KEEP, FACE_KEEP])
def test_a_region_nearby_is_kept(keep):
    last = roi(x=0.505, degrees=5)
    assert followed(INSIDE, last, roi(), FRAME, keep) is last


@pytest.mark.parametrize(
    "last",
    [
        roi(x=0.5 + 0.21 * 0.2),
        roi(y=0.5 - 0.21 * 0.4),
        roi(width=0.2 * 1.41),
        roi(height=0.4 * 0.59),
        roi(degrees=41),
        roi(degrees=-41),
    ],
    ids=["aside", "above", "wide", "low", "turned", "turned back"],
)
def test_a_region_far_off_is_not(last):
    new = roi()
    assert followed(INSIDE, last, new, FRAME, HAND_KEEP) is new


def test_a_turn_is_the_short_way_round():
    last = roi(degrees=-175)
    assert followed(INSIDE, last, roi(degrees=175), FRAME, HAND_KEEP) is last


def test_points_at_the_border_are_not_followed():
    last, new, points = roi(), roi(), INSIDE.copy()
    points[0, 0] = 0.5 - 0.2 / 2 * 0.89
    assert followed(points, last, new, FRAME, HAND_KEEP) is last
    points[0, 0] = 0.5 - 0.2 / 2 * 0.91
    assert followed(points, last, new, FRAME, HAND_KEEP) is new


def upright_hand():
    """A hand in an image of 400 x 200: the wrist below, the fingers above."""
    points = np.zeros((21, 3), np.float32)
    points[:, 0], points[:, 1] = 0.5, 0.6
    points[0, 1] = 0.8
    points[[5, 9, 13], 1] = 0.5
    points[[1, 17], 0] = 0.45, 0.55
    return points


def test_region_of_a_hand():
    found = region_of_hand(upright_hand(), FRAME)
    assert found.rotation == pytest.approx(0, abs=1e-6)
    assert found.x == pytest.approx(0.5)
    side = 0.3 * 200  # pixels: the longer of its sides
    assert found.width * 400 == pytest.approx(2 * side)
    assert found.height * 200 == pytest.approx(2 * side)
    assert found.y == pytest.approx(0.65 - 0.1 * 0.3, abs=1e-6)


def test_region_of_a_hand_turns_with_it():
    hand = upright_hand()
    turned = hand.copy()  # a quarter clockwise about the middle, in pixels
    turned[:, 0] = 0.5 - (hand[:, 1] - 0.5) * 200 / 400
    turned[:, 1] = 0.5 + (hand[:, 0] - 0.5) * 400 / 200
    first, second = region_of_hand(hand, FRAME), region_of_hand(turned, FRAME)
    assert second.rotation == pytest.approx(np.pi / 2, abs=1e-5)
    assert (second.width, second.height) == pytest.approx((first.width, first.height), rel=1e-5)
    assert second.x == pytest.approx(0.5 - (first.y - 0.5) * 200 / 400, abs=1e-6)
    assert second.y == pytest.approx(0.5, abs=1e-6)


def test_region_of_a_face():
    points = np.full((468, 3), 0.5, np.float32)
    points[33, 0], points[263, 0], points[10, 1], points[152, 1] = 0.45, 0.55, 0.3, 0.7
    found = region_of_face(points, FRAME)
    assert found.rotation == pytest.approx(0, abs=1e-6)
    assert (found.x, found.y) == pytest.approx((0.5, 0.5))
    assert found.height * 200 == pytest.approx(0.4 * 200 * 1.5)
    assert found.width * 400 == pytest.approx(0.4 * 200 * 1.5)

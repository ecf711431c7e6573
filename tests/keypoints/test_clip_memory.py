"""What is remembered of a clip, and what is forgotten when."""

import numpy as np
import pytest

from gpupipe.ops.keypoints.clip_memory import ClipMemory
from gpupipe.ops.keypoints.geometry import F, Frame, Roi
from gpupipe.ops.keypoints.graph import POSE_GROW
from gpupipe.ops.keypoints.tracking import region_of_face, region_of_hand

FRAME = Frame(F(400), F(200))


def pose(x=0.5):
    """A body upright at `x`; its last two points say where it is."""
    points = np.full((35, 4), 0.5, np.float32)
    points[:, 0], points[33, 1], points[34, 1] = x, 0.6, 0.3
    return points


def hand():
    """Upright, the wrist below, with the region it says it is in."""
    points = np.zeros((21, 3), np.float32)
    points[:, 0], points[:, 1] = 0.5, 0.6
    points[0, 1], points[[5, 9, 13], 1] = 0.8, 0.5
    return points, region_of_hand(points, FRAME)


def face():
    points = np.full((468, 3), 0.5, np.float32)
    points[33, 0], points[263, 0], points[10, 1], points[152, 1] = 0.45, 0.55, 0.3, 0.7
    return points, region_of_face(points, FRAME)


def nearby(region):
    return Roi(region.x + F(0.01), *region[1:])


def test_nothing_is_known_of_a_new_clip():
    memory, (_, region) = ClipMemory(), hand()
    assert memory.begin() is None
    assert memory.follow("left_hand", region, FRAME) is region
    assert memory.follow("face", None, FRAME) is None


def test_a_body_is_expected_where_it_was():
    memory = ClipMemory()
    memory.begin()
    shown = memory.see_pose(pose(), FRAME)
    assert shown.shape == (33, 4)
    expected = memory.begin()
    assert (expected.x, expected.y) == pytest.approx((0.5, 0.6))
    assert expected.height * 200 == pytest.approx(2 * 0.3 * 200 * POSE_GROW.scale, rel=1e-6)
    assert memory.begin() is None  # a frame in which none was seen


def test_a_body_is_searched_in_every_still():
    memory = ClipMemory(static=True)
    memory.begin()
    np.testing.assert_array_equal(memory.see_pose(pose(), FRAME), pose()[:33])
    assert memory.begin() is None
    np.testing.assert_array_equal(memory.see_pose(pose(0.6), FRAME), pose(0.6)[:33])  # and is not smoothed


def test_a_body_that_was_lost_is_not_smoothed_with_what_was_before():
    memory = ClipMemory()
    for x, shown in ((0.5, 0.5), (0.501, None), (None, None), (0.6, 0.6), (0.601, None)):
        memory.begin()
        found = memory.see_pose(None if x is None else pose(x), FRAME)
        if x is None:
            assert found is None
        elif shown is None:
            assert x - 0.001 < found[0, 0] < x
        else:
            np.testing.assert_allclose(found[:, 0], shown, rtol=1e-6)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize(("part", "seen"), [("left_hand", hand), ("right_hand", hand), ("face", face)])
def test_parts_are_followed_from_the_last_frame_alone(static, part, seen):
    memory, (points, region) = ClipMemory(static), seen()
    new = nearby(region)
    memory.begin()
    memory.see(part, points)
    assert memory.follow(part, new, FRAME) is new  # what is seen counts from the next frame on
    memory.begin()
    assert memory.follow(part, new, FRAME) == region
    for other in {"left_hand", "right_hand", "face"} - {part}:
        assert memory.follow(other, new, FRAME) is new
    memory.begin()
    assert memory.follow(part, new, FRAME) is new

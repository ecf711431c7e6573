"""``.pose`` files, read by the pose-format package."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent)]

from held import Held, at_random, clip  # noqa: E402

from gpupipe.errors import InputError, OutputError, UsageError  # noqa: E402
from gpupipe.landmarks.frame_rate import Clock  # noqa: E402
from gpupipe.landmarks.packing import PACKED_POINTS  # noqa: E402
from gpupipe.landmarks.pose_file import write_pose_files  # noqa: E402
from gpupipe.landmarks.skeleton import part_slices  # noqa: E402
from gpupipe.ops.keypoints.points import FACE_68, POINTS  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its sources have escapes that newer Pythons warn of
    from pose_format import Pose
    from pose_format.utils.generic import detect_known_pose_format
    from pose_format.utils.openpose import hand_colors

PARTS_THERE = {
    "pose": "POSE_LANDMARKS",
    "face": "FACE_LANDMARKS",
    "left_hand": "LEFT_HAND_LANDMARKS",
    "right_hand": "RIGHT_HAND_LANDMARKS",
}


def read(path):
    return Pose.read(path.read_bytes())


def component(pose, name):
    """(data [T, n, 3], confidence [T, n]) of a component, found by its name."""
    start = 0
    for found in pose.header.components:
        if found.name == name:
            some = slice(start, start + len(found.points))
            return np.asarray(pose.body.data.data)[:, 0, some], pose.body.confidence[:, 0, some]
        start += len(found.points)
    raise AssertionError(name)


def test_each_part_comes_back_in_pixels(tmp_path):
    points, valid = at_random(0, 4)
    visibility = np.random.default_rng(1).uniform(0.1, 1, (4, 33)).astype(np.float32)
    there = Held([clip(points, valid, video="a", visibility=visibility, pts=np.arange(4) / 30)])
    assert write_pose_files(there, tmp_path) == 1
    pose = read(tmp_path / "train" / "a.pose")
    assert detect_known_pose_format(pose) == "holistic"
    assert (pose.header.dimensions.height, pose.header.dimensions.width) == (260, 210)
    assert pose.body.fps == pytest.approx(30)
    for part, name in PARTS_THERE.items():
        data, confidence = component(pose, name)
        wanted = points[:, part_slices(POINTS)[part]] * np.float32([210, 260, 1])
        np.testing.assert_array_equal(data, wanted)
        np.testing.assert_array_equal(confidence, visibility if part == "pose" else np.ones_like(confidence))


def test_points_have_the_names_lines_and_colours_of_its_own_converter(tmp_path):
    write_pose_files(Held([clip(*at_random(0, 1))]), tmp_path)
    body, face, left, right = read(tmp_path / "train" / "one.pose").header.components
    assert [body.format, face.format, left.format, right.format] == ["XYZC"] * 4
    assert (len(body.points), len(body.limbs)) == (33, 35)
    assert [body.points[number] for number in (0, 11, 12, 15, 16, 31, 32)] == [
        *("NOSE", "LEFT_SHOULDER", "RIGHT_SHOULDER", "LEFT_WRIST", "RIGHT_WRIST"),
        *("LEFT_FOOT_INDEX", "RIGHT_FOOT_INDEX"),
    ]
    assert {(11, 13), (13, 15), (12, 14), (14, 16), (23, 24)} <= set(body.limbs)
    assert face.points == [str(number) for number in range(468)]
    assert len(set(face.limbs)) == len(face.limbs) == 2556
    assert {(127, 34), (34, 139), (139, 127)} <= set(face.limbs)
    for hand in (left, right):
        assert (hand.points[0], hand.points[4], hand.points[8], hand.points[20]) == (
            *("WRIST", "THUMB_TIP", "INDEX_FINGER_TIP", "PINKY_TIP"),
        )
        assert len(set(hand.limbs)) == 21
        assert hand.colors.tolist() == [list(colour) for colour in hand_colors]


def test_what_was_not_found_is_masked(tmp_path):
    points, valid = at_random(2, 3)
    valid[0] = False
    valid[1] = [True, False, True, False]
    write_pose_files(Held([clip(points, valid)]), tmp_path)
    pose = read(tmp_path / "train" / "one.pose")
    assert pose.body.data.mask[0].all()
    assert not component(pose, "LEFT_HAND_LANDMARKS")[0][1].any()
    assert component(pose, "RIGHT_HAND_LANDMARKS")[1][1].all()
    assert component(pose, "POSE_LANDMARKS")[1][1:].all()  # no visibility in the source: what was found counts
    assert not component(pose, "FACE_LANDMARKS")[1][1].any()


def test_a_file_of_143_points_keeps_their_names_in_the_mesh(tmp_path):
    points, valid = at_random(3, 2, PACKED_POINTS)
    write_pose_files(Held([clip(points, valid)], PACKED_POINTS), tmp_path)
    pose = read(tmp_path / "train" / "one.pose")
    face = pose.header.components[1]
    assert face.points == [str(number) for number in FACE_68]
    assert face.limbs
    assert max(max(limb) for limb in face.limbs) < 68
    data, _ = component(pose, "FACE_LANDMARKS")
    np.testing.assert_array_equal(data, points[:, :68] * np.float32([210, 260, 1]))
    np.testing.assert_array_equal(component(pose, "LEFT_HAND_LANDMARKS")[0][..., 2], points[:, 68:89, 2])


def test_a_long_clip_in_parts_is_one_file(tmp_path):
    points, valid = at_random(4, 7)
    valid[5, 1] = False
    pts = np.arange(7) / 12.5
    whole = [clip(points, valid, pts=pts)]
    parts = [clip(points[some], valid[some], pts=pts[some]) for some in (slice(3), slice(3, 5), slice(5, 7))]
    write_pose_files(Held(whole), tmp_path / "whole")
    assert write_pose_files(Held(parts), tmp_path / "parts") == 1
    one, other = (tmp_path / name / "train" / "one.pose" for name in ("whole", "parts"))
    assert one.read_bytes() == other.read_bytes()
    assert read(one).body.fps == pytest.approx(12.5)


def test_every_video_of_the_splits_asked_for(tmp_path):
    clips = [clip(*at_random(5, 2), split=split, video=video) for split in ("train", "dev") for video in ("a", "b")]
    assert write_pose_files(Held(clips), tmp_path, splits=["dev"]) == 2
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")) == [
        "dev/a.pose",
        "dev/b.pose",
    ]
    with pytest.raises(UsageError, match=r"'test'.*train, dev"):
        write_pose_files(Held(clips), tmp_path, splits=["test"])


def test_the_rate(tmp_path):
    there = Held([clip(*at_random(6, 3))])
    write_pose_files(there, tmp_path)
    assert read(tmp_path / "train" / "one.pose").body.fps == 25  # pictures of a folder have no times
    write_pose_files(there, tmp_path, fps=59.94)
    assert read(tmp_path / "train" / "one.pose").body.fps == pytest.approx(59.94)
    with pytest.raises(UsageError, match="fps=0"):
        write_pose_files(there, tmp_path, fps=0)


def test_times_with_holes():
    assert Clock().add([np.nan, 1.0, np.nan, np.nan, 2.0, np.nan]).rate == 3
    assert Clock().add([np.nan, 1.0]).add([]).add([np.nan, 1.5]).rate == 4
    assert Clock().add([np.nan, 5.0]).rate is None
    assert Clock().add([2.0, 1.0]).rate is None


def test_a_video_that_could_not_be_read_has_no_file(tmp_path):
    points, valid = at_random(7, 2)
    write_pose_files(Held([clip(points, valid)]), tmp_path)
    failed = clip(points[:1] * 0, valid[:1] & False, shapes=(0, 0), readable=np.zeros(1, np.bool_))
    assert write_pose_files(Held([failed]), tmp_path) == 0
    assert list((tmp_path / "train").iterdir()) == []  # nor that of an earlier time


def test_frames_that_could_not_be_read_keep_their_place(tmp_path):
    points, valid = at_random(8, 3)
    points[1], valid[1] = 0, False
    shapes = [(260, 210), (0, 0), (260, 210)]
    write_pose_files(Held([clip(points, valid, shapes=shapes, readable=np.array([True, False, True]))]), tmp_path)
    pose = read(tmp_path / "train" / "one.pose")
    assert pose.header.dimensions.width == 210
    assert pose.body.data.mask.all(axis=(1, 2, 3)).tolist() == [False, True, False]


def test_pictures_of_several_sizes(tmp_path):
    points, valid = at_random(9, 2)
    write_pose_files(Held([clip(points, valid, shapes=[(100, 400), (300, 200)])]), tmp_path)
    pose = read(tmp_path / "train" / "one.pose")
    assert (pose.header.dimensions.height, pose.header.dimensions.width) == (300, 400)
    data, _ = component(pose, "POSE_LANDMARKS")
    np.testing.assert_array_equal(data[:, :, 0], points[:, :33, 0] * np.float32([[400], [200]]))


def test_without_picture_sizes_there_are_no_pixels(tmp_path):
    with pytest.raises(InputError, match=r"images0001\.png: the size of the picture"):
        write_pose_files(Held([clip(*at_random(10, 2), shapes=(0, 0))]), tmp_path)
    assert list((tmp_path / "train").iterdir()) == []


@pytest.mark.parametrize("video", ["../out", "a/b", "", "..", "x" * 300])
def test_no_name_leads_elsewhere(tmp_path, video):
    with pytest.raises(InputError, match="cannot be the name of a file"):
        write_pose_files(Held([clip(*at_random(11, 1), video=video)]), tmp_path / "in")
    assert [path.name for path in tmp_path.rglob("*.pose")] == []


def test_a_video_in_two_places(tmp_path):
    clips = [clip(*at_random(12, 1), video=video) for video in ("a", "b", "a")]
    with pytest.raises(InputError, match="train/a: its frames come in several places"):
        write_pose_files(Held(clips), tmp_path)


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "train").touch()
    with pytest.raises(OutputError, match="cannot write"):
        write_pose_files(Held([clip(*at_random(13, 1))]), tmp_path)

"""The stateless graph: with networks whose words are written down, and with the real ones."""

import numpy as np
import pytest

from gpupipe.errors import InputError
from gpupipe.ops.keypoints import graph
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.holistic import Holistic
from gpupipe.ops.keypoints.points import FACE_68, PARTS, POINTS, SLICES, Keypoints
from gpupipe.ops.keypoints.reference import anchors
from gpupipe.ops.keypoints.stages import REFERENCE, Stages

IMAGE = np.zeros((200, 100, 3), np.uint8)
SURE = 20.0
"""A logit, and more than any presence asked for."""


class Script:
    """Networks that say what they are told: one person, upright in the middle, all of it to be seen."""

    def __init__(self):
        self.inputs = {name: np.empty((n.crop.size, n.crop.size, 3), np.float32) for name, n in NETWORKS.items()}
        self.ran = []
        self.pose = np.zeros((39, 5), np.float32)
        self.pose[:, :2] = np.random.default_rng(0).uniform(100, 156, (39, 2))
        self.pose[:, 3:] = SURE
        self.said = {
            "pose_detection": detection(graph.POSE_DETECTOR, 12, (0, 0, 0, -60, 0, 0, 0, 0)),
            "pose_landmark": [self.pose.reshape(-1), one(SURE), np.full((64, 64, 39), -SURE, np.float32)],
            "hand_recrop": [np.array([[[120, 140, 130, 100]]], np.float32)],
            "hand_landmark": [np.full(63, 112, np.float32), one(SURE)],
            "face_detection": detection(graph.FACE_DETECTOR, 16, (-9, 0, 9, 0, 0, 9, 0, 12, -12, 0, 12, 0)),
            "face_landmark": [np.full((1, 1, 1404), 96, np.float32), one(SURE).reshape(1, 1, 1)],
        }

    def input(self, name):
        return self.inputs[name]

    def run(self, name):
        self.ran.append(name)
        said = self.said[name]
        return said(self.ran.count(name)) if callable(said) else said


def one(value):
    return np.array([value], np.float32)


def detection(detector, columns, keypoints):
    """One box near the middle of the input."""
    boxes, scores = np.zeros((len(anchors(detector)), columns), np.float32), None
    scores = np.full((len(boxes), 1), -SURE, np.float32)
    place = int(np.abs(anchors(detector) - 0.5).sum(axis=1).argmin())
    scores[place], boxes[place, 2:4], boxes[place, 4 : 4 + len(keypoints)] = SURE, detector.size / 2, keypoints
    return [boxes, scores]


@pytest.fixture
def script():
    return Script()


def find(script, image=IMAGE):
    return Holistic(Stages(script)).find(image)


def test_everything(script):
    found = find(script)
    assert found.valid.all()
    assert (found.points != 0).any(axis=1).all()
    assert (found.visibility == 1).all()
    assert script.ran == [
        *("pose_detection", "pose_landmark", "hand_recrop", "hand_landmark", "hand_recrop", "hand_landmark"),
        *("face_detection", "face_landmark"),
    ]


def test_nobody(script):
    script.said["pose_detection"][1][:] = -SURE
    found = find(script)
    assert not found.valid.any()
    assert not found.points.any()
    assert not found.visibility.any()
    assert script.ran == ["pose_detection"]


def test_somebody_whose_points_are_not_there(script):
    script.said["pose_landmark"][1] = one(0.5)  # not more than the confidence asked for
    assert not find(script).valid.any()
    assert script.ran == ["pose_detection", "pose_landmark"]


@pytest.mark.parametrize(("part", "wrist"), [("left_hand", 15), ("right_hand", 16)])
def test_a_hand_out_of_sight_is_not_looked_for(script, part, wrist):
    script.pose[wrist, 3] = -3  # 0.047: less than the 0.1 asked for
    found = find(script)
    assert [name for name in PARTS if found.part(name) is None] == [part]
    assert not found.points[SLICES[part]].any()
    assert script.ran.count("hand_recrop") == 1


def test_the_left_hand_is_the_one_at_the_left_wrist(script):
    script.pose[[15, 17, 19], 0] = 180, 190, 195  # the signer's left is to the right of the image
    script.pose[[16, 18, 20], 0] = 70, 60, 65
    found = find(script)
    assert found.part("left_hand")[:, 0].mean() > found.part("right_hand")[:, 0].mean() + 0.2


def test_a_hand_that_is_none(script):
    present = {1: 0.5, 2: SURE}
    points = script.said["hand_landmark"][0]
    script.said["hand_landmark"] = lambda call: [points, one(present[call])]
    found = find(script)
    assert found.valid.tolist() == [True, False, True, True]


def test_no_face_and_a_face_that_is_none(script):
    script.said["face_landmark"][1][:] = 0  # 0.5: not more than that
    assert find(script).valid.tolist() == [True, True, True, False]
    script.said["face_detection"][1][:] = -SURE
    assert find(script).valid.tolist() == [True, True, True, False]
    assert script.ran.count("face_landmark") == 1


def test_points_that_fall_together_hide_what_hangs_on_them(script):
    script.pose[:, :2] = 128
    assert find(script).valid.tolist() == [True, False, False, False]


def test_a_body_without_extent_is_nobody(script):
    script.said["pose_detection"][0][:, 4:] = 0
    assert not find(script).valid.any()


@pytest.mark.parametrize(
    ("network", "valid"),
    [
        ("pose_landmark", [True, False, False, False]),
        ("hand_recrop", [True, False, False, True]),
        ("face_detection", [True, True, True, False]),
    ],
)
def test_what_is_no_number_leads_nowhere(script, network, valid):
    script.said[network][0] = np.full_like(script.said[network][0], np.nan)
    with np.errstate(invalid="ignore"):
        assert find(script).valid.tolist() == valid


def test_arrays_of_the_caller_are_written_whole(script):
    held = Keypoints.nobody()
    held.points[:], held.visibility[:], held.valid[:] = 7, 7, True
    script.said["pose_detection"][1][:] = -SURE
    Holistic(Stages(script)).find_into(IMAGE, held)
    assert not held.points.any()
    assert not held.visibility.any()
    assert not held.valid.any()


@pytest.mark.parametrize(
    "image",
    [IMAGE[:, :, 0], IMAGE[:, :, :2], IMAGE.astype(np.float32), IMAGE[:0], np.zeros((4, 4, 4), np.uint8)],
    ids=["grey", "two channels", "floats", "empty", "four channels"],
)
def test_other_arrays_are_refused(script, image):
    with pytest.raises(InputError, match=r"expected uint8 \[height, width, 3\], RGB"):
        find(script, image)


def test_layout():
    assert POINTS == 543
    assert [SLICES[part] for part in PARTS] == [slice(0, 33), slice(33, 54), slice(54, 75), slice(75, 543)]
    assert len(FACE_68) == len(set(FACE_68)) == 68
    assert max(FACE_68) < 468


# ---- the real networks


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (64, 64)])
def test_nobody_in_nothing(stages, size):
    found = Holistic(stages).find(np.zeros((*size, 3), np.uint8))
    assert not found.valid.any()
    assert not found.points.any()


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("points", "visibility", "valid"))


def test_order_changes_nothing(stages, people):
    images, holistic = list(people.values())[:5], Holistic(stages)
    forth = [holistic.find(image) for image in images]
    back = [holistic.find(image) for image in reversed(images)][::-1]
    assert any(found.valid.any() for found in forth)
    assert all(same(a, b) for a, b in zip(forth, back, strict=True))


def test_definition_and_native_code_find_the_same(networks, people):
    image = next(iter(people.values()))
    ours, defined = Holistic(Stages(networks)).find(image), Holistic(Stages(networks, steps=REFERENCE)).find(image)
    assert ours.valid[0]
    assert same(ours, defined)


def test_rows_with_gaps_are_taken(stages, people):
    image = next(iter(people.values()))
    gaps = np.zeros((image.shape[0], image.shape[1] + 5, 3), np.uint8)[:, : image.shape[1]]
    gaps[:] = image
    assert same(Holistic(stages).find(gaps), Holistic(stages).find(image))

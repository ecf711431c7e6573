"""The stages of the Holistic graph for one image: where body, hands and face are, and the points in each place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError
from gpupipe.ops.keypoints import graph, native, reference
from gpupipe.ops.keypoints.geometry import (
    WHOLE,
    F,
    Frame,
    Point,
    Roi,
    grown,
    hand_roi,
    in_pixels,
    projected,
    projected_keypoints,
    roi_between,
    roi_of_keypoints,
    roi_of_landmarks,
    rotation_between,
    without_padding,
)
from gpupipe.ops.keypoints.graph import NETWORKS, Crop, Detector
from gpupipe.ops.keypoints.points import COUNTS, Floats

Pixels = npt.NDArray[np.uint8]


class Runner(Protocol):
    """Whatever runs the networks."""

    def input(self, name: str) -> Floats:
        """A network's input, float32 [size, size, 3], to be written."""

    def run(self, name: str) -> list[Floats]:
        """Its wanted outputs, without a batch axis."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What walks over arrays, see :mod:`gpupipe.ops.keypoints.reference`."""

    crop: Callable[[Pixels, Roi, Crop, Floats], None]
    detect: Callable[[Floats, Floats, Detector, float], Floats | None]
    refine: Callable[[Floats, Floats], Floats]


REFERENCE = Steps(reference.crop, reference.detect, reference.refine)
NATIVE = Steps(native.crop, native.detect, native.refine)


class Picture(NamedTuple):
    """One image and its sides."""

    pixels: Pixels
    frame: Frame


@dataclass(frozen=True, slots=True)
class _View:
    """A network's outputs for one region, and what leads from them back to the image."""

    outputs: list[Floats]
    roi: Roi
    pixels: Roi
    padding: Point

    def to_image(self, points: Floats) -> Floats:
        return projected(without_padding(points, self.padding), self.roi)


class Stages:
    """The stages, none of which remembers anything. Used by one thread at a time.

    Regions are in shares of the image's sides. A stage gives None where its part is not in the picture.

    Parameters
    ----------
    networks : Runner
        See :class:`gpupipe.ops.keypoints.networks.Networks`.
    detection_confidence : float
        Score a detected pose must reach.
    tracking_confidence : float
        Presence that the pose's points must exceed.
    steps : Steps
        In native code, or :data:`REFERENCE`, which gives the same.
    """

    def __init__(
        self,
        networks: Runner,
        detection_confidence: float = 0.5,
        tracking_confidence: float = 0.5,
        steps: Steps = NATIVE,
    ) -> None:
        self._networks = networks
        self._detection_confidence = detection_confidence
        self._tracking_confidence = tracking_confidence
        self._steps = steps

    def find_pose(self, picture: Picture) -> Roi | None:
        """Region of the body in the whole image."""
        view = self._look("pose_detection", picture, WHOLE)
        if view is None:
            return None
        boxes, scores = view.outputs
        keypoints = self._steps.detect(boxes, scores[:, 0], graph.POSE_DETECTOR, self._detection_confidence)
        if keypoints is None:
            return None
        middle, top = _pairs(without_padding(keypoints, view.padding)[:2])
        return grown(roi_between(middle, top, picture.frame, graph.POSE_TARGET), picture.frame, graph.POSE_GROW)

    def read_pose(self, picture: Picture, roi: Roi) -> Floats | None:
        """The body's points: x, y, z and visibility, float32 [35, 4]; the last two say where the body is."""
        view = self._look("pose_landmark", picture, roi)
        if view is None:
            return None
        raw, presence, heatmap = view.outputs
        if not presence[0] > F(self._tracking_confidence):
            return None
        raw = raw.reshape(-1, 5)
        points = self._steps.refine(raw[:, :3] / F(NETWORKS["pose_landmark"].crop.size), heatmap)
        kept = slice(COUNTS["pose"] + graph.POSE_AUXILIARY)
        return np.column_stack([view.to_image(points[kept]), reference.sigmoid(raw[kept, 3])])

    def find_hand(self, picture: Picture, guess: Roi) -> Roi | None:
        """Region of a hand in the one that :func:`guess_hand` gave."""
        view = self._look("hand_recrop", picture, guess)
        if view is None:
            return None
        raw = view.outputs[0].reshape(2, 2) / F(NETWORKS["hand_recrop"].crop.size)
        start, end = _pairs(view.to_image(raw))
        return grown(roi_between(start, end, picture.frame, graph.RECROP_TARGET), picture.frame, graph.RECROP_GROW)

    def read_hand(self, picture: Picture, roi: Roi) -> Floats | None:
        """A hand's points, float32 [21, 3]."""
        view = self._look("hand_landmark", picture, roi)
        if view is None:
            return None
        raw, presence = view.outputs
        if not presence[0] > F(graph.HAND_PRESENCE):
            return None
        points = raw.reshape(COUNTS["left_hand"], 3) / F(NETWORKS["hand_landmark"].crop.size)
        points[:, 2] /= F(graph.HAND_DEPTH)
        return view.to_image(points)

    def find_face(self, picture: Picture, guess: Roi) -> Roi | None:
        """Region of the face in the one that :func:`guess_face` gave."""
        view = self._look("face_detection", picture, guess)
        if view is None:
            return None
        boxes, scores = view.outputs
        keypoints = self._steps.detect(boxes, scores[:, 0], graph.FACE_DETECTOR, graph.FACE_CONFIDENCE)
        if keypoints is None:
            return None
        keypoints = projected_keypoints(keypoints, view.pixels, picture.frame)
        first, second = _pairs(keypoints[list(graph.EYES)])
        turned = rotation_between(first, second, picture.frame, 0.0)
        return grown(roi_of_keypoints(keypoints, turned), picture.frame, graph.MESH_GROW)

    def read_face(self, picture: Picture, roi: Roi) -> Floats | None:
        """The face's points, float32 [468, 3]."""
        view = self._look("face_landmark", picture, roi)
        if view is None:
            return None
        raw, presence = view.outputs
        if not reference.sigmoid(presence.ravel())[0] > F(graph.MESH_PRESENCE):
            return None
        return projected(raw.reshape(COUNTS["face"], 3) / F(NETWORKS["face_landmark"].crop.size), roi)

    def _look(self, name: str, picture: Picture, roi: Roi) -> _View | None:
        """What a network says of a region; None if that has no extent."""
        crop = NETWORKS[name].crop
        try:
            pixels, padding = in_pixels(roi, picture.frame, crop.letterbox)
        except ValueError:  # points that fell together; the original ends with an error here
            return None
        self._steps.crop(picture.pixels, pixels, crop, self._networks.input(name))
        return _View(self._networks.run(name), roi, pixels, padding)


def guess_hand(frame: Frame, pose: Floats, part: str) -> Roi | None:
    """Where the pose [33+, 4] says that ``"left_hand"`` or ``"right_hand"`` is; None if its wrist is not to be seen."""
    place = graph.WRISTS[part]
    if not pose[place, 3] > F(graph.WRIST_VISIBILITY):
        return None
    wrist, pinky, index = _pairs(pose[[place, place + 2, place + 4], :2])
    return grown(hand_roi(wrist, pinky, index, frame, graph.HAND_TARGET), frame, graph.HAND_GROW)


def guess_face(frame: Frame, pose: Floats) -> Roi:
    """Where the pose [33+, 4] says that the face is."""
    head = pose[: graph.POSE_FACE, :2]
    first, second = _pairs(head[list(graph.POSE_EYES)])
    turned = rotation_between(first, second, frame, 0.0)
    return grown(roi_of_landmarks(head, turned), frame, graph.FACE_GROW)


def picture_of(image: Pixels) -> Picture:
    """An image as the stages take it, its rows one behind the other.

    Raises
    ------
    InputError
        `image` is not uint8 [height, width, 3], or is empty.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"an array of {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3], RGB, not empty"
        )
    return Picture(np.ascontiguousarray(image), Frame(F(image.shape[1]), F(image.shape[0])))


def _pairs(points: Floats) -> list[Point]:
    return [(x, y) for x, y in points]

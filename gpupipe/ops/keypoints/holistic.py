"""The Holistic graph, one image at a time, each image by itself: points of body, hands and face."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
from gpupipe.ops.keypoints.points import COUNTS, Floats, Keypoints

Image = npt.NDArray[np.uint8]


class Runner(Protocol):
    """Whatever runs the networks."""

    def input(self, name: str) -> Floats:
        """A network's input, float32 [size, size, 3], to be written."""

    def run(self, name: str) -> list[Floats]:
        """Its wanted outputs, without a batch axis."""


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps that walk over arrays, see :mod:`gpupipe.ops.keypoints.reference`."""

    crop: Callable[[Image, Roi, Crop, Floats], None]
    detect: Callable[[Floats, Floats, Detector, float], Floats | None]
    refine: Callable[[Floats, Floats], Floats]


REFERENCE = Steps(reference.crop, reference.detect, reference.refine)
NATIVE = Steps(native.crop, native.detect, native.refine)


@dataclass(frozen=True, slots=True)
class _View:
    """A network's outputs for one region, and what leads from them back to the image."""

    outputs: list[Floats]
    roi: Roi
    pixels: Roi
    padding: Point

    def to_image(self, points: Floats) -> Floats:
        return projected(without_padding(points, self.padding), self.roi)


class Holistic:
    """Finds one person's points; nothing of an image is remembered for the next. Used by one thread at a time.

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

    def find(self, image: Image) -> Keypoints:
        """Points of one image.

        Parameters
        ----------
        image : ndarray, uint8 [H, W, 3], RGB
            Of any size.

        Returns
        -------
        Keypoints

        Raises
        ------
        InputError
            `image` is not such an array.
        """
        found = Keypoints.nobody()
        self.find_into(image, found)
        return found

    def find_into(self, image: Image, found: Keypoints) -> None:
        """As :meth:`find`, into arrays of the caller, all of which are written."""
        image = _checked(image)
        found.points[:], found.visibility[:], found.valid[:] = 0, 0, False
        frame = Frame(F(image.shape[1]), F(image.shape[0]))
        pose = self._pose(image, frame)
        if pose is None:
            return
        found.put("pose", pose[:, :3])
        found.visibility[:] = pose[:, 3]
        for part, points in (*self._hands(image, frame, pose), ("face", self._face(image, frame, pose))):
            if points is not None:
                found.put(part, points)

    def _look(self, name: str, image: Image, frame: Frame, roi: Roi) -> _View | None:
        """What a network says of a region; None if that has no extent."""
        crop = NETWORKS[name].crop
        try:
            pixels, padding = in_pixels(roi, frame, crop.letterbox)
        except ValueError:  # points that fell together; the original ends with an error here
            return None
        self._steps.crop(image, pixels, crop, self._networks.input(name))
        return _View(self._networks.run(name), roi, pixels, padding)

    def _pose(self, image: Image, frame: Frame) -> Floats | None:
        """x, y, z and visibility, [33, 4]."""
        view = self._look("pose_detection", image, frame, WHOLE)
        if view is None:
            return None
        boxes, scores = view.outputs
        keypoints = self._steps.detect(boxes, scores[:, 0], graph.POSE_DETECTOR, self._detection_confidence)
        if keypoints is None:
            return None
        middle, top = _pairs(without_padding(keypoints, view.padding)[:2])
        roi = grown(roi_between(middle, top, frame, graph.POSE_TARGET), frame, graph.POSE_GROW)
        view = self._look("pose_landmark", image, frame, roi)
        if view is None:
            return None
        raw, presence, heatmap = view.outputs
        if not presence[0] > F(self._tracking_confidence):
            return None
        raw = raw.reshape(graph.POSE_OUTPUTS, 5)
        points = self._steps.refine(raw[:, :3] / F(NETWORKS["pose_landmark"].crop.size), heatmap)
        body = slice(COUNTS["pose"])
        return np.column_stack([view.to_image(points[body]), reference.sigmoid(raw[body, 3])])

    def _hands(self, image: Image, frame: Frame, pose: Floats) -> list[tuple[str, Floats | None]]:
        return [(part, self._hand(image, frame, pose, wrist)) for part, wrist in graph.WRISTS.items()]

    def _hand(self, image: Image, frame: Frame, pose: Floats, wrist: int) -> Floats | None:
        if not pose[wrist, 3] > F(graph.WRIST_VISIBILITY):
            return None
        root, pinky, index = _pairs(pose[[wrist, wrist + 2, wrist + 4], :2])
        roi = grown(hand_roi(root, pinky, index, frame, graph.HAND_TARGET), frame, graph.HAND_GROW)
        view = self._look("hand_recrop", image, frame, roi)
        if view is None:
            return None
        raw = view.outputs[0].reshape(2, 2) / F(NETWORKS["hand_recrop"].crop.size)
        start, end = _pairs(view.to_image(raw))
        roi = grown(roi_between(start, end, frame, graph.RECROP_TARGET), frame, graph.RECROP_GROW)
        view = self._look("hand_landmark", image, frame, roi)
        if view is None:
            return None
        raw, presence = view.outputs
        if not presence[0] > F(graph.HAND_PRESENCE):
            return None
        points = raw.reshape(COUNTS["left_hand"], 3) / F(NETWORKS["hand_landmark"].crop.size)
        points[:, 2] /= F(graph.HAND_DEPTH)
        return view.to_image(points)

    def _face(self, image: Image, frame: Frame, pose: Floats) -> Floats | None:
        head = pose[: graph.POSE_FACE, :2]
        first, second = _pairs(head[list(graph.POSE_EYES)])
        turned = rotation_between(first, second, frame, 0.0)
        view = self._look("face_detection", image, frame, grown(roi_of_landmarks(head, turned), frame, graph.FACE_GROW))
        if view is None:
            return None
        boxes, scores = view.outputs
        keypoints = self._steps.detect(boxes, scores[:, 0], graph.FACE_DETECTOR, graph.FACE_CONFIDENCE)
        if keypoints is None:
            return None
        keypoints = projected_keypoints(keypoints, view.pixels, frame)
        first, second = _pairs(keypoints[list(graph.EYES)])
        turned = rotation_between(first, second, frame, 0.0)
        roi = grown(roi_of_keypoints(keypoints, turned), frame, graph.MESH_GROW)
        view = self._look("face_landmark", image, frame, roi)
        if view is None:
            return None
        raw, presence = view.outputs
        if not reference.sigmoid(presence.ravel())[0] > F(graph.MESH_PRESENCE):
            return None
        return projected(raw.reshape(COUNTS["face"], 3) / F(NETWORKS["face_landmark"].crop.size), roi)


def _pairs(points: Floats) -> list[Point]:
    return [(x, y) for x, y in points]


def _checked(image: Image) -> Image:
    """The image, its rows one behind the other."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(
            f"an array of {image.dtype} {list(image.shape)}, expected uint8 [height, width, 3], RGB, not empty"
        )
    return np.ascontiguousarray(image)

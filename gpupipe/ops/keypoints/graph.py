"""The Holistic graph as numbers: what each network sees, and how one region follows from another.

Every executor works from this table. Source: MediaPipe 0.10.21, ``mediapipe/modules/*/*.pbtxt`` and the calculators
they name; model complexity 1, no face refinement.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi


@dataclass(frozen=True, slots=True)
class Crop:
    """How a region of the image becomes a network's input.

    Attributes
    ----------
    size : int
        Pixels of its side.
    low : float
        What code 0 becomes; 255 becomes 1.
    zeros : bool
        Outside the image is black; else the image's edge goes on.
    letterbox : bool
        The region is made square, not stretched.
    """

    size: int
    low: float
    zeros: bool
    letterbox: bool


@dataclass(frozen=True, slots=True)
class Network:
    """One network: its crop, and which of its outputs are wanted (the others are not computed).

    Attributes
    ----------
    crop : Crop
    outputs : tuple of int
    """

    crop: Crop
    outputs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Grow:
    """From a region to the one around it: shifted along its own height, made square, scaled.

    Attributes
    ----------
    scale, shift : float
        Shares of the region's sides.
    """

    scale: float
    shift: float


@dataclass(frozen=True, slots=True)
class Detector:
    """How a detector's raw output is read.

    Attributes
    ----------
    size : int
        Pixels of its input: the unit of its numbers.
    strides : tuple of int
        Of its layers; each gives two anchors a cell.
    """

    size: int
    strides: tuple[int, ...]


NETWORKS = {
    "pose_detection": Network(Crop(224, -1.0, zeros=True, letterbox=True), (0, 1)),  # boxes, scores
    "pose_landmark": Network(Crop(256, 0.0, zeros=False, letterbox=True), (0, 1, 3)),  # points, presence, heatmap
    "hand_recrop": Network(Crop(256, 0.0, zeros=False, letterbox=True), (0,)),  # two points
    "hand_landmark": Network(Crop(224, 0.0, zeros=False, letterbox=True), (0, 1)),  # points, presence
    "face_detection": Network(Crop(128, -1.0, zeros=True, letterbox=True), (0, 1)),  # boxes, scores
    "face_landmark": Network(Crop(192, 0.0, zeros=False, letterbox=False), (0, 1)),  # points, presence (a logit)
}

POSE_DETECTOR = Detector(224, (8, 16, 32, 32, 32))
FACE_DETECTOR = Detector(128, (8, 16, 16, 16))
SCORE_BOUND = 100.0  # raw scores are clipped to +- this
OVERLAP = 0.3  # IoU above which detections are taken for one
FACE_CONFIDENCE = 0.5

POSE_TARGET = pi / 2  # from the hips' middle to the top of the head: upwards
POSE_GROW = Grow(1.25, 0.0)
POSE_AUXILIARY = 2  # after the body's points, two that say where it will be; four more are not used
HEATMAP_KERNEL = 9  # the graph's file says 7, but Python's Holistic loses that option and runs with the default
HEATMAP_CONFIDENCE = 0.5

WRISTS = {"left_hand": 15, "right_hand": 16}  # the pose's points; its pinky and index follow 2 and 4 places on
WRIST_VISIBILITY = 0.1
HAND_TARGET = pi / 2
HAND_GROW = Grow(2.7, -0.1)
RECROP_TARGET = -pi / 2
RECROP_GROW = Grow(1.0, -0.1)
HAND_PRESENCE = 0.5
HAND_DEPTH = 0.4  # the network's z is in these

POSE_FACE = 11  # the pose's first points are the face's
POSE_EYES = (5, 2)
FACE_GROW = Grow(3.0, 0.0)
EYES = (0, 1)  # of the face detector's six keypoints
MESH_GROW = Grow(2.0, -0.1)
MESH_PRESENCE = 0.5

"""The stages of the graph for a batch of images: as :class:`gpupipe.ops.keypoints.stages.Stages`, on tensors.

A stage takes and gives a place for every image of the batch, with a mask beside it: where that is False the numbers
mean nothing.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch

from gpupipe.ops.keypoints import graph
from gpupipe.ops.keypoints.batched.album import Album
from gpupipe.ops.keypoints.batched.reading import detect, refine
from gpupipe.ops.keypoints.batched.regions import (
    WHOLE,
    grown,
    hand_roi,
    in_pixels,
    over,
    projected,
    projected_keypoints,
    roi_between,
    roi_of_keypoints,
    roi_of_landmarks,
    rotation_between,
    sigmoid,
    without_padding,
)
from gpupipe.ops.keypoints.graph import NETWORKS
from gpupipe.ops.keypoints.points import COUNTS
from gpupipe.ops.keypoints.reference import anchors

Found = tuple[Any, Any]
"""Regions float32 [N, 5] or points float32 [N, K, 3+], and a bool [N]."""


class BatchRunner(Protocol):
    """Whatever runs the networks."""

    def run(self, name: str, images: Any) -> list[Any]:
        """Outputs, float32 ``[N, ...]``, of a network for images, float32 ``[N, size, size, 3]``."""


class _View(NamedTuple):
    """A network's outputs for one region of every image, and what leads from them back to the images."""

    outputs: list[Any]
    regions: Any
    pixels: Any
    padding: Any
    seen: Any

    def to_images(self, points: Any) -> Any:
        return projected(without_padding(points, self.padding), self.regions)


class BatchedStages:
    """The stages, none of which remembers anything. Made and used by one thread at a time, inside of `Runtime.work`.

    Parameters
    ----------
    networks : BatchRunner
        See :class:`gpupipe.ops.keypoints.batched.networks.TorchNetworks`.
    album : Album
        Where the images are.
    detection_confidence : float
        Score a detected pose must reach.
    tracking_confidence : float
        Presence that the pose's points must exceed.
    """

    def __init__(
        self, networks: BatchRunner, album: Album, detection_confidence: float = 0.5, tracking_confidence: float = 0.5
    ) -> None:
        self._networks = networks
        self.album = album
        self._detection_confidence = detection_confidence
        self._tracking_confidence = tracking_confidence
        device = album.frames.device
        self._whole = torch.tensor(WHOLE, device=device).repeat(len(album.frames), 1)
        self._anchors = {
            detector: torch.tensor(anchors(detector), device=device)
            for detector in (graph.POSE_DETECTOR, graph.FACE_DETECTOR)
        }

    def find_pose(self) -> Found:
        """Regions of the bodies in the whole images."""
        view = self._look("pose_detection", self._whole, self.album.taken)
        keypoints, found = self._detected(view, graph.POSE_DETECTOR, self._detection_confidence)
        middle, top = without_padding(keypoints, view.padding)[:, :2].unbind(1)
        frames = self.album.frames
        return grown(roi_between(middle, top, frames, graph.POSE_TARGET), frames, graph.POSE_GROW), found

    def read_pose(self, regions: Any, wanted: Any) -> Found:
        """The bodies' points: x, y, z and visibility, float32 [N, 35, 4]; the last two say where the body is."""
        view = self._look("pose_landmark", regions, wanted)
        raw, presence, heatmaps = view.outputs
        raw = raw.unflatten(1, (-1, 5))
        points = refine(over(raw[..., :3], NETWORKS["pose_landmark"].crop.size), heatmaps)
        kept = slice(COUNTS["pose"] + graph.POSE_AUXILIARY)
        whole = torch.cat([view.to_images(points[:, kept]), sigmoid(raw[:, kept, 3:4])], 2)
        return whole, view.seen & (presence[:, 0] > self._tracking_confidence)

    def guess_hand(self, pose: Any, wanted: Any, part: str) -> Found:
        """Where poses [N, 33+, 4] say that ``"left_hand"`` or ``"right_hand"`` is, if its wrist is to be seen."""
        place, frames = graph.WRISTS[part], self.album.frames
        wrist, pinky, index = (pose[:, place + step, :2] for step in (0, 2, 4))
        regions = grown(hand_roi(wrist, pinky, index, frames, graph.HAND_TARGET), frames, graph.HAND_GROW)
        return regions, wanted & (pose[:, place, 3] > graph.WRIST_VISIBILITY)

    def find_hand(self, guesses: Any, wanted: Any) -> Found:
        """Regions of hands in those guessed."""
        view = self._look("hand_recrop", guesses, wanted)
        raw = over(view.outputs[0].reshape(-1, 2, 2), NETWORKS["hand_recrop"].crop.size)
        start, end = view.to_images(raw).unbind(1)
        frames = self.album.frames
        return grown(roi_between(start, end, frames, graph.RECROP_TARGET), frames, graph.RECROP_GROW), view.seen

    def read_hand(self, regions: Any, wanted: Any) -> Found:
        """Hands' points, float32 [N, 21, 3]."""
        view = self._look("hand_landmark", regions, wanted)
        raw, presence = view.outputs
        points = over(raw.unflatten(1, (COUNTS["left_hand"], 3)), NETWORKS["hand_landmark"].crop.size)
        points = torch.cat([points[..., :2], over(points[..., 2:], graph.HAND_DEPTH)], 2)
        return view.to_images(points), view.seen & (presence[:, 0] > graph.HAND_PRESENCE)

    def guess_face(self, pose: Any) -> Any:
        """Where poses [N, 33+, 4] say that the faces are."""
        head, frames = pose[:, : graph.POSE_FACE, :2], self.album.frames
        first, second = (head[:, eye] for eye in graph.POSE_EYES)
        turned = rotation_between(first, second, frames, 0.0)
        return grown(roi_of_landmarks(head, turned), frames, graph.FACE_GROW)

    def find_face(self, guesses: Any, wanted: Any) -> Found:
        """Regions of faces in those guessed."""
        view, frames = self._look("face_detection", guesses, wanted), self.album.frames
        keypoints, found = self._detected(view, graph.FACE_DETECTOR, graph.FACE_CONFIDENCE)
        keypoints = projected_keypoints(keypoints, view.pixels, frames)
        first, second = (keypoints[:, eye] for eye in graph.EYES)
        turned = rotation_between(first, second, frames, 0.0)
        return grown(roi_of_keypoints(keypoints, turned), frames, graph.MESH_GROW), found

    def read_face(self, regions: Any, wanted: Any) -> Found:
        """Faces' points, float32 [N, 468, 3]."""
        view = self._look("face_landmark", regions, wanted)
        raw, presence = view.outputs
        points = over(raw.reshape(-1, COUNTS["face"], 3), NETWORKS["face_landmark"].crop.size)
        return projected(points, view.regions), view.seen & (sigmoid(presence.flatten(1)[:, 0]) > graph.MESH_PRESENCE)

    def _look(self, name: str, regions: Any, wanted: Any) -> _View:
        """What a network says of the regions that have an extent."""
        crop = NETWORKS[name].crop
        pixels, padding, real = in_pixels(regions, self.album.frames, crop.letterbox)
        seen = wanted & real
        images = self.album.crop(pixels, seen, crop)
        return _View(self._networks.run(name, images), regions, pixels, padding, seen)

    def _detected(self, view: _View, detector: graph.Detector, confidence: float) -> Found:
        boxes, scores = view.outputs
        keypoints, found = detect(boxes, scores[..., 0], self._anchors[detector], detector, confidence)
        return keypoints, found & view.seen

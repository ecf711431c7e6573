"""What is remembered of a clip from one frame to the next: where everything was, and how it moved."""

from __future__ import annotations

import numpy as np

from gpupipe.ops.keypoints.geometry import Frame, Roi, grown, roi_between
from gpupipe.ops.keypoints.graph import POSE_GROW, POSE_TARGET
from gpupipe.ops.keypoints.points import COUNTS, Floats
from gpupipe.ops.keypoints.smoothing import LowPass, OneEuro
from gpupipe.ops.keypoints.tracking import FACE_KEEP, HAND_KEEP, followed, region_of_face, region_of_hand

_BODY = slice(0, COUNTS["pose"])
_WHERE = slice(COUNTS["pose"], None)  # the pose's last two points say where it is
_LEAST_PIXELS = 1e-6  # a body of less is not smoothed


class ClipMemory:
    """One clip's. Of each frame, in their order: :meth:`begin`, :meth:`see_pose`, then part after part.

    Parameters
    ----------
    static : bool
        False is the original's video mode: the body is followed from frame to frame and its points are smoothed. True
        is its ``static_image_mode``: the body is searched in every image, but hands and face are still followed.
    """

    def __init__(self, static: bool = False) -> None:
        self._static = static
        self._body: Roi | None = None
        self._last: dict[str, Floats] = {}
        self._parts: dict[str, Floats] = {}
        self._forget_motion()

    def begin(self) -> Roi | None:
        """The next frame begins: where its body should be; None if that must be searched."""
        body, self._body = self._body, None
        self._last, self._parts = self._parts, {}
        return body

    def see_pose(self, pose: Floats | None, frame: Frame) -> Floats | None:
        """The frame's pose as read, [35, 4], or None; as shown: smoothed, [33, 4]."""
        if pose is None:
            self._forget_motion()
            return None
        if not self._static:
            pose = self._smoothed(pose, frame)
            self._body = grown(_where(pose, frame), frame, POSE_GROW)
        return pose[_BODY]

    def follow(self, part: str, new: Roi | None, frame: Frame) -> Roi | None:
        """Where to read a hand or the face: where its last points are, if that is near where it was newly found."""
        points = self._last.get(part)
        if new is None or points is None:
            return new
        if part == "face":
            return followed(points, region_of_face(points, frame), new, frame, FACE_KEEP)
        return followed(points, region_of_hand(points, frame), new, frame, HAND_KEEP)

    def see(self, part: str, points: Floats) -> None:
        """The frame's points of a hand or the face."""
        self._parts[part] = points

    def _smoothed(self, pose: Floats, frame: Frame) -> Floats:
        around = _where(pose, frame)
        pixels = float(around.width * frame.width + around.height * frame.height) / 2
        smooth = pose.copy()
        smooth[_BODY, 3] = self._seen.apply(pose[_BODY, 3], np.asarray(0.1, np.float32))
        if pixels >= _LEAST_PIXELS:
            sides = np.array([frame.width, frame.height, frame.width], np.float32)
            smooth[_BODY, :3] = self._points.apply(pose[_BODY, :3] * sides, 1 / pixels) / sides
            smooth[_WHERE, :3] = self._place.apply(pose[_WHERE, :3] * sides, 1 / pixels) / sides
        return smooth

    def _forget_motion(self) -> None:
        self._seen = LowPass()
        self._points = OneEuro(0.05, 80.0)
        self._place = OneEuro(0.01, 10.0)


def _where(pose: Floats, frame: Frame) -> Roi:
    (ax, ay), (bx, by) = pose[_WHERE, :2]
    return roi_between((ax, ay), (bx, by), frame, POSE_TARGET)

"""The Holistic graph with memory: frames of one clip in their order, or the original's static mode with its leaks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gpupipe.ops.keypoints.geometry import Frame, Roi, grown, roi_between
from gpupipe.ops.keypoints.graph import POSE_GROW, POSE_TARGET, WRISTS
from gpupipe.ops.keypoints.points import COUNTS, Floats, Keypoints
from gpupipe.ops.keypoints.smoothing import LowPass, OneEuro
from gpupipe.ops.keypoints.stages import Picture, Pixels, Stages, guess_face, guess_hand, picture_of
from gpupipe.ops.keypoints.tracking import FACE_KEEP, HAND_KEEP, Keep, followed, region_of_face, region_of_hand

_BODY = slice(0, COUNTS["pose"])
_WHERE = slice(COUNTS["pose"], None)  # the pose's last two points say where it is
_LEAST_PIXELS = 1e-6  # a body of less is not smoothed


class SequentialHolistic:
    """Finds one person's points in frame after frame. Used by one thread at a time.

    Parameters
    ----------
    stages : Stages
    static : bool
        False is the original's video mode: the body is followed from frame to frame and its points are smoothed. True
        is its ``static_image_mode``: the body is searched in every image, but hands and face are still followed, so
        that an image's result depends on those before it.
    """

    def __init__(self, stages: Stages, static: bool = False) -> None:
        self._stages = stages
        self._static = static
        self.reset()

    def reset(self) -> None:
        """Forget everything: the next image begins a clip."""
        self._body: Roi | None = None
        self._followed: dict[str, Floats | None] = {}
        self._forget_motion()

    def find(self, image: Pixels) -> Keypoints:
        """Points of the next image; see :meth:`gpupipe.ops.keypoints.holistic.Holistic.find`."""
        found = Keypoints.nobody()
        self.find_into(image, found)
        return found

    def find_into(self, image: Pixels, found: Keypoints) -> None:
        """As :meth:`find`, into arrays of the caller; all of them are written."""
        picture = picture_of(image)
        found.clear()
        pose = self._pose(picture)
        last, self._followed = self._followed, {}
        if pose is None:
            return
        found.put("pose", pose[:, :3])
        found.visibility[:] = pose[:, 3]
        for part in WRISTS:
            guess = guess_hand(picture.frame, pose, part)
            roi = None if guess is None else self._stages.find_hand(picture, guess)
            roi = _follow(roi, last.get(part), picture.frame, region_of_hand, HAND_KEEP)
            self._read(part, picture, roi, self._stages.read_hand, found)
        roi = self._stages.find_face(picture, guess_face(picture.frame, pose))
        roi = _follow(roi, last.get("face"), picture.frame, region_of_face, FACE_KEEP)
        self._read("face", picture, roi, self._stages.read_face, found)

    def _read(
        self,
        part: str,
        picture: Picture,
        roi: Roi | None,
        read: Callable[[Picture, Roi], Floats | None],
        found: Keypoints,
    ) -> None:
        points = None if roi is None else read(picture, roi)
        if points is not None:
            found.put(part, points)
        self._followed[part] = points

    def _pose(self, picture: Picture) -> Floats | None:
        """x, y, z and visibility, [33, 4]."""
        roi = self._stages.find_pose(picture) if self._body is None else self._body
        self._body = None
        pose = None if roi is None else self._stages.read_pose(picture, roi)
        if pose is None:
            self._forget_motion()
            return None
        if not self._static:
            pose = self._smoothed(pose, picture.frame)
            self._body = grown(_where(pose, picture.frame), picture.frame, POSE_GROW)
        return pose[_BODY]

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


def _follow(
    new: Roi | None, points: Floats | None, frame: Frame, region: Callable[[Floats, Frame], Roi], keep: Keep
) -> Roi | None:
    if new is None or points is None:
        return new
    return followed(points, region(points, frame), new, frame, keep)

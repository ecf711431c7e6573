"""The Holistic graph with memory: frames of one clip in their order, or the original's static mode with its leaks."""

from __future__ import annotations

from collections.abc import Callable

from gpupipe.ops.keypoints.clip_memory import ClipMemory
from gpupipe.ops.keypoints.geometry import Roi
from gpupipe.ops.keypoints.graph import WRISTS
from gpupipe.ops.keypoints.points import Floats, Keypoints
from gpupipe.ops.keypoints.stages import Picture, Pixels, Stages, guess_face, guess_hand, picture_of


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
        self._memory = ClipMemory(self._static)

    def find(self, image: Pixels) -> Keypoints:
        """Points of the next image; see :meth:`gpupipe.ops.keypoints.holistic.Holistic.find`."""
        found = Keypoints.nobody()
        self.find_into(image, found)
        return found

    def find_into(self, image: Pixels, found: Keypoints) -> None:
        """As :meth:`find`, into arrays of the caller; all of them are written."""
        picture = picture_of(image)
        found.clear()
        roi = self._memory.begin() or self._stages.find_pose(picture)
        pose = None if roi is None else self._stages.read_pose(picture, roi)
        pose = self._memory.see_pose(pose, picture.frame)
        if pose is None:
            return
        found.put("pose", pose[:, :3])
        found.visibility[:] = pose[:, 3]
        for part in WRISTS:
            guess = guess_hand(picture.frame, pose, part)
            roi = None if guess is None else self._stages.find_hand(picture, guess)
            self._read(part, picture, roi, self._stages.read_hand, found)
        roi = self._stages.find_face(picture, guess_face(picture.frame, pose))
        self._read("face", picture, roi, self._stages.read_face, found)

    def _read(
        self,
        part: str,
        picture: Picture,
        new: Roi | None,
        read: Callable[[Picture, Roi], Floats | None],
        found: Keypoints,
    ) -> None:
        roi = self._memory.follow(part, new, picture.frame)
        points = None if roi is None else read(picture, roi)
        if points is not None:
            found.put(part, points)
            self._memory.see(part, points)

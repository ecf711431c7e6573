"""The Holistic graph in stateless mode: each image by itself, as the original finds it in a graph made anew for it."""

from __future__ import annotations

from gpupipe.ops.keypoints.graph import WRISTS
from gpupipe.ops.keypoints.points import COUNTS, Keypoints
from gpupipe.ops.keypoints.stages import Pixels, Stages, guess_face, guess_hand, picture_of


class Holistic:
    """Finds one person's points; nothing of an image is remembered for the next. Used by one thread at a time.

    Parameters
    ----------
    stages : Stages
    """

    def __init__(self, stages: Stages) -> None:
        self._stages = stages

    def find(self, image: Pixels) -> Keypoints:
        """Points of one image.

        Parameters
        ----------
        image : ndarray, uint8 [H, W, 3]
            RGB, of any size.

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

    def find_into(self, image: Pixels, found: Keypoints) -> None:
        """As :meth:`find`, into arrays of the caller; all of them are written."""
        picture = picture_of(image)
        found.clear()
        roi = self._stages.find_pose(picture)
        pose = None if roi is None else self._stages.read_pose(picture, roi)
        if pose is None:
            return
        body = pose[: COUNTS["pose"]]
        found.put("pose", body[:, :3])
        found.visibility[:] = body[:, 3]
        for part in WRISTS:
            guess = guess_hand(picture.frame, body, part)
            roi = None if guess is None else self._stages.find_hand(picture, guess)
            hand = None if roi is None else self._stages.read_hand(picture, roi)
            if hand is not None:
                found.put(part, hand)
        roi = self._stages.find_face(picture, guess_face(picture.frame, body))
        face = None if roi is None else self._stages.read_face(picture, roi)
        if face is not None:
            found.put("face", face)

"""The graph in stateless mode for many images at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.batched.runtime import Array, Runtime
from gpupipe.ops.keypoints.batched.stages import BatchedStages
from gpupipe.ops.keypoints.graph import WRISTS
from gpupipe.ops.keypoints.points import COUNTS, Keypoints
from gpupipe.ops.keypoints.stages import Picture, Pixels, picture_of


class BatchedHolistic:
    """Finds one person's points in each of many images; none depends on the others. Used by one thread at a time.

    Parameters
    ----------
    runtime : Runtime
    stages : BatchedStages
        Its album has the runtime's batch.
    """

    def __init__(self, runtime: Runtime, stages: BatchedStages) -> None:
        self._runtime, self._stages = runtime, stages
        self._find = runtime.captured(self._found)

    def find_all(self, images: Sequence[Pixels], into: Sequence[Keypoints]) -> None:
        """Points of each image, as :meth:`gpupipe.ops.keypoints.holistic.Holistic.find_into` has them.

        Parameters
        ----------
        images : sequence of ndarray, uint8 [H, W, 3]
            RGB, as many and of any sizes. Multiples of the runtime's batch waste nothing.
        into : sequence of Keypoints
            As many; all of their arrays are written.

        Raises
        ------
        InputError
            An image is not such an array; nothing is written.
        DeviceMemoryError, DeviceLostError
            See :meth:`gpupipe.ops.keypoints.batched.runtime.Runtime.work`.
        """
        pictures = pictures_of(images, into)
        batch = self._runtime.batch
        ended: Callable[[], None] | None = None
        with self._runtime.work():
            for first in range(0, len(pictures), batch):
                begun = self._begin(pictures[first : first + batch], into[first : first + batch])
                if ended is not None:  # on a GPU the last batch's results come while this one is worked
                    ended()
                ended = begun
            if ended is not None:
                ended()

    def _begin(self, pictures: Sequence[Picture], into: Sequence[Keypoints]) -> Callable[[], None]:
        self._stages.album.load(pictures)
        fetched = self._runtime.fetch(self._find())
        return lambda: _write(fetched(), into)

    def _found(self) -> tuple[Any, ...]:
        """Points [N, 543, 3], visibility [N, 33] and valid [N, 4] of the album's images."""
        stages = self._stages
        pose, body = stages.read_pose(*stages.find_pose())
        parts = [(pose[:, : COUNTS["pose"], :3], body)]
        for part in WRISTS:
            guesses, wanted = stages.guess_hand(pose, body, part)
            parts.append(stages.read_hand(*stages.find_hand(guesses, wanted)))
        parts.append(stages.read_face(*stages.find_face(stages.guess_face(pose), body)))
        points = torch.cat([torch.where(found[:, None, None], each, 0) for each, found in parts], 1)
        visibility = torch.where(body[:, None], pose[:, : COUNTS["pose"], 3], 0)
        return points, visibility, torch.stack([found for _, found in parts], 1)


def pictures_of(images: Sequence[Pixels], into: Sequence[Keypoints]) -> list[Picture]:
    """Images as the stages take them.

    Raises
    ------
    InputError
        One is not uint8 [height, width, 3], or is empty.
    UsageError
        There is not a place for each.
    """
    if len(images) != len(into):
        raise UsageError(f"{len(images)} images, places for the points of {len(into)}; expected as many")
    return [picture_of(image) for image in images]


def _write(arrays: Sequence[Array], into: Sequence[Keypoints]) -> None:
    points, visibility, valid = arrays
    for place, keypoints in enumerate(into):
        keypoints.points[:] = points[place]
        keypoints.visibility[:] = visibility[place]
        keypoints.valid[:] = valid[place]

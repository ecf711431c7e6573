"""The images of one batch, where their crops are cut: in host memory."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from gpupipe.ops.keypoints import native
from gpupipe.ops.keypoints.geometry import Roi
from gpupipe.ops.keypoints.graph import Crop
from gpupipe.ops.keypoints.stages import Picture


class Album(ABC):
    """Images of any sizes, as many as a batch has places; places left over are empty.

    Attributes
    ----------
    frames : Tensor, float32 [N, 2]
        Width and height of each image, 1 and 1 of an empty place; the same memory for every batch.
    taken : Tensor, bool [N]
        Whether there is an image; likewise.
    """

    frames: Any
    taken: Any

    @abstractmethod
    def load(self, pictures: Sequence[Picture]) -> None:
        """Take the next batch's images, N of them at most."""

    @abstractmethod
    def crop(self, regions: Any, wanted: Any, how: Crop) -> Any:
        """Cut one region out of every image.

        Parameters
        ----------
        regions : Tensor, float32 [N, 5]
            In pixels.
        wanted : Tensor, bool [N]
            Where False, and where the place is empty, all is 0.
        how : Crop
            Size, range and border.

        Returns
        -------
        Tensor, float32 [N, size, size, 3]
            To the bit what :func:`gpupipe.ops.keypoints.reference.crop` defines.
        """


def frames_of(pictures: Sequence[Picture], batch: int) -> tuple[np.ndarray, np.ndarray]:
    """What :attr:`Album.frames` and :attr:`Album.taken` hold."""
    frames = np.ones((batch, 2), np.float32)
    for place, picture in enumerate(pictures):
        frames[place] = picture.frame
    return frames, np.arange(batch) < len(pictures)


class HostAlbum(Album):
    """Crops by native code, one after the other."""

    def __init__(self, batch: int) -> None:
        self.frames = torch.ones((batch, 2))
        self.taken = torch.zeros(batch, dtype=torch.bool)
        self._pictures: Sequence[Picture] = ()

    def load(self, pictures: Sequence[Picture]) -> None:
        """Refer to them."""
        frames, taken = frames_of(pictures, len(self.frames))
        self.frames.copy_(torch.from_numpy(frames))
        self.taken.copy_(torch.from_numpy(taken))
        self._pictures = pictures

    def crop(self, regions: Any, wanted: Any, how: Crop) -> Any:
        """One region after the other."""
        crops = np.zeros((len(regions), how.size, how.size, 3), np.float32)
        pixels = regions.numpy()
        for place in np.flatnonzero((wanted & self.taken).numpy()).tolist():
            native.crop(self._pictures[place].pixels, Roi(*pixels[place]), how, crops[place])
        return torch.from_numpy(crops)

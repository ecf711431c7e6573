"""Keypoints held in memory, with the face of an opened file."""

from __future__ import annotations

import numpy as np

from gpupipe.landmarks.clip import Clip
from gpupipe.ops.keypoints.points import POINTS


class Held:
    """Clips by split, handed out as a file's reader does."""

    def __init__(self, clips, points=POINTS):
        self._clips = list(clips)
        self.points = points

    @property
    def splits(self):
        return tuple(dict.fromkeys(clip.split for clip in self._clips))

    def clips(self, split):
        return iter([clip for clip in self._clips if clip.split == split])

    def close(self):
        pass


def clip(points, valid, split="train", video="one", shapes=(260, 210), paths=None, visibility=None, pts=None, **rest):
    """A clip of points [T, K, 3] and valid [T, 4]; what is left out is as in a folder of pictures."""
    count = len(points)
    return Clip(
        split,
        video,
        paths or [f"/data/{split}/{video}/images{number + 1:04d}.png" for number in range(count)],
        np.asarray(points, np.float32),
        np.asarray(valid, np.bool_),
        visibility,
        np.broadcast_to(np.asarray(shapes, np.int32), (count, 2)),
        np.full(count, np.nan) if pts is None else np.asarray(pts, np.float64),
        rest.get("readable", np.ones(count, np.bool_)),
    )


def at_random(seed, count, points=POINTS):
    """Points float32 [T, K, 3], and everything found."""
    points = np.random.default_rng(seed).normal(0.5, 0.3, (count, points, 3)).astype(np.float32)
    return points, np.ones((count, 4), np.bool_)

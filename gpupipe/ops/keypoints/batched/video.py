"""The graph with memory for many clips in lock-step: of each its next frame, all frames of a step as one batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.batched.holistic import pictures_of
from gpupipe.ops.keypoints.batched.runtime import Runtime, Tensors
from gpupipe.ops.keypoints.batched.stages import BatchedStages
from gpupipe.ops.keypoints.clip_memory import ClipMemory
from gpupipe.ops.keypoints.geometry import Roi
from gpupipe.ops.keypoints.graph import WRISTS
from gpupipe.ops.keypoints.points import Floats, Keypoints
from gpupipe.ops.keypoints.stages import Picture, Pixels, guess_face, guess_hand

Stage = Callable[..., Tensors]


class LockStepHolistic:
    """Finds one person's points in each clip, frame after frame. Used by one thread at a time.

    Networks and crops run on the device; what is remembered of a clip is on the host, and is what
    :class:`gpupipe.ops.keypoints.video.SequentialHolistic` remembers.

    Parameters
    ----------
    runtime : Runtime
    stages : BatchedStages
        Its album has the runtime's batch.
    """

    def __init__(self, runtime: Runtime, stages: BatchedStages) -> None:
        self._runtime, self._album = runtime, stages.album
        self._find_pose, self._read_pose, self._find_hand, self._read_hand, self._find_face, self._read_face = (
            runtime.captured(stage)
            for stage in (
                stages.find_pose,
                stages.read_pose,
                stages.find_hand,
                stages.read_hand,
                stages.find_face,
                stages.read_face,
            )
        )

    def step(self, clips: Sequence[ClipMemory], images: Sequence[Pixels], into: Sequence[Keypoints]) -> None:
        """Points of the next image of each clip; which clips are together changes nothing.

        Parameters
        ----------
        clips : sequence of ClipMemory
            Each once, in whatever order.
        images : sequence of ndarray, uint8 [H, W, 3]
            RGB, one for each clip, of any sizes.
        into : sequence of Keypoints
            One for each; all of their arrays are written.

        Raises
        ------
        InputError
            An image is not such an array; nothing is written, and nothing is remembered of this step.
        DeviceMemoryError, DeviceLostError
            See :meth:`gpupipe.ops.keypoints.batched.runtime.Runtime.work`. What was remembered is of no more use.
        """
        if len(clips) != len(images) or len({id(clip) for clip in clips}) != len(clips):
            raise UsageError(f"{len(images)} images for {len(clips)} clips; expected one for each, each clip once")
        pictures = pictures_of(images, into)
        with self._runtime.work():
            for first in range(0, len(clips), self._runtime.batch):
                part = slice(first, first + self._runtime.batch)
                self._step(clips[part], pictures[part], into[part])

    def _step(self, clips: Sequence[ClipMemory], pictures: Sequence[Picture], into: Sequence[Keypoints]) -> None:
        self._album.load(pictures)
        frames = [picture.frame for picture in pictures]
        bodies = [clip.begin() for clip in clips]
        if any(body is None for body in bodies):
            searched = self._regions(self._find_pose())
            bodies = [body or new for body, new in zip(bodies, searched, strict=False)]
        read = self._points(self._read_pose, bodies)
        poses = [clip.see_pose(pose, frame) for clip, pose, frame in zip(clips, read, frames, strict=True)]
        for found, pose in zip(into, poses, strict=True):
            found.clear()
            if pose is not None:
                found.put("pose", pose[:, :3])
                found.visibility[:] = pose[:, 3]
        for part in WRISTS:
            guesses = [
                None if pose is None else guess_hand(frame, pose, part)
                for frame, pose in zip(frames, poses, strict=True)
            ]
            self._follow(part, guesses, (self._find_hand, self._read_hand), clips, pictures, into)
        faces = [None if pose is None else guess_face(frame, pose) for frame, pose in zip(frames, poses, strict=True)]
        self._follow("face", faces, (self._find_face, self._read_face), clips, pictures, into)

    def _follow(
        self,
        part: str,
        guesses: Sequence[Roi | None],
        stages: tuple[Stage, Stage],
        clips: Sequence[ClipMemory],
        pictures: Sequence[Picture],
        into: Sequence[Keypoints],
    ) -> None:
        """Find and read one part of every body that has it."""
        find, read = stages
        new = self._regions(find(*self._given(guesses))) if _any(guesses) else [None] * len(guesses)
        places = [
            clip.follow(part, region, picture.frame)
            for clip, region, picture in zip(clips, new, pictures, strict=False)
        ]
        for clip, points, found in zip(clips, self._points(read, places), into, strict=True):
            if points is not None:
                found.put(part, points)
                clip.see(part, points)

    def _points(self, read: Stage, regions: Sequence[Roi | None]) -> list[Floats | None]:
        """What a stage reads in regions; it is not asked where there is none."""
        if not _any(regions):
            return [None] * len(regions)
        points, found = self._runtime.fetch(read(*self._given(regions)))()
        # Copies: what a clip remembers should not hold the whole batch's.
        return [points[place].copy() if found[place] else None for place in range(len(regions))]

    def _regions(self, found: Tensors) -> list[Roi | None]:
        """Of the whole batch."""
        regions, there = self._runtime.fetch(found)()
        return [Roi(*region) if here else None for region, here in zip(regions, there, strict=True)]

    def _given(self, regions: Sequence[Roi | None]) -> tuple[Any, Any]:
        """Regions as a stage takes them."""
        rows = np.zeros((self._runtime.batch, len(Roi._fields)), np.float32)
        wanted = np.zeros(len(rows), np.bool_)
        for place, region in enumerate(regions):
            if region is not None:
                rows[place], wanted[place] = region, True
        return self._runtime.to_device(rows), self._runtime.to_device(wanted)


def _any(regions: Iterable[Roi | None]) -> bool:
    return any(region is not None for region in regions)

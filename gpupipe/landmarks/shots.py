"""Single frames out of keypoint files: one after the other, or a few chosen at random."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.skeleton import part_slices
from gpupipe.ops.keypoints.points import PARTS, Floats


@dataclass(frozen=True, slots=True)
class Shot:
    """One frame and what was found in it; the attributes are those of a :class:`~gpupipe.landmarks.clip.Clip`."""

    split: str
    video: str
    path: str
    points: Floats
    valid: npt.NDArray[np.bool_]
    visibility: Floats | None
    shape: tuple[int, int]
    readable: bool

    def part(self, name: str) -> Floats | None:
        """One part's points, float32 [its count, 3]; None if it was not found."""
        return self.points[part_slices(len(self.points))[name]] if self.valid[PARTS.index(name)] else None

    @property
    def frame(self) -> str:
        """Which of its video it is, in words: ``images0012.png`` or ``frame 12``."""
        name = self.path.rpartition("/")[2]
        found = re.fullmatch(r".+#([0-9]+)", name)
        return name if found is None else f"frame {found[1]}"


@dataclass
class Sample:
    """Frames of a split chosen at random, in their order, and how many frames and which videos it has."""

    shots: list[Shot]
    frames: int
    videos: list[str]


def shots(clip: Clip, places: Iterable[int] | None = None) -> Iterator[Shot]:
    """The frames of a clip, or some of them; they hold its arrays."""
    for place in range(len(clip)) if places is None else places:
        yield Shot(
            clip.split,
            clip.video,
            clip.paths[place],
            clip.points[place],
            clip.valid[place],
            None if clip.visibility is None else clip.visibility[place],
            (int(clip.shapes[place, 0]), int(clip.shapes[place, 1])),
            bool(clip.readable[place]),
        )


def sample(clips: Iterable[Clip], count: int, seed: int) -> Sample:
    """Choose `count` frames of a split, each as likely as any other, in one pass; fewer where it has fewer."""
    draw = random.Random(seed)
    chosen: list[tuple[int, Shot]] = []
    videos: dict[str, None] = {}
    frames = 0
    for clip in clips:
        videos[clip.video] = None
        taken = []  # (place among the chosen, place in the clip)
        for place in range(len(clip)):
            frames += 1
            at = frames - 1 if frames <= count else draw.randrange(frames)
            if at < count:
                taken.append((at, place))
        for (at, place), shot in zip(taken, shots(_copied(clip, taken), range(len(taken))), strict=True):
            chosen[at : at + 1] = [(frames - len(clip) + place, shot)]
    return Sample([shot for _, shot in sorted(chosen, key=lambda pair: pair[0])], frames, list(videos))


def _copied(clip: Clip, taken: list[tuple[int, int]]) -> Clip:
    """The frames taken alone, so that the whole clip need not be kept."""
    places = [place for _, place in taken]
    return Clip(
        clip.split,
        clip.video,
        [clip.paths[place] for place in places],
        clip.points[places],
        clip.valid[places],
        None if clip.visibility is None else clip.visibility[places],
        clip.shapes[places],
        clip.pts_seconds[places],
        clip.readable[places],
    )

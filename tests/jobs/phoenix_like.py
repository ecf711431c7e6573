"""A tree as PHOENIX-2014-T has it, of few small pictures of people."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "keypoints")]

from people import sample_people, shared_clips, shared_people  # noqa: E402

from gpupipe.errors import MissingInputError  # noqa: E402
from gpupipe.ops.keypoints.original import environment_folder, original_python  # noqa: E402

FEATURES = "features/fullFrame-210x260px"
FRAMES = {("train", "01April-1"): 3, ("train", "02May-2"): 2, ("dev", "03June-3"): 2, ("test", "04July-4"): 2}
"""Frames of each video; the last frame of the last one shows nobody."""

_SIZE = (210, 260)


def people():
    """Pictures of one person each, uint8 [H, W, 3], at least nine; skips where there are none."""
    found = [frame for clip in shared_clips() for frame in clip[:5]]
    if not found:
        try:
            original_python()
        except MissingInputError as error:
            pytest.skip(f"no images with people beside the checkout; {error}")
        found = list(sample_people(environment_folder()).values()) * 2
    return found


def portrait():
    """One still of a person, its hands in sight where the pictures beside the checkout are there."""
    stills = shared_people() or dict(enumerate(people()))
    return stills.get("fake_human.png", next(iter(stills.values())))


def upright_cut(frame):
    """Its middle, as large as the corpus has its pictures."""
    picture = Image.fromarray(frame)
    width = min(picture.width, picture.height * _SIZE[0] // _SIZE[1])
    left = (picture.width - width) // 2
    return picture.crop((left, 0, left + width, picture.height)).resize(_SIZE)


def write_tree(root):
    """Write the corpus under `root`; returns it."""
    frames = iter(people())
    for (split, video), count in FRAMES.items():
        folder = root / FEATURES / split / video
        folder.mkdir(parents=True)
        for number in range(1, count + 1):
            nobody = (split, number) == ("test", count)
            picture = Image.fromarray(np.full((260, 210, 3), 90, np.uint8)) if nobody else upright_cut(next(frames))
            picture.save(folder / f"images{number:04d}.png")
    said = root / "annotations" / "manual"
    said.mkdir(parents=True)
    for split in ("train", "dev", "test"):
        videos = [video for there, video in FRAMES if there == split]
        lines = ["name|video|start|end|speaker|orth|translation"]
        lines += [
            f"{video}|{video}/1/*.png|-1|-1|Signer01|JETZT WETTER|und nun das wetter für {split} ." for video in videos
        ]
        (said / f"PHOENIX-2014-T.{split}.corpus.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return root

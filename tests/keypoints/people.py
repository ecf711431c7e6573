"""Images with people: those beside the checkout; where there are none, one that comes with MediaPipe's environment."""

from __future__ import annotations

import itertools
from pathlib import Path

import av
import numpy as np
from PIL import Image

SHARED = Path(__file__).parents[2].parent / "shared"
STILLS = ("astronaut.png", "fake_human.png", "grace_hopper.jpg")
FRAMES = (
    ("asl_book_480p.mkv", 10),
    ("asl_book_480p.mkv", 63),
    ("sign_540x720_portrait.mp4", 21),
    ("sign_540x720_portrait.mp4", 36),
    ("hand_yuv444_portrait.mp4", 32),
    ("squats_portrait_5fps_cbp.mp4", 23),
    ("biker_720p_25fps.mp4", 87),
    ("driving_720p_24fps.mp4", 45),
    ("one_by_one_person_10fps_139s.mp4", 139),
)
CLIPS = (("asl_book_480p.mkv", 20), ("sign_540x720_portrait.mp4", 10))
CLIP_FRAMES = 16
SAMPLE = "lib/python3*/site-packages/matplotlib/mpl-data/sample_data/grace_hopper.jpg"


def shared_people():
    """Name to image, uint8 [H, W, 3]; empty where the checkout stands alone."""
    people = {name: still(SHARED / "people" / name) for name in STILLS if (SHARED / "people" / name).exists()}
    for name, number in FRAMES:
        if (SHARED / "media" / name).exists():
            people[f"{name} {number}"] = frame(SHARED / "media" / name, number)
    return people


def shared_clips():
    """Frames of clips, in their order: lists of uint8 [H, W, 3]; empty where the checkout stands alone."""
    return [
        frames(SHARED / "media" / name, first, CLIP_FRAMES)
        for name, first in CLIPS
        if (SHARED / "media" / name).exists()
    ]


def sample_clips(environment):
    """One picture of MediaPipe's environment, pushed sideways."""
    whole = sample_people(environment)["grace hopper"]
    return [[np.roll(whole, 3 * number, axis=1) for number in range(CLIP_FRAMES)]]


def sample_people(environment):
    """One picture of MediaPipe's environment in several cuts: few, but never none."""
    (path,) = environment.glob(SAMPLE)
    whole = still(path)
    return {
        "grace hopper": whole,
        "mirrored": np.ascontiguousarray(whole[:, ::-1]),
        "closer": whole[40:440, 90:430].copy(),
        "half size": whole[::2, ::2].copy(),
        "off the middle": np.pad(whole, ((0, 0), (300, 0), (0, 0))),
    }


def still(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def frame(path, number):
    return frames(path, number, 1)[0]


def frames(path, first, count):
    with av.open(str(path)) as file:
        pictures = list(itertools.islice(file.decode(video=0), first, first + count))
    assert len(pictures) == count, f"{path} has no {count} frames from {first}"
    return [picture.to_ndarray(format="rgb24") for picture in pictures]

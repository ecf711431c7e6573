"""The networks, MediaPipe itself, and what it finds in images of people, once a session."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from model_files import require_models  # noqa: E402
from people import sample_clips, sample_people, shared_clips, shared_people  # noqa: E402

from gpupipe.errors import MissingInputError  # noqa: E402
from gpupipe.ops.keypoints.geometry import F, Roi  # noqa: E402
from gpupipe.ops.keypoints.graph import NETWORKS  # noqa: E402
from gpupipe.ops.keypoints.networks import Networks  # noqa: E402
from gpupipe.ops.keypoints.original import environment_folder, original_python  # noqa: E402
from gpupipe.ops.keypoints.stages import Stages  # noqa: E402

JUDGE = Path(__file__).with_name("judge.py")
CROPS = 24


@pytest.fixture(scope="session")
def models():
    """The network files, fetched if they never were."""
    return require_models()


@pytest.fixture(scope="session")
def networks(models):
    pytest.importorskip("ai_edge_litert", reason="pip install gpupipe[keypoints]")
    return Networks(models)


@pytest.fixture(scope="session")
def stages(networks):
    return Stages(networks)


@pytest.fixture(scope="session")
def people():
    """Name to image of people."""
    found = shared_people()
    if not found:
        try:
            original_python()
        except MissingInputError as error:
            pytest.skip(f"no images with people beside the checkout; {error}")
        found = sample_people(environment_folder())
    return found


@dataclass
class Judged:
    """Images with people, clips, crops of the images, and MediaPipe's answer to all: see judge.py."""

    images: list
    clips: list
    crops: list
    answer: dict

    def found(self, run, number, what):
        return self.answer.get(f"{run}/{number}/{what}")


@pytest.fixture(scope="session")
def judged(people, tmp_path_factory):
    """MediaPipe on images of people."""
    try:
        python = original_python()
    except MissingInputError as error:
        pytest.skip(str(error))
    images, folder = list(people.values()), tmp_path_factory.mktemp("judge")
    crops = some_crops(images)
    request = {f"image-{number}": image for number, image in enumerate(images)}
    for number, (image, pixels, how) in enumerate(crops):
        degrees = F(float(pixels.rotation * F(180)) / math.pi)
        request[f"crop-{number}"] = np.array([image, *pixels[:4], degrees, how.size, how.zeros], np.float64)
    clips = shared_clips() or sample_clips(environment_folder())
    for clip, frames in enumerate(clips):
        request |= {f"clip-{clip}-{number}": frame for number, frame in enumerate(frames)}
    np.savez(folder / "request.npz", **request)
    command = [str(python), str(JUDGE), str(folder / "request.npz"), str(folder / "answer.npz")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Judged(images, clips, crops, dict(np.load(folder / "answer.npz")))


def some_crops(images):
    """Regions at random, inside images and half outside: (image, pixels, how)."""
    draw = np.random.default_rng(0)
    crops, hows = [], [network.crop for network in NETWORKS.values()]
    for number in range(CROPS):
        image, how = int(draw.integers(len(images))), hows[number % len(hows)]
        height, width = images[image].shape[:2]
        sides = draw.uniform(0.05, 1.5, 2) * min(height, width)
        x, y, turned = draw.uniform(-0.1, 1.1) * width, draw.uniform(-0.1, 1.1) * height, draw.uniform(-3.1, 3.1)
        crops.append((image, Roi(*(F(value) for value in (x, y, sides[0], sides[1 - how.letterbox], turned))), how))
    return crops

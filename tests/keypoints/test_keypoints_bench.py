"""The benchmark runs, small and without MediaPipe, so that it cannot rot."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT)]

from bench.keypoints import _pixels, batched  # noqa: E402
from gpupipe.ops.keypoints.models import MODELS  # noqa: E402
from gpupipe.ops.keypoints.points import Keypoints  # noqa: E402


@pytest.fixture
def pictures(tmp_path):
    """A still and a video with nobody in them."""
    Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(tmp_path / "still.png")
    with av.open(str(tmp_path / "clip.mkv"), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 80, 60, "bgr0"
        for _ in range(5):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((60, 80, 3), np.uint8), format="rgb24")))
        file.mux(stream.encode(None))
    return [str(tmp_path / "still.png"), str(tmp_path / "clip.mkv")]


@pytest.fixture
def model_cache(tmp_path, models):
    """A cache folder with the models and nothing else."""
    pytest.importorskip("ai_edge_litert", reason="pip install gpupipe[keypoints]")
    for model in MODELS:
        path = tmp_path / "cache/gpupipe/mediapipe" / model.path
        path.parent.mkdir(parents=True)
        path.write_bytes(models[model.name])
    return tmp_path / "cache"


def test_it_measures_ours_and_says_that_mediapipe_is_missing(tmp_path, pictures, model_cache):
    command = [
        sys.executable,
        "-m",
        "bench.keypoints",
        "--rounds",
        "1",
        "--machine",
        "here",
        "--results",
        str(tmp_path),
    ]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(model_cache))
    words = [*command, "--results", str(tmp_path), "--images", *pictures]
    ended = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    last = json.loads(ended.stdout.splitlines()[-1])
    assert last["stills"] == 4
    assert last["clips"] == 1
    assert last["parts_found"] == {"pose": 0, "left_hand": 0, "right_hand": 0, "face": 0}
    assert set(last["tools"]) == {"stateless", "video"}
    assert all(tool["cpu_ms"] > 0 for tool in last["tools"].values())
    assert 0 < last["resident_mb"] < 350
    assert "gpupipe models fetch mediapipe --environment" in last["unavailable"]
    for precision in ("fp32", "hybrid"):
        assert "unavailable" in last["gpu"][precision] or last["gpu"][precision]["images_per_second"] > 0


def test_what_it_says_of_a_device(models):
    """On the CPU, since it is the same there; nobody is found by either."""
    pytest.importorskip("torch", reason="pip install torch")
    images = [np.zeros((60, 80, 3), np.uint8), np.full((40, 30, 3), 99, np.uint8)]
    told = batched(images, [Keypoints.nobody()] * 2, "cpu", "fp32", rounds=1, batches=1)
    assert told["networks"].startswith("torch ")
    assert told["images_per_second"] > 0
    assert told["flips"] == 0
    assert told["pose_pixels"] is None
    somebody = Keypoints.nobody()
    somebody.put("face", 0.5)
    assert batched(images, [somebody] * 2, "cpu", "fp32", rounds=1, batches=1)["flips"] == 2


def test_distances_are_pixels():
    one, other = Keypoints.nobody(), Keypoints.nobody()
    assert _pixels(np.zeros((60, 80, 3)), one, other, "face") is None
    one.put("pose", 0.5)
    other.put("pose", 0.5)
    other.points[3, 0], other.points[4, 1], one.visibility[3:5] = 0.75, 0.75, (1, 0)
    assert _pixels(np.zeros((60, 80, 3)), one, other, "pose").tolist() == [20]


def test_the_whole_job_is_measured(tmp_path, pictures, model_cache):
    command = [sys.executable, "-m", "bench.keypoint_job", "--rounds", "1", "--machine", "here"]
    words = [*command, "--results", str(tmp_path), "--images", *pictures, "--pictures", "3", "--items", "300"]
    environment = dict(os.environ, PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(model_cache))
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["reading"]["pictures"] == found["run"]["pictures"] == 3
    assert set(found["run"]["tools"]) == {"1", "2", "networks"} and found["run"]["scaling_2_workers"] > 0
    assert found["plan"]["done"] == found["plan"]["items"] == 300
    assert (tmp_path / "keypoint-job-here.json").exists()

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

from gpupipe.ops.keypoints.models import MODELS

ROOT = Path(__file__).parents[2]


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


def test_it_measures_ours_and_says_that_mediapipe_is_missing(tmp_path, pictures, models):
    pytest.importorskip("ai_edge_litert", reason="pip install gpupipe[keypoints]")
    for model in MODELS:
        path = tmp_path / "cache/gpupipe/mediapipe" / model.path
        path.parent.mkdir(parents=True)
        path.write_bytes(models[model.name])
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
    environment = dict(os.environ, PYTHONPATH=str(ROOT), XDG_CACHE_HOME=str(tmp_path / "cache"))
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

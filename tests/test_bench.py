"""The benchmarks run, small and without any peer installed, so that they cannot rot."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import synth

from bench import decode, harness, tables
from bench.peers import Request
from bench.players import Player, Unavailable

ROOT = Path(__file__).parents[1]


def run(name: str, results: Path, *words: str) -> dict:
    command = [sys.executable, "-m", f"bench.{name}", "--rounds", "1", "--machine", "here", "--results", str(results)]
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    ended = subprocess.run([*command, *words], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    last = json.loads(ended.stdout.splitlines()[-1])
    written = json.loads((results / f"{name}-here.json").read_text())
    assert {key: written[key] for key in last} == last
    assert written["date"] and written["commit"] and written["versions"]["numpy"]
    return written


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    synth.encode(folder / "bframes.mp4", synth.Clip(count=40, b_frames=3, gop=20))
    synth.encode(folder / "turned.mp4", synth.Clip(count=12, turn=270))
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


@pytest.fixture(scope="module")
def measured(media, tmp_path_factory):
    """The decode benchmark's result, and the folder it is in."""
    results = tmp_path_factory.mktemp("results")
    tools = ["gpupipe", "pyav", "opencv-seek", "spdl"]
    return run("decode", results, "--media", str(media), "--tools", *tools), results


def test_decode_measures_every_file_and_mode(measured):
    result, _ = measured
    files = {each["file"]: each for each in result["files"]}
    assert "unreadable" in files["broken.mp4"]
    assert files["bframes.mp4"]["groups"] == ["h264", "B-frames", "short GOP", "30 frames or more"]
    for mode, wanted in (("uniform", 16), ("at", 8), ("every4", 10), ("all", 40)):
        cell = files["bframes.mp4"]["modes"][mode]
        ours = cell["tools"]["gpupipe"]
        assert ours["stats"]["wanted"] == wanted
        assert ours["difference"] == 0
        assert cell["best_peer"] == "pyav"
        assert cell["ratio"] == cell["tools"]["pyav"]["ratio"] > 0
    assert result["summary"]["uniform"]["B-frames"]["files"] >= 1


def test_rotated_pictures_are_compared_upright(measured):
    result, _ = measured
    turned = next(each for each in result["files"] if each["file"] == "turned.mp4")
    assert "unlike" not in turned["modes"]["all"]["tools"]["pyav"]


@pytest.mark.skipif(importlib.util.find_spec("cv2") is not None, reason="OpenCV is installed here")
def test_an_absent_peer_is_unavailable(measured):
    result, _ = measured
    for tool in ("opencv-seek", "spdl"):
        assert "No module named" in result["files"][0]["modes"]["uniform"]["tools"][tool]["unavailable"]


def test_wrong_frames_are_told(media):
    reference = decode.Reference(media / "bframes.mp4")
    request = reference.request("uniform")
    wanted = request.of(reference.total)
    right = np.stack([reference._frames([number])[number] for number in wanted])
    late = np.stack([reference._frames([min(number + 1, 39)])[min(number + 1, 39)] for number in wanted])
    assert reference.judge(request, 16, right) == (0.0, None)
    assert "15 frames of 16" in reference.judge(request, 15, right[:15])[1]
    assert "wrong frames" in reference.judge(request, 16, late)[1]
    assert "differs" in reference.judge(request, 16, 255 - right)[1]
    reference.close()


def test_a_tool_that_fails_or_hangs_is_reported(media, tmp_path):
    player = Player("pyav", patience=60)
    with pytest.raises(Unavailable, match=r"broken\.mp4"):
        player.look(Request(str(media / "broken.mp4"), "uniform"))
    player._process.kill()
    with pytest.raises(Unavailable, match="process died"):
        player.look(Request(str(media / "bframes.mp4"), "uniform"))
    fifo = tmp_path / "fifo.mp4"
    os.mkfifo(fifo)
    with pytest.raises(Unavailable, match="no answer"):
        Player("pyav", patience=0.5).look(Request(str(fifo), "uniform"))


def test_transform_runs(tmp_path):
    result = run("transform", tmp_path, "--sizes", "180", "--ring", "200000")
    for case in result["cases"]:
        assert case["times_read_bound"] > 0
        assert case["tools"]["gpupipe-scalar"]["difference"] == 0
        assert "unlike" not in case["tools"]["swscale-bicubic"]


def test_clips_runs(media, tmp_path):
    sizes = ["--short-clips", "3", "--items", "50", "--rows", "60", "--copies", "1", "--workers", "1"]
    result = run("clips", tmp_path, "--media", str(media), *sizes)
    assert result["job"]["clips"] == 1
    assert result["job"]["tools"]["gpupipe-1"]["cpu"] > 0
    assert result["engine"]["gpupipe_cpu"] > 0
    assert all(result["scaling"][name] > 0 for name in ("scaling", "over_one_worker", "at_most", "ceiling"))
    assert result["plan"]["done"] == result["plan"]["items"] == 50
    assert result["status"]["seconds"] > 0


def test_the_table_is_written_from_results(measured):
    text = tables.page([measured[1]])
    assert "bframes.mp4" in text
    assert "| B-frames |" in text


def test_the_committed_table_is_that_of_the_committed_results():
    assert (ROOT / "docs" / "benchmarks.md").read_text() == tables.page([harness.RESULTS])


def test_rounds_are_interleaved():
    order = []
    runs = {name: lambda name=name: order.append(name) or 1.0 for name in "abc"}
    assert harness.interleave(runs, 2) == {"a": [1.0, 1.0], "b": [1.0, 1.0], "c": [1.0, 1.0]}
    assert order == ["a", "b", "c", "b", "c", "a"]


def test_ratios_are_paired_by_round():
    assert harness.ratio([1, 10, 2], [2, 20, 4]) == 0.5
    assert harness.ratio([1, 2, 3], [4]) == 0.5
    assert harness.geometric_mean([0.5, 2]) == pytest.approx(1)
    assert harness.geometric_mean([]) is None


def test_tolerance_runs_and_nothing_undercuts_the_bound(media, tmp_path):
    result = run("tolerance", tmp_path, "--media", str(media), "--length", "6")
    assert [each["gap"] for each in result["made"]] == [0.5, 1, 2, 4, 10]
    bframes = next(each for each in result["files"] if each["file"] == "bframes.mp4")
    for each in (*result["made"], bframes):
        assert each["bound"] <= each["decoded"]["near"] <= each["decoded"]["exact"]
        assert each["gain"] > 0
    assert result["made"][1]["decoded"]["near"] < result["made"][1]["decoded"]["exact"]
    assert result["made"][4]["bound"] > 0
    short = next(each for each in result["files"] if each["file"] == "turned.mp4")
    assert "gain" not in short

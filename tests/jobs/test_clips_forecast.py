"""``gpupipe clips --dry-run`` as its users meet it: from another folder, over a pipe, before every format."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import synth
from synth import Clip

import gpupipe

ROOT = Path(gpupipe.__file__).parents[1]
FILES = {"samples": "sample_*/*", "npy": "*.npy", "webdataset": "*.tar"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Clips of several codecs, some missing, one that is none; forty pairs of them."""
    folder = tmp_path_factory.mktemp("data")
    clips = folder / "clips of käse"
    clips.mkdir()
    synth.encode(clips / "a é.mp4", Clip(count=30, b_frames=2))
    synth.encode(clips / "b.mp4", Clip(count=50, size=(48, 64)))
    synth.encode(clips / "c.webm", Clip(codec="libvpx-vp9", suffix="webm", count=75, turn=0))
    (clips / "text.mp4").write_text("not a video")
    names = ["a é.mp4", "b.mp4", "c.webm", "a é.mp4", "b.mp4", "text.mp4", "c.webm", "missing.mp4"] * 5
    pairs = [{"vid": f"v{n}", "clip_path": name, "transcript": f"text {n}"} for n, name in enumerate(names)]
    (folder / "the pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    return folder


def command(data: Path, tmp_path: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """The command in a folder of its own, its output read over a pipe; temporary files are seen to go."""
    scratch = tmp_path / "scratch"
    scratch.mkdir(exist_ok=True)
    here = tmp_path / "somewhere else ü"
    here.mkdir(exist_ok=True)
    environment = dict(os.environ, TMPDIR=str(scratch), PYTHONPATH=str(ROOT), PYTHONIOENCODING="utf-8")
    words = [
        "--pairs-json",
        "../pairs/the pairs.json",
        "--clips-dir",
        "../pairs/clips of käse",
        "--output-dir",
        "ein ø",
    ]
    if not (tmp_path / "pairs").exists():
        (tmp_path / "pairs").symlink_to(data)
    done = subprocess.run(
        [sys.executable, "-m", "gpupipe.cli.main", "clips", *words, "--num-workers", "2", *flags],
        cwd=here, env=environment, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert list(scratch.iterdir()) == []
    return done


def times(folder: Path) -> dict[str, int]:
    return {str(path): path.lstat().st_mtime_ns for path in [folder, *sorted(folder.rglob("*"))]}


@pytest.mark.parametrize("form", FILES)
def test_the_forecast_comes_true(data, tmp_path, form):
    flags = ["--format", form, "--shard-size", "7"]
    (tmp_path / "somewhere else ü").mkdir()
    before = times(tmp_path / "somewhere else ü")
    dry = command(data, tmp_path, *flags, "--dry-run", "--json")
    assert (dry.returncode, dry.stderr) == (0, "")
    assert times(tmp_path / "somewhere else ü") == before
    said = json.loads(dry.stdout)
    assert (said["items"]["to_do"], said["survey"]["probed"]) == (40, 40)
    assert {name: reason["count"] for name, reason in said["survey"]["reasons"].items()} == {
        "MissingInputError": 5, "DecodeError": 5
    }  # fmt: skip
    assert "clips of käse/missing.mp4" in said["survey"]["reasons"]["MissingInputError"]["example"]
    assert said["survey"]["codecs"] == {"h264": 20, "vp9": 10}
    assert said["survey"]["backends"] == {"h264": ["ffmpeg"], "vp9": ["ffmpeg"]}
    assert said["survey"]["sizes"] == {"96x128": 20, "48x64": 10}
    assert said["survey"]["layouts"] == {"yuv420p": 30}
    seconds = said["survey"]["seconds"]
    assert [seconds["min"], seconds["median"], seconds["max"]] == pytest.approx([1.2, 2.0, 3.0], abs=0.05)

    assert command(data, tmp_path, *flags, "--quiet").returncode == 3
    out = tmp_path / "somewhere else ü/ein ø"
    made = sum(path.stat().st_size for path in out.glob(FILES[form]))
    tolerance = 0 if form == "npy" else 0.1
    if said["trial"]["worked"] == 40 or form == "npy":  # on a busy machine less is tried, and the sample decides
        assert said["output_bytes"]["expected"] == pytest.approx(made, rel=tolerance, abs=0)
    assert said["output_bytes"]["low"] <= made * 1.02 and made * 0.98 <= said["output_bytes"]["high"]
    assert said["needed_bytes"] >= made * 0.9

    before = times(out)
    again = json.loads(command(data, tmp_path, *flags, "--dry-run", "--json").stdout)
    items = again["items"]
    assert (items["done"], items["failed"], items["to_do"], again["planned"]) == (30, 10, 0, True)
    assert times(out) == before


def test_the_text_is_for_a_terminal_of_80_columns(data, tmp_path):
    done = command(data, tmp_path, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[:3] == ["dry run of clips: nothing was started", "40 clips: 40 to do", "sample of 40: 30 readable"]
    assert "codecs: h264 20, vp9 10; decoded by ffmpeg" in lines
    assert any(line.startswith("expected: ") and "with 2 workers" in line for line in lines)
    assert any(line.startswith("disk: ") and " free" in line for line in lines)
    assert any(line.startswith("memory: 2 workers of ") for line in lines)
    assert max(len(line) for line in lines if "/" not in line) <= 80


def test_a_wrong_folder_is_told_at_once(data, tmp_path):
    (tmp_path / "somewhere else ü").mkdir()
    (tmp_path / "somewhere else ü/empty").mkdir()
    done = command(data, tmp_path, "--dry-run", "--quiet", "--clips-dir", "empty")
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("gpupipe: none of 40 sampled inputs is there. Check --clips-dir ")
    assert "somewhere else ü/empty" in line
    assert not (tmp_path / "somewhere else ü/ein ø").exists()


def test_another_configuration_is_refused(data, tmp_path):
    assert command(data, tmp_path, "--quiet", "--num-frames", "2").returncode == 3
    done = command(data, tmp_path, "--dry-run")
    assert (done.returncode, done.stdout) == (2, "")
    assert "num_frames: 2 there, 16 asked" in done.stderr


def test_from_uncut_videos(data, tmp_path):
    folder = data / "clips of käse"
    pairs = [
        {"vid": "b", "begin_time": begin / 10, "end_time": begin / 10 + 0.5, "transcript": "x"} for begin in range(12)
    ]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    found = gpupipe.clips(tmp_path / "pairs.json", tmp_path / "out", videos_dir=folder, num_frames=2, dry_run=True)
    assert isinstance(found, gpupipe.Forecast)
    assert (found.survey.readable, found.trial.done) == (12, 12)
    assert any("neighbours in one file" in text for text in found.notices)
    assert not (tmp_path / "out").exists()


def test_all_frames_are_foreseen_within_the_spread(data, tmp_path):
    options = {"clips_dir": data / "clips of käse", "all_frames": True, "size": (48, 64)}
    found = gpupipe.clips(data / "the pairs.json", tmp_path / "out", **options, dry_run=True)
    made = gpupipe.clips(data / "the pairs.json", tmp_path / "out", **options)
    assert made.done == 30
    nbytes = sum(path.stat().st_size for path in (tmp_path / "out").glob("sample_*/*"))
    assert found.output_bytes.low <= nbytes <= found.output_bytes.high

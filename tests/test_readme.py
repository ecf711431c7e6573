"""The README's code runs, in its order, in one folder with small clips."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import synth
from model_files import require_networks
from PIL import Image

from gpupipe.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TITLES = ("gpupipe clips", "gpupipe keypoints")
SECTIONS = {title: re.search(rf"^## {title}$(.*?)^## ", README, re.MULTILINE | re.DOTALL).group(1) for title in TITLES}
KEYPOINTS = SECTIONS["gpupipe keypoints"]
COMPANIONS = ("merge", "prepare", "check", "view", "visualize", "pose")
LINKS = re.findall(r"\]\(([^)]+)\)", README)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the README supposes is there."""
    here = tmp_path_factory.mktemp("readme")
    (here / "clips").mkdir()
    (here / "videos").mkdir()
    pairs = []
    for number, vid in enumerate("abc"):
        clip = synth.Clip(count=30, first=100 * number)
        synth.encode(here / "clips" / f"{vid}.mp4", clip)
        synth.encode(here / "videos" / f"{vid}.mkv", clip)
        pair = {"vid": vid, "clip_path": f"elsewhere/{vid}.mp4", "transcript": f"clip {vid} 🎬"}
        pairs.append({**pair, "begin_time": 0.2, "end_time": 0.8})
    (here / "pairs.json").write_text(json.dumps(pairs))
    (here / "a.mp4").write_bytes((here / "clips" / "a.mp4").read_bytes())
    for split in ("train", "dev", "test"):
        video = here / "PHOENIX-2014-T/features/fullFrame-210x260px" / split / f"{split}-video"
        video.mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (210, 260), (number, 0, 0)).save(video / f"images{number:04d}.png")
    (here / "bin").mkdir()
    launcher = here / "bin" / "gpupipe"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpupipe.cli.main "$@"\n')
    launcher.chmod(0o755)
    return here


@pytest.fixture
def networks():
    """What the keypoints need beside the package."""
    require_networks()


def blocks(text: str) -> list[tuple[str, str]]:
    """Kind and code of each block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def run(folder: Path, *command: str) -> str:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = dict(os.environ, PATH=path, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def run_blocks(folder: Path, text: str) -> None:
    for kind, code in blocks(text):
        if kind == "sh":
            run(folder, "bash", "-euo", "pipefail", "-c", code)
        elif kind == "python":
            run(folder, sys.executable, "-W", "error", "-c", code)
        elif kind == "toml":
            (folder / "gpupipe.toml").write_text(code)
        else:
            assert kind == "text", f"a block of kind {kind!r}, which nothing checks"


def test_code_runs(folder):
    text = README.replace(KEYPOINTS, "")
    kinds = [kind for kind, _ in blocks(text)]
    assert kinds.count("sh") >= 5
    assert kinds.count("python") >= 3
    run_blocks(folder, text)
    outputs = ("dataset", "from-videos", "arrays", "tars", "from-settings", "shared")
    assert [name for name in outputs if not (folder / name / "dataset_info.json").is_file()] == []
    assert len(json.loads((folder / "from-settings/dataset_info.json").read_text())["train"]) == 3


def test_code_of_keypoints_runs(folder, networks):
    assert {kind for kind, _ in blocks(KEYPOINTS)} >= {"sh", "python"}
    run_blocks(folder, KEYPOINTS)
    outputs = ("phoenix.pkl.gpupipe/index.parquet", "keypoint_visualizations/test.png")
    assert [name for name in outputs if not (folder / name).is_file()] == []
    stats = json.loads((folder / "model_input_data/train_stats.json").read_text())
    assert stats["keypoint_shape"] == [2, 143, 3]


def flags_of(capsys, *command: str) -> set[str]:
    with pytest.raises(SystemExit):
        main([*command, "--help"])
    return set(re.findall(r"^\s+(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))


def flags_told(rows: str) -> set[str]:
    """Those that begin the rows of tables."""
    lines = [line for line in rows.splitlines() if line.startswith("| `--")]
    return {flag for line in lines for flag in re.findall(r"`(--[a-z-]+)", line)}


def test_every_flag_has_its_row(capsys):
    clips = SECTIONS["gpupipe clips"]
    assert flags_told(clips) == flags_of(capsys, "clips")
    shared = flags_told(clips.partition("These change no byte")[2])
    assert len(shared) >= 20
    assert flags_told(KEYPOINTS) | shared == flags_of(capsys, "keypoints", "extract")


@pytest.mark.parametrize("name", COMPANIONS)
def test_every_flag_of_a_companion_is_in_its_row(capsys, name):
    (row,) = [line for line in KEYPOINTS.splitlines() if re.match(rf"\| `{name}\b", line)]
    assert set(re.findall(r"--[a-z-]+", row)) == flags_of(capsys, "keypoints", name)


def test_every_companion_has_its_row(capsys):
    with pytest.raises(SystemExit):
        main(["keypoints", "--help"])
    there = re.findall(r"^    ([a-z]+)\b", capsys.readouterr().out, re.MULTILINE)
    assert sorted(there) == sorted(["extract", *COMPANIONS])
    rows = KEYPOINTS.partition("### With the keypoints")[2]
    assert set(re.findall(r"^\| `([a-z]+)\b", rows, re.MULTILINE)) - {"gpupipe"} == set(there)


@pytest.mark.parametrize("link", sorted({link for link in LINKS if "://" not in link}))
def test_links_lead_somewhere(link):
    path, _, heading = link.partition("#")
    target = ROOT / path if path else ROOT / "README.md"
    assert target.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in [re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in headings]

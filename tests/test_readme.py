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

from gpupipe.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
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
    return here


def run(folder: Path, *command: str) -> str:
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    environment = dict(os.environ, PATH=path, PYTHONPATH=os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_code_runs(folder):
    (folder / "bin").mkdir()
    launcher = folder / "bin" / "gpupipe"
    launcher.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m gpupipe.cli.main "$@"\n')
    launcher.chmod(0o755)
    kinds = [kind for kind, _ in BLOCKS]
    assert kinds.count("sh") >= 5
    assert kinds.count("python") >= 3
    for kind, code in BLOCKS:
        if kind == "sh":
            run(folder, "bash", "-euo", "pipefail", "-c", code)
        elif kind == "python":
            run(folder, sys.executable, "-W", "error", "-c", code)
        elif kind == "toml":
            (folder / "gpupipe.toml").write_text(code)
        else:
            assert kind == "text", f"a block of kind {kind!r}, which nothing checks"
    outputs = ("dataset", "from-videos", "arrays", "tars", "from-settings", "shared")
    assert [name for name in outputs if not (folder / name / "dataset_info.json").is_file()] == []
    assert len(json.loads((folder / "from-settings/dataset_info.json").read_text())["train"]) == 3


def test_every_flag_has_its_row(capsys):
    with pytest.raises(SystemExit):
        main(["clips", "--help"])
    there = set(re.findall(r"^\s+(--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    told = {
        flag for line in README.splitlines() if line.startswith("| `--") for flag in re.findall(r"`(--[a-z-]+)", line)
    }
    assert told == there


@pytest.mark.parametrize("link", sorted({link for link in LINKS if "://" not in link}))
def test_links_lead_somewhere(link):
    path, _, heading = link.partition("#")
    target = ROOT / path if path else ROOT / "README.md"
    assert target.exists()
    if heading:
        headings = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
        assert heading in [re.sub(r"[^\w\- ]", "", text).lower().replace(" ", "-") for text in headings]

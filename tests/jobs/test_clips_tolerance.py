"""``gpupipe clips --tolerance``: frames near the wanted ones, and the truth about which."""

from __future__ import annotations

import json
import pickle

import pytest
import synth
from synth import Clip

from gpupipe.cli.main import main


def test_frames_within_reach_are_recorded_as_they_are(tmp_path, capsys):
    clips, out = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    params = {"preset": "veryfast", "x264-params": "keyint=25:min-keyint=25:scenecut=0"}
    synth.encode(clips / "a.mp4", Clip(count=100, options=params))
    (tmp_path / "pairs.json").write_text(json.dumps([{"vid": "a", "clip_path": "a.mp4"}]))
    flags = ["--pairs-json", tmp_path / "pairs.json", "--clips-dir", clips, "--output-dir", out, "--num-frames", "6"]
    command = ["clips", *map(str, flags), "--num-workers", "1"]
    assert main([*command, "--tolerance", "0.5"]) == 0
    meta = json.loads((out / "sample_000000_a" / "meta.json").read_text())
    frames = pickle.loads((out / "sample_000000_a" / "video_input.pkl").read_bytes())
    assert [synth.read_number(frame) for frame in frames] == meta["frame_indices"]
    assert meta["pts_seconds"] == pytest.approx([index / 25 for index in meta["frame_indices"]])
    exact = [0, 19, 39, 59, 79, 99]
    assert meta["frame_indices"] != exact
    assert all(abs(a - b) <= 12.5 for a, b in zip(meta["frame_indices"], exact, strict=True))
    assert meta["frame_indices"][:2] == [0, 25]
    capsys.readouterr()
    assert main(command) == 2, "another tolerance is another output"
    assert "tolerance" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--tolerance", "-1"], ["--tolerance", "nan"], ["--tolerance", "1", "--all-frames"]])
def test_what_cannot_be(tmp_path, flags):
    (tmp_path / "pairs.json").write_text("[]")
    base = ["clips", "--pairs-json", tmp_path / "pairs.json", "--clips-dir", tmp_path, "--output-dir", tmp_path / "out"]
    assert main([*map(str, base), *flags]) == 2

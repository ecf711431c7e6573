"""The demo: everything as planned, also when it is killed half-way."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gpupipe.demo import __main__ as demo
from gpupipe.demo.clips import BROKEN, CLIPS
from gpupipe.demo.scenes import draw
from gpupipe.demo.sheet import contact_sheet, write_png
from gpupipe.sinks import pickles

SIZE = (160, 256)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if ".gpupipe" not in path.parts}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The demo's folder after one run, and its clips, shorter than those a person sees."""
    clips = tuple(dataclasses.replace(clip, count=50) for clip in CLIPS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "CLIPS", clips)
        folder = tmp_path_factory.mktemp("demo") / "with spaces, ünd more"
        assert demo.main([str(folder)]) == 0
        yield folder, clips


def test_every_clip_is_a_sample_but_the_broken_one(made):
    folder, clips = made
    samples = {path.name for path in (folder / "dataset").iterdir() if path.name.startswith("sample_")}
    assert samples == {f"sample_{n:06d}_{clip.vid}" for n, clip in enumerate(clips) if clip.vid not in BROKEN}
    (failure,) = map(json.loads, (folder / "dataset/failed.jsonl").read_text().splitlines())
    assert failure["error"] == "TruncatedError"
    assert "readable" in failure["message"]


def test_frames_carry_their_numbers(made):
    """The label of each frame is nearer to its own number than to those of its neighbours."""
    folder, clips = made
    for number, clip in enumerate(clips):
        if clip.vid in BROKEN:
            continue
        sample = folder / "dataset" / f"sample_{number:06d}_{clip.vid}"
        meta = json.loads((sample / "meta.json").read_text())
        frames = pickles.loads((sample / "video_input.pkl").read_bytes())
        assert frames.shape == (16, *SIZE, 3)
        for frame, index in zip(frames, meta["frame_indices"], strict=True):
            near = {
                guess: distance(frame, label(clip, guess)) for guess in range(max(0, index - 3), min(50, index + 4))
            }
            assert min(near, key=near.get) == index


def label(clip, number):
    picture = draw(lambda seconds, size: np.zeros((*size, 3), np.float32), number, 0.0, clip.size)
    return np.asarray(Image.fromarray(picture).resize(SIZE[::-1], Image.Resampling.BILINEAR))


def distance(frame, expected):
    there = expected.max(axis=2) > 128  # the label's bright part; the rest of the picture is the scene's
    box = np.nonzero(there)
    part = np.s_[box[0].min() : box[0].max() + 1, box[1].min() : box[1].max() + 1]
    return np.abs(frame[part].astype(int) - expected[part]).mean()


def test_the_files_are_what_they_are_called(made):
    folder, clips = made
    sources = {}
    for number, clip in enumerate(clips):
        if clip.vid not in BROKEN:
            meta = folder / "dataset" / f"sample_{number:06d}_{clip.vid}" / "meta.json"
            sources[clip.vid] = json.loads(meta.read_text())
    codecs = {vid: meta["source"]["codec"] for vid, meta in sources.items()}
    assert codecs == {"sunset": "h264", "julia": "vp9", "tunnel": "hevc", "lava": "h264", "orbits": "h264"}
    assert sources["lava"]["source"]["rotation"] == 90
    steps = np.diff(sources["orbits"]["pts_seconds"]) / np.diff(sources["orbits"]["frame_indices"])
    assert steps.max() > 2 * steps.min()
    texts = [pair["transcript"] for pair in json.loads((folder / "pairs.json").read_text())]
    assert any(ord(letter) > 0x1F000 for text in texts for letter in text)


def test_again_makes_nothing_anew(made, capsys):
    folder, _ = made
    before = {path: path.stat().st_mtime_ns for path in (folder / "clips").iterdir()}
    assert demo.main([str(folder)]) == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "clips").iterdir()} == before
    said = capsys.readouterr().out
    assert said.count("there already") == len(CLIPS)
    assert "6 from before" in said
    assert str(folder / "contact-sheet.png") in said


def test_a_clip_that_fails_unplanned_is_said(made, capsys):
    folder, clips = made
    broken = folder / "clips" / clips[0].file_name
    whole = broken.read_bytes()
    try:
        broken.write_bytes(b"not a video")
        (folder / "dataset").rename(folder / "aside")
        assert demo.main([str(folder)]) == 1
    finally:
        broken.write_bytes(whole)
    assert "Not as planned: sunset" in capsys.readouterr().out


SMALL = """
import dataclasses, sys
from gpupipe.demo import __main__ as demo
demo.CLIPS = tuple(dataclasses.replace(clip, count=20) for clip in demo.CLIPS)
sys.exit(demo.main([sys.argv[1]]))
"""


def test_killed_half_way_it_goes_on(tmp_path):
    folder = tmp_path / "demo"
    random = np.random.default_rng(5)
    for _ in range(3):
        run = subprocess.Popen(
            [sys.executable, "-c", SMALL, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(float(random.uniform(0.3, 2.5)))
        os.kill(run.pid, signal.SIGKILL)
        run.wait()
    done = subprocess.run([sys.executable, "-c", SMALL, str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [name for name in names(folder) if "partial" in name]
    whole = tmp_path / "whole"
    subprocess.run([sys.executable, "-c", SMALL, str(whole)], capture_output=True, check=True)
    assert names(folder) == names(whole)
    assert (folder / "contact-sheet.png").read_bytes() == (whole / "contact-sheet.png").read_bytes()


def test_sheet_is_a_png_that_others_read(tmp_path):
    clip = np.random.default_rng(0).integers(0, 256, (16, 20, 30, 3), dtype=np.uint8)
    sheet = contact_sheet([clip, None], columns=4)
    write_png(tmp_path / "sheet.png", sheet)
    with Image.open(tmp_path / "sheet.png") as image:
        np.testing.assert_array_equal(np.asarray(image), sheet)
    np.testing.assert_array_equal(sheet[4:24, 4:34], clip[0])


def test_sheet_of_nothing_but_failures():
    assert contact_sheet([None, None]).shape[2] == 3

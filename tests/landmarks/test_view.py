"""``gpupipe keypoints view``: what is in files, in words."""

from __future__ import annotations

import gc
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest

sys.path[:0] = [str(Path(__file__).parent)]

from held import Held, at_random, clip  # noqa: E402
from made import frames, write_dataset, write_old_pickle  # noqa: E402

from gpupipe.cli.main import main  # noqa: E402
from gpupipe.landmarks.dataset import open_landmarks  # noqa: E402
from gpupipe.landmarks.describe import view_lines  # noqa: E402
from gpupipe.landmarks.npz_file import prepare  # noqa: E402
from gpupipe.landmarks.parts import Counts  # noqa: E402
from gpupipe.landmarks.tally import Spread  # noqa: E402
from gpupipe.ops.keypoints.points import PARTS, SLICES  # noqa: E402

WORDS = {"pose": "body", "left_hand": "left hand", "right_hand": "right hand", "face": "face"}


class Counted(Held):
    """As a file that lists every frame."""

    def unlisted(self, split):
        return Counts()


def view(capsys, path, *flags):
    assert main(["keypoints", "view", str(path), *flags]) == 0
    return capsys.readouterr().out


def ranges(made, part, face=slice(None)):
    points = np.concatenate([f.points[SLICES[part]][face] for f in made if f.valid[PARTS.index(part)]])
    low, high = points.min(axis=0), points.max(axis=0)
    return ", ".join(f"{axis} {a:.3f} to {b:.3f}" for axis, a, b in zip("xyz", low, high, strict=True))


def test_a_folder(tmp_path, capsys):
    made = frames(2, videos=3, length=5, clips=True)
    said = view(capsys, write_dataset(tmp_path / "out", made))
    assert "splits train, dev; 543 points a frame: body 33, left hand 21, right hand 21, face 468" in said
    for split in ("train", "dev"):
        some = [frame for frame in made if frame.split == split]
        text = said[said.index(f"{split}: 3 videos, {len(some)} frames") :]
        text = text[: text.index("dev: ")] if split == "train" else text
        for part, words in WORDS.items():
            found = sum(bool(frame.valid[PARTS.index(part)]) for frame in some)
            assert f"{words} {100 * found / len(some):.1f}%" in text
            assert f"  {words}: {ranges(some, part)};" in text
        assert "260x210" in text
        assert f"times of {sum(frame.readable for frame in some)} frames" in text
        assert "1 frames could not be read" in text
        assert f"{some[0].video}, {some[0].image_path()}: 260x210" in text


@pytest.mark.parametrize("image_shape", [True, False])
def test_an_old_pickle(tmp_path, capsys, image_shape):
    made = frames(3)
    said = view(capsys, write_old_pickle(tmp_path / "old.pkl", made, image_shape=image_shape))
    assert "143 points a frame: body 33, left hand 21, right hand 21, face 68 (of 468)" in said
    train = [frame for frame in made if frame.split == "train"]
    for part in ("pose", "left_hand", "right_hand"):
        assert f"  {WORDS[part]}: {ranges(train, part)};" in said
    assert ("260x210" if image_shape else "sizes not known") in said
    assert "no times" in said


def test_a_folder_of_prepare(tmp_path, capsys):
    made = frames(4)
    with open_landmarks(write_dataset(tmp_path / "out", made)) as landmarks:
        prepare(landmarks, tmp_path / "npz")
    said = view(capsys, tmp_path / "npz")
    train = [frame for frame in made if frame.split == "train"]
    assert f"  right hand: {ranges(train, 'right_hand')};" in said
    assert "143 points a frame" in said


def test_detailed_has_a_line_a_video_and_means(tmp_path, capsys):
    made = frames(5)
    said = view(capsys, write_dataset(tmp_path / "out", made), "--detailed", "--splits", "dev")
    assert "train" not in said.replace("splits train, dev", "")
    for video in dict.fromkeys(frame.video for frame in made if frame.split == "dev"):
        some = [frame for frame in made if frame.video == video]
        found = sum(bool(frame.valid[0]) for frame in some)
        assert f"  dev/{video}: {len(some)} frames, 260x210; body {100 * found / len(some):.1f}%" in said
    points = np.concatenate([f.points[SLICES["pose"]] for f in made if f.split == "dev" and f.valid[0]])
    words = "; ".join(
        f"{axis} {mean:.3f}, {deviation:.3f}"
        for axis, mean, deviation in zip("xyz", points.mean(axis=0), points.std(axis=0), strict=True)
    )
    assert f"mean, deviation: {words}" in said
    assert "mean, deviation" not in view(capsys, tmp_path / "out")


def test_points_beyond_the_edges_and_points_that_are_none():
    points, valid = at_random(6, 1)
    points[:] = 0.5
    points[0, :5, 0] = [-0.1, 1.1, np.nan, np.inf, -np.inf]
    spread = Spread()
    spread.add(clip(points, valid))
    assert (spread.count[0], spread.outside[0], spread.broken) == (30, 2, 3)
    assert spread.low[0, 0] == np.float32(-0.1)


def test_no_more_than_a_few_clips_are_held():
    alive, most = [], []

    class Streamed(Counted):
        def clips(self, split):
            for number in range(40):
                points, valid = at_random(number, 64)
                alive.append(weakref.ref(points))
                yield clip(points, valid, video=str(number))
                del points
                gc.collect()
                most.append(sum(reference() is not None for reference in alive))

    lines = list(view_lines(Streamed([clip(*at_random(0, 1))]), detailed=True))
    assert sum(": 64 frames" in line for line in lines) == 40
    assert max(most) <= 3  # the one at work, and that of the first frames shown


def test_a_split_that_is_not_there(tmp_path, capsys):
    write_dataset(tmp_path / "out", frames(7))
    assert main(["keypoints", "view", str(tmp_path / "out"), "--splits", "test"]) == 2
    assert "'test'" in capsys.readouterr().err


def test_what_is_no_such_file(tmp_path, capsys):
    (tmp_path / "text.pkl").write_text("no pickle")
    for path in (tmp_path / "none.pkl", tmp_path / "text.pkl", tmp_path):
        assert main(["keypoints", "view", str(path)]) == 2
        assert str(path) in capsys.readouterr().err

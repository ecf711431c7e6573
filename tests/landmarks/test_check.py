"""``gpupipe keypoints check``: runs at work, stopped and complete, and pickles of older programs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from terminal import on_terminal, shown_until_the_end

HERE = Path(__file__).parent
JOBS = HERE.parent / "jobs"
sys.path[:0] = [str(HERE), str(JOBS)]

from fake_keypoints import NOBODY, FakeKeypointsJob  # noqa: E402
from made import frames, write_old_pickle  # noqa: E402

from gpupipe.cli.main import main  # noqa: E402
from gpupipe.launch import Run, run  # noqa: E402
from gpupipe.ownership import Ownership  # noqa: E402
from gpupipe.plan import BOOKKEEPING, PlanWriter  # noqa: E402
from gpupipe.reports.live import Quiet  # noqa: E402

PICKLE = "points.pkl"
CHECK = (sys.executable, "-m", "gpupipe.cli.main", "keypoints", "check")


@pytest.fixture(autouse=True)
def in_reach(monkeypatch):
    """Workers are new processes: they find the job through the environment."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(JOBS), os.environ.get("PYTHONPATH", "")]))


@pytest.fixture
def tree(tmp_path):
    """Two videos in train, one in dev; one frame with nobody, one that is no picture."""
    for name, first in (("train/a/0", 9), ("train/a/1", NOBODY), ("train/b/0", 9), ("train/b/1", 9), ("dev/c/0", 9)):
        path = tmp_path / "tree" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), first, np.uint8)).save(path)
    (tmp_path / "tree" / "train" / "b" / "1.png").write_bytes(b"no picture")
    return tmp_path / "tree"


@pytest.fixture
def planned(tmp_path):
    """The bookkeeping of an output of which no item is done."""
    bookkeeping = tmp_path / "out" / BOOKKEEPING
    writer = PlanWriter(bookkeeping, "keypoints", {}, {}, {})
    writer.add({"path": "a.png"})
    writer.publish().close()
    return bookkeeping


def go(tree, out, **how):
    job = FakeKeypointsJob(items="pictures", networks="none", shard_size=2, dataset_path=str(tree), pickle=PICKLE)
    return run(job, Run(out, workers=1, **how), Quiet())


def check(path, capsys):
    code = main(["keypoints", "check", str(path)])
    return code, capsys.readouterr().out


def test_a_complete_run_by_its_file_and_by_its_folder(tree, tmp_path, capsys):
    folder = tmp_path / f"{PICKLE}.gpupipe"
    go(tree, folder)
    for path in (tmp_path / PICKLE, folder):
        code, said = check(path, capsys)
        assert code == 0
        assert "keypoints, complete" in said
        assert "5/5 (100%): 4 done, 1 failed, 0 pending" in said
        train, dev = said.index("train: 2 videos, 4 frames"), said.index("dev: 1 videos, 1 frames")
        of_train = said[min(train, dev) :] if train > dev else said[train:dev]
        assert "body 50.0%, left hand 50.0%, right hand 0.0%, face 0.0%" in of_train
        assert "nobody in 1 frames; 1 frames could not be read" in of_train


def test_a_run_that_stopped_halfway(tree, tmp_path, capsys):
    folder = tmp_path / f"{PICKLE}.gpupipe"
    go(tree, folder, shard=0, total_shards=2)
    code, said = check(tmp_path / PICKLE, capsys)  # the file is not there yet
    assert code == 0
    assert "stopped" in said
    assert "3/5 (60%)" in said
    assert "videos" not in said  # nothing is whole that could be counted


def test_a_terminal_shows_a_run_until_it_ends(planned):
    with Ownership(planned, 0, 1):
        process, reading = on_terminal([*CHECK, str(planned.parent)])
        shown = b""
        while b"keypoints, running" not in shown:
            shown += os.read(reading, 65536)
        assert process.poll() is None
        assert b"stopped" not in shown
    shown += shown_until_the_end(reading)
    assert process.wait(60) == 0
    assert b"keypoints, stopped" in shown


def test_a_pipe_gets_a_running_one_once(planned, capsys):
    with Ownership(planned, 0, 1):
        code, said = check(planned.parent, capsys)
    assert (code, said.count("keypoints, running")) == (0, 1)


def test_an_old_pickle(tmp_path, capsys):
    made = frames(1, videos=4, length=6)
    code, said = check(write_old_pickle(tmp_path / "old.pkl", made), capsys)
    assert code == 0
    train = [frame for frame in made if frame.split == "train"]
    assert f"train: 4 videos, {len(train)} frames" in said
    shares = [100 * sum(bool(frame.valid[part]) for frame in train) / len(train) for part in range(4)]
    assert "body {:.1f}%, left hand {:.1f}%, right hand {:.1f}%, face {:.1f}%".format(*shares) in said
    assert "took 1.5 s, as the file says" in said


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04\x95 no pickle", b"cposix\nsystem\n(S'true'\ntR."])
def test_what_is_no_such_file(tmp_path, capsys, content):
    path = tmp_path / "points.pkl"
    if content is not None:
        path.write_bytes(content)
    assert main(["keypoints", "check", str(path)]) == 2
    assert str(path) in capsys.readouterr().err

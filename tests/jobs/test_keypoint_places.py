"""Where a keypoints run writes and removes: in its folder, and the one file beside it that the folder is named for."""

from __future__ import annotations

import json
import pickle
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_keypoints import FakeKeypointsJob
from test_keypoints import go, in_reach, job_of, tree, write_picture  # noqa: F401 - fixtures

import gpupipe
from gpupipe import planning
from gpupipe.api import job_at
from gpupipe.errors import MissingInputError, UsageError
from gpupipe.jobs import keypoint_plan, keypoint_poses
from gpupipe.jobs.keypoints import KeypointsJob
from gpupipe.launch import Run, retry
from gpupipe.ops.keypoints import executors, models, networks, original
from gpupipe.ops.keypoints.batched import executor as batched
from gpupipe.plan import Plan, _head_checksum
from gpupipe.redo import Choice
from gpupipe.reports.live import Quiet


def changed_plan(out, **inputs):
    head = out / ".gpupipe" / "plan" / "plan.json"
    words = json.loads(head.read_text())
    words["inputs"].update(inputs)
    words["checksum"] = _head_checksum(words)  # whoever alters a plan can do that too
    head.write_text(json.dumps(words))


@pytest.mark.parametrize(
    "where", ["../victim", "victim", "{parent}/victim", "../../../../../../../..", ".", "..", "a\0b"]
)
def test_a_plan_of_others_makes_no_job_of_files_elsewhere(tree, tmp_path, where):  # noqa: F811
    out = tmp_path / "top" / "all.pkl.gpupipe"
    go(job_of(tree, pickle="all.pkl"), out)
    changed_plan(out, pickle=where.format(parent=tmp_path))
    # Only read here, never run: a job that came of this would remove what it takes for its own.
    with pytest.raises(UsageError, match="name it as before"):
        job_at(out)


def test_a_plan_of_others_removes_no_file_but_its_own(tree, tmp_path):  # noqa: F811
    out = tmp_path / "all.pkl.gpupipe"
    job = job_of(tree, pickle="all.pkl")
    go(job, out)
    (tmp_path / "victim").write_bytes(b"work of years")
    (out / "index.parquet").write_bytes(b"altered")  # something to repair
    changed_plan(out, pickle="victim")
    for work in (
        lambda: gpupipe.verify(out, repair=True),
        lambda: gpupipe.retry(out),
        lambda: go(job, out, overwrite=True),
    ):
        with pytest.raises(UsageError, match="name it as before"):
            work()
    assert (tmp_path / "victim").read_bytes() == b"work of years" and (tmp_path / "all.pkl").is_file()


def test_a_plan_of_others_writes_no_pose_files(tree, tmp_path):  # noqa: F811
    out, elsewhere = tmp_path / "all.pkl.gpupipe", tmp_path / "elsewhere"
    go(job_of(tree, pickle="all.pkl"), out)
    changed_plan(out, pose_dir=str(elsewhere))
    (tmp_path / "all.pkl").unlink()  # something to finish
    with closing(Plan(out / ".gpupipe" / "plan")) as plan:
        job = planning.job_of(FakeKeypointsJob, plan)
    reporter = Quiet()
    assert retry(job, Run(out, workers=1), Choice(), reporter).complete
    assert (tmp_path / "all.pkl").is_file() and not elsewhere.exists()
    assert any(f"pose_dir: nothing is written in {str(elsewhere)!r}" in text for text in reporter.notices)
    keypoint_poses.run(job_of(tree, pickle="all.pkl", pose_dir=str(elsewhere)), Run(out, workers=1), Quiet())
    assert sorted(path.name for path in elsewhere.rglob("*.pose")) == ["v1.pose", "v2.pose", "w.pose"]


def test_pose_files_older_than_the_points_are_written_again_by_who_names_them(tree, tmp_path):  # noqa: F811
    out, poses = tmp_path / "out", tmp_path / "poses"
    job = job_of(tree, pose_dir=str(poses))
    keypoint_poses.run(job, Run(out, workers=1), Quiet())
    before = (poses / "train" / "v2.pose").read_bytes()
    write_picture(tree / "train" / "v2" / "images0001.png", seed=7)
    with closing(Plan(out / ".gpupipe" / "plan")) as plan:
        retry(planning.job_of(FakeKeypointsJob, plan), Run(out, workers=1), Choice(), Quiet())
    assert (poses / "train" / "v2.pose").read_bytes() == before
    keypoint_poses.run(job, Run(out, workers=1), Quiet())
    assert (poses / "train" / "v2.pose").read_bytes() != before


@pytest.fixture
def without_networks(monkeypatch):
    """What the choice of an executor depends on, without networks."""
    monkeypatch.setattr(networks, "identity", lambda: "LiteRT 9")
    monkeypatch.setattr(models, "read_models", lambda source=None: {})
    monkeypatch.setattr(keypoint_plan, "find_spec", lambda name: None)  # no torch


def test_what_is_overwritten_does_not_choose_the_executor(tree, tmp_path, without_networks):  # noqa: F811
    out = tmp_path / "out"
    go(job_of(tree, executor="mediapipe"), out)
    job = KeypointsJob(dataset_path=str(tree), executor="auto")
    assert keypoint_plan.planned(job, out, "auto", overwrite=True).executor == "cpu"
    with pytest.raises(UsageError, match="mediapipe") if not _original() else nullcontext():
        assert keypoint_plan.planned(job, out, "auto").executor == "mediapipe"


def test_torch_is_asked_once_who_it_is(monkeypatch):
    """It opens a GPU for that."""
    asked = []
    runtime = SimpleNamespace(identity=lambda: "torch 9")
    monkeypatch.setattr(batched, "open_runtime", lambda *words: asked.append(words[:2]) or runtime)
    executors._of_torch.cache_clear()
    assert [executors.identity("torch", "cuda", "fp32") for _ in range(2)] == ["torch 9", "torch 9"]
    assert asked == [("cuda", "fp32")]
    executors._of_torch.cache_clear()


def _original():
    try:
        return original.original_python()
    except MissingInputError:
        return None


def test_what_another_input_is_told_as(tree, tmp_path):  # noqa: F811
    out, poses = tmp_path / "out", str(tmp_path / "poses")
    go(job_of(tree), out)

    def told(**inputs):
        reporter = Quiet()
        keypoint_poses.run(job_of(tree, **inputs), Run(out, workers=1), reporter)
        return reporter.notices[0]

    assert told(pose_dir=poses) == f"pose_dir is {poses} now; the plan was made without one"
    changed_plan(out, pose_dir=poses)
    assert told() == f"no pose_dir now; the plan was made with {poses}"
    assert told(pose_dir=f"{poses}2") == f"pose_dir is {poses}2 now; the plan was made with {poses}"


def test_a_folder_on_another_file_system_has_its_file_beside_the_link(tree, tmp_path):  # noqa: F811
    shared_memory = Path("/dev/shm")
    if not shared_memory.is_dir() or shared_memory.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("wants /dev/shm for a second file system")
    out, file = tmp_path / "all.pkl.gpupipe", tmp_path / "all.pkl"
    with tempfile.TemporaryDirectory(dir=shared_memory, prefix="gpupipe-test-") as elsewhere:
        out.symlink_to(elsewhere)
        job = job_of(tree, pickle="all.pkl")
        # As a kill in the midst of writing leaves it.
        (tmp_path / "all.pkl.gpupipe-partial").write_bytes(b"half of it" * 10_000)
        assert go(job, out).complete
        assert len(pickle.loads(file.read_bytes())["train"]["keypoints"]) == 8
        assert sorted(path.name for path in tmp_path.iterdir()) == [tree.name, "all.pkl", "all.pkl.gpupipe"]
        assert gpupipe.verify(file).faults == []


def test_a_folder_that_is_a_link_has_its_file_beside_the_link(tree, tmp_path):  # noqa: F811
    (tmp_path / "large" / "disk").mkdir(parents=True)
    out = tmp_path / "all.pkl.gpupipe"
    out.symlink_to(tmp_path / "large" / "disk")
    job = job_of(tree, pickle="all.pkl")
    assert go(job, out).failed == 1
    assert len(pickle.loads((tmp_path / "all.pkl").read_bytes())["train"]["keypoints"]) == 8
    assert gpupipe.verify(tmp_path / "all.pkl").faults == []
    (tmp_path / "all.pkl").unlink()
    assert gpupipe.verify(tmp_path / "all.pkl").faults == [f"{tmp_path / 'all.pkl'}: missing"]
    go(job, out)
    assert gpupipe.verify(tmp_path / "all.pkl").faults == []

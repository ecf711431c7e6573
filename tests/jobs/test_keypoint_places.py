"""Where a keypoints run writes and removes: in its folder, and the one file beside it that the folder is named for."""

from __future__ import annotations

import json
import pickle
from contextlib import closing

import pytest
from fake_keypoints import FakeKeypointsJob
from test_keypoints import go, in_reach, job_of, tree, write_picture  # noqa: F401 - fixtures

import gpupipe
from gpupipe import planning
from gpupipe.api import job_at
from gpupipe.errors import UsageError
from gpupipe.jobs import keypoint_poses
from gpupipe.launch import Run, retry
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
    assert any(f"pose_dir: nothing is written in {elsewhere}" in text for text in reporter.notices)
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

"""The pickle of the keypoints job: made, made anew, asked for otherwise, damaged, and never another's file."""

from __future__ import annotations

import pickle
from contextlib import closing
from dataclasses import replace

import pytest
from fake_keypoints import FakeKeypointsJob
from test_keypoints import bytes_of, go, in_reach, job_of, table, tree, write_picture  # noqa: F401 - fixtures

import gpupipe
from gpupipe.errors import UsageError
from gpupipe.jobs.keypoint_plan import dataset_folder
from gpupipe.landmarks.dataset import open_landmarks
from gpupipe.launch import Run, retry, run
from gpupipe.plan import Plan, folder_of
from gpupipe.planning import job_of as job_of_plan
from gpupipe.redo import Choice
from gpupipe.reports.final import final_text
from gpupipe.reports.live import Quiet


def test_the_pickle_beside_its_folder(tree, tmp_path):  # noqa: F811
    out, name = dataset_folder(tmp_path / "all.pkl")
    assert (out, name) == (tmp_path / "all.pkl.gpupipe", "all.pkl")
    summary = go(job_of(tree, pickle=name), out)
    assert final_text(summary, "pictures").splitlines()[-1] == f"output: {tmp_path / 'all.pkl'}"
    assert final_text(replace(summary, complete=False), "pictures").splitlines()[-1] == f"output: {out}"
    assert folder_of(tmp_path / "all.pkl") == out == folder_of(out)
    data = pickle.loads((tmp_path / "all.pkl").read_bytes())
    assert list(data) == ["train", "dev", "stats", "keypoint_info", "dataset_info"]
    train = data["train"]
    assert train["image_paths"] == [str(tree / row["path"]) for row in table(out) if row["split"] == "train"]
    assert train["video_ids"] == ["v1"] * 5 + ["v2"] * 3
    nobody, unreadable = train["keypoints"][2], train["keypoints"][6]
    assert nobody == {"face": None, "left_hand": None, "right_hand": None, "pose": None, "image_shape": (12, 16)}
    assert unreadable == {**nobody, "image_shape": None}
    assert train["keypoints"][0]["pose"].shape == (33, 3) and train["keypoints"][0]["right_hand"] is None
    assert data["stats"]["train"]["total"] == 8 and data["stats"]["train"]["success"] == 6
    go(job_of(tree, pickle="dropped.pkl", drop_empty=True), tmp_path / "dropped.pkl.gpupipe")
    dropped = pickle.loads((tmp_path / "dropped.pkl").read_bytes())
    assert len(dropped["train"]["keypoints"]) == 6


def test_frames_with_nobody_may_be_dropped_later_and_taken_back(tree, tmp_path):  # noqa: F811
    """Only the pickle depends on it: no item is worked again, and what works from the plan does as was asked last."""
    out, file = tmp_path / "all.pkl.gpupipe", tmp_path / "all.pkl"
    go(job_of(tree, pickle="all.pkl"), out)
    before = bytes_of(out), file.read_bytes()
    reporter = Quiet()
    job = job_of(tree, pickle="all.pkl", drop_empty=True)
    summary = run(job, Run(out, workers=1), reporter)
    assert summary.earlier == summary.items == 12
    assert reporter.notices == ["drop_empty is True now; the plan was made with False"]
    dropped = file.read_bytes()
    assert len(pickle.loads(dropped)["train"]["keypoints"]) == 6 and bytes_of(out) == before[0]
    with open_landmarks(file) as landmarks:
        assert landmarks.points == 143
    assert gpupipe.verify(file).faults == []
    reporter = Quiet()
    written = file.stat().st_mtime_ns
    run(job, Run(out, workers=1), reporter)
    assert (reporter.notices, file.stat().st_mtime_ns) == ([], written)
    file.unlink()
    with closing(Plan(out / ".gpupipe" / "plan")) as plan:
        retry(job_of_plan(FakeKeypointsJob, plan), Run(out, workers=1), Choice(), Quiet())
    assert file.read_bytes() == dropped
    go(job_of(tree, pickle="all.pkl"), out)
    assert (bytes_of(out), file.read_bytes()) == before


def test_killed_between_two_wishes_the_pickle_is_made_as_asked_last(tree, tmp_path, monkeypatch):  # noqa: F811
    out, file = tmp_path / "all.pkl.gpupipe", tmp_path / "all.pkl"
    go(job_of(tree, pickle="all.pkl"), out)

    class Killed(BaseException):
        pass

    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Plan, "renew_inputs", killed)
        with pytest.raises(Killed):
            go(job_of(tree, pickle="all.pkl", drop_empty=True), out)
    assert [fault.split(":")[0] for fault in gpupipe.verify(out).faults] == [".gpupipe/index.json"]
    go(job_of(tree, pickle="all.pkl", drop_empty=True), out)
    assert len(pickle.loads(file.read_bytes())["train"]["keypoints"]) == 6
    assert gpupipe.verify(file).faults == []


def test_status_takes_the_file_which_is_made_again_with_its_dataset(tree, tmp_path):  # noqa: F811
    out = tmp_path / "all.pkl.gpupipe"
    job = job_of(tree, pickle="all.pkl")
    go(job, out)
    assert gpupipe.status(tmp_path / "all.pkl")["failed"] == 1
    (tmp_path / "all.pkl").write_bytes(b"altered")
    write_picture(tree / "train" / "v2" / "images0001.png", seed=7)
    assert go(job, out).failed == 0
    assert len(pickle.loads((tmp_path / "all.pkl").read_bytes())["train"]["keypoints"]) == 8


@pytest.mark.parametrize("damage", ["altered", "cut", "missing"])
def test_a_damaged_pickle_is_named_and_written_again(tree, tmp_path, damage):  # noqa: F811
    out, file = tmp_path / "all.pkl.gpupipe", tmp_path / "all.pkl"
    job = job_of(tree, pickle="all.pkl")
    go(job, out)
    whole = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(whole[:-1] if damage == "cut" else whole[:99] + b"?" + whole[100:])
    found = gpupipe.verify(file)
    assert found.faults == [f"{file}: {'missing' if damage == 'missing' else 'is altered'}"]
    assert (found.beside, found.damaged, found.exit_code) == ([str(file)], 0, 1)
    repair, again = f"gpupipe verify --repair {out}", f"gpupipe retry {out}"
    assert f"1 differences; no item is damaged; {file} must be written again: {repair}, then {again}" in found.text()
    found = gpupipe.verify(file, repair=True)
    assert f"no item is damaged; the same command as before, or {again}, writes {file} again" in found.text()
    with closing(Plan(out / ".gpupipe" / "plan")) as plan:
        retry(job_of_plan(FakeKeypointsJob, plan), Run(out, workers=1), Choice(), Quiet())
    assert file.read_bytes() == whole and gpupipe.verify(file).faults == []


def test_a_file_of_others_is_not_replaced(tree, tmp_path):  # noqa: F811
    (tmp_path / "all.pkl").write_bytes(b"somebody's work")
    with pytest.raises(UsageError, match=r"all\.pkl: is there, and no run of gpupipe recorded it"):
        go(job_of(tree, pickle="all.pkl"), tmp_path / "all.pkl.gpupipe")
    assert (tmp_path / "all.pkl").read_bytes() == b"somebody's work"
    assert go(job_of(tree, pickle="all.pkl"), tmp_path / "all.pkl.gpupipe", overwrite=True).done == 11

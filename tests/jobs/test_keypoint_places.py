"""Where a keypoints run writes and removes: in its folder, and the one file beside it that the folder is named for."""

from __future__ import annotations

import json
import pickle

import pytest
from test_keypoints import go, in_reach, job_of, tree  # noqa: F401 - fixtures

import gpupipe
from gpupipe.api import job_at
from gpupipe.errors import UsageError
from gpupipe.plan import _head_checksum


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

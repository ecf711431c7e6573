"""A small draw of the storm, and that what judges it sees what it should see."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import tarfile
from contextlib import closing

import cases
import checks
import numpy as np
import pytest
from storm import Storm, storm

SEED = 7


def test_kills_change_nothing(tmp_path):
    """`make chaos` does two hundred, over every format of both jobs, and has items that hang."""
    kinds = [("toy", "npy"), ("toy", "webdataset"), ("clips", "samples")]
    several = {"fail": 2, "crash": 1, "hungry": 1}
    toll = storm(tmp_path, kills=9, seed=SEED, count=96, each=3, kinds=kinds, several=several)
    assert sum(toll.kills.values()) == 9
    assert toll.outputs >= 6


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """Undisturbed outputs of the toy job by format, with their cases."""
    made = {}
    for form in cases.FORMATS:
        folder = tmp_path_factory.mktemp(form)
        case = cases.toy(folder / "case", form, 64, random.Random(SEED), delay=0.0, several={"fail": 3})
        Storm(case, folder / "case", random.Random(SEED)).run(kills=0, each=1)
        made[form] = case, folder / "case/calm"
    return made


def lose_a_row(case, out):
    path = next(out.glob("payload-*.npy"))
    rows = np.lib.format.open_memmap(path)
    rows[5] = 0


def lose_a_sample(case, out):
    shutil.rmtree(next(out.glob("sample_*_ok")))


def double_a_member(case, out):
    with tarfile.open(out / "00000.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("000001.json"))


def forget_an_item(case, out):
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as db, db:
        db.execute("delete from items where ordinal = 9")


def fail_an_innocent(case, out):
    innocent = next(ordinal for ordinal in range(case.count) if ordinal not in case.errors)
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as db, db:
        db.execute("update items set state = 2, error = 'crash' where ordinal = ?", (innocent,))


def blame_otherwise(case, out):
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as db, db:
        db.execute("update items set error = 'hang' where ordinal = ?", (min(case.errors),))


def list_twice(case, out):
    listed = json.loads((out / "dataset_info.json").read_text())
    (out / "dataset_info.json").write_text(json.dumps([*listed, listed[0]]))


def leave_a_partial(case, out):
    (out / ".gpupipe/shard-0/complete.17.partial").write_text("")


def leave_something_staged(case, out):
    (out / ".gpupipe/shard-0/staging/3").mkdir()


def leave_a_plan(case, out):
    (out / ".gpupipe/plan.host.17.partial").mkdir()


@pytest.mark.parametrize(
    ("damage", "form", "words"),
    [
        (lose_a_row, "npy", "payload-0000"),
        (lose_a_sample, "samples", "missing"),
        (double_a_member, "webdataset", "holds a member twice"),
        (forget_an_item, "npy", "item 9: not once in the ledger"),
        (fail_an_innocent, "samples", "expected done"),
        (blame_otherwise, "webdataset", "hang, expected InputError"),
        (list_twice, "npy", "names an item twice"),
        (leave_a_partial, "npy", "left behind"),
        (leave_something_staged, "samples", "left behind"),
        (leave_a_plan, "webdataset", "left behind"),
    ],
)
def test_the_judge_sees(calm, tmp_path, damage, form, words):
    case, whole = calm[form]
    shutil.copytree(whole, tmp_path / "out")
    assert checks.faults(case, tmp_path / "out", whole) == []
    damage(case, tmp_path / "out")
    assert any(words in fault for fault in checks.faults(case, tmp_path / "out", whole))

"""Whatever is changed in an output, verify finds it; what it finds, repair and a run put right."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers import HERE, Quietly, tree
from toy import ToyJob

from gpupipe.errors import LockedError, UsageError
from gpupipe.launch import Run, retry, run
from gpupipe.ownership import Ownership
from gpupipe.redo import Choice
from gpupipe.verification import verify

FORMATS = ("npy", "samples", "webdataset")
WORDS = ["ok", "ok", "fail", "ok", "ok", "bug", "ok", "ok", "ok", "fail", *["ok"] * 11]
FLIPS = 100


@pytest.fixture(scope="module", params=FORMATS)
def made(request, tmp_path_factory):
    """A complete output of 21 items, 3 of them failed, and its job."""
    folder = tmp_path_factory.mktemp(request.param)
    plan = folder / "words.json"
    plan.write_text(json.dumps(WORDS))
    job = ToyJob(format=request.param, plan_file=str(plan), marks=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        run(job, Run(folder / "out", workers=1), Quietly())
    return job, folder / "out"


@pytest.fixture
def output(made, tmp_path):
    """A copy of it to be damaged."""
    job, out = made
    shutil.copytree(out, tmp_path / "out", symlinks=True)
    return job, tmp_path / "out"


def files(out: Path) -> list[Path]:
    return sorted(path for path in out.rglob("*") if path.is_file() and ".gpupipe" not in path.parts)


def plan_files(out: Path) -> list[Path]:
    return sorted(path for path in (out / ".gpupipe/plan").iterdir())


def flip(path: Path, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(bit // 8)
        byte = file.read(1)[0]
        file.seek(bit // 8)
        file.write(bytes([byte ^ (1 << bit % 8)]))


def go(job, out, **how):
    return run(job, Run(out, **{"workers": 1, **how}), Quietly())


def test_an_output_as_it_was_written_has_no_faults(made):
    job, out = made
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name not in ("lock", "layout.lock")}
    found = verify(job, out, deep=100)
    assert (found.faults, found.done, found.failed, found.pending) == ([], 18, 3, 0)
    assert found.deep == 18
    assert found.exit_code == 0
    assert before == {
        path: path.stat().st_mtime_ns for path in out.rglob("*") if path.name not in ("lock", "layout.lock")
    }


def test_every_flipped_bit_is_found(output):
    """Anywhere in the output, each alone; every file and every header has its share."""
    job, out = output
    draw = random.Random(7)
    missed = []
    for _ in range(FLIPS):
        path = draw.choice(files(out))
        bits = path.stat().st_size * 8
        if bits == 0:
            continue
        bit = draw.randrange(min(bits, 4096)) if draw.random() < 0.5 else draw.randrange(bits)
        flip(path, bit)
        if verify(job, out).exit_code != 1:
            missed.append((path.name, bit))
        flip(path, bit)
    assert missed == []
    assert verify(job, out).exit_code == 0


def test_every_flipped_bit_of_the_plan_is_found(output):
    job, out = output
    draw = random.Random(8)
    for path in plan_files(out):
        for _ in range(10):
            bit = draw.randrange(path.stat().st_size * 8)
            flip(path, bit)
            try:
                assert verify(job, out).exit_code == 1, (path.name, bit)
            except UsageError as error:
                assert str(path) in str(error)
            flip(path, bit)


def test_every_deleted_file_is_found(output, tmp_path):
    job, out = output
    for path in files(out):
        aside = tmp_path / "aside"
        path.rename(aside)
        found = verify(job, out)
        assert found.exit_code == 1, path
        aside.rename(path)


def test_repair_and_a_run_put_everything_right(made, tmp_path):
    job, out = made
    whole = tree(out)
    draw = random.Random(9)
    for number in range(12):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(out, copy)
        for path in draw.sample(files(copy), min(3, len(files(copy)))):
            what = draw.choice(("flip", "delete", "cut", "grow", "header"))
            size = path.stat().st_size
            if what == "delete" or size == 0:
                path.unlink()
            elif what == "cut":
                with path.open("r+b") as file:
                    file.truncate(draw.randrange(size))
            elif what == "grow":
                with path.open("ab") as file:
                    file.write(b"more")
            else:
                flip(path, draw.randrange(8 * (min(size, 512) if what == "header" else size)))
        found = verify(job, copy, repair=True)
        assert found.repaired
        go(job, copy)
        assert tree(copy) == whole, found.faults
        assert verify(job, copy).faults == []


def test_repair_does_only_what_is_damaged_again(output, tmp_path):
    job, out = output
    largest = max(files(out), key=lambda path: path.stat().st_size)
    flip(largest, largest.stat().st_size * 4)
    found = verify(job, out, repair=True)
    assert found.damaged == 1
    summary = go(job, out)
    assert summary.items - summary.earlier == 1
    assert summary.complete


def test_what_belongs_to_no_item_is_said_and_left(output):
    job, out = output
    names = {"npy": "payload-00099.npy", "samples": "sample_000099_x", "webdataset": "00099.tar"}
    stray = out / names[job.format]
    stray.mkdir() if job.format == "samples" else stray.write_bytes(b"x")
    (out / "notes.txt").write_text("a person's own")
    found = verify(job, out, repair=True)
    assert found.faults == [f"{stray.name}: belongs to no item"]
    assert stray.exists() and not found.repaired
    assert "no item is damaged, and nothing of that is for a repair" in found.text()
    assert (out / "failed.jsonl").exists() and (out / ".gpupipe/index.json").exists()


def test_a_place_that_should_be_empty_is_looked_at(output):
    """Item 2 failed: something in its place is no result."""
    job, out = output
    if job.format == "npy":
        with (out / "payload-00000.npy").open("r+b") as file:
            file.seek(128 + 2 * 64)
            file.write(b"\1")
    elif job.format == "samples":
        (out / "sample_000002_fail").mkdir()
    else:
        data = bytearray((out / "00000.tar").read_bytes())
        at = data.index(b"000003.bin")
        # The members of item 3, given again, as if they were item 2's.
        members = bytes(data[at : data.index(b"000004.bin")])
        data[at:at] = members
        (out / "00000.tar").write_bytes(data)
    found = verify(job, out, repair=True)
    assert found.exit_code == 1
    go(job, out)
    assert verify(job, out).faults == []


def test_an_unfinished_output_is_verified_too(made, tmp_path):
    job, _ = made
    slow = replace(job, delay=0.1)  # so that the failed item 2 stops it within the first shard
    out = tmp_path / "out"
    run(slow, Run(out, workers=1, fail_fast=True), Quietly())
    found = verify(slow, out)
    assert found.pending > 0
    assert found.faults == []
    place = {"npy": out / "payload-00000.npy.partial", "samples": out / "sample_000000_ok/bin"}
    flip(place.get(job.format, out / ".gpupipe/blobs/00000000.tar"), 8 * 130)
    assert verify(slow, out).exit_code == 1


def test_deep_finds_what_is_made_otherwise_now(made, tmp_path, monkeypatch):
    job, out = made
    shutil.copytree(out, tmp_path / "out")
    monkeypatch.setitem(ToyJob._process.__globals__, "payload", lambda ordinal, salt: np.zeros(64, np.uint8))
    found = verify(job, tmp_path / "out", deep=5)
    assert len(found.faults) == 5
    assert "made otherwise" in found.faults[0]


def test_a_run_at_work_is_not_verified(output):
    job, out = output
    with Ownership(out / ".gpupipe", 0, 1), pytest.raises(LockedError, match="held by"):
        verify(job, out)


def test_a_read_only_output_is_verified(output, monkeypatch):
    job, out = output
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode & 2 == 0)
    assert verify(job, out).exit_code == 0


def test_repair_goes_to_the_ledger_that_owns_the_item(made, tmp_path):
    job, whole = made
    out = tmp_path / "out"
    for shard in (0, 1):
        go(job, out, shard=shard, total_shards=2)
    assert verify(job, out).faults == []
    for path in files(out):
        if path.suffix in (".npy", ".tar") or path.name == "bin":
            flip(path, path.stat().st_size * 4)
    assert verify(job, out, repair=True).damaged > 1
    for shard in (0, 1):
        go(job, out, shard=shard, total_shards=2)
    assert tree(out) == tree(whole)
    assert verify(job, out).faults == []


# ---- retry


@pytest.fixture(params=FORMATS)
def failing(request, tmp_path):
    """Items that fail until their input is there: retried by name, not by a changed input."""
    plan = tmp_path / "words.json"
    plan.write_text(json.dumps(["ok", "grudge", "ok", "fail", "grudge", "ok"]))
    job = ToyJob(format=request.param, plan_file=str(plan), marks=str(tmp_path))
    assert go(job, tmp_path / "out").failed == 3
    return job, tmp_path / "out", tmp_path


def again(job, out, **choice):
    chosen = Choice(**{key: frozenset(value) for key, value in choice.items()})
    return retry(job, Run(out, workers=1, max_failure_rate=None), chosen, Quietly())


def test_retry_completes_the_dataset_in_place(failing):
    job, out, folder = failing
    (folder / "forgiven").touch()
    summary = again(job, out)
    assert (summary.done, summary.failed, summary.items - summary.earlier) == (5, 1, 3)
    run(job, Run(folder / "whole", workers=1), Quietly())
    assert tree(out) == tree(folder / "whole")
    assert verify(job, out).faults == []


def test_retry_by_reason_and_by_id(failing):
    job, out, folder = failing
    (folder / "forgiven").touch()
    assert again(job, out, reasons=["GrudgeError"], ids=["4"]).done == 4
    assert again(job, out, ids=["000001_grudge"]).done == 5
    with pytest.raises(UsageError, match="--reason NoSuchError"):
        again(job, out, reasons=["NoSuchError"])
    with pytest.raises(UsageError, match="--ids 77"):
        again(job, out, ids=["77", "3"])


def test_retry_needs_no_items_file(failing):
    job, out, _ = failing
    Path(job.plan_file).unlink()
    assert again(job, out).failed == 3

"""Arrays of items of any length: what others read, what is put together again, what is found when it is damaged."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import Quietly, start, tree
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sequence_toy import SPECS, SequenceToy, arrays, length, sample

from gpupipe.errors import InputError, OutputError
from gpupipe.launch import Run, run
from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Expected, Place, Sample
from gpupipe.sinks.files import Checksum, checksum_of
from gpupipe.sinks.npy import npy_header
from gpupipe.sinks.sequences import SequenceSink, item_rows
from gpupipe.verification import verify

HERE = Path(__file__).parent
NAMES = [*(spec.name for spec in SPECS), "ordinal"]


class Output:
    """A place, its sink, and what its ledger would say."""

    def __init__(self, folder, count, shard_size):
        for name in ("out/.gpupipe", "staging"):
            (folder / name).mkdir(parents=True)
        self.out = folder / "out"
        self.place = Place(self.out, self.out / ".gpupipe", folder / "staging", count, shard_size)
        self.sink = SequenceSink(self.place, SPECS)
        self.checksums = {}

    def commit(self, *ordinals, rows=None):
        for ordinal in ordinals:
            checksum = Checksum()
            self.sink.commit(ordinal, sample(ordinal, rows), checksum)
            self.checksums[ordinal] = checksum.hexdigest()

    def fail(self, *ordinals):
        for ordinal in ordinals:
            self.sink.void(ordinal, None)
            self.checksums[ordinal] = ""

    def publish(self):
        for shard in range(self.place.shards):
            items = self.place.shard_items(shard)
            self.sink.publish(shard, np.array([self.checksums[ordinal] != "" for ordinal in items]))

    def faults(self):
        found = list(self.sink.extra(set()))
        for shard in range(self.place.shards):
            known = [ordinal for ordinal in self.place.shard_items(shard) if ordinal in self.checksums]
            expected = [Expected(ordinal, None, self.checksums[ordinal]) for ordinal in known]
            found += self.sink.verify(shard, expected)
        return found

    def blobs(self):
        return sorted(path.name for path in (self.place.bookkeeping / "blobs").iterdir())

    def files(self):
        return {path.name: path.read_bytes() for path in self.out.iterdir() if path.is_file()}

    def array(self, name, shard=0):
        return np.load(self.out / f"{name}-{shard:05d}.npy", allow_pickle=False)


@pytest.fixture
def output(tmp_path):
    """Items 0 to 6 in shards of 4; 2 and 5 failed, and 0 has no rows."""
    made = Output(tmp_path, 7, 4)
    made.commit(6, 1, 0, 3, 4)
    made.fail(2, 5)
    made.publish()
    return made


@pytest.fixture
def whole(tmp_path):
    """The bytes of a shard of six items: 1 and 4 failed."""
    made = Output(tmp_path / "whole", 6, 8)
    made.commit(0, 2, 3, 5)
    made.fail(1, 4)
    made.publish()
    return made


# ---- what is written


def test_a_shard_is_its_items_rows_by_ordinal(output):
    for shard, done in ((0, (0, 1, 3)), (1, (4, 6))):
        for spec in SPECS:
            found = output.array(spec.name, shard)
            assert found.dtype == np.dtype(spec.dtype)
            np.testing.assert_array_equal(found, np.concatenate([arrays(ordinal)[spec.name] for ordinal in done]))
        ordinals = output.array("ordinal", shard)
        assert ordinals.dtype == np.int64
        assert ordinals.tolist() == [ordinal for ordinal in done for _ in range(length(ordinal))]
    assert output.blobs() == []
    assert sorted(output.files()) == sorted(f"{name}-{shard:05d}.npy" for name in NAMES for shard in (0, 1))
    assert output.faults() == []


def test_a_shard_without_rows_is_empty_arrays(tmp_path):
    made = Output(tmp_path, 2, 2)
    made.commit(0)  # has none
    made.fail(1)
    made.publish()
    assert made.array("points").shape == (0, 5, 3)
    assert made.array("ordinal").shape == (0,)
    assert made.faults() == []
    assert item_rows(made.place, 0, SPECS) is None
    made.sink.reopen(0)
    assert made.faults() == []
    made.publish()
    assert made.faults() == []


def test_a_shard_has_its_names_only_when_published(tmp_path):
    made = Output(tmp_path, 2, 2)
    made.commit(1)
    assert made.files() == {}
    assert not made.sink.published(0)
    made.fail(0)
    made.publish()
    assert made.sink.published(0)
    assert made.sink.overhead(0) == sum(
        len(npy_header((length(1), *spec.shape), spec.dtype)) for spec in (*SPECS, RowSpec("ordinal", (), "<i8"))
    )


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.one_of(st.none(), st.integers(0, 9)), min_size=1, max_size=9),
    shard_size=st.integers(1, 5),
    seed=st.integers(0, 9),
)
def test_any_lengths_in_any_order_are_composed_and_taken_apart(tmp_path, lengths, shard_size, seed):
    folder = tmp_path / "any"
    shutil.rmtree(folder, ignore_errors=True)
    made = Output(folder, len(lengths), shard_size)
    for ordinal in random.Random(seed).sample(range(len(lengths)), len(lengths)):
        made.fail(ordinal) if lengths[ordinal] is None else made.commit(ordinal, rows=lengths[ordinal])
    assert made.faults() == []
    made.publish()
    assert made.faults() == []
    before = made.files()
    for shard in range(made.place.shards):
        made.sink.reopen(shard)
    assert made.files() == {}
    for again in (False, True):
        for ordinal, rows in enumerate(lengths):
            found = item_rows(made.place, ordinal, SPECS)
            if not rows:
                assert found is None
                continue
            for name, array in arrays(ordinal, rows).items():
                np.testing.assert_array_equal(found[name], array, strict=True)
                assert not found[name].flags.writeable
        if not again:
            made.publish()
    assert made.files() == before


def test_more_rows_than_are_looked_at_at_once(tmp_path):
    made = Output(tmp_path, 3, 3)
    sink, lengths = SequenceSink(made.place, [RowSpec("bit", (), "|u1")]), (600_000, 1, 70_000)
    for ordinal, rows in enumerate(lengths):
        data = np.arange(rows, dtype=np.uint8) + ordinal
        sink.commit(ordinal, Sample("x", {}, lambda data=data: {"bit": [data]}), Checksum())
    done = np.ones(3, dtype=bool)
    sink.publish(0, done)
    before = made.files()
    np.testing.assert_array_equal(made.array("ordinal"), np.repeat([0, 1, 2], lengths), strict=True)
    np.testing.assert_array_equal(made.array("bit")[600_001:], np.arange(70_000, dtype=np.uint8) + 2, strict=True)
    sink.reopen(0)
    assert len(made.blobs()) == 3
    sink.publish(0, done)
    assert made.files() == before


def test_the_checksum_is_of_what_is_written_and_of_the_members(output):
    made = sample(3)
    assert checksum_of(output.sink.members(made)) == output.checksums[3]
    raw = {name: [array.tobytes()] for name, array in arrays(3).items()}
    assert checksum_of(raw) == output.checksums[3]


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"points": [bytes(60)], "valid": [bytes(2)], "pts": [bytes(7)]}, "7 bytes, expected rows of 8"),
        ({"points": [bytes(120)], "valid": [bytes(2)], "pts": [bytes(16)]}, "as many rows in each.*'valid': 1"),
        ({"points": [bytes(60)], "valid": [bytes(2)]}, "got arrays .*declared .*pts"),
        ({"points": [], "valid": [], "pts": [], "more": []}, "more"),
    ],
)
def test_arrays_that_are_not_as_declared_are_refused(tmp_path, files, said):
    made = Output(tmp_path, 1, 1)
    with pytest.raises(ValueError, match=said) as caught:
        made.sink.commit(0, Sample("000000", {}, lambda: files), Checksum())
    assert not isinstance(caught.value, InputError)
    assert made.blobs() == []
    made.commit(0, rows=2)  # what was staged is not in the way
    made.publish()
    assert made.faults() == []


@pytest.mark.parametrize(
    "specs",
    [[], [SPECS[0], SPECS[0]], [RowSpec("ordinal", (), "<i8")], [RowSpec("none", (3, 0), "<f4")]],
)
def test_arrays_that_cannot_be_told_apart_or_counted_are_refused(output, specs):
    with pytest.raises(ValueError, match="expected"):
        SequenceSink(output.place, specs)


def test_an_item_that_breaks_off_leaves_nothing(tmp_path):
    made = Output(tmp_path, 2, 2)

    def breaks():
        yield bytes(60)
        raise InputError("frame 1: damaged")

    files = {"points": breaks(), "valid": [bytes(2)], "pts": [bytes(8)]}
    with pytest.raises(InputError):
        made.sink.commit(0, Sample("000000", {}, lambda: files), Checksum())
    made.fail(0)
    made.commit(1)
    assert list(made.place.staging.iterdir()) == []
    made.publish()
    assert set(made.array("ordinal").tolist()) == {1}


# ---- interruptions and damage


def test_a_kill_before_any_step_changes_nothing(tmp_path):
    """Of a first run and of one that redoes items: verified, read and completed after each."""
    path = os.pathsep.join(map(str, (HERE, HERE.parent / "engine", HERE.parents[1])))
    done = subprocess.run(
        [sys.executable, HERE / "sequence_steps.py", tmp_path],
        env=dict(os.environ, PYTHONPATH=path),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(steps > 100 for steps in json.loads(done.stdout))


def test_a_run_killed_while_it_dropped_blobs_drops_them(output):
    stray = output.place.bookkeeping / "blobs" / "00000003"
    stray.mkdir()
    (stray / "points").write_bytes(b"half of it")
    sink = SequenceSink(output.place, SPECS)
    assert not sink.published(0)
    assert sink.published(1)
    before = output.files()
    sink.publish(0, np.array([True, True, False, True]))
    assert (output.blobs(), output.files(), sink.published(0)) == ([], before, True)


@pytest.mark.parametrize("damage", ["gone", "one file gone", "cut"])
def test_a_done_item_whose_blob_is_damaged_stops_the_run(tmp_path, damage):
    made = Output(tmp_path, 2, 2)
    made.commit(0, 1, rows=3)
    blob = made.place.bookkeeping / "blobs" / "00000001"
    if damage == "gone":
        shutil.rmtree(blob)
    elif damage == "one file gone":
        (blob / "valid").unlink()
    else:
        os.truncate(blob / "points", 119)
    assert [fault.ordinals for fault in made.faults()] == [(1,)]
    with pytest.raises(OutputError, match=r"item 1 is done.*verify --repair"):
        made.publish()
    assert made.files() == {}


def change(path, draw):
    """Damage a file somehow; what was done."""
    what = draw.choice(("flip", "flip", "delete", "cut", "grow", "header", "rows cut", "shuffled"))
    data = bytearray(path.read_bytes())
    if what == "flip":
        data[draw.randrange(128, len(data))] ^= 1 << draw.randrange(8)
    elif what == "header":
        data[draw.randrange(128)] ^= 1 << draw.randrange(8)
    elif what == "cut":
        del data[draw.randrange(len(data)) :]
    elif what == "rows cut":
        del data[-8 * draw.randrange(1, 3) :]
    elif what == "grow":
        data += draw.randbytes(draw.choice((1, 8, 60)))
    elif what == "shuffled":
        data[128:] = bytes(data[128:])[::-1]
    path.unlink() if what == "delete" else path.write_bytes(data)
    return f"{path.name}: {what}"


@pytest.mark.parametrize("seed", range(40))
def test_what_is_damaged_is_found_and_done_again(whole, seed):
    """The faults name all that must be redone; whatever else there is survives being taken apart."""
    before, draw = whole.files(), random.Random(seed)
    names = draw.sample(sorted(before), draw.choice((1, 1, 2)))
    changes = [change(whole.out / name, draw) for name in names]
    faults = whole.faults()
    if whole.files() == before:  # a palindrome
        assert faults == []
        return
    assert faults, changes
    again = sorted({ordinal for fault in faults for ordinal in fault.ordinals})
    assert again, changes
    whole.sink.reopen(0)
    whole.commit(*(ordinal for ordinal in again if whole.checksums[ordinal]))
    whole.fail(*(ordinal for ordinal in again if not whole.checksums[ordinal]))
    whole.publish()
    assert whole.files() == before, changes
    assert whole.faults() == []


def test_every_flipped_bit_is_found_and_names_no_more_than_it_must(whole):
    missed = []
    for name in NAMES:
        path = whole.out / f"{name}-00000.npy"
        data = path.read_bytes()
        for at in range(0, len(data), 3):
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
            found = {ordinal for fault in whole.faults() for ordinal in fault.ordinals}
            if not found or (name != "ordinal" and len(found) != 1):
                missed.append((name, at, found))
        path.write_bytes(data)
    assert missed == []


def test_rows_of_a_failed_item_are_found(tmp_path):
    made = Output(tmp_path, 3, 4)
    made.commit(0, 1, 2, rows=2)
    made.publish()
    made.checksums[1] = ""
    (fault,) = made.faults()
    assert fault.ordinals == (1,)
    assert "rows 2 to 4" in fault.text
    made.sink.reopen(0)
    (fault,) = made.faults()
    assert fault.path.name == "00000001"
    made.fail(1)
    made.publish()
    assert made.array("ordinal").tolist() == [0, 0, 2, 2]
    assert made.faults() == []


def test_a_shard_whose_file_is_gone_is_one_fault(output):
    (output.out / "valid-00000.npy").unlink()
    (fault,) = output.faults()
    assert (fault.path.name, fault.text, fault.ordinals) == ("valid-00000.npy", "missing", (0, 1, 3))


def test_ordinals_of_another_shard_are_no_items_of_this_one(output):
    for name in NAMES:
        shutil.copy(output.out / f"{name}-00000.npy", output.out / f"{name}-00001.npy")
    (fault,) = output.faults()
    assert (fault.path.name, fault.ordinals) == ("ordinal-00001.npy", (4, 6))
    output.sink.reopen(1)
    assert output.blobs() == []


def test_a_link_is_neither_written_through_nor_taken_away(output, tmp_path):
    moved, path = tmp_path / "moved.npy", output.out / "valid-00000.npy"
    path.rename(moved)
    path.symlink_to(moved)
    assert output.faults() == []
    assert output.sink.published(0)
    with pytest.raises(OutputError, match=r"valid-00000\.npy.*symbolic link"):
        output.sink.reopen(0)
    assert (path.is_symlink(), moved.exists(), output.blobs()) == (True, True, [])
    moved.rename(path)
    assert output.faults() == []


def test_nothing_is_composed_into_a_link(tmp_path):
    made = Output(tmp_path, 1, 1)
    made.commit(0, rows=1)
    (tmp_path / "mine").write_text("mine")
    (made.out / "points-00000.npy.partial").symlink_to(tmp_path / "mine")
    with pytest.raises(OutputError, match="symbolic link"):
        made.publish()
    assert (tmp_path / "mine").read_text() == "mine"


def test_what_is_ours_and_of_no_item_is_said(output):
    names = ["points-00007.npy", "ordinal-00000.npy.partial", "pts-00002.npy.partial"]
    for name in names:
        (output.out / name).write_bytes(b"x")
    for name in ("points.npy", "other-00000.npy"):
        (output.out / name).write_bytes(b"a person's own")
    assert sorted(fault.path.name for fault in output.faults()) == sorted(names)
    assert output.sink.foreign() is not None
    output.sink.remove([])
    assert sorted(output.files()) == ["other-00000.npy", "points.npy"]
    assert output.sink.foreign() is None


# ---- reading


def test_a_readers_rows_are_found_wherever_they_lie(tmp_path):
    made = Output(tmp_path, 3, 2)
    assert item_rows(made.place, 1, SPECS) is None
    made.commit(1, 2)
    made.fail(0)
    for _ in range(2):
        found = item_rows(made.place, 1, SPECS[1:])
        assert list(found) == ["valid", "pts"]
        np.testing.assert_array_equal(found["valid"], arrays(1)["valid"], strict=True)
        assert item_rows(made.place, 0, SPECS) is None
        made.publish()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("points", "cut"), ("points", "header"), ("ordinal", "cut"), ("ordinal", "reversed"), ("pts", "grown")],
)
def test_a_reader_is_told_of_damage(output, name, damage):
    path = output.out / f"{name}-00000.npy"
    data = path.read_bytes()
    path.write_bytes(
        {
            "cut": data[:-1],
            "grown": data + b"x",
            "header": data.replace(b"<f4", b"<i4"),
            "reversed": data[:128] + data[-8:] * ((len(data) - 128) // 8 - 1) + data[128:136],
        }[damage]
    )
    with pytest.raises(InputError, match=f"{name}-00000"):
        item_rows(output.place, 1, SPECS)


def test_a_reader_is_told_of_a_damaged_blob(tmp_path):
    made = Output(tmp_path, 2, 2)
    made.commit(1)
    os.truncate(made.place.bookkeeping / "blobs/00000001/pts", 3)
    with pytest.raises(InputError, match="blobs/00000001"):
        item_rows(made.place, 1, SPECS)


# ---- memory

MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np
from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Expected, Place, Sample
from gpupipe.sinks.files import Checksum
from gpupipe.sinks.sequences import SequenceSink

root, rows, at_once = Path(sys.argv[1]), int(sys.argv[2]), 64
for name in ("out/.gpupipe", "staging"):
    (root / name).mkdir(parents=True)
sink = SequenceSink(
    Place(root / "out", root / "out/.gpupipe", root / "staging", 2, 2),
    [RowSpec("keypoints", (543, 3), "<f4"), RowSpec("pts", (), "<f8")],
)

def keypoints():
    for start in range(0, rows, at_once):
        yield np.full((min(at_once, rows - start), 543, 3), start, np.float32)

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10

files = lambda: {"keypoints": keypoints(), "pts": (np.full(1, n, np.float64) for n in range(rows))}
before, expected = peak(), []
for ordinal in (0, 1):
    checksum = Checksum()
    sink.commit(ordinal, Sample("x", {}, files), checksum)
    expected.append(Expected(ordinal, None, checksum.hexdigest()))
for again in range(2):
    sink.publish(0, np.array([True, True]))
    assert list(sink.verify(0, expected)) == []
    sink.reopen(0)
assert list(sink.verify(0, expected)) == []
print(peak() - before)
"""


def test_an_item_of_many_rows_takes_little_memory(tmp_path):
    """65 MB of rows each, of 6.5 KB; what is held is a few pieces of 4 MB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path, "10000"],
        env=dict(os.environ, PYTHONPATH=str(HERE.parents[1])),
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 32 << 20


# ---- in whole runs


@pytest.fixture
def made(tmp_path, monkeypatch):
    """A complete output of 21 items, 3 of them failed, and its job."""
    path = os.pathsep.join([str(HERE), str(HERE.parent / "engine"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)
    words = ["ok", "ok", "fail", "ok", "ok", "bug", "ok", "ok", "ok", "fail", *["ok"] * 11]
    (tmp_path / "words.json").write_text(json.dumps(words))
    (tmp_path / "marks").mkdir()
    job = SequenceToy(plan_file=str(tmp_path / "words.json"), marks=str(tmp_path / "marks"))
    summary = run(job, Run(tmp_path / "out", workers=1), Quietly())
    assert (summary.done, summary.failed) == (18, 3)
    return job, tmp_path / "out"


def test_a_run_is_verified_and_repaired(made, tmp_path):
    job, out = made
    assert verify(job, out, deep=100).faults == []
    draw = random.Random(3)
    for number in range(4):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(out, copy)
        names = draw.sample(sorted(path.name for path in copy.glob("*.npy")), 2)
        changes = [change(copy / name, draw) for name in names]
        assert verify(job, copy, repair=True).repaired, changes
        run(job, Run(copy, workers=2), Quietly())
        assert tree(copy) == tree(out), changes
        assert verify(job, copy).faults == []


RUN = """
import sys
from pathlib import Path
from helpers import Quietly
from sequence_toy import SequenceToy
from gpupipe import commits
from gpupipe.launch import Run, run
commits.COMMIT_SECONDS = 0.02
run(SequenceToy(plan_file=sys.argv[1], marks=sys.argv[2], delay=0.02), Run(Path(sys.argv[3]), workers=2), Quietly())
"""


def test_a_killed_run_continues_to_the_same_bytes(made, tmp_path):
    job, out = made
    copy = tmp_path / "killed"
    tries = tmp_path / "marks/tries"
    for items in (5, 12):
        tries.write_text("")
        process = start(RUN, job.plan_file, job.marks, str(copy))
        deadline = time.monotonic() + 60
        while process.poll() is None and tries.stat().st_size < 2 * items:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    summary = run(job, Run(copy, workers=2), Quietly())
    assert summary.done == 18
    assert tree(copy) == tree(out)
    assert verify(job, copy).faults == []

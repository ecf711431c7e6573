"""A dry run of the toy job: what it says is what then happens, and it leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import Quietly, alive, start, start_run

from gpupipe import estimate, forecast, hand, trial
from gpupipe.errors import StoppedError, UsageError
from gpupipe.forecast import Forecast
from gpupipe.launch import Run, run
from gpupipe.reports.forecast import forecast_text

FORMATS = ("npy", "samples", "webdataset")


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    """Temporary folders are made here, so that what stays behind of them is seen."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert list(folder.iterdir()) == []


def look(job, out, **how) -> Forecast:
    return forecast.forecast(job, Run(output=Path(out), **how), Quietly())


def go(job, out, **how):
    return run(job, Run(output=Path(out), **how), Quietly())


def traces(folder: Path) -> dict[str, tuple]:
    """Everything in a folder, with sizes and times, the folder itself included."""
    return {str(path): _trace(path) for path in [folder, *sorted(folder.rglob("*"))]}


def _trace(path: Path) -> tuple:
    facts = path.lstat()
    return facts.st_ino, facts.st_mode, facts.st_size, facts.st_mtime_ns, path.is_file() and path.read_bytes()


def written(out: Path, *patterns: str) -> int:
    """Bytes of the items' files: bookkeeping, failures and index aside."""
    return sum(path.stat().st_size for pattern in patterns for path in out.glob(pattern) if path.is_file())


# ---- nothing stays


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_new_output_nothing_stays(toys, tmp_path, form):
    (tmp_path / "work").mkdir()
    before = traces(tmp_path / "work")
    found = look(toys(["ok"] * 30, format=form), tmp_path / "work/deep/out")
    assert (found.items.to_do, found.planned, found.problems) == (30, False, [])
    assert found.trial.done >= trial.MIN_WORKED
    assert traces(tmp_path / "work") == before


@pytest.mark.parametrize("form", FORMATS)
def test_of_a_planned_output_nothing_changes(toys, tmp_path, form):
    job = toys(["ok"] * 20 + ["fail"], format=form)
    go(job, tmp_path / "out", workers=1)
    before = traces(tmp_path / "out")
    found = look(job, tmp_path / "out")
    assert (found.items.done, found.items.failed, found.items.to_do, found.planned) == (20, 1, 0, True)
    assert traces(tmp_path / "out") == before


def test_an_output_that_is_made_otherwise_is_refused(toys, tmp_path):
    go(toys(["ok"] * 3), tmp_path / "out", workers=1)
    before = traces(tmp_path / "out")
    with pytest.raises(UsageError, match="salt: 0 there, 1 asked"):
        look(toys(["ok"] * 3, salt=1), tmp_path / "out")
    with pytest.raises(UsageError, match=r"3 from .* there, 4 others"):
        look(toys(["ok"] * 4), tmp_path / "out")
    assert look(toys(["ok"] * 4, salt=1), tmp_path / "out", overwrite=True).items.to_do == 4
    assert traces(tmp_path / "out") == before


def test_what_another_program_wrote_is_refused_as_by_a_run(toys, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/00000.tar").touch()
    job = toys(["ok"] * 3, format="webdataset")
    with pytest.raises(UsageError, match="no run of gpupipe recorded"):
        look(job, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["00000.tar"]
    assert look(job, tmp_path / "out", overwrite=True).items.to_do == 3


def test_an_output_that_cannot_be_is_refused(toys, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is no folder"):
        look(toys(["ok"]), tmp_path / "file/out")


def test_what_a_run_refuses_is_refused(toys, tmp_path):
    job = toys(["ok"])
    with pytest.raises(UsageError, match="is the input of this run"):
        look(job, tmp_path / "out", checkpoint_file=Path(job.plan_file))
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/.gpupipe").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="symbolic link"):
        look(job, tmp_path / "out")


def test_sigterm_leaves_nothing_and_nobody(toys, tmp_path, scratch):
    job = toys(["stuck"])
    code = (
        "import json, sys, os\nfrom pathlib import Path\nfrom helpers import Quietly\nfrom gpupipe import forecast\n"
        "from gpupipe.launch import Run\nfrom toy import ToyJob\n"
        "print(forecast.forecast(ToyJob(plan_file=sys.argv[1], marks=sys.argv[2]), Run(Path(sys.argv[3])), Quietly()))"
    )
    arguments = [job.plan_file, job.marks, str(tmp_path / "out")]
    os.environ["TMPDIR"] = str(scratch)
    try:
        process = start(code, *arguments, stderr=-3)
    finally:
        del os.environ["TMPDIR"]
    _until(Path(job.marks, "stuck").exists)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.terminate()
    assert process.wait(60) != 0
    _until(lambda: not any(alive(int(pid)) for pid in children))
    assert list(scratch.iterdir()) == []


# ---- what is there


def test_items_are_counted_by_state_and_shard(toys, tmp_path):
    words = ["ok", "fail"] * 12
    job = toys(words, shard_size=4)
    Path(job.marks, "input-ok").write_text("as it was")
    go(job, tmp_path / "out", workers=1, shard=0, total_shards=2)
    items = look(job, tmp_path / "out", shard=0, total_shards=2).items
    assert (items.total, items.done, items.failed, items.to_do) == (12, 6, 6, 0)
    items = look(job, tmp_path / "out", shard=1, total_shards=2).items
    assert (items.total, items.pending, items.to_do) == (12, 12, 12)
    Path(job.marks, "input-ok").write_text("another now")
    Path(job.marks, "input-fail").write_text("not there before")
    items = look(job, tmp_path / "out", shard=0, total_shards=2).items
    assert (items.changed_done, items.changed_failed, items.to_do) == (6, 6, 12)
    Path(job.marks, "input-ok").unlink()
    items = look(job, tmp_path / "out", shard=0, total_shards=2).items
    assert (items.changed_done, items.gone, items.to_do) == (0, 6, 6)


def test_while_a_run_is_at_work(toys, tmp_path):
    """It says so, sees what is done by then, and the run goes on."""
    job = toys(["ok"] * 400, delay=0.1)
    process = start_run({"plan_file": job.plan_file, "marks": job.marks, "delay": 0.1}, {"output": tmp_path / "out"})
    _until(Path(job.marks, "tries").exists)
    found = look(job, tmp_path / "out")
    assert process.poll() is None
    assert len(found.running) == 1 and str(process.pid) in found.running[0]
    assert found.items.total == 400 == found.items.done + found.items.pending
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    after = look(job, tmp_path / "out")
    assert after.items.done > found.items.done and after.running == []


def test_nothing_to_do_needs_no_trial(toys, tmp_path):
    job = toys(["ok"] * 3)
    go(job, tmp_path / "out", workers=1)
    tries = Path(job.marks, "tries").read_text()
    found = look(job, tmp_path / "out")
    assert (found.survey.probed, found.trial.worked, found.exit_code) == (0, 0, 0)
    assert Path(job.marks, "tries").read_text() == tries
    assert forecast_text(found, "words").splitlines()[1] == "3 words: 0 to do; 3 done, 0 failed, 0 pending"


# ---- what is tried


def test_the_sample_is_random_bounded_and_the_same_again(toys, tmp_path):
    job = toys(["ok"] * 1000)
    for _ in range(2):
        assert look(job, tmp_path / "out").survey.probed <= trial.MAX_PROBED
        Path(job.marks, "tries").rename(Path(job.marks, f"tries-{_}"))
    one, other = (Path(job.marks, f"tries-{n}").read_text().split() for n in range(2))
    common = min(len(one), len(other))
    assert common >= trial.MIN_WORKED and one[:common] == other[:common]
    assert len(set(one)) == len(one) and max(map(int, one)) > 100


def test_facts_are_told(toys, tmp_path):
    found = look(toys(["ok"] * 5 + ["bug"] * 3 + ["absent"]), tmp_path / "out")
    survey = found.survey
    assert (survey.probed, survey.readable) == (9, 8)
    assert (survey.codecs, survey.sizes, survey.layouts) == ({"toy": 8}, {"2x3": 8}, {"flat": 8})
    assert survey.backends == {"toy": ["none"]}
    assert (survey.seconds.min, survey.seconds.median, survey.seconds.max) == (2.0, 2.0, 3.0)
    assert survey.reasons["MissingInputError"].example == "000008_absent: absent: no such file"
    assert (found.trial.worked, found.trial.done) == (9, 6)
    assert found.trial.reasons["ZeroDivisionError"].count == 3
    text = forecast_text(found, "words")
    assert "  ZeroDivisionError 3, as 00000" in text
    assert "codecs: toy 8; decoded by none" in text


@pytest.mark.parametrize("word", ["crash", "crash-probe"])
def test_an_item_that_ends_its_process_is_listed(toys, tmp_path, word):
    found = look(toys(["ok"] * 7 + [word]), tmp_path / "out")
    assert found.exit_code == 0
    reasons = found.survey.reasons if word == "crash-probe" else found.trial.reasons
    assert reasons["crash"].count == 1
    assert "SIGABRT" in reasons["crash"].example and reasons["crash"].example.startswith("000007_")
    assert found.trial.done == 7 and found.seconds is not None


@pytest.mark.parametrize("word", ["stuck", "hang-probe"])
def test_an_item_that_hangs_is_ended_and_listed(toys, tmp_path, word):
    found = look(toys(["ok"] * 7 + [word]), tmp_path / "out", item_timeout=1.2)
    reasons = found.survey.reasons if word == "hang-probe" else found.trial.reasons
    assert reasons["hang"].example == f"000007_{word}: not done after 1.2 s"
    assert found.trial.done == 7


def test_an_item_may_take_as_long_as_in_a_run(toys, tmp_path, monkeypatch):
    """A clip of many frames is worked for longer than a look at an input may take."""
    monkeypatch.setattr(forecast, "PATIENCE_SECONDS", 1.1)
    found = look(toys(["ok"] * 2, delay=2.5), tmp_path / "out")
    assert (found.trial.done, found.trial.reasons) == (2, {})


def test_a_trial_of_long_items_has_few(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "LONGEST_SECONDS", 0.4)  # the second would begin after it
    found = look(toys(["ok"] * 9, delay=0.5), tmp_path / "out")
    assert (found.trial.worked, found.trial.done) == (1, 1) and found.seconds is not None


def test_the_longest_item_of_a_trial_is_given_up(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(trial, "LONGEST_ITEM_SECONDS", 1.2)
    found = look(toys(["ok"] * 7 + ["stuck"]), tmp_path / "out")
    assert found.trial.reasons["hang"].example == "000007_stuck: not done after 1.2 s"


def test_items_that_all_crash_end_the_trial_not_the_dry_run(toys, tmp_path):
    job = toys(["crash"] * 50, format="samples")
    found = look(job, tmp_path / "out")
    assert found.trial.reasons["crash"].count == trial.LOST_ALLOWED + 1
    assert (found.seconds, found.output_bytes, found.exit_code) == (None, None, 0)
    assert "expected: unknown" in forecast_text(found, "words")


def test_an_item_that_stops_a_run_is_listed(toys, tmp_path):
    found = look(toys(["ok"] * 7 + ["full"]), tmp_path / "out")
    assert "No space left on device" in found.trial.reasons["stopped"].example


def test_a_worker_that_cannot_start_stops_it_as_a_run(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(hand, "START_SECONDS", 30.0)
    monkeypatch.setenv("PYTHONPATH", "")  # no toy job there
    with pytest.raises(StoppedError, match="toy"):
        look(toys(["ok"] * 3), tmp_path / "out")


# ---- what it comes to


@pytest.mark.parametrize("shard_size", [1, 7, 8, 64])
def test_rows_are_foreseen_to_the_byte(toys, tmp_path, shard_size):
    job = toys(["ok"] * 30 + ["fail"], shard_size=shard_size)
    found = look(job, tmp_path / "out", workers=1)
    go(job, tmp_path / "out", workers=1)
    assert found.output_bytes.low == found.output_bytes.expected == found.output_bytes.high
    assert found.output_bytes.expected == written(tmp_path / "out", "*.npy")


@pytest.mark.parametrize(("form", "patterns"), [("samples", ["sample_*/*"]), ("webdataset", ["*.tar"])])
def test_blobs_are_foreseen(toys, tmp_path, form, patterns):
    job = toys(["ok"] * 300, format=form, shard_size=16)
    found = look(job, tmp_path / "out", workers=1)
    go(job, tmp_path / "out", workers=1)
    assert found.output_bytes.expected == pytest.approx(written(tmp_path / "out", *patterns), rel=0.01)


def test_rows_that_are_reserved_need_no_room(toys, tmp_path):
    job = toys(["ok"] * 20, shard_size=10)
    half = toys(["ok"] * 20, shard_size=10)
    go(half, tmp_path / "out", workers=1, shard=0, total_shards=2)
    row = sum(spec.nbytes for spec in job.rows())
    found = look(job, tmp_path / "out")
    assert (found.items.to_do, found.needed_bytes) == (10, found.output_bytes.expected)
    assert 10 * row <= found.needed_bytes < 11 * row + 3 * 128


def test_a_tar_and_its_segments_are_there_at_once(toys, tmp_path, monkeypatch):
    needs = {}
    for size in (4, 64):
        found = look(toys(["ok"] * 64, format="webdataset", shard_size=size), tmp_path / "out")
        needs[size] = found.needed_bytes
    # Twice the largest shard: 60 items more, of at least two members of a block each.
    assert needs[64] - needs[4] > 60 * 2 * 512


def test_time_goes_with_items_and_workers(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "usable_cores", lambda: 4)
    job = toys(["ok"] * 100, delay=0.2)
    alone, four, forty = (look(job, tmp_path / "out", workers=workers) for workers in (1, 4, 40))
    assert alone.seconds.expected - alone.trial.start_seconds == pytest.approx(20.0, rel=0.3)
    assert four.seconds.expected - four.trial.start_seconds == pytest.approx(5.0, rel=0.3)
    assert forty.seconds.expected - forty.trial.start_seconds == pytest.approx(5.0, rel=0.3)  # no more cores than four
    assert alone.seconds.low <= alone.seconds.expected <= alone.seconds.high


def test_slow_storage_bounds_the_time(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(forecast, "write_rate", lambda folder: 10.0)
    found = look(toys(["ok"] * 30), tmp_path / "out")
    assert found.storage_bound
    assert found.seconds.expected == found.output_bytes.expected / 10.0
    assert "for storage that writes 10 bytes/s" in forecast_text(found, "words")


def test_measuring_the_storage_leaves_no_trace(tmp_path, monkeypatch):
    before = traces(tmp_path)
    assert estimate.write_rate(tmp_path) > 0
    assert traces(tmp_path) == before
    monkeypatch.setattr(os, "O_TMPFILE", os.O_CREAT)  # a folder cannot be opened so: no such files there
    assert estimate.write_rate(tmp_path) is None
    assert traces(tmp_path) == before


# ---- what cannot be


def test_too_little_room(toys, tmp_path, monkeypatch):
    job = toys(["ok"] * 30, format="samples")
    needed = look(job, tmp_path / "out").needed_bytes
    for free, code in ((needed + (1 << 20), 0), (needed // 2, 2)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=free: SimpleNamespace(free=free))
        found = look(job, tmp_path / "out")
        assert found.exit_code == code
    (problem,) = found.problems
    assert str(tmp_path / "out") in problem and "Make space" in problem


def test_overwriting_makes_room(toys, tmp_path, monkeypatch):
    job = toys(["ok"] * 30, format="samples")
    go(job, tmp_path / "out", workers=1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=0))
    assert look(job, tmp_path / "out", overwrite=True).free_bytes == written(tmp_path / "out", "sample_*/*")


def test_too_little_memory(toys, tmp_path, monkeypatch):
    job = toys(["ok"] * 30)
    peak = look(job, tmp_path / "out", workers=3).trial.peak_bytes
    assert peak > 10 << 20
    monkeypatch.setattr(forecast, "memory_bytes", lambda: int(2.5 * peak))
    assert look(job, tmp_path / "out", workers=2).exit_code == 0
    (problem,) = look(job, tmp_path / "out", workers=4).problems
    assert "4 workers of" in problem and "--num-workers 2" in problem


def test_inputs_that_are_all_missing(toys, tmp_path):
    found = look(toys(["absent"] * 10), tmp_path / "out")
    (problem,) = found.problems
    assert problem.startswith(f"none of 10 sampled inputs is there. Check --marks {tmp_path / 'marks'}: 00000")
    assert found.trial.worked == 0
    assert look(toys(["absent"] * 10 + ["ok"]), tmp_path / "out").exit_code == 0


def test_the_text_fits_a_terminal(toys, tmp_path):
    text = forecast_text(look(toys(["ok", "fail", "absent"] * 30), tmp_path / "out"), "words")
    assert max(len(line) for line in text.splitlines() if str(tmp_path) not in line) <= 80


def _until(condition) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)

"""A run from its plan to its finished dataset, with every kind of end."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from helpers import Quietly, alive, start_run, tree, workers_of
from toy import payload

from gpupipe.errors import LockedError, OutputError, StoppedError, UsageError
from gpupipe.launch import Run, run
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE
from gpupipe.reports.final import status

FORMATS = ("npy", "samples", "webdataset")


def go(job, out, **how):
    return run(job, Run(output=Path(out), **how), Quietly())


def misdeeds(count):
    words = ["ok"] * count
    for ordinal, word in ((3, "fail"), (9, "bug"), (14, "crash"), (15, "crash-once")):
        words[ordinal] = word
    return words


@pytest.mark.parametrize("form", FORMATS)
def test_same_bytes_for_any_number_of_workers(toys, tmp_path, form):
    trees = []
    for workers in (1, 2, 5):
        job = toys(misdeeds(61), format=form)
        for mark in Path(job.marks).iterdir():
            mark.unlink()
        summary = go(job, tmp_path / f"{workers}", workers=workers)
        assert (summary.done, summary.failed, summary.exit_code) == (58, 3, 3)
        assert summary.reasons == {"InputError": 1, "ZeroDivisionError": 1, "crash": 1}
        trees.append(tree(tmp_path / f"{workers}"))
    assert trees[0] == trees[1] == trees[2]
    assert len(trees[0]) > 5


def test_rows_are_where_they_belong_and_failed_rows_are_void(toys, tmp_path):
    go(toys(misdeeds(20)), tmp_path / "out", workers=2)
    for ordinal in range(20):
        shard, row = divmod(ordinal, 8)
        got = np.load(tmp_path / f"out/payload-{shard:05d}.npy")[row]
        valid = np.load(tmp_path / f"out/valid-{shard:05d}.npy")[row]
        if ordinal in (3, 9, 14):
            assert not valid
            assert not got.any()
        else:
            assert valid
            np.testing.assert_array_equal(got, payload(ordinal))
    assert np.load(tmp_path / "out/payload-00002.npy").shape == (4, 64)  # the last shard is short


def test_failures_are_listed_by_id_stage_and_reason(toys, tmp_path):
    go(toys(misdeeds(20)), tmp_path / "out", workers=2)
    lines = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert [(line["id"], line["stage"], line["error"]) for line in lines] == [
        ("000003_fail", "work", "InputError"),
        ("000009_bug", "work", "ZeroDivisionError"),
        ("000014_crash", "work", "crash"),
    ]
    assert "SIGABRT" in lines[2]["message"]
    assert "toy.py" in lines[1]["message"]


def test_a_crashing_item_costs_only_itself_and_is_tried_twice(toys, tmp_path):
    job = toys(misdeeds(40))
    go(job, tmp_path / "out", workers=2)
    tries = Path(job.marks, "tries").read_text().split()
    assert tries.count("14") == 2
    assert tries.count("15") == 2


def test_a_hanging_item_is_ended_tried_alone_and_set_aside(toys, tmp_path):
    job = toys(["ok"] * 6 + ["stuck"] + ["ok"] * 30)
    summary = go(job, tmp_path / "out", workers=2, item_timeout=1.2)
    assert (summary.done, summary.reasons) == (36, {"hang": 1})
    tries = Path(job.marks, "tries").read_text().split()
    assert tries.count("6") == 2
    (line,) = (tmp_path / "out/failed.jsonl").read_text().splitlines()
    assert "in stage work" in json.loads(line)["message"]


def test_a_supervisor_that_was_stopped_ends_nobody_on_waking(toys, tmp_path):
    """Stopped for longer than the deadline while an item is at work: the item is not taken to hang."""
    job = toys(["ok"] * 3, delay=2.5)
    process = start_run(_plain(job), {"output": tmp_path / "out", "workers": 1, "item_timeout": 3.2})
    _until(lambda: Path(job.marks, "tries").exists())
    for victim in (process.pid, *workers_of(process.pid)):
        os.kill(victim, signal.SIGSTOP)
    _until(_after(4.0))
    for victim in (*workers_of(process.pid), process.pid):
        os.kill(victim, signal.SIGCONT)
    assert process.wait(60) == 0
    assert Path(job.marks, "tries").read_text().split() == ["0", "1", "2"]


def _after(seconds):
    import time

    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


def test_the_same_command_again_does_nothing(toys, tmp_path):
    job = toys(misdeeds(20))
    first = go(job, tmp_path / "out", workers=2)
    before = tree(tmp_path / "out")
    tries = Path(job.marks, "tries").read_text()
    again = go(job, tmp_path / "out", workers=2)
    assert (again.done, again.failed, again.earlier) == (first.done, first.failed, 20)
    assert again.exit_code == 3
    assert tree(tmp_path / "out") == before
    assert Path(job.marks, "tries").read_text() == tries


def test_a_finished_index_is_made_again_only_where_it_is_gone(toys, tmp_path):
    job = toys(["ok"] * 3)
    go(job, tmp_path / "out")
    index = tmp_path / "out/dataset_info.json"
    made = index.stat().st_mtime_ns
    go(job, tmp_path / "out")
    assert index.stat().st_mtime_ns == made
    index.unlink()
    go(job, tmp_path / "out")
    assert json.loads(index.read_text()) == [0, 1, 2]


def test_an_unfinished_dataset_has_no_index(toys, tmp_path):
    job = toys(["ok"] * 8 + ["needs-input"] + ["ok"] * 8)
    go(job, tmp_path / "out")
    Path(job.marks, "input-needs-input").write_text("now")
    go(job, tmp_path / "out", shard=0, total_shards=3)  # item 8 belongs to shard 1, which has not run
    go(job, tmp_path / "out", shard=1, total_shards=3)
    assert not (tmp_path / "out/dataset_info.json").exists()
    go(job, tmp_path / "out", shard=2, total_shards=3)
    assert json.loads((tmp_path / "out/dataset_info.json").read_text()) == list(range(17))


@pytest.mark.parametrize("form", FORMATS)
def test_an_item_whose_input_came_is_done_on_resume(toys, tmp_path, form):
    """Also in an output shard that was published without it: the same bytes as if it had been there at once."""
    job = toys(["ok"] * 3 + ["needs-input"] + ["ok"] * 9, format=form)
    assert go(job, tmp_path / "out").failed == 1
    Path(job.marks, "input-needs-input").write_text("now")
    summary = go(job, tmp_path / "out")
    assert (summary.done, summary.failed, summary.exit_code) == (13, 0, 0)
    go(job, tmp_path / "at-once")
    assert tree(tmp_path / "out") == tree(tmp_path / "at-once")


def test_exit_code_is_zero_where_failures_are_accepted(toys, tmp_path):
    assert go(toys(["ok", "fail"]), tmp_path / "out", continue_on_error=True).exit_code == 0


def test_fail_fast_stops_early(toys, tmp_path):
    summary = go(toys(["fail"] + ["ok"] * 2000, delay=0.001), tmp_path / "out", workers=1, fail_fast=True)
    assert summary.failed == 1
    assert summary.pending > 0
    assert summary.exit_code == 3
    assert "fail-fast" in summary.stop_reason


def test_disk_full_stops_the_run_and_blames_no_item(toys, tmp_path):
    with pytest.raises(StoppedError, match="No space left"):
        go(toys(["ok"] * 5 + ["full"] + ["ok"] * 5), tmp_path / "out", workers=1)
    assert status(tmp_path / "out")["failed"] == 0


def test_a_real_write_limit_stops_and_resumes_to_the_same_bytes(toys, tmp_path):
    job = toys(["ok"] * 40, format="webdataset", shard_size=16)
    go(job, tmp_path / "whole", workers=1)
    # The ledger fits below the limit, a composed tar does not.
    limited = start_run(
        _plain(job),
        {"output": tmp_path / "out", "workers": 1},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (46_000, resource.RLIM_INFINITY)),
        stderr=subprocess.PIPE,
        text=True,
    )
    said = limited.communicate(timeout=60)[1]
    assert limited.returncode == 1
    assert "cannot write" in said
    assert "run the same command again" in said
    assert not list((tmp_path / "out").glob("*.tar"))
    assert go(job, tmp_path / "out", workers=2).exit_code == 0
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def _plain(job):
    return {**job.options(), **job.inputs()}


def test_another_configuration_is_refused_and_the_difference_shown(toys, tmp_path):
    go(toys(["ok"]), tmp_path / "out")
    with pytest.raises(UsageError, match="salt: 0 there, 1 asked"):
        go(toys(["ok"], salt=1), tmp_path / "out")
    with pytest.raises(UsageError, match="items: 1 from"):
        go(toys(["ok", "ok"]), tmp_path / "out")


def test_overwrite_starts_anew_and_leaves_strangers_alone(toys, tmp_path):
    for form in FORMATS:
        out = tmp_path / form
        go(toys(misdeeds(20), format=form), out)
        (out / "notes.txt").write_text("mine")
        summary = go(toys(["ok"] * 9, format=form), out, overwrite=True)
        assert (summary.done, summary.earlier) == (9, 0)
        fresh = tmp_path / f"{form}-fresh"
        go(toys(["ok"] * 9, format=form), fresh)
        (fresh / "notes.txt").write_text("mine")
        assert tree(out) == tree(fresh)


def test_overwrite_that_was_killed_leaves_nothing_that_seems_done(toys, tmp_path, monkeypatch):
    """Killed between any two of its removals: the same command without the flag makes the whole dataset."""
    import gpupipe.planning
    from gpupipe.sinks import files, samples

    class Killed(BaseException):
        pass

    job = toys(["ok"] * 9, format="samples")
    go(job, tmp_path / "calm")
    real = files.remove_tree
    for moment in range(1, 30):
        out = tmp_path / f"{moment}"
        go(job, out)
        left = [moment]

        def remove(path, left=left):
            left[0] -= 1
            if not left[0]:
                raise Killed
            real(path)

        monkeypatch.setattr(gpupipe.planning, "remove_tree", remove)
        monkeypatch.setattr(samples, "remove_tree", remove)
        try:
            gpupipe.planning.remove_output(job, out)
        except Killed:
            pass
        else:
            break
        finally:
            monkeypatch.undo()
            monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
        assert go(job, out).exit_code == 0
        assert tree(out) == tree(tmp_path / "calm")
    assert moment > 12


def test_overwrite_with_input_that_cannot_be_read_removes_nothing(toys, tmp_path):
    job = toys(["ok"] * 3)
    go(job, tmp_path / "out")
    before = tree(tmp_path / "out")
    Path(job.plan_file).write_text("[")
    with pytest.raises(ValueError, match="Expecting"):
        go(job, tmp_path / "out", overwrite=True)
    assert tree(tmp_path / "out") == before


def test_nothing_is_done_after_a_sync_that_failed(toys, tmp_path, monkeypatch):
    """The kernel reports lost pages once: a second sync succeeds, and must not make the batch count."""
    from gpupipe import commits

    class Failing(commits.BatchSync):
        calls = 0

        def __call__(self):
            type(self).calls += 1
            if self.calls == 1:
                raise OutputError(5, "cannot write: Input/output error")

    monkeypatch.setattr(commits, "BatchSync", Failing)
    job = toys(["ok"] * 5)
    with pytest.raises(OutputError):
        go(job, tmp_path / "out")
    assert status(tmp_path / "out")["done"] == 0
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    assert go(job, tmp_path / "out").done == 5


def test_a_last_commit_that_fails_says_how_much_it_lost(toys, tmp_path, monkeypatch):
    from gpupipe import commits

    class Full(commits.BatchSync):
        def __call__(self):
            raise OutputError(28, "cannot write: No space left on device")

    class Impatient(Quietly):
        def update(self, snapshot):
            if snapshot.done == 5:
                raise KeyboardInterrupt

    monkeypatch.setattr(commits, "BatchSync", Full)
    monkeypatch.setattr(commits, "COMMIT_SECONDS", 1e6)
    shown = Impatient()
    with pytest.raises(KeyboardInterrupt):
        run(toys(["ok"] * 5), Run(tmp_path / "out", workers=1), shown)
    lost = [text for text in shown.notices if "could not be kept" in text]
    assert lost == ["the last 5 outcomes could not be kept: [Errno 28] cannot write: No space left on device"]
    assert status(tmp_path / "out")["done"] == 0


def test_a_second_plan_made_at_the_same_moment_is_compared(toys, tmp_path):
    from gpupipe.plan import PlanWriter

    def writer(salt):
        made = PlanWriter(tmp_path / "book", "toy", {"salt": salt}, {}, {})
        made.add("ok")
        return made

    plan = writer(0).publish()
    plan.close()
    again = writer(0).publish()  # finds the other's in its place
    assert again.hash == plan.hash
    again.close()
    with pytest.raises(UsageError, match="salt: 0 there, 1 asked"):
        writer(1).publish()


def test_a_plan_found_on_disk_runs_no_code(toys, tmp_path):
    import gpupipe.plan

    job = toys(["ok"])
    go(job, tmp_path / "out")
    head = tmp_path / "out/.gpupipe/plan/plan.json"
    found = json.loads(head.read_text())
    found.update({"class": "os:system", "inputs": {"command": f"touch {tmp_path / 'ran'}"}})
    found["checksum"] = gpupipe.plan._head_checksum(found)
    head.write_text(json.dumps(found))
    with pytest.raises(UsageError, match=r"another version.*command"):
        go(job, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "ran").exists()


def test_fail_fast_is_no_success_though_failures_are_accepted(toys, tmp_path):
    job = toys(["fail"] + ["ok"] * 2000, delay=0.001)
    summary = go(job, tmp_path / "out", workers=1, fail_fast=True, continue_on_error=True)
    assert summary.pending > 0
    assert summary.exit_code == 3


def test_a_folder_with_anothers_dataset_is_left_alone(toys, tmp_path):
    (tmp_path / "out/sample_000001_x").mkdir(parents=True)
    with pytest.raises(UsageError, match="sample_000001_x"):
        go(toys(["ok"], format="samples"), tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_a_usage_error(toys, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be made"):
        go(toys(["ok"]), tmp_path / "file" / "out")


def test_shards_in_turn_give_the_same_dataset(toys, tmp_path):
    for form in FORMATS:
        job = toys(["ok"] * 30 + ["fail"], format=form)
        go(job, tmp_path / f"{form}-one")
        ends = [go(job, tmp_path / f"{form}-many", shard=shard, total_shards=3) for shard in (2, 0, 1)]
        assert [end.complete for end in ends] == [False, False, True]
        assert sum(end.items for end in ends) == 31
        assert tree(tmp_path / f"{form}-many") == tree(tmp_path / f"{form}-one")
        failed = (tmp_path / f"{form}-many" / "failed.jsonl").read_text()
        assert failed == (tmp_path / f"{form}-one" / "failed.jsonl").read_text()


def test_shards_at_once_in_processes_of_their_own(toys, tmp_path):
    job = toys(["ok"] * 60, delay=0.005)
    go(job, tmp_path / "one")
    runs = [
        start_run(_plain(job), {"output": tmp_path / "many", "workers": 1, "shard": shard, "total_shards": 3})
        for shard in range(3)
    ]
    assert [process.wait(60) for process in runs] == [0, 0, 0]
    assert tree(tmp_path / "many") == tree(tmp_path / "one")


def test_continued_with_another_number_of_shards(toys, tmp_path):
    job = toys(["ok"] * 40)
    go(job, tmp_path / "one")
    go(job, tmp_path / "out", shard=1, total_shards=2)
    summary = go(job, tmp_path / "out")
    assert summary.earlier == 16  # the odd shards of eight
    assert tree(tmp_path / "out") == tree(tmp_path / "one")
    assert status(tmp_path / "out")["done"] == 40


def test_a_second_run_of_the_same_shard_is_refused_and_told_who_holds_it(toys, tmp_path):
    job = toys(["stuck"])
    process = start_run(_plain(job), {"output": tmp_path / "out", "workers": 1})
    try:
        _until(lambda: Path(job.marks, "stuck").exists())
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            go(job, tmp_path / "out")
        with pytest.raises(LockedError, match="total-shards"):
            go(job, tmp_path / "out", shard=1, total_shards=2)
        with pytest.raises(LockedError):
            go(job, tmp_path / "out", overwrite=True)
        assert status(tmp_path / "out")["state"] == "running"
    finally:
        process.kill()
        process.wait()


def _until(condition, seconds=30.0):
    """Poll an outside event; the deadline is the failure."""
    import time

    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        os.sched_yield()


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGTERM])
def test_no_worker_outlives_its_supervisor(toys, tmp_path, death):
    job = toys(["stuck"] * 4)
    process = start_run(_plain(job), {"output": tmp_path / "out", "workers": 2})
    _until(lambda: Path(job.marks, "stuck").exists() and len(workers_of(process.pid)) == 2)
    workers = workers_of(process.pid)

    def ended() -> bool:
        process.send_signal(death)  # a second SIGTERM does not wait for the items in hand
        return process.poll() is not None

    _until(ended)
    _until(lambda: not any(map(alive, workers)))


def test_interrupt_finishes_the_item_in_hand_and_resumes(toys, tmp_path):
    job = toys(["ok"] * 400, delay=0.005)
    process = start_run(_plain(job), {"output": tmp_path / "out", "workers": 2})
    _until(lambda: Path(job.marks, "tries").exists())
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
    found = status(tmp_path / "out")
    assert found["pending"] > 0
    assert found["done"] == len(set(Path(job.marks, "tries").read_text().split()))  # nothing tried was lost
    assert go(job, tmp_path / "out", workers=2).exit_code == 0
    go(job, tmp_path / "one")
    assert tree(tmp_path / "out") == tree(tmp_path / "one")


@pytest.mark.parametrize("form", FORMATS)
def test_kills_of_workers_and_of_everything_change_nothing(toys, tmp_path, form):
    """Ten SIGKILLs a format at random moments (a worker, the supervisor, all at once): an undisturbed run's bytes."""
    import random

    chance = random.Random(form)
    job = toys(["ok"] * 320 + ["fail"], format=form, delay=0.002)
    go(job, tmp_path / "calm", workers=2)
    tries = Path(job.marks, "tries")
    out = tmp_path / "killed"
    kills = 0
    while kills < 10:
        tries.write_text("")
        process = start_run(_plain(job), {"output": out, "workers": 2}, start_new_session=True)
        for victim in chance.choice((["worker", "all"], ["supervisor"], ["all"])):
            goal = tries.stat().st_size + 7 * chance.randint(1, 14)  # seven bytes a try at the most
            _until(lambda goal=goal, process=process: tries.stat().st_size >= goal or process.poll() is not None)
            assert process.poll() is None, "ended before it could be killed"
            if victim == "worker":
                os.kill(chance.choice(workers_of(process.pid)), signal.SIGKILL)
            elif victim == "supervisor":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.wait()
    assert go(job, out, workers=2).exit_code == 3
    assert tree(out) == tree(tmp_path / "calm")
    ledgers = Ledgers(out / ".gpupipe", epoch=0)
    outcomes = list(ledgers.outcomes())
    ledgers.close()
    assert [outcome.ordinal for outcome in outcomes] == list(range(321))
    assert sum(outcome.state == DONE for outcome in outcomes) == 320
    assert not list((out / ".gpupipe/shard-0/staging").iterdir())


def test_the_checkpoint_file_answers_the_monitoring_snippet(toys, tmp_path):
    import time

    go(toys(["ok"] * 5 + ["fail"]), tmp_path / "out", checkpoint_file=tmp_path / "check.json")
    found = json.loads((tmp_path / "check.json").read_text())
    assert found["processed_indices"] == [0, 1, 2, 3, 4]
    assert 0 < time.time() - found["timestamp"] < 3600


def test_a_worker_that_cannot_start_stops_the_run_with_its_words(toys, tmp_path, monkeypatch):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/toy.py").write_text("import no_such_module_here")
    job = toys(["ok"])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "broken"))
    with pytest.raises(StoppedError, match="no_such_module_here"):
        go(job, tmp_path / "out")


def test_run_flags_are_checked(toys, tmp_path):
    for how, words in (
        ({"shard": 2, "total_shards": 2}, "--shard 2"),
        ({"workers": 0}, "--num-workers 0"),
        ({"overwrite": True, "total_shards": 2}, "--overwrite"),
    ):
        with pytest.raises(UsageError, match=words):
            go(toys(["ok"]), tmp_path / "out", **how)


def test_supervisor_memory_is_small_for_many_items(tmp_path):
    """300,000 items planned, and a run begun: below 200 MB."""
    words = tmp_path / "words.json"
    words.write_text(json.dumps(["stuck"] * 300_000))
    marks = tmp_path / "marks"
    marks.mkdir()
    job = {"plan_file": str(words), "marks": str(marks)}
    process = start_run(job, {"output": tmp_path / "out", "workers": 1})
    try:
        _until(lambda: (marks / "stuck").exists())
        peak = next(
            int(line.split()[1])
            for line in Path(f"/proc/{process.pid}/status").read_text().splitlines()
            if line.startswith("VmHWM")
        )
    finally:
        process.kill()
        process.wait()
    assert peak * 1024 < 200e6

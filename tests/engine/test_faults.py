"""What the machine does to a run: disks, clocks, locks, memory, stopped processes, inputs that come and go.

Kills are in tests/chaos; docs/recovery.md says which test stands for which promise.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing, contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import synth
from helpers import Quietly, start, start_run, tree, workers_of
from others import GrowingJob, PatientJob, PoisonedClips, VanishingClips
from toy import ToyJob

import gpupipe.commits
import gpupipe.launch
import gpupipe.ledger
import gpupipe.planning
from gpupipe import member, watchdog
from gpupipe.errors import OutputError, StoppedError
from gpupipe.job import class_path
from gpupipe.jobs.clips import ClipsJob
from gpupipe.launch import Run, run
from gpupipe.ledgers import Ledgers
from gpupipe.member import Member
from gpupipe.outcome import DONE
from gpupipe.pulse import Pulse
from gpupipe.reports.final import status

FORMATS = ("npy", "samples", "webdataset")


def go(job, out, reporter=None, **how):
    return run(job, Run(output=Path(out), **how), reporter or Quietly())


def plain(job):
    return {**job.options(), **job.inputs()}


def until(condition, seconds=60.0):
    """Poll an outside event; the deadline is the failure."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.002)


def tries(job):
    path = Path(job.marks, "tries")
    return path.read_text().split() if path.exists() else []


@contextmanager
def ledgers_of(out):
    ledgers = Ledgers(Path(out, ".gpupipe"), epoch=0)
    try:
        yield ledgers
    finally:
        ledgers.close()


def events(out, kind):
    with ledgers_of(out) as ledgers:
        return [event for event in ledgers.events() if event.kind == kind]


class Acting(Quietly):
    """A reporter that does something once so many items are done."""

    def __init__(self, done, action):
        super().__init__()
        self._done, self._action = done, action

    def update(self, snapshot):
        super().update(snapshot)
        if self._action is not None and snapshot.done >= self._done:
            action, self._action = self._action, None
            action()


# ---- disks


@pytest.fixture
def small_disk(tmp_path):
    """A file system of its own, a few megabytes large; gives a function that makes it larger."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o"]
    if shutil.which("mount") is None or subprocess.run([*mount, "size=1m", "none", disk], check=False).returncode:
        pytest.skip(
            "no file system can be mounted here; see test_a_real_write_limit_stops_and_resumes_to_the_same_bytes"
        )
    try:
        yield disk, lambda size: subprocess.run([*mount, f"remount,size={size}", "none", disk], check=True)
    finally:
        subprocess.run(["umount", disk], check=True)


@pytest.mark.parametrize("form", FORMATS)
def test_a_full_disk_stops_the_run_clearly_and_space_continues_it(toys, tmp_path, small_disk, form):
    """Full at once, full while planning, while making the ledger, in the midst of the items: never a traceback."""
    disk, resize = small_disk
    job = toys(["ok"] * 150 + ["fail"], format=form, shard_size=64)
    go(job, tmp_path / "calm", workers=1)
    filler, out = disk / "filler", disk / "out"
    stops = 0
    for free in (0, 8, 24, 48, 96, 160):
        with filler.open("wb") as file:  # all but so many kilobytes
            space = os.statvfs(disk)
            file.write(bytes(max(0, space.f_bavail * space.f_frsize - free * 1024)))
        try:
            summary = go(job, out, workers=1)
            assert summary.pending == 0
        except (OutputError, StoppedError) as error:
            assert "again" in str(error)
            stops += 1
        filler.unlink()
    assert stops >= 3
    resize("64m")
    summary = go(job, out, workers=2)
    assert (summary.done, summary.failed) == (150, 1)
    assert tree(out) == tree(tmp_path / "calm")


def test_inputs_on_a_read_only_disk(clips, tmp_path, small_disk):
    """Nothing is written beside an input."""
    disk, resize = small_disk
    resize("64m")
    shutil.copytree(clips.clips_dir, disk / "clips")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    job = ClipsJob(**{**plain(clips), "clips_dir": str(disk / "clips")})
    summary = go(job, tmp_path / "out", workers=1)
    assert (summary.done, summary.exit_code) == (12, 0)


def test_a_ledger_that_cannot_be_written_costs_no_item(toys, tmp_path, monkeypatch):
    """Data synced, ledger refused: the run stops, the rows are made again, none is called done before."""
    from gpupipe.ledger import Ledger

    job, real, calls = toys(["ok"] * 20), Ledger.commit, []

    def refuse(self, outcomes, *arguments, **words):
        outcomes = list(outcomes)
        if outcomes:
            calls.append(len(outcomes))
            raise OutputError(5, "cannot write the ledger: Input/output error. Run the same command again")
        real(self, outcomes, *arguments, **words)

    monkeypatch.setattr(Ledger, "commit", refuse)
    with pytest.raises(OutputError, match="Input/output"):
        go(job, tmp_path / "out", workers=1)
    assert len(calls) == 1  # not tried once more
    monkeypatch.setattr(Ledger, "commit", real)
    assert status(tmp_path / "out")["done"] == 0
    assert go(job, tmp_path / "out", workers=1).done == 20


def test_power_loss_after_any_commit_loses_nothing(toys, tmp_path, monkeypatch):
    """What survives a power loss is what was synced. Put together from it, and the ledger, every commit can be resumed.

    At each sync the output is copied: that much is on the disk. At each commit that follows, copy and ledger are the
    machine as it comes up again; were rows committed before their data is synced, those items would be lost.
    """
    for form in FORMATS:
        job = toys(["ok"] * 60 + ["fail"], format=form, delay=0.004)
        folder = tmp_path / form
        go(job, folder / "calm", workers=2)
        out, synced, states = folder / "out", folder / "synced", []
        sync, commit = gpupipe.commits.BatchSync.__call__, gpupipe.commits.Ledger.commit

        def syncing(self, out=out, synced=synced, sync=sync):
            sync(self)
            shutil.rmtree(synced, ignore_errors=True)
            subprocess.run(["cp", "-a", out, synced], check=False, stderr=subprocess.DEVNULL)  # workers go on

        def committing(self, outcomes, *arguments, out=out, synced=synced, states=states, commit=commit, **words):
            commit(self, outcomes, *arguments, **words)
            if synced.exists():
                states.append(synced.with_name(f"state-{len(states)}"))
                subprocess.run(["cp", "-a", synced, states[-1]], check=True)
                shutil.copy(self.path, states[-1] / ".gpupipe/shard-0/ledger.db")

        with monkeypatch.context() as patch:
            patch.setattr(gpupipe.commits, "COMMIT_SECONDS", 0.08)
            patch.setattr(gpupipe.commits.BatchSync, "__call__", syncing)
            patch.setattr(gpupipe.commits.Ledger, "commit", committing)
            go(job, out, workers=2)
        assert len(states) >= 2
        for state in (states[0], states[-1]):
            summary = go(job, state, workers=2)
            assert summary.earlier > 0
            assert tree(state) == tree(folder / "calm")


def test_an_output_that_was_removed_in_part_by_overwrite_is_planned_anew(toys, tmp_path, monkeypatch):
    """Killed while the plan's own folder is removed: neither half a plan nor its rests are in the way."""
    job = toys(["ok"] * 5)
    go(job, tmp_path / "out")
    real = gpupipe.planning.remove_tree

    def remove(path):
        if path.name.startswith("plan."):
            (path / "plan.json").unlink()
            raise KeyboardInterrupt
        real(path)

    monkeypatch.setattr(gpupipe.planning, "remove_tree", remove)
    with pytest.raises(KeyboardInterrupt):
        gpupipe.planning.remove_output(job, tmp_path / "out")
    monkeypatch.setattr(gpupipe.planning, "remove_tree", real)
    assert go(job, tmp_path / "out").done == 5
    assert not list((tmp_path / "out/.gpupipe").glob("*.partial"))


def test_rests_of_killed_runs_are_swept(toys, tmp_path):
    """Also those of a plan half-written on another host, and of run shards that are no more."""
    job = toys(["ok"] * 20)
    go(job, tmp_path / "out", shard=1, total_shards=2)
    books = tmp_path / "out/.gpupipe"
    (books / "plan.elsewhere.17.partial").mkdir()
    (books / "plan.elsewhere.17.partial/items.jsonl").write_text("1")
    (books / "shard-1/staging/3").mkdir()
    (books / "shard-1/complete.99.partial").write_text("")
    (books / "layout.json.99.partial").write_text("")
    go(job, tmp_path / "out")
    assert not list(books.rglob("*.partial"))
    assert not list(books.glob("shard-*/staging/*"))


# ---- clocks and stops


def test_the_wall_clock_may_jump(toys, tmp_path, monkeypatch):
    """Set back and forth by years at every look: nothing but labels comes from it."""
    job = toys(["ok"] * 60 + ["fail", "crash"], delay=0.005)
    go(job, tmp_path / "calm", workers=2)
    real, looks = time.time, []

    def jumping():
        looks.append(0)
        return real() + (3e8 if len(looks) % 2 else -3e8)

    monkeypatch.setattr(time, "time", jumping)
    monkeypatch.setattr(gpupipe.commits, "COMMIT_SECONDS", 0.1)
    summary = go(job, tmp_path / "out", workers=2, item_timeout=20, checkpoint_file=tmp_path / "check.json")
    assert (summary.done, summary.reasons) == (60, {"InputError": 1, "crash": 1})
    assert 0 < summary.seconds < 60
    assert len(looks) > 60
    assert go(job, tmp_path / "out").earlier == 62
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")


def test_a_stopped_worker_is_taken_to_hang_and_its_item_redone(toys, tmp_path):
    job = toys(["ok"] * 12 + ["wait"] + ["ok"] * 12, kind=PatientJob)
    process = start_other(job, {"output": tmp_path / "out", "workers": 2, "item_timeout": 4.0})
    at_work = {}
    until(lambda: at_work.update({_beat(pid).ordinal: pid for pid in workers_of(process.pid)}) or 12 in at_work)
    victim = at_work[12]
    os.kill(victim, signal.SIGSTOP)
    Path(job.marks, "go").touch()
    assert process.wait(60) == 0
    assert set(map(int, tries(job))) == set(range(25))
    (event,) = events(tmp_path / "out", "hang")
    assert event.ordinal == 12
    with ledgers_of(tmp_path / "out") as ledgers:
        assert ledgers.states(25).tolist() == [DONE] * 25


def start_other(job, how):
    """A whole run of any job in a process of its own."""
    code = """
import json, sys
from pathlib import Path
from helpers import Quietly
from gpupipe.job import restore
from gpupipe.launch import Run, run
job, how = restore(sys.argv[1], json.loads(sys.argv[2]), {}), json.loads(sys.argv[3])
how["output"] = Path(how["output"])
sys.exit(run(job, Run(**how), Quietly()).exit_code)
"""
    return start(code, class_path(job), json.dumps(plain(job)), json.dumps(how, default=str))


def _beat(pid):
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    pulse = Pulse(os.open(f"/proc/{pid}/fd/{int(words[words.index(b'gpupipe.worker') + 2])}", os.O_RDWR))
    try:
        return pulse.read()
    finally:
        pulse.close()


def test_a_worker_that_does_not_begin_its_work_is_ended(toys, tmp_path, monkeypatch):
    """Stopped before its first item: nothing is in hand, and its lease goes to another all the same."""
    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 3.0)
    job = toys(["ok"] * 20, delay=0.002)
    spawn, spawned = Member.spawn.__func__, []

    def spawning(cls, *arguments, **words):
        member = spawn(cls, *arguments, **words)
        if not spawned:
            member.process.send_signal(signal.SIGSTOP)
        spawned.append(member)
        return member

    monkeypatch.setattr(Member, "spawn", classmethod(spawning))
    summary = go(job, tmp_path / "out", workers=2)
    assert (summary.done, summary.exit_code) == (20, 0)
    assert len(spawned) > 2 or spawned[0].hung
    assert "did not begin" in events(tmp_path / "out", "hang")[0].text


@pytest.mark.parametrize(
    ("chosen", "found"),
    [
        (None, "glibc.malloc.hugetlb=1"),
        ("glibc.malloc.check=0", "glibc.malloc.check=0:glibc.malloc.hugetlb=1"),
        ("glibc.malloc.hugetlb=0", "glibc.malloc.hugetlb=0"),
    ],
)
def test_a_worker_takes_huge_pages_unless_the_user_chose(toys, tmp_path, monkeypatch, chosen, found):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if chosen:
        monkeypatch.setenv("GLIBC_TUNABLES", chosen)
    start, environments = subprocess.Popen, []

    def starting(command, **words):
        environments.append(words["env"])
        return start(command, **words)

    monkeypatch.setattr(member, "subprocess", SimpleNamespace(Popen=starting, DEVNULL=subprocess.DEVNULL))
    assert go(toys(["ok"]), tmp_path / "out", workers=1).done == 1
    assert [each["GLIBC_TUNABLES"] for each in environments] == [found]


# ---- the ledger and who reads it


def test_a_reader_that_holds_the_ledger_only_delays_the_run(toys, tmp_path):
    """An open read transaction in another process, for longer than several commits take."""
    job = toys(["ok"] * 400, delay=0.004)
    out = tmp_path / "out"
    process = start_run(plain(job), {"output": out, "workers": 2})
    database = out / ".gpupipe/shard-0/ledger.db"

    def begun():
        try:
            return database.exists() and status(out).get("done", 0) > 0
        except OutputError:  # its tables are being made
            return False

    until(begun)
    with closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("begin")
        before = reader.execute("select count(*) from items").fetchone()
        until(_after(2.5 * gpupipe.commits.COMMIT_SECONDS))
        assert reader.execute("select count(*) from items").fetchone() == before
        reader.execute("commit")
    assert process.wait(60) == 0
    assert status(out)["done"] == 400


def test_a_reader_that_never_lets_go_stops_the_run(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpupipe.ledger, "LOCK_SECONDS", 0.3)
    job, out = toys(["ok"] * 40, delay=0.01), tmp_path / "out"
    readers = []

    def read():
        readers.append(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db", isolation_level=None))
        readers[0].execute("begin")
        readers[0].execute("select count(*) from items").fetchone()

    with pytest.raises(OutputError, match=r"locked\. Another process has it open"):
        go(job, out, Acting(1, read), workers=1)
    readers[0].close()
    assert status(out)["done"] == 0
    assert go(job, out, workers=1).done == 40


def test_a_kill_leaves_nothing_beside_the_checkpoint_file(toys, tmp_path):
    code = """
import os, sys
from pathlib import Path
from gpupipe.sinks import files
sync = files.sync_file
files.sync_file = lambda path: os.kill(os.getpid(), 9) if path.name.startswith("check.json") else sync(path)
from gpupipe.launch import Run, run
from helpers import Quietly
from toy import ToyJob
run(ToyJob(plan_file=sys.argv[1]), Run(Path(sys.argv[2]), workers=1, checkpoint_file=Path(sys.argv[3])), Quietly())
"""
    job, exported = toys(["ok"] * 3), tmp_path / "exported"
    exported.mkdir()
    process = start(code, job.plan_file, str(tmp_path / "out"), str(exported / "check.json"))
    assert process.wait(60) == -signal.SIGKILL
    assert not list(exported.iterdir())
    assert go(ToyJob(plan_file=job.plan_file), tmp_path / "out", checkpoint_file=exported / "check.json").done == 3
    assert [path.name for path in exported.iterdir()] == ["check.json"]
    assert not list((tmp_path / "out").rglob("*.partial"))


def _after(seconds):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() >= end


# ---- inputs


@pytest.fixture(scope="module")
def footage(tmp_path_factory):
    """Twelve clips."""
    folder = tmp_path_factory.mktemp("footage") / "clips"
    folder.mkdir()
    synth.encode(folder / "v0.mp4", synth.Clip(count=12))
    for number in range(1, 12):
        shutil.copy(folder / "v0.mp4", folder / f"v{number}.mp4")
    return folder


@pytest.fixture
def clips(footage, tmp_path):
    """A job over a copy of them that a test may touch."""
    shutil.copytree(footage, tmp_path / "clips")
    pairs = [{"vid": f"v{number}", "clip_path": f"v{number}.mp4", "transcript": "words"} for number in range(12)]
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    return ClipsJob(
        pairs_json=str(tmp_path / "pairs.json"), clips_dir=str(tmp_path / "clips"), num_frames=4, frame_height=32,
        frame_width=32, shard_size=4,
    )  # fmt: skip


@pytest.mark.parametrize("where", ["clips_dir", "videos_dir"])
def test_an_input_folder_that_goes_away_and_comes_back(clips, tmp_path, where):
    """What cannot be read meanwhile fails with its reason; the same command then completes to the same bytes."""
    folder = Path(clips.clips_dir)
    job = ClipsJob(**{**plain(clips), "clips_dir": None, where: str(folder)})
    calm, out = tmp_path / "calm", tmp_path / "out"
    go(job, calm, workers=1)
    summary = go(job, out, Acting(1, lambda: folder.rename(tmp_path / "away")), workers=1, max_failure_rate=None)
    assert summary.pending == 0
    assert set(summary.reasons) <= {"MissingInputError"}
    (tmp_path / "away").rename(folder)
    again = go(job, out, workers=1)
    assert (again.done, again.failed, again.exit_code) == (12, 0, 0)
    assert tree(out) == tree(calm)


def test_a_file_that_went_away_while_it_was_worked_on_is_done_when_it_is_back(clips, tmp_path, monkeypatch):
    """Its identity was taken before: it comes back with the same, and is still tried again."""
    job = VanishingClips(**plain(clips))
    assert go(job, tmp_path / "out", workers=1).reasons == {"MissingInputError": 1}
    Path(clips.clips_dir, "v5.away").rename(Path(clips.clips_dir, "v5.mp4"))
    Path(clips.clips_dir, "stays").touch()
    assert go(job, tmp_path / "out", workers=1).done == 12


def test_changed_and_vanished_inputs_of_done_items(clips, tmp_path):
    """Changed: done again, to what it is now. Gone: said, and what was made of it stays."""
    folder, out = Path(clips.clips_dir), tmp_path / "out"
    go(clips, out, workers=1)
    synth.encode(folder / "v3.mp4", synth.Clip(count=9, first=40))
    (folder / "v7.mp4").rename(tmp_path / "v7.mp4")
    reporter = Quietly()
    summary = go(clips, out, reporter, workers=1)
    assert (summary.done, summary.earlier) == (12, 11)
    assert any("1 items have another input" in text for text in reporter.notices)
    assert any("inputs of 1 done items are gone" in text for text in reporter.notices)
    (tmp_path / "v7.mp4").rename(folder / "v7.mp4")
    go(clips, tmp_path / "anew", workers=1)
    assert tree(out) == tree(tmp_path / "anew")


def test_a_touched_input_is_not_done_again_where_its_content_is_known(clips, tmp_path):
    out = tmp_path / "out"
    go(clips, out, workers=1, fingerprint="content")
    os.utime(Path(clips.clips_dir, "v2.mp4"), ns=(1, 1))
    assert go(clips, out, workers=1, fingerprint="content").earlier == 12
    go(clips, tmp_path / "by-stat", workers=1)
    os.utime(Path(clips.clips_dir, "v2.mp4"), ns=(2, 2))
    assert go(clips, tmp_path / "by-stat", workers=1).earlier == 11


def test_a_poison_file_that_aborts_its_decoder_costs_itself(clips, tmp_path):
    shutil.copy(Path(clips.clips_dir, "v0.mp4"), Path(clips.clips_dir, "poison.mp4"))
    pairs = json.loads(Path(clips.pairs_json).read_text())
    pairs[5]["clip_path"] = "poison.mp4"
    Path(clips.pairs_json).write_text(json.dumps(pairs))
    summary = go(PoisonedClips(**plain(clips)), tmp_path / "out", workers=2)
    assert (summary.done, summary.reasons) == (11, {"crash": 1})
    (line,) = [json.loads(line) for line in (tmp_path / "out/failed.jsonl").read_text().splitlines()]
    assert (line["id"], line["error"], line["attempts"]) == ("000005_v5", "crash", 2)
    assert "SIGABRT" in line["message"]


# ---- how work is shared, bounds, replaced workers


def test_ten_thousand_tiny_items_cost_no_more_each_than_a_thousand(toys, tmp_path):
    """By the supervisor's CPU time: the machine may be busy."""
    spent = {}
    for count in (1000, 10_000):
        job = toys(["ok"] * count, shard_size=256)
        job = ToyJob(**{**plain(job), "marks": ""})
        began = time.process_time()
        assert go(job, tmp_path / f"{count}", workers=2).done == count
        spent[count] = time.process_time() - began
    assert spent[10_000] < 20 * spent[1000]
    assert spent[10_000] < 10


def test_one_long_item_holds_up_no_others(toys, tmp_path):
    """While it is at work nearly everything else gets done; what waits behind it is no more than two leases."""
    job = toys(["ok"] * 200 + ["wait"] + ["ok"] * 399, kind=PatientJob, delay=0.001)
    process = start_other(job, {"output": tmp_path / "out", "workers": 2})
    until(lambda: len(tries(job)) >= 400)  # two leases are at most a quarter of what is left each
    Path(job.marks, "go").touch()
    assert process.wait(60) == 0
    assert sorted(map(int, tries(job))) == list(range(600))


def test_the_failure_rate_stops_a_run_after_a_hundred_items(toys, tmp_path):
    job = toys(["ok", "fail", "fail"] * 700, delay=0.001)
    summary = go(job, tmp_path / "out", workers=1, max_failure_rate=0.5)
    assert 100 <= summary.done + summary.failed < 1000
    assert summary.pending > 0
    assert summary.exit_code == 4
    assert "--max-failure-rate 0.5" in summary.stop_reason
    assert go(job, tmp_path / "out", workers=2, max_failure_rate=None).pending == 0


def test_few_failures_of_few_items_stop_nothing(toys, tmp_path):
    assert go(toys(["fail"] * 99), tmp_path / "out", workers=1, max_failure_rate=0.0).pending == 0


def test_workers_replaced_by_age_lose_nothing(toys, tmp_path, monkeypatch):
    monkeypatch.setattr(gpupipe.launch, "RECYCLE_SECONDS", 0.6)
    job = toys(["ok"] * 300, delay=0.01)
    assert go(job, tmp_path / "out", workers=2).done == 300
    assert len(events(tmp_path / "out", "recycle")) >= 2
    assert not events(tmp_path / "out", "death")
    assert sorted(map(int, tries(job))) == list(range(300))  # each once


def test_workers_replaced_for_growth_lose_nothing(toys, tmp_path):
    job = toys(["ok"] * 150, kind=GrowingJob, delay=0.01)
    summary = go(job, tmp_path / "out", workers=1, memory_per_worker=300 << 20)
    assert summary.done == 150
    assert events(tmp_path / "out", "recycle")
    assert sorted(map(int, tries(job))) == list(range(150))


def test_an_item_that_needs_more_memory_than_it_may_have_costs_itself(toys, tmp_path):
    job = toys(["ok"] * 10 + ["hungry"] + ["ok"] * 10)
    summary = go(job, tmp_path / "out", workers=2, memory_per_worker=512 << 20)
    assert (summary.done, summary.reasons) == (20, {"memory": 1})


def test_a_suspect_stays_alone_though_its_worker_is_killed(toys, tmp_path, monkeypatch):
    """A person kills the worker that tries it: it is not blamed for that, and gets no company after."""
    job = toys(["ok"] * 4 + ["crash"] + ["ok"] * 40, delay=0.01)
    lease, leases, killed = Member.lease, [], []

    def leasing(member, start, stop, alone):
        leases.append((start, stop, alone))
        lease(member, start, stop, alone)
        if alone and not killed:
            killed.append(member)
            member.process.kill()

    monkeypatch.setattr(Member, "lease", leasing)
    summary = go(job, tmp_path / "out", workers=1)
    assert (summary.done, summary.reasons) == (44, {"crash": 1})
    assert killed
    assert leases.count((4, 5, True)) == 2  # the one that was killed, and the one that is its second try
    assert not [start for start, stop, alone in leases if alone and stop != start + 1]


def test_two_commands_on_one_output_at_the_same_moment(toys, tmp_path):
    """One works, the other is told by whom; no item is worked twice."""
    job = toys(["ok"] * 60, delay=0.02)
    runs = [
        start_run(plain(job), {"output": tmp_path / "out", "workers": 1}, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=60)[1] for process in runs]
    assert sorted(process.returncode for process in runs) == [0, 1]
    winner, loser = sorted(range(2), key=lambda number: runs[number].returncode)
    assert f"LockedError: {tmp_path / 'out/.gpupipe/shard-0'}: held by process {runs[winner].pid}" in said[loser]
    assert len(tries(job)) == 60

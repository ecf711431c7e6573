"""The clips job on a card: the same bytes and the same verdicts as on a CPU core, whatever goes wrong.

The card is host memory and its engine libavcodec, both behind the interfaces of the real ones; pictures that are given
back are scribbled over, and streams are threads.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import synth
from fakes import FakeEngine, Trouble
from host_card import FAULTS, OPENER, PATIENCE, Faults, host_device
from synth import Clip

from gpupipe.cuda.device import OPENER as REAL
from gpupipe.cuda.device import Device, open_device
from gpupipe.cuda.devices import missing
from gpupipe.errors import DeviceLostError, StoppedError
from gpupipe.job import Work
from gpupipe.jobs.clips import ClipsJob
from gpupipe.launch import Run, run
from gpupipe.ledger import Ledger
from gpupipe.memory import HostSlots
from gpupipe.posts import Post
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import checksum_of

HERE = Path(__file__).parent
X265 = {"preset": "ultrafast", "x265-params": "keyint=20:bframes=3"}
CLIPS = {
    "a.mp4": Clip(count=60, b_frames=3, gop=24),
    "b.mp4": Clip(count=50, turn=270, size=(128, 96)),
    "c.mp4": Clip(count=7, flip=True),
    "d.webm": Clip("libvpx-vp9", "webm", count=30, size=(80, 200), options={"deadline": "realtime", "cpu-used": "8"}),
    "e.mp4": Clip("libx265", count=40, options=X265),
    "f.mkv": Clip("libx265", "mkv", count=40, layout="yuv420p10le", size=(120, 160), options=X265),
    "g.mp4": Clip(count=30, layout="yuv444p", size=(64, 96)),
    "h.webm": Clip("libvpx", "webm", count=30, options={"deadline": "realtime", "cpu-used": "8"}),
    "i.mp4": Clip("libsvtav1", count=30, gop=10, options={"preset": "12", "crf": "40"}),
    "j.mkv": synth.variable(Clip(suffix="mkv", count=40, b_frames=2, gop=20, size=(180, 320))),
    "k.mp4": Clip("mpeg4", count=30, gop=12, options={"qscale": "3"}),
    "l.mov": Clip("mjpeg", "mov", layout="yuvj420p", count=12),
}
BAD = ("m.mp4", "n.mp4", "o.mp4", "p.mp4", "q.mp4")
NAMES = (*CLIPS, *BAD)
ON_CARD = frozenset("abcdefghij")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Clips of many kinds, and files that are none."""
    folder = tmp_path_factory.mktemp("clips")
    for name, clip in CLIPS.items():
        synth.encode(folder / name, clip)
    synth.truncate(folder / "a.mp4", folder / "m.mp4", 0.6)
    (folder / "n.mp4").write_bytes(b"")
    synth.sound_only(folder / "o.mp4")
    synth.remux(
        folder / "a.mp4", folder / "p.mp4", lambda n, data: synth.flip_bits(data, n) if n in range(20, 40) else data
    )
    return folder  # q.mp4 is missing


def pairs_of(names, path):
    path.write_text(
        json.dumps([{"vid": f"{n}{name[0]}", "clip_path": name, "transcript": name} for n, name in enumerate(names)])
    )
    return path


@pytest.fixture
def job(folder, tmp_path):
    """Makes the job; the small size is no round one."""

    def make(names=NAMES, **more):
        options = {"num_frames": 8, "frame_height": 36, "frame_width": 52, **more}
        if "videos_dir" not in options:
            options["clips_dir"] = str(folder)
        return ClipsJob(pairs_json=str(pairs_of(names, tmp_path / "pairs.json")), **options)

    return make


class Made:
    """What an operator made of items, in this process: checksum or error by ordinal, and who decoded."""

    def __init__(
        self, job: ClipsJob, folder: Path, device: Device | None = None, order=None, items=None, watch=None, slots=None
    ):
        items = json.loads(job.source().read_text()) if items is None else items
        folder.mkdir(exist_ok=True)
        place = Place(folder, folder, folder, len(items), 8)
        sink, operator = job.sink(place), job.operator(place, device)
        self.depth = operator.depth
        slots = HostSlots(job.rows(), slots or self.depth + 1, None if device is None else device.card.pinned)
        self.results: dict[int, object] = {}
        self.backends: dict[int, str] = {}
        self.frames: dict[int, np.ndarray] = {}
        self.stages: Counter[str] = Counter()

        def stream():
            for ordinal in range(len(items)) if order is None else order:
                slot = slots.acquire(ordinal)
                for rows in slot.rows.values():
                    rows.view(np.uint8)[...] = 0x77
                yield Work(ordinal, items[ordinal], slot)

        try:
            for done in operator.run(stream()):
                ordinal = done.work.ordinal
                assert ordinal not in self.results
                if done.error is None:
                    self.results[ordinal] = checksum_of(sink.members(done.sample))
                else:
                    self.results[ordinal] = type(done.error).__name__, str(done.error)
                self.backends[ordinal] = done.work.backend
                self.stages.update(done.work.stages.take())
                if watch is not None:
                    watch(done)
                slots.release(done.work.slot)
        except DeviceLostError:
            if not device.card.lost.is_set():  # the engine alone
                operator.close()
            raise
        except BaseException:
            operator.close()
            raise
        operator.close()


@pytest.fixture
def on_card(tmp_path):
    """Runs a job on a card that is checked afterwards: everything was given back."""
    cards = []

    def make(job, faults=None, engine=None, **more):
        engine = engine or FakeEngine(engines=2)
        device = host_device(faults, engine)
        cards.append(device)
        made = Made(job, tmp_path / f"card-{len(cards)}", device, **more)
        assert engine.live == 0
        assert engine.open == []
        made.card = device.card
        return made

    yield make
    for device in cards:
        device.close()


@pytest.fixture
def on_cpu(tmp_path):
    def make(job, **more):
        return Made(job, tmp_path / "cpu", **more)

    return make


# ---- the same bytes


@pytest.mark.parametrize("form", ["samples", "npy", "webdataset"])
def test_same_bytes_and_verdicts_as_a_cpu_core(job, on_cpu, on_card, form):
    words = job(format=form)
    cpu, card = on_cpu(words), on_card(words)
    assert card.results == cpu.results
    assert {NAMES[n][0] for n, backend in card.backends.items() if backend == "nvdec"} == ON_CARD
    assert set(cpu.backends.values()) <= {"ffmpeg", ""}
    failed = {NAMES[n][0]: found[0] for n, found in card.results.items() if isinstance(found, tuple)}
    assert failed.keys() == set("mnopq")
    assert (card.depth, cpu.depth) == (6, 1)
    assert sum(card.card.batches) >= 9 * 8 + 7  # all of them, and of one clip the 7 that there are


def test_the_order_does_not_matter(job, on_cpu, on_card):
    words = job([*NAMES, *NAMES], format="npy")
    expected = on_cpu(words).results
    random = np.random.default_rng(5)
    for engines in (1, 3):
        order = random.permutation(2 * len(NAMES)).tolist()
        assert on_card(words, engine=FakeEngine(engines), order=order).results == expected


@pytest.mark.parametrize(
    "options",
    [
        {"strict": True},
        {"allow_partial": True},
        {"tolerance": 0.3},
        {"tolerance": 9.0},
        {"all_frames": True},
        {"all_frames": True, "frame_height": 600, "frame_width": 800},  # several chunks
        {"num_frames": 1},
        {"num_frames": 100},
        {"max_pixels": 96 * 128},
    ],
    ids=str,
)
def test_every_option_means_the_same(job, on_cpu, on_card, options):
    words = job(**options)
    assert on_card(words).results == on_cpu(words).results


def test_windows_of_uncut_videos(job, folder, tmp_path, on_cpu, on_card):
    names = ["a.mp4", "e.mp4", "j.mkv", "k.mp4"]
    spans = [(0.0, 1.0), (0.5, 0.9), (1.2, 99.0), (50.0, 60.0)]
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in names:
        (videos / name).symlink_to(folder / name)
    items = [
        {"vid": name[0], "transcript": "x", "begin_time": begin, "end_time": end}
        for name in names
        for begin, end in spans
    ]
    for more in ({}, {"all_frames": True}, {"tolerance": 0.2}):
        words = job(videos_dir=str(videos), **more)
        assert on_card(words, items=items).results == on_cpu(words, items=items).results


def test_one_clip_for_which_many_pictures_wait(job, on_cpu, on_card):
    """Rows of one item that come from several launches, and an item larger than a batch."""
    words = job(["a.mp4", "j.mkv", "a.mp4"], num_frames=60, format="npy")
    assert on_card(words).results == on_cpu(words).results


# ---- memory


def test_launches_are_halved_where_memory_is_short_and_the_bytes_stay(job, on_cpu, on_card, capsys):
    words = job()
    cpu, card = on_cpu(words), on_card(words, Faults(most_pictures=2))
    assert card.results == cpu.results
    assert max(card.card.batches) <= 2
    assert set(map(card.backends.get, range(10))) == {"nvdec"}
    told = capsys.readouterr().err.splitlines()
    assert all(line.startswith("host:0: no memory for ") for line in told)
    assert card.stages["wait for card"] > 0


def test_under_auto_ffmpeg_does_what_the_card_has_no_room_for(job, on_cpu, on_card):
    for more in ({}, {"all_frames": True}):
        words = job(**more)
        cpu, card = on_cpu(words), on_card(words, Faults(most_pictures=0))
        assert card.results == cpu.results
        assert set(card.backends.values()) <= {"ffmpeg", ""}


def test_under_nvdec_that_is_the_items_error(job, on_card):
    words = job(["a.mp4", "k.mp4"], backend="nvdec")
    card = on_card(words, Faults(most_pictures=0))
    assert card.results[0] == ("DeviceMemoryError", "host:0: 1 pictures a launch")
    assert card.results[1][0] == "UnsupportedError"


def test_fewer_lanes_where_the_rows_do_not_fit(job, on_cpu, on_card):
    words = job()
    row = 8 * 36 * 52 * 3
    card = on_card(words, Faults(most_nbytes=2 * row + 100))
    assert card.depth == 2
    assert card.results == on_cpu(words).results


def test_no_memory_for_a_single_item_stops_the_run(job, on_card):
    with pytest.raises(StoppedError, match=r"host:0: no memory for the 8 rows of one item \(44928 bytes\)"):
        on_card(job(), Faults(most_nbytes=1000))


def test_card_memory_does_not_grow_with_the_items(job, on_card):
    card = on_card(job(["a.mp4", "e.mp4"] * 20, format="npy"))
    assert card.card.most_live_nbytes == card.depth * 8 * 36 * 52 * 3


# ---- trouble of the engine


@pytest.mark.parametrize(
    "trouble",
    [
        Trouble(refuse={5, 40, 41, 90}),
        Trouble(starve={5, 40, 41, 90}),
        Trouble(drop={5, 40, 41, 90}),
        Trouble(conceal={5, 40, 41, 90}),
        Trouble(reorder=True),
        Trouble(twice={3, 30}),
        Trouble(unmade=2),
        Trouble(begins=3),
    ],
    ids=("refuse", "starve", "drop", "conceal", "reorder", "twice", "unmade", "begins"),
)
def test_whatever_the_engine_does_the_bytes_stay(job, on_cpu, on_card, trouble):
    words = job()
    assert on_card(words, engine=FakeEngine(2, trouble=trouble)).results == on_cpu(words).results


def test_few_decoders_and_many_lanes(job, on_cpu, on_card):
    words = job([*NAMES, *NAMES])
    engine = FakeEngine(4, most_sessions=1, delay=4)
    card = on_card(words, engine=engine)
    assert card.depth == 10
    assert card.results == on_cpu(words).results


@pytest.mark.parametrize("how", ["launch", "packet"])
def test_a_lost_device_ends_the_operator_and_nothing_wrong_is_handed_over(job, on_cpu, tmp_path, how):
    words = job([*NAMES, *NAMES], format="npy")
    expected = on_cpu(words).results
    engine = FakeEngine(2)
    device = host_device(engine=engine)
    done = {}

    def watch(completion):
        done[completion.work.ordinal] = completion.error
        if how == "launch":
            device.card.faults.lost_at = device.card.launches
        else:
            with engine.lock:
                engine.lost = True

    with pytest.raises(DeviceLostError):
        Made(words, tmp_path / "lost", device, watch=watch)
    assert 0 < len(done) < len(expected)
    assert [error for error in done.values() if isinstance(error, DeviceLostError)] == []
    device.card.lose()
    for thread in threading.enumerate():
        if thread.name.startswith(("lane-", "batcher-")):
            thread.join(PATIENCE)
            assert not thread.is_alive()
    device.close()


# ---- overlap


def test_the_write_of_one_item_the_copy_of_another_and_the_kernel_of_a_third_run_at_the_same_time(
    job, tmp_path, on_cpu
):
    """Each waits within until all three are there. Not more than a lane's items are in hand, and there are more items
    than those: so a kernel always comes while a copy waits."""
    words = job(["a.mp4", "e.mp4", "j.mkv", "b.mp4"] * 4, format="npy")
    device = host_device(engine=FakeEngine(2))
    meeting, lock, ran = threading.Barrier(3), threading.Lock(), Counter()

    def seen(entry):
        kind, _ = entry
        with lock:
            if kind == "kernel" and ran["copy"] < 2:
                return
            ran[kind] += 1
            here = ran[kind] == (2 if kind == "copy" else 1)
        if here:
            meeting.wait(PATIENCE)

    def watch(completion):
        with lock:
            ran["write"] += 1
            here = ran["write"] == 1
        if here:
            meeting.wait(PATIENCE)

    device.card.watch = seen
    assert Made(words, tmp_path / "card", device, watch=watch, slots=16).results == on_cpu(words).results
    assert not meeting.broken
    device.close()


def test_items_are_decoded_while_the_kernel_of_others_runs(job, tmp_path, on_cpu):
    words = job(["a.mp4", "e.mp4", "j.mkv", "b.mp4"] * 4, format="npy")
    decoded = threading.Semaphore(0)

    class Heard(FakeEngine):
        def taken(self, nbytes):
            decoded.release()
            return super().taken(nbytes)

    device = host_device(engine=Heard(2))
    beside = []

    def kernel_that_takes_long():
        beside.extend(decoded.acquire(timeout=PATIENCE) for _ in range(40))

    device.stream.slip(kernel_that_takes_long)
    assert Made(words, tmp_path / "card", device).results == on_cpu(words).results
    assert beside == [True] * 40
    device.close()


# ---- a real card


@pytest.fixture
def real_device():
    reason = missing()
    if reason is not None:
        pytest.skip(reason)
    device = open_device(REAL, 0)
    yield device
    device.close()


@pytest.mark.needs_cuda
@pytest.mark.parametrize("options", [{}, {"all_frames": True}, {"tolerance": 0.3}, {"allow_partial": True}], ids=str)
def test_a_real_card_gives_the_bytes_and_verdicts_of_a_core(job, on_cpu, tmp_path, real_device, options):
    words = job([*NAMES, *NAMES], **options)
    card = Made(words, tmp_path / "card", real_device)
    assert card.results == on_cpu(words).results
    if "allow_partial" not in options:  # which decodes everything, by FFmpeg
        assert "nvdec" in card.backends.values()


# ---- whole runs, in worker processes


def tree(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".gpupipe" not in path.parts and path.name != "failed.jsonl"
    }


class Quietly:
    def __init__(self):
        self.notices = []

    def update(self, snapshot):
        pass

    def notice(self, text):
        self.notices.append(text)


CARD = Post(gpu="GPU-host", label="host:0", device=(OPENER, 0))
CORE = Post()


@pytest.fixture
def posts(monkeypatch):
    """Says where the workers of the next run work; they find this folder and the one above through the path."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)

    def set_posts(*wanted):
        monkeypatch.setattr("gpupipe.settings.assign", lambda *rest: (list(wanted), []))

    return set_posts


def run_job(job, out, code=3):
    summary = run(job, Run(output=out), Quietly())
    assert summary.exit_code == code, (summary.stop_reason, summary.reasons)
    return summary


def backends(out: Path) -> Counter[str]:
    ledger = Ledger(out / ".gpupipe/shard-0/ledger.db")
    found = Counter(outcome.backend for outcome in ledger.outcomes())
    ledger.close()
    return found


@pytest.mark.parametrize("form", ["samples", "npy", "webdataset"])
def test_a_whole_run_on_a_card_gives_the_bytes_of_one_on_a_core(job, posts, tmp_path, form):
    words = job([*NAMES, *NAMES], format=form, shard_size=8)
    posts(CORE)
    run_job(words, tmp_path / "cpu")
    posts(CARD)
    run_job(words, tmp_path / "card")
    posts(CARD, CORE, CARD)
    run_job(words, tmp_path / "both")
    assert tree(tmp_path / "card") == tree(tmp_path / "cpu")
    assert tree(tmp_path / "both") == tree(tmp_path / "cpu")
    assert backends(tmp_path / "cpu").keys() == {"ffmpeg", ""}
    assert backends(tmp_path / "card")["nvdec"] == 2 * len(ON_CARD)


KILLED = """
import json, os, signal, sys
from pathlib import Path
import gpupipe.launch
from gpupipe.jobs.clips import ClipsJob
from gpupipe.posts import Post
options, out, device = json.loads(sys.argv[1])
class Killer:
    def update(self, snapshot):
        if snapshot.done >= 3:
            os.kill(os.getpid(), signal.SIGKILL)
    def notice(self, text):
        pass
gpupipe.settings.assign = lambda *rest: ([Post(device=device and tuple(device))], [])
gpupipe.launch.run(ClipsJob(**options), gpupipe.launch.Run(output=Path(out)), Killer())
"""


@pytest.mark.parametrize(("first", "form"), [("cpu", "samples"), ("card", "npy"), ("card", "webdataset")])
def test_killed_on_one_and_resumed_on_the_other(job, posts, tmp_path, first, form):
    words = job(NAMES * 6, format=form, shard_size=16)
    posts(CARD, CARD)
    run_job(words, tmp_path / "calm")
    device = CARD.device if first == "card" else None
    told = json.dumps([{**words.options(), **words.inputs()}, str(tmp_path / "out"), device])
    done = subprocess.run([sys.executable, "-c", KILLED, told], check=False, timeout=120)
    assert done.returncode == -9
    assert tree(tmp_path / "out") != tree(tmp_path / "calm")
    posts(CORE if first == "card" else CARD)
    run_job(words, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "calm")


def test_a_lost_card_takes_its_worker_down_and_others_do_its_items(job, posts, tmp_path, monkeypatch):
    words = job([*NAMES, *NAMES], format="npy", shard_size=8)
    posts(CORE)
    run_job(words, tmp_path / "cpu")
    monkeypatch.setenv(FAULTS, json.dumps({"lost_at": 4}))
    posts(CARD, CORE)
    run_job(words, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "cpu")


def test_a_run_whose_only_card_is_lost_stops_and_is_taken_up_by_a_core(job, posts, tmp_path, monkeypatch):
    words = job([*NAMES, *NAMES], format="npy", shard_size=8)
    posts(CORE)
    run_job(words, tmp_path / "cpu")
    monkeypatch.setenv(FAULTS, json.dumps({"lost_at": 6}))
    posts(CARD)
    with pytest.raises(StoppedError, match="lost"):
        run_job(words, tmp_path / "out")
    posts(CORE)
    run_job(words, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "cpu")

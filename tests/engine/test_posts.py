"""Where workers work: cards and cores, shares, cards that are lost, audits."""

from __future__ import annotations

import json
import threading
from contextlib import closing
from types import SimpleNamespace

import pytest
from helpers import Quietly, tree

import gpupipe
from gpupipe import gauges, launch, planning, posts, watchdog
from gpupipe.cli.main import main
from gpupipe.cuda.nvml import GpuSample
from gpupipe.errors import StoppedError, UsageError
from gpupipe.forecast import forecast
from gpupipe.job import Completion, Work
from gpupipe.jobs.clips import ClipsJob
from gpupipe.launch import Run
from gpupipe.ledgers import Ledgers
from gpupipe.memory import HostSlots
from gpupipe.posts import Post, assign
from gpupipe.reports.final import final_text
from gpupipe.reports.html import page
from gpupipe.verification import verify
from gpupipe.writer import Writer

CARDS = ("GPU-a", "GPU-b")


class Cards:
    """Stands in for :mod:`gpupipe.cuda.devices` on a machine with some cards, or with none and a reason."""

    def __init__(self, uuids=CARDS, reason=None):
        self._found = [SimpleNamespace(index=number, uuid=uuid) for number, uuid in enumerate(uuids)]
        self._reason = reason

    def missing(self):
        return self._reason

    def usable_devices(self):
        return self._found

    def near_cores(self, device):
        return []

    def select(self, gpus, gpu_ids, found):
        if gpu_ids:
            return [found[int(number)] for number in gpu_ids]
        return found if gpus in (None, "all") else found[:gpus]


@pytest.fixture
def cards(monkeypatch):
    def there(*uuids, reason=None):
        monkeypatch.setattr(posts, "devices", Cards(uuids, reason))
        monkeypatch.setattr(posts, "OPENER", "others:open_device")
        monkeypatch.setattr(posts, "usable_cores", lambda: 10)

    return there


def labels(*arguments):
    found, _ = assign(*arguments)
    return [post.label for post in found]


def test_auto_uses_every_card_and_the_cores_that_are_left(cards):
    cards(*CARDS)
    assert labels("auto", None, None, (), 1) == ["cuda:0", "cuda:1", "cpu", "cpu"]
    assert labels("auto", 5, None, (), 1) == ["cuda:0", "cuda:1"] + ["cpu"] * 5
    assert labels("auto", None, 1, (), 2) == ["cuda:0", "cuda:0", "cpu", "cpu"]
    assert labels("nvdec", None, "all", (), 2) == ["cuda:0", "cuda:0", "cuda:1", "cuda:1"]
    assert labels("auto", None, None, ("0", "0", "1"), 1) == ["cuda:0", "cuda:0", "cuda:1"]
    assert labels("ffmpeg", None, None, (), 1) == ["cpu"] * 10
    (first, *_), _ = assign("nvdec", None, None, (), 1)
    assert first.environment == {"CUDA_VISIBLE_DEVICES": "GPU-a", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def test_without_a_card_a_count_of_them_is_one_of_processes(cards):
    cards(reason="no NVIDIA driver. Install it")
    found, notices = assign("auto", None, None, (), 1)
    words = "decoding with FFmpeg on CPU cores: no NVIDIA driver; see gpupipe doctor"
    assert found == [Post()] * 10 and notices == [words]
    found, notices = assign("auto", None, None, ("0", "1", "2"), 2)
    assert found == [Post()] * 6 and notices[1] == "--gpu-ids 0 1 2: no GPU is used, so it runs 6 CPU processes"
    assert len(assign("auto", None, 64, (), 1)[0]) == 10
    assert len(assign("auto", 3, 4, (), 1)[0]) == 3
    with pytest.raises(UsageError, match=r"--backend nvdec: no NVIDIA driver\. Install it"):
        assign("nvdec", None, None, (), 1)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"gpus": 1, "gpu_ids": ("0",)}, "choose one"),
        ({"gpus": 0}, "--gpus 0"),
        ({"gpus": "some"}, "--gpus some"),
        ({"workers_per_gpu": 0}, "--num-workers-per-gpu 0"),
        ({"audit": 1.5}, "--audit 1.5"),
    ],
)
def test_wrong_values(tmp_path, how, words):
    with pytest.raises(UsageError, match=words):
        Run(tmp_path, **how).check()


def test_an_audit_needs_a_card(cards, toys, tmp_path):
    cards(reason="no NVIDIA driver")
    with pytest.raises(UsageError, match=r"--audit 0\.5 compares GPU and CPU"):
        launch.run(toys(["ok"]), Run(tmp_path / "out", audit=0.5), Quietly())


def test_cards_and_cores_give_the_same_bytes(cards, toys, tmp_path):
    from others import CardToy

    cards(*CARDS)
    words = ["ok", "fail", "ok", "ok", "bug", "ok"] * 20
    there = launch.run(toys(words, CardToy), Run(tmp_path / "cards", workers_per_gpu=2), Quietly())
    here = launch.run(toys(words), Run(tmp_path / "cores", workers=2), Quietly())
    assert (there.done, there.failed, there.workers) == (here.done, here.failed, 4) == (80, 40, 4)
    assert tree(tmp_path / "cards") == tree(tmp_path / "cores")
    ledgers = Ledgers(tmp_path / "cards" / ".gpupipe", 0)
    assert {outcome.backend for outcome in ledgers.outcomes(1)} == {"nvdec"}
    ledgers.close()


def test_a_crash_among_several_items_in_hand_costs_the_others_nothing(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    words = ["ok"] * 20 + ["crash"] + ["ok"] * 20
    summary = launch.run(toys(words, CardToy), Run(tmp_path / "out"), Quietly())
    assert (summary.done, summary.reasons) == (40, {"crash": 1})


def test_a_hang_among_several_items_in_hand_is_that_items_alone(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    words = ["ok"] * 10 + ["stuck"] + ["ok"] * 10
    summary = launch.run(toys(words, CardToy), Run(tmp_path / "out", item_timeout=2.0), Quietly())
    assert (summary.done, summary.reasons) == (20, {"hang": 1})


def test_the_items_of_a_lost_card_go_to_the_others(cards, toys, tmp_path):
    from others import CardToy

    cards(*CARDS)
    reporter = Quietly()
    job = toys(["fragile"] * 12 + ["ok"] * 12, CardToy, delay=0.02)
    summary = launch.run(job, Run(tmp_path / "out"), reporter)
    assert (summary.done, summary.failed) == (24, 0)
    assert any("fell off the bus" in text for text in reporter.notices)
    ledgers = Ledgers(tmp_path / "out" / ".gpupipe", 0)
    assert {outcome.attempts for outcome in ledgers.outcomes()} == {1}
    (event,) = [event for event in ledgers.ledgers[0].events() if event.kind == "device"]
    ledgers.close()
    assert event.text == "cuda:1 is not used any more: cuda:1 fell off the bus"


def test_what_a_card_has_to_say_is_kept(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    reporter = Quietly()
    launch.run(toys(["ok", "tight", "ok"], CardToy), Run(tmp_path / "out"), reporter)
    assert reporter.notices == ["cuda:0: at most 32 pictures a launch"]
    with closing(Ledgers(tmp_path / "out" / ".gpupipe", 0)) as ledgers:
        assert [(event.kind, event.text) for event in ledgers.ledgers[0].events()] == [("device", *reporter.notices)]


def test_a_card_that_does_not_open_is_left_alone(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a", "GPU-dead")
    assert launch.run(toys(["ok"] * 9, CardToy, delay=0.05), Run(tmp_path / "out"), Quietly()).done == 9


def test_few_items_on_a_card_that_is_lost_go_to_another_post(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-dead", "GPU-a")
    assert launch.run(toys(["ok"], CardToy), Run(tmp_path / "card"), Quietly()).done == 1
    cards("GPU-dead")
    job = toys(["ok"], CardToy, backend="auto")
    assert launch.run(job, Run(tmp_path / "core", workers=1), Quietly()).done == 1


def test_what_dies_on_a_lost_card_blames_no_item(cards, toys, tmp_path):
    from others import CardToy

    cards(*CARDS)
    reporter = Quietly()
    job = toys(["first"] + ["second"] * 23, CardToy)
    summary = launch.run(job, Run(tmp_path / "out", gpu_ids=("1", "1", "0")), reporter)
    assert (summary.done, summary.failed) == (24, 0)
    assert any("signal SIGABRT" in text for text in reporter.notices)
    with closing(Ledgers(tmp_path / "out" / ".gpupipe", 0)) as ledgers:
        assert {outcome.attempts for outcome in ledgers.outcomes()} == {1}
        assert [event.kind for event in ledgers.ledgers[0].events()].count("device") == 1


def test_a_card_without_memory_to_begin_with_is_said_in_words(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-full")
    with pytest.raises(StoppedError, match=r"^a GPU has no memory to begin with: cuda:0: out of memory\. Free some"):
        launch.run(toys(["ok"], CardToy), Run(tmp_path / "out"), Quietly())


def test_with_no_card_left_the_run_stops_and_goes_on_later(cards, toys, tmp_path):
    from others import CardToy

    job = toys(["ok"] * 8, CardToy)
    cards("GPU-dead")
    with pytest.raises(StoppedError, match=r"no device is left: cuda:2 does not answer\. See gpupipe doctor"):
        launch.run(job, Run(tmp_path / "out"), Quietly())
    cards("GPU-a")
    assert launch.run(job, Run(tmp_path / "out"), Quietly()).done == 8


def test_an_audit_finds_nothing_where_all_is_well(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    summary = launch.run(toys(["ok"] * 40, CardToy), Run(tmp_path / "out", audit=0.5), Quietly())
    assert 5 < summary.audited < 35 and (summary.differences, summary.exit_code) == (0, 0)
    assert "all the same" in final_text(summary, "items")


def test_what_a_card_made_is_verified_where_there_is_none(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    job = toys(["ok"] * 6, CardToy)
    launch.run(job, Run(tmp_path / "out"), Quietly())
    verdict = verify(job, tmp_path / "out", deep=6)
    assert (verdict.deep, verdict.faults) == (6, [])


def test_what_was_planned_for_a_card_is_retried_where_there_is_none(cards, tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    (tmp_path / "pairs.json").write_text(json.dumps([{"vid": "a", "clip_path": "gone.mp4", "transcript": "x"}]))
    job = ClipsJob(pairs_json=str(tmp_path / "pairs.json"), clips_dir=str(tmp_path / "clips"), backend="nvdec")
    out = str(tmp_path / "out")
    (tmp_path / "out" / ".gpupipe").mkdir(parents=True)
    planning.make_plan(job, tmp_path / "out" / ".gpupipe", planning.source_facts(job.source()), Quietly()).close()
    cards(reason="no NVIDIA driver")
    assert main(["retry", out, "--quiet"]) == 2
    assert "--backend nvdec: no NVIDIA driver" in capsys.readouterr().err
    assert main(["retry", out, "--quiet", "--num-workers", "1", "--backend", "ffmpeg"]) == 3
    assert gpupipe.retry(out, num_workers=1, backend="auto").reasons == {"MissingInputError": 1}
    with pytest.raises(UsageError, match="backend 'cuda': expected one of"):
        gpupipe.retry(out, backend="cuda")


def test_memory_that_a_card_takes_from_the_start_is_no_growth(cards, toys, tmp_path):
    from others import HeavyCardToy

    cards("GPU-a")
    job = toys(["ok"] * 120, HeavyCardToy, delay=0.05)
    assert launch.run(job, Run(tmp_path / "out", memory_per_worker=256 << 20), Quietly()).done == 120
    with closing(Ledgers(tmp_path / "out" / ".gpupipe", 0)) as ledgers:
        assert not [event for event in ledgers.ledgers[0].events() if event.kind == "recycle"]


def test_a_forecast_hears_what_a_card_has_to_say(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    found = forecast(toys(["tight"] * 6, CardToy), Run(tmp_path / "out"), Quietly())
    assert found.trial.done == found.trial.worked == 6 and not found.problems


def test_a_forecast_knows_no_memory_of_workers_unlike_the_one_it_tried(cards, toys, tmp_path, monkeypatch):
    from others import CardToy

    cards("GPU-a")
    job = toys(["ok"] * 64, CardToy, backend="auto")
    found = forecast(job, Run(tmp_path / "out", workers=40), Quietly())
    assert found.workers == 41 and found.needed_memory_bytes == found.trial.peak_bytes


def test_what_an_audit_finds_is_said_and_in_the_report(cards, toys, tmp_path):
    from others import CardToy

    cards("GPU-a")
    reporter = Quietly()
    job = toys(["ok"] * 6, CardToy, audit_says="different")
    summary = launch.run(job, Run(tmp_path / "out", audit=1.0), reporter)
    assert (summary.done, summary.audited, summary.differences, summary.exit_code) == (6, 6, 6, 1)
    assert reporter.notices.count("audit: FFmpeg and cuda:0 differ: item 3 is made otherwise now") == 1
    assert "6 DIFFER" in final_text(summary, "items")
    text = page.write(tmp_path / "out").read_text()
    assert "Made otherwise by another backend" in text and "item 3 is made otherwise now" in text


@pytest.mark.parametrize(("misdeed", "words"), [("stuck", "longer than it may"), ("crash", "SIGABRT")])
def test_an_audit_that_ends_its_worker_is_a_difference_and_no_items_fault(cards, toys, tmp_path, misdeed, words):
    from others import CardToy

    cards("GPU-a")
    reporter = Quietly()
    job = toys(["ok"], CardToy, audit_says=misdeed)
    summary = launch.run(job, Run(tmp_path / "out", audit=1.0, item_timeout=1.5), reporter)
    assert (summary.done, summary.audited, summary.differences, summary.exit_code) == (1, 1, 1, 1)
    text = "audit: FFmpeg and cuda:0 differ: item 0 was done, and making it again ended its process: "
    assert any(notice.startswith(text) and words in notice for notice in reporter.notices)
    with closing(Ledgers(tmp_path / "out" / ".gpupipe", 0)) as ledgers:
        assert [outcome.attempts for outcome in ledgers.outcomes()] == [1]


def test_a_worker_that_does_not_end_is_ended(cards, toys, tmp_path, monkeypatch):
    from others import CardToy

    monkeypatch.setattr(watchdog, "IDLE_SECONDS", 1.0)
    cards("GPU-clings")
    reporter = Quietly()
    summary = launch.run(toys(["ok"] * 5, CardToy), Run(tmp_path / "out"), reporter)
    assert (summary.done, summary.complete, summary.exit_code) == (5, True, 0)
    assert reporter.notices == ["worker 0 died (it did not end), 0 items go back"]


def test_an_item_is_reported_before_its_audit_which_holds_nobody_else(toys, tmp_path):
    heard, room = [], threading.Event()

    def put(*one):
        heard.append("audit")
        room.wait()

    job = toys(["ok"])
    sink = SimpleNamespace(commit=lambda *words: None)
    wire = SimpleNamespace(send=lambda message: heard.append("report"))
    slots = HostSlots(job.rows())
    audit = SimpleNamespace(chooses=lambda ordinal: True, put=put)
    writer = Writer(job, sink, slots, wire, audit)
    work = Work(0, "ok", slots.acquire(0), backend="nvdec")
    handing = threading.Thread(target=writer.put, args=(Completion(work, sample=object()),), daemon=True)
    handing.start()
    handing.join(20)
    held = handing.is_alive()
    room.set()
    writer.finish()
    assert not held and heard[:2] == ["report", "audit"]


def test_the_counters_of_cards_are_kept(monkeypatch, cards, toys, tmp_path):
    from others import CardToy

    class Counters:
        reason = None

        def __init__(self, uuids):
            self._uuids = uuids

        def sample(self):
            lost = "gone" if "GPU-b" in self._uuids else None
            return [GpuSample("GPU-a", 4, 93, 0, 3 << 30, 310.0), GpuSample("GPU-b", lost=lost)]

        def close(self):
            pass

    cards(*CARDS)
    monkeypatch.setattr(gauges, "Sampler", Counters)
    launch.run(toys(["ok"] * 9, CardToy), Run(tmp_path / "out"), Quietly())
    ledgers = Ledgers(tmp_path / "out" / ".gpupipe", 0)
    (run,) = ledgers.ledgers[0].runs()
    ledgers.close()
    gpus = run.facts["gpus"]
    assert gpus["cuda:0"]["decoder_percent"] == 93 and gpus["cuda:0"]["peak_bytes"] == 3 << 30
    assert gpus["cuda:1"] == {"samples": 0, "peak_bytes": 0, "lost": "gone"}
    assert "video decoders 93% busy, multiprocessors 4%" in page.write(tmp_path / "out").read_text()

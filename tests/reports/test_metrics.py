"""Metrics over HTTP during a run of the toy job."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gpupipe import api, launch
from gpupipe.cli.main import main
from gpupipe.errors import UsageError
from gpupipe.progress import Snapshot
from gpupipe.reports.live import Quiet
from gpupipe.reports.metrics import served


def asked(url: str) -> dict[tuple[str, ...], float]:
    """Every sample, by name and label values."""
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    families = list(text_string_to_metric_families(text))
    assert all(family.documentation for family in families)
    return {(sample.name, *sample.labels.values()): sample.value for family in families for sample in family.samples}


def url_in(notices: list[str]) -> str:
    (url,) = [found[0] for notice in notices if (found := re.search(r"http://127\.0\.0\.1:\d+/metrics", notice))]
    return url


@pytest.fixture
def toy(tmp_path, toy_in_reach):
    """Makes a toy job over the given words."""

    def make(words, **options):
        from toy import ToyJob

        marks = tmp_path / "marks"
        marks.mkdir(exist_ok=True)
        (tmp_path / "words.json").write_text(json.dumps(words))
        return ToyJob(plan_file=str(tmp_path / "words.json"), marks=str(marks), **options)

    return make


def test_a_run_is_seen_from_outside(tmp_path, toy):
    """Asked while a worker is stuck on the last item, all the others done: nothing moves any more."""
    words = ["ok"] * 30 + ["fail", "crash", "stuck"]
    how = launch.Run(tmp_path / "out", workers=2, item_timeout=20.0)
    heard = Quiet()
    found: dict[tuple[str, ...], float] = {}

    def ask(url: str) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found.update(asked(url))
            if found["gpupipe_items", "pending"] == 1:
                return
            time.sleep(0.05)

    with served(heard, 0) as told:
        url = url_in(heard.notices)
        asking = threading.Thread(target=ask, args=(url,))
        asking.start()
        with pytest.raises(KeyboardInterrupt):
            launch.run(toy(words), how, _Stopping(told, asking))
    assert found["gpupipe_items", "done"] == 30
    assert found["gpupipe_items", "failed"] == 2
    assert found["gpupipe_failures_total", "InputError"] == 1
    assert found["gpupipe_failures_total", "crash"] == 1
    assert found["gpupipe_worker_deaths_total",] >= 2
    assert found["gpupipe_workers",] >= 1
    assert found["gpupipe_worker_cpu_seconds_total",] > 0
    assert found["gpupipe_read_bytes_total",] > 0
    assert found["gpupipe_written_bytes_total",] > 30 * 64
    assert found["gpupipe_worker_resident_peak_bytes",] > 10_000_000
    assert found["gpupipe_stage_seconds_total", "work"] >= 0
    assert found["gpupipe_items_per_second",] > 0
    assert found["gpupipe_run_seconds_total",] > 0
    with pytest.raises(urllib.error.URLError):
        asked(url)


class _Stopping:
    """Passes on what it hears, and ends the run once the one who asks has seen enough."""

    def __init__(self, reporter, asking):
        self._reporter, self._asking = reporter, asking

    def update(self, snapshot):
        self._reporter.update(snapshot)
        if not self._asking.is_alive():
            raise KeyboardInterrupt

    def notice(self, text):
        self._reporter.notice(text)


def test_through_the_api(tmp_path, toy):
    job, how = toy(["ok"] * 5), launch.Run(tmp_path / "out", workers=1)
    seen = {}

    def work(reporter):
        summary = launch.run(job, how, reporter)
        seen.update(asked(seen["url"]))
        return summary

    port = free_port()
    seen["url"] = f"http://127.0.0.1:{port}/metrics"
    summary = api.run_shown(work, "items", progress=False, metrics_port=port)
    assert seen["gpupipe_items", "done"] == 5
    assert url_in(summary.notices) == seen["url"]


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def test_a_port_in_use_stops_it_before_any_work(tmp_path, capsys):
    (tmp_path / "clips").mkdir()
    (tmp_path / "pairs.json").write_text(json.dumps([{"vid": "a", "clip_path": "a.mp4"}]))
    words = [
        "--pairs-json",
        tmp_path / "pairs.json",
        "--clips-dir",
        tmp_path / "clips",
        "--output-dir",
        tmp_path / "out",
    ]
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["clips", *map(str, words), "--metrics-port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"--metrics-port {port}: cannot be had on 127.0.0.1" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("port", [-1, 65536])
def test_no_such_port(port):
    with pytest.raises(UsageError, match="expected a port"), served(Quiet(), port):
        raise AssertionError


def test_two_runs_have_two_ports():
    one, two = Quiet(), Quiet()
    with served(one, 0) as first, served(two, 0) as second:
        first.update(Snapshot(total=3, done=1))
        second.update(Snapshot(total=9, done=2, reasons=Counter({'a"b\n': 1})))
        assert asked(url_in(one.notices))["gpupipe_items", "pending"] == 2
        assert asked(url_in(two.notices))["gpupipe_items", "pending"] == 7
        assert asked(url_in(two.notices))["gpupipe_failures_total", 'a"b\n'] == 1


def test_what_is_read_does_not_change_while_it_is_read():
    """The run goes on with its own snapshot; what was told stays as it was."""
    heard = Quiet()
    with served(heard, 0) as told:
        snapshot = Snapshot(total=2, reasons=Counter({"crash": 1}), failed=1)
        told.update(snapshot)
        snapshot.reasons["hang"] = 1
        snapshot.stages["decode"] = 1.0
        found = asked(url_in(heard.notices))
    assert ("gpupipe_failures_total", "hang") not in found
    assert ("gpupipe_stage_seconds_total", "decode") not in found


def test_nothing_is_served_unasked():
    reporter = Quiet()
    with served(reporter, None) as told:
        assert told is reporter
    assert reporter.notices == []

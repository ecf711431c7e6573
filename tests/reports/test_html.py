"""The report: what it says, that it is whole, and that no name can become a part of it."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import synth
from outputs import BEGAN, Page, a_run, done, failed, make
from PIL import Image

import gpupipe
from gpupipe.cli.main import main
from gpupipe.errors import OutputError, UsageError
from gpupipe.outcome import Event
from gpupipe.reports.html import text, workers
from gpupipe.reports.html.advice import advice
from gpupipe.reports.html.axis import Axis
from gpupipe.reports.html.record import read

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "half \ud800 surrogate",
    "right \u202e to left",
    "日本語 ünd عربي 🎬",
    "{{ 7 * 7 }} {% raw %}",
    "</style></title></svg>&lt;",
    "nul \x01 and \x1b[31m bell",
)


def page_of(out: Path, **options) -> Page:
    return Page(gpupipe.report(out, **options).read_text(encoding="utf-8"))


def numbers(page: Page) -> str:
    return page.text.partition("Failures Pictures")[0]


def test_it_says_what_became_of_every_item(tmp_path):
    rows = [done(n, n, worker=n % 2) for n in range(6)] + [failed(6), failed(7, "hang", "too long", attempts=2)]
    events = [Event(BEGAN + 2, "death", 1, 3, "worker 1 died (SIGSEGV), 2 items go back")]
    out = make(tmp_path / "out", [f"v{n}" for n in range(10)], [rows], [[a_run()]], events)
    page = page_of(out)
    assert "Not finished" in page.text
    assert "Done 6 of 10, 60% Failed 2 25% of those worked Pending 2" in numbers(page)
    assert "TruncatedError 1" in page.text
    assert "000006_v6 cut off" in page.text
    assert f"gpupipe retry {out} --reason hang --item-timeout" in page.text
    assert "worker 1 died (SIGSEGV), 2 items go back" in page.text
    assert "decode 60% 12 s" in page.text
    assert "node , 77" in page.text
    # 20 s of CPU in 10 s on 4 cores; two workers of 100 MB in 8 GB
    assert "CPU 50%" in page.text
    assert "100 MB a worker, 200 MB for all 2. Ceiling: 8 GB" in page.text
    assert "1 MB/s, 10 MB. Ceiling: not measured" in page.text
    assert "num_frames 16" in page.text


def test_it_is_one_file_that_loads_nothing(tmp_path):
    out = make(tmp_path / "out", ["a", "b"], [[done(0), failed(1)]], [[a_run()]])
    html = gpupipe.report(out).read_text(encoding="utf-8")
    page = Page(html)
    assert page.found("script") == []
    links = [value for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src", "srcset")]
    assert links
    assert [link for link in links if not link.startswith(("#", "data:"))] == []
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    assert not re.search(r"url\(|@import|https?:", html)
    (policy,) = [attrs["content"] for attrs in page.found("meta") if attrs.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    targets = {attrs["id"] for _, attrs in page.tags if "id" in attrs}
    assert {link[1:] for link in links if link.startswith("#")} <= targets


def test_every_table_has_headers_and_every_picture_words(tmp_path):
    rows = [done(0), failed(1)]
    page = page_of(
        make(tmp_path / "out", ["a", "b"], [rows, []], [[a_run()], [a_run(3)]], [Event(1, "stop", -1, -1, "x")])
    )
    assert all(attrs.get("scope") in ("col", "row") for attrs in page.found("th"))
    assert all(attrs.get("alt") for attrs in page.found("img"))
    assert all(attrs.get("role") == "img" and attrs.get("aria-label") for attrs in page.found("svg"))
    regions = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert regions
    assert all(attrs.get("tabindex") == "0" and attrs.get("aria-label") for attrs in regions)
    assert len(page.found("h1")) == 1


def test_names_stay_names(tmp_path):
    """Ids, messages, reasons, hosts and paths of others are shown, and do nothing."""
    words = [name.encode(errors="backslashreplace").decode() for name in HOSTILE]  # as ledgers hold them
    rows = [failed(n, error=f"Error{name}", message=name, stage=name) for n, name in enumerate(words)]
    rows += [done(len(HOSTILE) + n, backend=name) for n, name in enumerate(words)]
    events = [Event(BEGAN, "notice", -1, -1, name) for name in words]
    facts = {"how": dict(zip(HOSTILE, HOSTILE, strict=True)), "machine": {HOSTILE[0]: [HOSTILE[1]]}}
    runs = [a_run(host=HOSTILE[0], stages=dict.fromkeys(HOSTILE, 1.0), facts=facts)]
    folder = tmp_path / "<b>&'\"{{1}}"
    plain = Page(gpupipe.report(make(tmp_path / "plain", ["v"] * 18, [[done(9)]], [[a_run()]])).read_text())
    html = gpupipe.report(make(folder, [*HOSTILE, *HOSTILE], [rows], [runs], events)).read_bytes().decode("utf-8")
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {
        *("article", "bdi", "details", "pre", "small", "summary", "td", "tbody", "table", "code")
    }
    assert page.found("script") == []
    assert [name for _, attrs in page.tags for name in attrs if name.startswith("on")] == []
    shown = [*HOSTILE[:3], "half \\ud800 surrogate", "right \\u202e to left", *HOSTILE[5:8], "nul \\x01 and \\x1b[31m"]
    for ordinal, name in enumerate(shown):
        assert f"{ordinal:06d}_{name}" in page.text, name
    assert "\u202e" not in html
    assert "\x1b" not in html
    assert folder.name in page.text


def test_a_command_to_copy_is_one_command(tmp_path):
    command = advice("x; rm -rf ~", Path("/data/my out'put")).command
    assert command == """gpupipe retry '/data/my out'"'"'put' --reason 'x; rm -rf ~'"""


def test_nothing_done_yet(tmp_path):
    page = page_of(make(tmp_path / "out", ["a"]))
    assert "Not begun" in page.text
    assert "No item has an outcome yet" in page.text
    assert "Not finished" in page_of(make(tmp_path / "begun", ["a"], [[]], [[a_run(seconds=0.0, stages={})]])).text


def test_everything_failed(tmp_path):
    page = page_of(make(tmp_path / "out", ["a"], [[failed(0)]], [[a_run()]]))
    assert "Complete" in page.text
    assert "No item is done yet" in page.text


def test_later_epochs_count(tmp_path):
    """Item 0 failed under the old layout and was done under the new one, by another run shard."""
    shards = [[failed(0), done(1)], [done(0, epoch=1)]]
    page = page_of(make(tmp_path / "out", ["a", "b"], shards, [[a_run()], [a_run(20)]], epoch=1))
    assert "Done 2 of 2, 100% Failed 0" in numbers(page)
    assert "Nothing failed." in page.text
    assert "shard-1" in page.text


def test_during_a_run(tmp_path, toy_in_reach):
    from helpers import start_run, write_plan

    marks = tmp_path / "marks"
    marks.mkdir()
    job = {"plan_file": str(write_plan(tmp_path, ["ok"] * 40 + ["stuck"])), "marks": str(marks)}
    run = start_run(job, {"output": tmp_path / "out", "workers": 2})
    try:
        deadline = time.monotonic() + 60
        while not (marks / "stuck").exists() or gpupipe.status(tmp_path / "out").get("done", 0) < 40:
            assert time.monotonic() < deadline
            assert run.poll() is None
            time.sleep(0.05)
        page = page_of(tmp_path / "out", output=tmp_path / "now.html")
        assert "Running" in page.text
        assert f"process {run.pid}" in page.text
        assert "Done 40 of 41" in numbers(page)
        assert "the job has no picture of it" in page.text
    finally:
        run.kill()
        run.wait()


def test_a_job_of_another_version(tmp_path):
    page = page_of(make(tmp_path / "out", ["a"], [[done(0)]], [[a_run()]], job_name="of tomorrow"))
    assert "Items have no ids and no pictures here" in page.text
    assert "Done 1 of 1" in numbers(page)


def test_it_only_reads(tmp_path):
    out = make(tmp_path / "out", ["a", "b"], [[done(0)], [failed(1)]], [[a_run()], [a_run()]])

    def seen():
        return {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in out.rglob("*")}

    before = seen()
    gpupipe.report(out, tmp_path / "x.html")
    assert seen() == before


@pytest.mark.parametrize("form", ["samples", "npy", "webdataset"])
@pytest.mark.parametrize("complete", [True, False])
def test_pictures_are_those_of_the_items(tmp_path, form, complete):
    """Also those of a shard that has no final name yet."""
    clips = tmp_path / "clips"
    clips.mkdir()
    pairs = []
    for number in range(5):
        synth.encode(clips / f"{number}.mp4", synth.Clip(count=20, first=100 * number))
        pairs.append({"vid": f"v{number}", "clip_path": f"{number}.mp4"})
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    if not complete:
        (clips / "4.mp4").write_bytes(b"none")
    options = {"clips_dir": clips, "num_frames": 8, "size": (96, 128), "format": form, "shard_size": 4}
    gpupipe.clips(tmp_path / "pairs.json", tmp_path / "out", fail_fast=not complete, num_workers=1, **options)
    page = page_of(tmp_path / "out")
    images = page.found("img")
    assert len(images) == (5 if complete else 4)
    for number, image in enumerate(images):
        assert image["alt"] == f"Frames of item {number:06d}_v{number}"
        picture = jpeg(image["src"])
        assert picture.shape == (int(image["height"]), int(image["width"]), 3)
        frames = np.array_split(picture, 4, axis=1)
        assert [synth.read_number(frame) - 100 * number for frame in frames] == [0, 5, 10, 19]


def jpeg(src: str) -> np.ndarray:
    assert src.startswith("data:image/jpeg;base64,")
    with Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2]))) as image:
        return np.asarray(image.convert("RGB"))


def test_colours_are_kept():
    from gpupipe.reports.html.pictures import jpeg_url

    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:, :32] = (200, 40, 30)
    picture[:, 32:] = (20, 60, 220)
    src, size = jpeg_url(picture)
    assert size == (48, 64)
    got = jpeg(src).astype(int)
    assert abs(got[10:40, 8:24] - (200, 40, 30)).max() < 6  # quantised, and rounded twice
    assert abs(got[10:40, 40:56] - (20, 60, 220)).max() < 6


def test_damaged_items_are_said_and_cost_nothing_else(tmp_path):
    out = make(tmp_path / "out", ["a", "b"], [[done(0), done(1)]], [[a_run()]])
    (out / "sample_000000_a").mkdir()
    (out / "sample_000000_a/video_input.pkl").write_bytes(b"cos\nsystem\n(S'touch x'\ntR.")
    good = out / "sample_000001_b"
    good.mkdir()
    from gpupipe.sinks.pickles import dumps

    (good / "video_input.pkl").write_bytes(dumps(np.full((2, 32, 32, 3), 90, np.uint8)))
    page = page_of(out)
    assert len(page.found("img")) == 1
    assert "os.system" in page.text
    (out / "sample_000000_a/video_input.pkl").write_bytes(dumps(np.zeros((2, 32), np.uint8)))
    page = page_of(out)
    assert len(page.found("img")) == 1
    assert "expected frames" in page.text


def test_damaged_shards_are_said(tmp_path):
    """Cut off, too short, and of another kind."""
    rows = [done(n) for n in range(6)]
    arrays = make(tmp_path / "npy", ["v"] * 6, [rows], [[a_run()]], format="npy", shard_size=2)
    whole = np.full((2, 4, 16, 16, 3), 90, np.uint8)
    for shard in range(3):
        np.save(arrays / f"frames-{shard:05d}.npy", whole[: 1 if shard == 2 else 2])
    with (arrays / "frames-00000.npy").open("r+b") as file:
        file.truncate(200)
    np.save(arrays / "frames-00001.npy", np.zeros((2, 4), object), allow_pickle=True)
    assert len(page_of(arrays).found("img")) == 1  # the one row of the short shard
    tars = make(tmp_path / "tars", ["v"] * 6, [rows], [[a_run()]], format="webdataset", shard_size=2)
    (tars / "00000.tar").write_bytes(b"no tar" * 1000)
    (tars / "00001.tar").write_bytes(b"")
    assert "None of 6 could be shown; 000000_v: 00000.tar: item 0 is not in it" in page_of(tars).text.replace(
        f"{tars}/", ""
    )


@pytest.mark.parametrize(
    "change",
    [
        "update items set seconds = 'long'",
        "update items set ordinal = 9",
        "update runs set record = '{}'",
        "drop table events",
    ],
)
def test_a_ledger_that_is_altered(tmp_path, change):
    out = make(tmp_path / "out", ["a"], [[done(0)]], [[a_run()]])
    with closing(sqlite3.connect(out / ".gpupipe/shard-0/ledger.db")) as database:
        database.executescript(change)
    with pytest.raises(OutputError, match=r"ledger\.db: the ledger is damaged"):
        gpupipe.report(out)


def test_the_choice_is_seeded(tmp_path):
    out = make(tmp_path / "out", [f"v{n}" for n in range(100)], [[done(n) for n in range(100)]], [[a_run()]])
    for ordinal in range(100):
        folder = out / f"sample_{ordinal:06d}_v{ordinal}"
        folder.mkdir()
        from gpupipe.sinks.pickles import dumps

        (folder / "video_input.pkl").write_bytes(dumps(np.full((1, 16, 16, 3), ordinal, np.uint8)))

    def chosen(seed):
        return [image["alt"] for image in page_of(out, pictures=8, seed=seed).found("img")]

    assert chosen(1) == chosen(1) != chosen(2)
    assert len(set(chosen(1))) == 8
    assert page_of(out, pictures=0).found("img") == []


def test_many_items_are_a_small_page(tmp_path):
    count = 60_000
    random = np.random.default_rng(0)
    rows = [done(n, n / 100, worker=n % 64, seconds=0.6 * float(random.random())) for n in range(count)]
    events = [Event(BEGAN + n / 10, "recycle", n % 64, -1, "large") for n in range(5000)]
    out = make(tmp_path / "out", ["v"] * count, [rows], [[a_run(seconds=count / 100)]], events, format="npy")
    path = gpupipe.report(out, pictures=0)
    assert path.stat().st_size < 1_000_000
    Page(path.read_text())


def test_where_it_goes(tmp_path, capsys):
    out = make(tmp_path / "out", ["a"], [[done(0)]], [[a_run()]])
    assert main(["report", str(out)]) == 0
    assert capsys.readouterr().out == f"{out / 'report.html'}\n"
    assert main(["report", str(out), "--output", str(tmp_path / "x.html"), "--pictures", "0"]) == 0
    assert (tmp_path / "x.html").read_text().startswith("<!doctype html>")
    assert main(["report", str(out), "--output", str(tmp_path)]) == 2
    assert main(["report", str(out), "--output", str(tmp_path / "none/x.html")]) == 2
    assert main(["report", str(out), "--pictures", "-1"]) == 2
    assert main(["report", str(tmp_path)]) == 2
    assert "no output of gpupipe here" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


@pytest.mark.skipif(os.geteuid() == 0 and not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_report_that_cannot_be_written(tmp_path, monkeypatch):
    out = make(tmp_path / "out", ["a"], [[done(0)]], [[a_run()]])

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpupipe.sinks.files.write_file", full)
    with pytest.raises(OutputError, match="disk is full"):
        gpupipe.report(out)
    with pytest.raises(UsageError):
        gpupipe.report(tmp_path / "none")


@pytest.mark.parametrize("first", ["", "gpupipe.clips", "import gpupipe.cli.main", "import gpupipe.reports.final"])
def test_the_function_is_there_whatever_was_imported(first):
    code = f"import gpupipe\n{first}\nassert callable(gpupipe.report)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- time


def test_pauses_are_cut_out():
    axis = Axis([(100.0, 110.0), (105.0, 120.0), (5000.0, 5020.0)])
    assert axis.seconds == 40
    assert axis.places([90, 100, 110, 120, 3000, 5000, 5010, 5020, 6000]).tolist() == pytest.approx(
        [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1]
    )
    assert axis.breaks() == [(0.5, 120.0, 5000.0)]
    ticks = axis.ticks()
    assert [tick.seconds for tick in ticks] == [0, 10, 20, 30, 40]
    assert [tick.place for tick in ticks] == pytest.approx([0, 0.25, 0.5, 0.75, 1])


def test_short_gaps_stay():
    axis = Axis([(0.0, 50.0), (51.0, 100.0)])
    assert axis.seconds == 100
    assert axis.breaks() == []


def test_busy_time_of_a_worker(tmp_path):
    """Two seconds of work in the first half, reported together; nothing in the second."""
    rows = [done(0, 5.0, seconds=2.0), done(1, 5.0, seconds=2.0), done(2, 10.0, seconds=0.0, worker=1)]
    out = make(tmp_path / "out", ["v"] * 3, [rows], [[a_run(seconds=10.0)]], [Event(BEGAN + 7.5, "hang", 1, 2, "x")])
    record = read(out)
    try:
        drawn = workers.timeline(record.shards, Axis([(BEGAN, BEGAN + 10.0)]))
    finally:
        record.close()
    assert [row.name for row in drawn.rows] == ["worker 0", "worker 1"]
    assert [row.busy for row in drawn.rows] == pytest.approx([0.4, 0.0])
    # One after the other: busy from 1 s to 5 s, a tenth to a half.
    assert drawn.paths[-1] == "M100.0 1.5h400.0v13.0h-400.0z"
    (mark,) = drawn.marks
    assert (mark.kind, mark.row, round(mark.place, 2)) == ("hang", 1, 0.75)


def test_more_workers_than_rows_share_them(tmp_path):
    rows = [done(n, 5.0, worker=n, seconds=5.0) for n in range(200)]
    record = read(make(tmp_path / "out", ["v"] * 200, [rows], [[a_run()]]))
    try:
        drawn = workers.timeline(record.shards, Axis([(BEGAN, BEGAN + 10.0)]))
    finally:
        record.close()
    assert drawn.grouped == 5
    assert [row.name for row in drawn.rows][-1] == "worker 195–199"
    assert all(row.busy == pytest.approx(0.5) for row in drawn.rows)


# ---- words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5e-5, "50 µs"),
        (9.5e-4, "950 µs"),
        (9.99e-4, "1 ms"),
        (0.05, "50 ms"),
        (0.5, "0.5 s"),
        (59.7, "1 min 00 s"),
        (3599.9, "1 h 00 min"),
        (86399, "1 d 0 h"),
    ],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (999_950, "1 MB"), (1.5e9, "1.5 GB"), (2e15, "2 PB")],
)
def test_bytes(count, words):
    assert text.nbytes(count) == words


@pytest.mark.parametrize(("value", "words"), [(0, "0%"), (0.001, "<1%"), (0.5, "50%"), (0.9999, "99%"), (1, "100%")])
def test_shares(value, words):
    assert text.share(value) == words

"""Outputs without data: a plan of clips and ledgers that say whatever a test wants."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

from gpupipe.jobs.clips import ClipsJob
from gpupipe.ledger import Ledger
from gpupipe.outcome import DONE, FAILED, Event, Outcome, RunRecord
from gpupipe.plan import PlanWriter

BEGAN = 1_700_000_000.0


def done(ordinal: int, finished: float = 1.0, **words) -> Outcome:
    words = {"seconds": 0.5, "backend": "ffmpeg", "fingerprint": "1000:5", "checksum": "00" * 16, "nbytes": 50, **words}
    return Outcome(ordinal, DONE, finished=BEGAN + finished, **words)


def failed(ordinal: int, error: str = "TruncatedError", message: str = "cut off", **words) -> Outcome:
    words = {"seconds": 0.25, "stage": "decode", "finished": BEGAN + 1.0, **words}
    return Outcome(ordinal, FAILED, error=error, message=message, **words)


def a_run(started: float = 0.0, seconds: float = 10.0, **words) -> RunRecord:
    facts = {"machine": {"cores": 4, "memory_bytes": 8_000_000_000}, "how": {"workers": 2}, "asked_workers": 2}
    stages = {"decode": 12.0, "write": 3.0, "wait": 1.0, "wait to write": 2.0, "start": 2.0}
    words = {
        **{"host": "node", "pid": 77, "workers": 2, "cpu_seconds": 20.0, "peak_bytes": 100_000_000, "stages": stages},
        **{"facts": facts, "read_bytes": 10_000_000, "written_bytes": 20_000_000, **words},
    }
    return RunRecord(BEGAN + started, at=BEGAN + started + seconds, seconds=seconds, **words)


def make(
    out: Path,
    vids: Sequence[str],
    shards: Sequence[Sequence[Outcome]] = (),
    runs: Sequence[Sequence[RunRecord]] = (),
    events: Sequence[Event] = (),
    epoch: int = 0,
    job_name: str = "clips",
    **options,
) -> Path:
    """Make `out`; `shards` and `runs` are those of each ledger, `events` are the first one's."""
    bookkeeping = out / ".gpupipe"
    bookkeeping.mkdir(parents=True)
    job = ClipsJob(pairs_json="/data/pairs.json", clips_dir="/data/clips", **options)
    writer = PlanWriter(bookkeeping, job_name, job.options(), job.inputs(), {"path": "/data/pairs.json"})
    for vid in vids:
        writer.add({"vid": vid, "clip_path": f"{vid}.mp4"})
    plan = writer.publish()
    plan.close()
    (bookkeeping / "layout.json").write_text(json.dumps({"total": max(1, len(shards)), "epoch": epoch}))
    for number, outcomes in enumerate(shards):
        folder = bookkeeping / f"shard-{number}"
        folder.mkdir()
        ledger = Ledger(folder / "ledger.db", plan.hash)
        for run in runs[number] if number < len(runs) else ():
            ledger.commit([], run)
        ledger.commit(outcomes, events=events if number == 0 else ())
        ledger.close()
    return out


class Page(HTMLParser):
    """What a page holds."""

    VOID = frozenset({"meta", "link", "img", "br", "path", "input"})

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self.open[-1:] != ["style"] and data.strip():
            self.texts.append(" ".join(data.split()))

    @property
    def text(self) -> str:
        return " ".join(self.texts)

    def found(self, tag: str) -> list[dict[str, str]]:
        return [attrs for name, attrs in self.tags if name == tag]

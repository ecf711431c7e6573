"""Makes the page: reads the record, reckons what it shows, fills the template, puts the file into its place."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from gpupipe import __version__, jobs, planning
from gpupipe.errors import UsageError
from gpupipe.job import Job
from gpupipe.outcome import DONE, FAILED, STATES, RunRecord
from gpupipe.plan import BOOKKEEPING
from gpupipe.reports.html import advice, charts, pictures, resources, text, workers
from gpupipe.reports.html.axis import Axis
from gpupipe.reports.html.record import Failures, Record, Rows, Shard, read, states
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import publish
from gpupipe.stages import START, WAITS

NAME = "report.html"
PICTURES = 24
SLOWEST = 20
REASONS = 20
RUNS = 40
EVENTS = 30
_FRESH_SECONDS = 60.0  # a rate is no rate of now after that
_COLUMNS = 120
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A part of a bar: a stage, or a state.

    Attributes
    ----------
    name, kind : str
        Kind is the style: ``"s0"`` to ``"s7"``, ``"wait"``, ``"start"``.
    value, share : float
    """

    name: str
    kind: str
    value: float
    share: float


@dataclass(frozen=True)
class Throughput:
    """Items and bytes over time; `failed` is drawn to the scale of `items`."""

    items: charts.Steps
    failed: str
    written: charts.Steps


@dataclass(frozen=True)
class RunLine:
    """One run, as the tables show it; `number` counts from 1 by start."""

    number: int
    shard: str
    record: RunRecord
    workers: int
    items: int
    cpu: float | None
    stages: list[Part]


@dataclass(frozen=True)
class Slow:
    """One of the slowest items."""

    id: str
    seconds: float
    share: float
    input: int
    nbytes: int
    backend: str
    worker: str
    state: str


def write(out: Path, output: Path | None = None, count: int = PICTURES, seed: int = 0) -> Path:
    """Write the report of an output.

    Parameters
    ----------
    out : Path
        The output folder; only read, but for the report itself.
    output : Path or None
        The file; None for ``report.html`` in `out`.
    count : int
        Items of the contact sheet.
    seed : int
        Of their choice.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        No planned output of gpupipe is there, or the file has no folder.
    OutputError
        The file cannot be written.
    """
    path = out / NAME if output is None else output
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise UsageError(f"--output {path}: {'is a folder' if path.is_dir() else 'no such folder'}; expected a file")
    if count < 0:
        raise UsageError(f"--pictures {count}: expected 0 or more")
    with closing(read(out)) as record:
        publish(path, [render(record, count, seed).encode()])
    return path


def render(record: Record, count: int, seed: int) -> str:
    """The page."""
    rows = record.rows()
    now = time.time()
    job, problem = _job(record)
    page = _template().get_template("page.jinja")
    return page.render(
        _totals(record, rows, now),
        style=Markup(_style()),  # a file of this package
        version=__version__,
        now=now,
        job=record.plan.job,
        out=record.out.absolute(),
        problem=problem,
        running=record.running,
        failures=_failures(record, job),
        differences=[(_id(record, job, event.ordinal), event) for event in record.differences],
        reasons_left=max(0, len(record.failures) - REASONS),
        slowest=_slowest(record, rows, job),
        cards=_cards(record, rows, job, count, seed),
        seed=seed,
        **_runs(record),
        **_time(record),
        settings=_settings(record),
    )


def _job(record: Record) -> tuple[Job | None, str]:
    """The job, which knows ids and pictures; and why there is none."""
    try:
        return planning.job_of(jobs.kind(record.plan.job), record.plan), ""
    except UsageError as error:
        return None, f"Items have no ids and no pictures here: {error}"


def _id(record: Record, job: Job | None, ordinal: int) -> str:
    return f"{ordinal:06d}" if job is None else job.item_id(ordinal, record.plan.item(ordinal))


# ---- what is done


def _totals(record: Record, rows: Rows, now: float) -> dict[str, Any]:
    done, failed = states(rows)
    count = record.plan.count
    pending = count - done - failed
    records = [run for _, _, run in record.runs()]
    latest = [shard.runs[-1] for shard in record.shards if shard.runs]
    rate = sum(run.rate for run in latest if now - run.at < _FRESH_SECONDS) if record.running else 0.0
    active = resources.active_seconds(records)
    parts = [("done", done), ("failed", failed), ("pending", pending)]
    return {
        "state": "running" if record.running else "complete" if not pending else "stopped" if records else "not begun",
        "count": count,
        "done": done,
        "failed": failed,
        "pending": pending,
        "parts": [Part(name, name, value, value / max(1, count)) for name, value in parts if value],
        "rate": rate,
        "eta": pending / rate if rate else None,
        "active": active,
        "mean_rate": len(rows) / active if active else 0.0,
        "written": int(rows["nbytes"].sum()),
        "again": int((rows["attempts"] > 1).sum()),
        "backends": _backends(record, rows),
    }


def _backends(record: Record, rows: Rows) -> list[tuple[str, int]]:
    counts = np.bincount(rows[rows["state"] == DONE]["backend"], minlength=len(record.backends))
    named = zip(record.backends, map(int, counts), strict=True)
    return sorted(((name or "none", n) for name, n in named if n), key=lambda pair: -pair[1])


def _failures(record: Record, job: Job | None) -> list[dict[str, Any]]:
    def shown(group: Failures) -> dict[str, Any]:
        return {
            "reason": group.reason,
            "count": group.count,
            "stages": group.stages.most_common(5),
            "advice": advice.advice(group.reason, record.out.absolute()),
            "examples": [(_id(record, job, outcome.ordinal), outcome) for outcome in group.examples],
        }

    return [shown(group) for group in record.failures[:REASONS]]


def _slowest(record: Record, rows: Rows, job: Job | None) -> list[Slow]:
    top = rows[np.argsort(-rows["seconds"], kind="stable")[:SLOWEST]]
    longest = max(float(top["seconds"].max(initial=0.0)), 1e-9)
    return [
        Slow(
            _id(record, job, int(row["ordinal"])),
            float(row["seconds"]),
            float(row["seconds"]) / longest,
            int(row["input"]),
            int(row["nbytes"]),
            record.backends[row["backend"]],
            str(row["worker"]),
            STATES[row["state"]],
        )
        for row in top
    ]


def _cards(record: Record, rows: Rows, job: Job | None, count: int, seed: int) -> list[pictures.Card]:
    if job is None:
        return []
    plan = record.plan
    place = Place(record.out, record.out / BOOKKEEPING, record.out / BOOKKEEPING, plan.count, job.shard_size)
    chosen = pictures.choose(rows[rows["state"] == DONE]["ordinal"], count, seed)
    outcomes = (record.ledgers.outcome(ordinal) for ordinal in chosen)
    return [pictures.card(job, place, plan, outcome) for outcome in outcomes if outcome is not None]


# ---- how it went


def _time(record: Record) -> dict[str, Any]:
    """Everything along the time axis."""
    spans = [(run.started, resources.stop(run)) for _, _, run in record.runs()]
    rows = np.concatenate([shard.rows for shard in record.shards]) if record.shards else record.rows()
    if not spans and len(rows):
        spans = [(float((rows["finished"] - rows["seconds"]).min()), float(rows["finished"].max()))]
    axis = Axis(spans)
    if not len(rows):
        return {"axis": axis, "throughput": None, "timeline": workers.Timeline()}
    columns = int(np.clip(len(rows) // 4, 12, _COLUMNS))
    places = axis.places(rows["finished"])
    items = charts.histogram(places, None, columns, axis.seconds)
    failed = charts.histogram(places[rows["state"] == FAILED], None, columns, axis.seconds)
    written = charts.histogram(places, rows["nbytes"].astype(np.float64), columns, axis.seconds)
    drawn = charts.drawn(items)
    return {
        "axis": axis,
        "throughput": Throughput(drawn, charts.steps(failed, drawn.top), charts.drawn(written)),
        "timeline": workers.timeline(record.shards, axis),
    }


def _runs(record: Record) -> dict[str, Any]:
    found = sorted(record.runs(), key=lambda run: run[2].started)
    records = [run for _, _, run in found]
    stages: dict[str, float] = {}
    for run in records:
        for name, seconds in run.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    kinds = _kinds(stages)
    lines = [_line(number, *one, kinds) for number, one in enumerate(found, 1)]
    return {
        "runs": lines[-RUNS:],
        "runs_left": max(0, len(lines) - RUNS),
        "several": len(record.shards) > 1,
        "stages": _parts(stages, kinds),
        "resources": resources.resources(records),
        "verdict": resources.verdict(records),
        "events": record.events[-EVENTS:],
        "events_left": max(0, sum(len(shard.marks) for shard in record.shards) - EVENTS),
    }


def _kinds(stages: dict[str, float]) -> dict[str, str]:
    """A style for each stage, the same in every bar."""
    work = sorted((name for name in stages if _waiting(name) is None), key=lambda name: -stages[name])
    return {name: _waiting(name) or f"s{min(work.index(name), 7)}" for name in stages}


def _waiting(stage: str) -> str | None:
    return "wait" if stage in WAITS else "start" if stage == START else None


def _parts(stages: dict[str, float], kinds: dict[str, str]) -> list[Part]:
    """Work first, the largest of it first, then waiting and starting."""
    total = sum(stages.values()) or 1.0
    order = sorted(stages, key=lambda name: (_waiting(name) is not None, -stages[name]))
    return [Part(name, kinds[name], stages[name], stages[name] / total) for name in order]


def _line(number: int, shard: Shard, index: int, run: RunRecord, kinds: dict[str, str]) -> RunLine:
    items = int((shard.run_of == index).sum())
    parts = _parts(run.stages, kinds)
    return RunLine(number, shard.name, run, resources.workers(run), items, resources.cpu_share([run]), parts)


# ---- what it was made with


def _settings(record: Record) -> list[tuple[str, list[tuple[str, str]]]]:
    plan = record.plan
    runs = sorted((run for _, _, run in record.runs()), key=lambda run: run.started)
    last = runs[-1].facts if runs else {}
    machine, how = (value if isinstance(value := last.get(key), dict) else {} for key in ("machine", "how"))
    tables = [
        ("Options, which decide the bytes", plan.options),
        ("Inputs", {**plan.inputs, "source": plan.source.get("path")}),
        ("The latest run, as it was asked for", how),
        ("Its machine", {"host": runs[-1].host, **machine} if runs else {}),
        ("The plan", {"job": plan.job, "items": plan.count, "hash": plan.hash}),
    ]
    return [(title, list(_words(values))) for title, values in tables if values]


def _words(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in values.items():
        if key.endswith("_bytes") and isinstance(value, int):
            yield key, text.nbytes(value)
        elif value is None or isinstance(value, bool):
            yield key, {None: "–", True: "yes", False: "no"}[value]
        else:
            yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


@cache
def _template() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=text.shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        count=text.count, number=text.number, nbytes=text.nbytes, duration=text.duration, tick=text.tick,
        share=text.share, when=text.when, zone=text.zone, shown=text.shown,
    )  # fmt: skip
    made.globals.update(signs=workers.SIGNS, levels=workers.LEVELS, row_height=workers.ROW_HEIGHT)
    return made


@cache
def _style() -> str:
    return (_HERE / "style.css").read_text(encoding="utf-8")

"""What must hold of an output, whatever was done to the runs that made it. Each check gives sentences; none is well."""

from __future__ import annotations

import json
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from cases import Case
from helpers import tree

from gpupipe import verification
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE, FAILED
from gpupipe.ownership import read_layout

_BOOKS = {"plan", "lock", "layout.lock", "layout.json", "index.json", "blobs"}
_SHARD_BOOKS = {"failed.jsonl", "lock", "ledger.db", "ledger.db-journal", "staging", "complete"}


def faults(case: Case, out: Path, calm: Path) -> list[str]:
    """All that is wrong with an output that should be that of an undisturbed run."""
    return [*_bytes(out, calm), *_ledger(case, out), *_listed(case, out), *_duplicates(out), *orphans(out),
            *verification.verify(case.job(), out).faults]  # fmt: skip


def _bytes(out: Path, calm: Path) -> Iterator[str]:
    ours, theirs = tree(out), tree(calm)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            yield f"{name}: {'missing' if name not in ours else 'extra' if name not in theirs else 'other bytes'}"


def _ledger(case: Case, out: Path) -> Iterator[str]:
    """Every item once; the planted ones failed, with their reasons, and no other."""
    books = out / ".gpupipe"
    ledgers = Ledgers(books, read_layout(books)["epoch"])
    try:
        outcomes = list(ledgers.outcomes())
    finally:
        ledgers.close()
    times = Counter(outcome.ordinal for outcome in outcomes)
    for ordinal in range(case.count):
        if times.pop(ordinal, 0) != 1:
            yield f"item {ordinal}: not once in the ledger"
    if times:
        yield f"in the ledger and not in the plan: {sorted(times)}"
    for outcome in outcomes:
        due = case.errors.get(outcome.ordinal, "")
        if outcome.state != (FAILED if due else DONE) or outcome.error != due:
            met = outcome.error or outcome.state
            yield f"item {outcome.ordinal}: {met}, expected {due or 'done'}: {outcome.message}"


def _listed(case: Case, out: Path) -> Iterator[str]:
    lines = [json.loads(line) for line in (out / "failed.jsonl").read_text().splitlines()]
    if {line["ordinal"]: line["error"] for line in lines} != case.errors or len(lines) != len(case.errors):
        yield "failed.jsonl: not the planted items"


def _duplicates(out: Path) -> Iterator[str]:
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            names = tar.getnames()
        if len(names) != len(set(names)):
            yield f"{path.name}: holds a member twice"
    listed = json.loads((out / "dataset_info.json").read_text())
    entries = [str(entry) for part in (listed.values() if isinstance(listed, dict) else [listed]) for entry in part]
    if len(entries) != len(set(entries)):
        yield "dataset_info.json: names an item twice"


def orphans(out: Path) -> Iterator[str]:
    """What a run leaves behind when it is killed, and must not be there once the work is done."""
    for path in out.rglob("*"):
        if ".partial" in path.name:
            yield f"{path.relative_to(out)}: left behind"
    books = out / ".gpupipe"
    for path in books.iterdir():
        if path.name not in _BOOKS and not path.name.startswith("shard-"):
            yield f"{path.relative_to(out)}: nobody's"
    for path in [*books.glob("blobs/*"), *books.glob("shard-*/staging/*")]:
        yield f"{path.relative_to(out)}: left behind"
    for path in books.glob("shard-*/*"):
        if path.name not in _SHARD_BOOKS and not path.name.startswith("worker-"):
            yield f"{path.relative_to(out)}: nobody's"
        if path.name == "ledger.db-journal" and path.stat().st_size:
            yield f"{path.relative_to(out)}: a transaction left open"

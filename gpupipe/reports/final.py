"""The words at the end of a run and the answer of ``gpupipe status``."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

from gpupipe import ownership
from gpupipe import plan as plans
from gpupipe.errors import UsageError
from gpupipe.ledgers import Ledgers
from gpupipe.outcome import DONE, FAILED
from gpupipe.plan import BOOKKEEPING, Plan
from gpupipe.remains import Remains
from gpupipe.reports.live import duration, reasons_line, shares_line
from gpupipe.summary import EXIT_INTERRUPTED, Summary, bottleneck

# Below this share of its cores a run waits for something that is not a CPU.
_CPU_BOUND = 0.75


def final_text(summary: Summary, unit: str) -> str:
    """Totals, failures with the file that lists them, the bottleneck and how far it is from its ceiling."""
    worked = summary.done + summary.failed - summary.earlier
    lines = [
        f"{summary.items} {unit}: {summary.done} done, {summary.failed} failed"
        + (f", {summary.pending} pending" if summary.pending else "")
        + (f" ({summary.earlier} from before)" if summary.earlier else "")
    ]
    if worked:
        lines.append(
            f"{worked} in {duration(summary.seconds)}, {summary.items_per_second:.1f} {unit}/s, "
            f"{summary.workers} workers"
        )
    if summary.failed:
        lines.append(f"failed: {reasons_line(summary.reasons)}; listed in {summary.failures_file}")
    if summary.audited:
        same = "all the same" if not summary.differences else f"{summary.differences} DIFFER, see gpupipe report"
        lines.append(f"audit: {summary.audited} made again with FFmpeg, {same}")
    if summary.bottleneck is not None:
        lines.append(f"time: {shares_line(summary.stages)}")
    if summary.bottleneck is not None and summary.ceiling_share is not None:
        lines.append(f"bottleneck: {summary.bottleneck}; {_ceiling(summary.ceiling_share)}")
    if summary.stop_reason:
        again = "run the same command again to continue"
        lines.append(f"stopped: {summary.stop_reason}; {again}")
    out = Path(summary.output)
    file = out.with_name(out.name.removesuffix(BOOKKEEPING))  # that the output was named for, where it is a file
    whole = file if summary.complete and file.is_file() else out
    lines.append(f"{'output' if summary.exit_code != EXIT_INTERRUPTED else 'so far'}: {whole}")
    return "\n".join(lines)


def _ceiling(share: float) -> str:
    text = f"the workers used {100 * share:.0f}% of their cores' time"
    return text if share >= _CPU_BOUND else f"{text}, so storage, other programs or too few items held them back"


def status(out: Path) -> dict[str, Any]:
    """State of an output, during a run or after it; reads only.

    Returns
    -------
    dict
        ``job, output, items, done, failed, pending, reasons, running, items_per_second, eta_seconds,
        active_seconds, bottleneck, stages``; JSON values.
    """
    bookkeeping = out / BOOKKEEPING
    if not bookkeeping.is_dir():
        raise UsageError(f"{out}: no output of gpupipe here (no {BOOKKEEPING} folder in it)")
    running = ownership.holders(bookkeeping)
    if not plans.exists(bookkeeping):
        return {"output": str(out), "state": "planning" if running else "not planned", "running": running}
    epoch = ownership.read_layout(bookkeeping)["epoch"]
    with closing(Plan(bookkeeping / "plan")) as plan, closing(Ledgers(bookkeeping, epoch, plan.count)) as ledgers:
        counts = ledgers.counts()
        now = time.time()
        latest = [runs[-1] for ledger in ledgers.ledgers if (runs := ledger.runs())]
        active = sum(record.seconds for record in ledgers.runs())
    done = sum(count for (state, _), count in counts.items() if state == DONE)
    reasons = {error: count for (state, error), count in counts.items() if state == FAILED}
    failed = sum(reasons.values())
    pending = plan.count - done - failed
    rate = sum(record.rate for record in latest if now - record.at < 60) if running else 0.0
    stages: dict[str, float] = {}
    for record in latest:
        for name, seconds in record.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    return {
        "job": plan.job,
        "output": str(out),
        "state": _state(bool(running), pending, Remains(out)),
        "items": plan.count,
        "done": done,
        "failed": failed,
        "pending": pending,
        "reasons": reasons,
        "running": running,
        "items_per_second": rate,
        "eta_seconds": pending / rate if rate else None,
        "active_seconds": active,
        "bottleneck": bottleneck(stages),
        "stages": stages,
    }


def _state(running: bool, pending: int, remains: Remains) -> str:
    if running:
        return "running"
    if pending:
        return "stopped"
    return "complete" if remains.whole() else "unfinished"  # the same command again writes what is missing


def status_text(found: dict[str, Any]) -> str:
    """The same for a person."""
    if "items" not in found:
        return f"{found['output']}: {found['state']}"
    worked = found["done"] + found["failed"]
    percent = 100 * worked // found["items"]
    lines = [
        f"{found['output']}: {found['job']}, {found['state']}",
        f"{worked}/{found['items']} ({percent}%): "
        f"{found['done']} done, {found['failed']} failed, {found['pending']} pending",
    ]
    if found["reasons"]:
        lines.append(f"failed: {reasons_line(found['reasons'])}")
    if found["items_per_second"]:
        lines.append(f"{found['items_per_second']:.1f} items/s, eta {duration(found['eta_seconds'])}")
    if found["stages"]:
        lines.append(f"time: {shares_line(found['stages'])}; bottleneck: {found['bottleneck']}")
    lines += found["running"]
    return "\n".join(lines)

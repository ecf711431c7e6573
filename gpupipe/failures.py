"""``failed.jsonl``: the items that failed, for people and scripts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.job import Job
from gpupipe.outcome import FAILED, Outcome
from gpupipe.plan import Plan
from gpupipe.sinks.files import publish


def write_failures(
    path: Path, job: Job, plan: Plan, outcomes: Iterable[Outcome], owned: np.ndarray, staging: Path
) -> Counter[str]:
    """Write one JSON line a failed item, by ordinal; the file is there, and empty, where nothing failed.

    Parameters
    ----------
    path : Path
        The file.
    job : Job
        Knows the ids of the items.
    plan : Plan
        Holds the items.
    outcomes : iterable of Outcome
        Those to look through, by ordinal.
    owned : array of bool [items]
        The items of the run shard.
    staging : Path
        Folder for the file in the making.

    Returns
    -------
    Counter of str
        Failed items of the run shard by error type.
    """
    reasons: Counter[str] = Counter()

    def lines() -> Iterator[bytes]:
        for outcome in outcomes:
            if outcome.state == FAILED:
                if owned[outcome.ordinal]:
                    reasons[outcome.error] += 1
                text = json.dumps(failure(job, plan, outcome), ensure_ascii=False)
                yield text.encode(errors="backslashreplace") + b"\n"

    publish(path, lines(), staging)
    return reasons


def failure(job: Job, plan: Plan, outcome: Outcome) -> dict[str, Any]:
    """A failed item as ``failed.jsonl`` names it."""
    return {
        "id": job.item_id(outcome.ordinal, plan.item(outcome.ordinal)),
        "ordinal": outcome.ordinal,
        "stage": outcome.stage,
        "error": outcome.error,
        "message": outcome.message,
        "attempts": outcome.attempts,
    }

"""The index files of a clips dataset: ``dataset_info.json``, and for rows ``index.parquet``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from gpupipe.job import Dataset
from gpupipe.jobs.clip_splits import SPLITS
from gpupipe.ledger import damaged
from gpupipe.outcome import DONE, FAILED, STATES, Outcome
from gpupipe.sinks.files import publish

INFO, TABLE = "dataset_info.json", "index.parquet"


def write_info(dataset: Dataset, splits: np.ndarray, name: Callable[[int, Any], str | None]) -> None:
    """Write the names of the done items by split.

    Parameters
    ----------
    dataset : Dataset
        With an outcome for every item.
    splits : numpy.ndarray
        uint8 [N], see :func:`gpupipe.jobs.clip_splits.assign_splits`.
    name : callable
        Of an item, by its ordinal and what was planned.
    """
    listed: dict[str, list[str]] = {split: [] for split in SPLITS}
    for outcome in dataset.outcomes():
        if outcome.state == DONE:
            item = dataset.plan.item(outcome.ordinal)
            listed[SPLITS[splits[outcome.ordinal]]].append(str(name(outcome.ordinal, item)))
    text = json.dumps(listed, indent=2, ensure_ascii=False) + "\n"
    publish(dataset.place.out / INFO, [text.encode()], dataset.place.staging)


def write_table(
    dataset: Dataset, splits: np.ndarray, name: Callable[[int, Any], str], text: Callable[[Any], str]
) -> None:
    """Write a row an item, and where its rows lie; see :func:`write_info`. `text` gives the text of a planned item.

    Raises
    ------
    OutputError
        The ledger is damaged: an item's record is none of this job's.
    """
    from gpupipe.sinks import parquet

    def rows() -> Iterator[dict[str, Any]]:
        for outcome in dataset.outcomes():
            item = dataset.plan.item(outcome.ordinal)
            shard, row = divmod(outcome.ordinal, dataset.place.shard_size)
            yield {
                "ordinal": outcome.ordinal,
                "id": parquet.storable(name(outcome.ordinal, item)),
                "shard": shard,
                "row": row,
                "pts": _times(outcome),
                "text": parquet.storable(text(item)) if outcome.state != FAILED else None,
                "split": SPLITS[splits[outcome.ordinal]],
                "status": STATES[outcome.state],
            }

    types = {
        "ordinal": "int64", "id": "string", "shard": "int32", "row": "int32", "pts": "list<double>",
        "text": "string", "split": "string", "status": "string",
    }  # fmt: skip
    parquet.write_table(dataset.place.out / TABLE, types, rows(), dataset.place.staging)


def _times(outcome: Outcome) -> list[float] | None:
    """The times of an item's frames, as its worker recorded them."""
    if not outcome.record:
        return None
    try:
        times = json.loads(outcome.record)
    except (ValueError, RecursionError):
        times = None
    if not isinstance(times, list) or not all(type(time) is float for time in times):
        raise damaged(f"item {outcome.ordinal}", f"its record is {outcome.record[:80]!r}, expected times")
    return times

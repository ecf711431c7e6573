"""``index.parquet`` of a keypoints dataset: a row a frame, and where its points lie."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gpupipe.errors import StoppedError
from gpupipe.job import Dataset
from gpupipe.jobs.annotations import Annotations
from gpupipe.outcome import DONE, STATES, Outcome
from gpupipe.sinks.base import Place
from gpupipe.sinks.parquet import storable, write_table

TYPES = {
    "ordinal": "int64", "id": "string", "shard": "int32", "row": "int32", "split": "string", "video_id": "string",
    "path": "string", "frame": "int32", "pts": "double", "height": "int32", "width": "int32", "status": "string",
    "orth": "string", "translation": "string",
}  # fmt: skip

_NAMES = ("id", "split", "video_id", "path")


def write_index(items: str, dataset: Dataset, annotations: Annotations) -> None:
    """Write the table of a complete dataset.

    Parameters
    ----------
    items : str
        ``"pictures"`` or ``"clips"``: what an item is.
    dataset : Dataset
        With an outcome for every item.
    annotations : mapping of (split, video) to (orth, translation)
        Of clips that have one.
    """
    rows = _of_pictures(dataset) if items == "pictures" else _of_clips(dataset)
    named = ({**row, **_names(row), **_said(annotations, row)} for row in rows)
    write_table(dataset.place.out / "index.parquet", TYPES, named, dataset.place.staging)


def _names(row: Mapping[str, Any]) -> dict[str, str]:
    """Names need not be UTF-8, which a table has to be."""
    return {name: storable(row[name]) for name in _NAMES}


def _said(annotations: Annotations, row: Mapping[str, Any]) -> dict[str, str | None]:
    orth, translation = annotations.get((row["split"], row["video_id"]), (None, None))
    return {"orth": orth, "translation": translation}


def _of_pictures(dataset: Dataset) -> Iterator[dict[str, Any]]:
    arrays = _Shard(dataset.place, ("shape",))
    clip, frame = None, -1
    for outcome, item in _items(dataset):
        shard, row = divmod(outcome.ordinal, dataset.place.shard_size)
        frame = frame + 1 if clip == (item["split"], item["video"]) else 0
        clip = item["split"], item["video"]
        done = outcome.state == DONE
        height, width = arrays.of(shard)["shape"][row].tolist() if done else (None, None)
        yield {
            **_common(outcome, item), "path": item["path"], "frame": frame, "pts": None, "height": height,
            "width": width, "shard": shard if done else None, "row": row if done else None,
        }  # fmt: skip


def _of_clips(dataset: Dataset) -> Iterator[dict[str, Any]]:
    arrays = _Shard(dataset.place, ("ordinal", "shape", "frame", "pts"))
    for outcome, item in _items(dataset):
        common, names = _common(outcome, item), item.get("frames")
        empty = {"pts": None, "height": None, "width": None, "shard": None, "row": None}
        if outcome.state != DONE:
            for number, name in enumerate(names or [""]):
                path, frame = (item["path"], None) if names is None else (f"{item['path']}/{name}", number)
                yield {**common, **empty, "path": path, "frame": frame}
            continue
        shard = outcome.ordinal // dataset.place.shard_size
        there = arrays.of(shard)
        start, stop = np.searchsorted(there["ordinal"], [outcome.ordinal, outcome.ordinal + 1])
        for row in range(start, stop):
            number = int(there["frame"][row])
            height, width = there["shape"][row].tolist()
            yield {
                **common, "path": item["path"] if names is None else f"{item['path']}/{names[number]}",
                "frame": number, "pts": None if names is not None else float(there["pts"][row]),
                "height": height, "width": width, "shard": shard, "row": row,
            }  # fmt: skip


def _items(dataset: Dataset) -> Iterator[tuple[Outcome, Any]]:
    return dataset.plan.beside(dataset.outcomes(), lambda outcome: outcome.ordinal)


def _common(outcome: Outcome, item: Any) -> dict[str, Any]:
    return {
        "ordinal": outcome.ordinal,
        "id": item.get("id", item["path"]),
        "split": item["split"],
        "video_id": item["video"],
        "status": STATES[outcome.state],
    }


class _Shard:
    """Arrays of one output shard at a time."""

    def __init__(self, place: Place, names: tuple[str, ...]) -> None:
        self._place, self._names = place, names
        self._number, self._arrays = -1, dict[str, np.ndarray]()

    def of(self, shard: int) -> dict[str, np.ndarray]:
        """Those of a shard."""
        if shard != self._number:
            self._arrays = {name: self._read(self._place.out / f"{name}-{shard:05d}.npy") for name in self._names}
            self._number = shard
        return self._arrays

    def _read(self, path: Path) -> np.ndarray:
        try:
            values: np.ndarray = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise StoppedError(
                f"{path}: {error}. Run: gpupipe verify --repair {self._place.out}, then the same command again"
            ) from error
        return values

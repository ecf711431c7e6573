"""The files that stand beside the items of a whole dataset: the job's index files and ``failed.jsonl``.

Their checksums are kept in ``.gpupipe/index.json``, so that damage to them is found like damage to an item.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from gpupipe.plan import BOOKKEEPING
from gpupipe.sinks.base import Fault
from gpupipe.sinks.files import checksum_of, file_pieces, publish, remove_file

FAILURES = "failed.jsonl"


class Remains:
    """Of one output."""

    def __init__(self, out: Path) -> None:
        self._out = out
        self._record = out / BOOKKEEPING / "index.json"

    def record(self, names: Iterable[str]) -> None:
        """Remember the files as they are."""
        found = {name: self._checksum(name) for name in (*names, FAILURES)}
        publish(self._record, [json.dumps(found, indent=1).encode()])

    def standing(self, names: Iterable[str]) -> bool:
        """True where all of them are there and were recorded."""
        return self._record.exists() and all(path_of(self._out, name).exists() for name in names)

    def whole(self) -> bool:
        """True where the dataset was finished, and every file recorded then is there."""
        recorded = self._recorded() or {}
        return bool(recorded) and all(path_of(self._out, name).exists() for name in recorded)

    def remove(self, names: Iterable[str]) -> None:
        """They speak of a whole dataset, which this is not for now. Failures stay, for a person to read."""
        for path in (self._record, *(path_of(self._out, name) for name in names)):
            remove_file(path)

    def faults(self, names: Iterable[str]) -> Iterator[Fault]:
        """What differs from the record; a run of the same command makes it again."""
        recorded = self._recorded()
        if recorded is None:
            yield Fault(self._record, "missing: the dataset was not finished; the same command again finishes it")
            return
        if set(recorded) != {*names, FAILURES}:
            yield Fault(self._record, "is altered")
            return
        for name, checksum in recorded.items():
            path = path_of(self._out, name)
            if not path.is_file():
                yield Fault(path, "missing")
            elif self._checksum(name) != checksum:
                yield Fault(path, "is altered")

    def _recorded(self) -> dict[str, Any] | None:
        """Checksums by name; empty where they cannot be read, None where there are none."""
        try:
            recorded = json.loads(self._record.read_bytes())
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            return {}
        return recorded if isinstance(recorded, dict) else {}

    def _checksum(self, name: str) -> str:
        return checksum_of({name: file_pieces(path_of(self._out, name))})


def path_of(out: Path, name: str) -> Path:
    """Where a file of this name lies: ``../FILE`` is beside the folder under its own name, though that were a link."""
    return Path(os.path.normpath(out / name))

"""Blob sink: one folder an item, ``OUT/{name}/``, staged and moved into place whole."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import Literal

import numpy as np

from gpupipe.sinks.base import Expected, Fault, Place, Sample
from gpupipe.sinks.files import Buffer, Checksum, checksum_of, file_pieces, output_errors, remove_tree, write_file

_PATTERN = re.compile(r"sample_\d{6,}_.*", re.DOTALL)


class SamplesSink:
    """Writes one folder an item. One instance a process."""

    kind: Literal["rows", "blobs"] = "blobs"
    composes = False

    def __init__(self, place: Place) -> None:
        self._place = place

    def members(self, sample: Sample) -> Mapping[str, Iterable[Buffer]]:
        """The files of the folder."""
        return sample.files()

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Write the item's files beside their place, then move the folder there."""
        staged = self._place.staging / f"{ordinal}"
        remove_tree(staged)
        with output_errors(staged):
            staged.mkdir()
        for name, pieces in self.members(sample).items():
            write_file(staged / name, pieces, checksum)
        target = self._place.out / sample.name
        with output_errors(target):
            try:
                staged.rename(target)
            except OSError:
                if not target.is_dir():
                    raise
                # A killed run moved it here and died before the ledger knew: same item, same bytes.
                self._replace(staged, target)

    def _replace(self, staged: Path, target: Path) -> None:
        aside = staged.with_name(f"{staged.name}.old")
        remove_tree(aside)
        target.rename(aside)
        staged.rename(target)
        remove_tree(aside)

    def void(self, ordinal: int, name: str | None) -> None:
        """Remove what the item left in staging, and its folder from an earlier life."""
        remove_tree(self._place.staging / f"{ordinal}")
        if name is not None:
            remove_tree(self._place.out / name)

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Nothing to do: each item was moved into place whole."""

    def reopen(self, shard: int) -> None:
        """Nothing to do: items are replaced whole."""

    def published(self, shard: int) -> bool:
        """Always: see :meth:`publish`."""
        return True

    def overhead(self, shard: int) -> int:
        """None: a shard is nothing but its items."""
        return 0

    def verify(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        """The files of done items, all of them and no others, and that failed ones have none."""
        for item in expected:
            folder = self._place.out / (item.name or "")
            again = (item.ordinal,)
            if not item.checksum:
                if item.name is not None and os.path.lexists(folder):
                    yield Fault(folder, f"item {item.ordinal} failed, and this is here", again)
            elif folder.is_symlink() or not folder.is_dir():
                yield Fault(folder, "missing", again)
            elif odd := [path.name for path in folder.iterdir() if path.is_symlink() or not path.is_file()]:
                yield Fault(folder, f"{odd[0]!r} in it is no plain file", again)
            elif checksum_of({path.name: file_pieces(path) for path in folder.iterdir()}) != item.checksum:
                yield Fault(folder, f"item {item.ordinal} is altered, or files are missing or added", again)

    def extra(self, names: Set[str]) -> Iterator[Fault]:
        """Sample folders of no item."""
        with os.scandir(self._place.out) as entries:
            for entry in entries:
                if _PATTERN.fullmatch(entry.name) and entry.name not in names:
                    yield Fault(Path(entry.path), "belongs to no item")

    def foreign(self) -> str | None:
        """A sample folder or dataset_info.json."""
        with os.scandir(self._place.out) as entries:
            return next((e.name for e in entries if _PATTERN.fullmatch(e.name) or e.name == "dataset_info.json"), None)

    def remove(self, names: Iterable[str]) -> None:
        """Remove the folders of the plan's items."""
        for name in names:
            remove_tree(self._place.out / name)

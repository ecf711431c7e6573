"""Where the rows of items of any length lie: in the files of a composed output shard, or in an item's own.

A shard's files are one array each, and ``ordinal-{k:05d}.npy`` says which item each row belongs to. Nothing is taken
from their headers: the length of the ordinals gives the number of rows, and every other length must agree with it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError
from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Place
from gpupipe.sinks.npy import npy_header
from gpupipe.sinks.segments import chunks

ORDINAL = RowSpec("ordinal", (), "<i8")
"""The array that says which item each row of a shard belongs to."""

UNORDERED = "its ordinals are not those of the shard's items in ascending order"


class Composed:
    """The files of a composed shard, opened, and where the rows of its items lie in them; closed by ``with``.

    Parameters
    ----------
    place : Place
    specs : sequence of RowSpec
        The arrays to open, :data:`ORDINAL` beside them.
    shard : int
    count : bool
        Read all ordinals, and see that they are in order; else :meth:`span` and :meth:`members` say nothing.

    Attributes
    ----------
    rows : int
        S, of the shard, by the length of its ordinals.
    damages : list of (Path, str)
        Files that have not the length or the ordinals they must have; no item can be found in the shard then.

    Raises
    ------
    FileNotFoundError
        One of the files is not there.
    """

    def __init__(self, place: Place, specs: Sequence[RowSpec], shard: int, count: bool = True) -> None:
        self._specs, self._items = specs, place.shard_items(shard)
        arrays = (ORDINAL, *specs)
        self._paths = {spec.name: array_path(place, spec, shard) for spec in arrays}
        self._counts = np.zeros(len(self._items), np.int64)
        with ExitStack() as stack:
            self._files: dict[str, IO[bytes]] = {
                name: stack.enter_context(path.open("rb")) for name, path in self._paths.items()
            }
            nbytes = {name: os.fstat(file.fileno()).st_size for name, file in self._files.items()}
            # The header of ordinals is as long for any number of them.
            data = nbytes[ORDINAL.name] - len(npy_header((0,), ORDINAL.dtype))
            self.rows = max(0, data // ORDINAL.nbytes)
            self._headers = {spec.name: npy_header((self.rows, *spec.shape), spec.dtype) for spec in arrays}
            self.damages: list[tuple[Path, str]] = []
            for spec in arrays:
                due = len(self._headers[spec.name]) + self.rows * spec.nbytes
                if nbytes[spec.name] != due:
                    text = f"{nbytes[spec.name]} bytes long, expected {due}: {self.rows} rows, by the ordinals' length"
                    self.damages.append((self._paths[spec.name], text))
            if count and not self.damages and not self._count():
                self.damages.append((self._paths[ORDINAL.name], UNORDERED))
            self._stack = stack.pop_all()
        self._stops = np.cumsum(self._counts)

    def __enter__(self) -> Composed:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _count(self) -> bool:
        """Count the rows of each item; False where the ordinals are not what they must be."""
        start, last = len(self._headers[ORDINAL.name]), self._items.start
        for piece in chunks(self._files[ORDINAL.name], start, start + self.rows * ORDINAL.nbytes):
            ordinals = np.frombuffer(piece, ORDINAL.dtype)
            if ordinals[0] < last or ordinals[-1] >= self._items.stop or (ordinals[1:] < ordinals[:-1]).any():
                return False
            self._counts += np.bincount(ordinals - self._items.start, minlength=len(self._items))
            last = int(ordinals[-1])
        return True

    def altered(self) -> Iterator[tuple[Path, str]]:
        """Files whose header is not what it must be; their rows are found without it."""
        for name, header in self._headers.items():
            if os.pread(self._files[name].fileno(), len(header), 0) != header:
                yield self._paths[name], "its header is altered"

    def span(self, ordinal: int) -> range:
        """The item's rows in the shard."""
        index = ordinal - self._items.start
        return range(int(self._stops[index] - self._counts[index]), int(self._stops[index]))

    def members(self, ordinal: int) -> Mapping[str, Iterator[bytes]]:
        """The bytes of the item's arrays, a few megabytes at a time."""
        span, found = self.span(ordinal), {}
        for spec in self._specs:
            start = len(self._headers[spec.name])
            found[spec.name] = chunks(
                self._files[spec.name], start + span.start * spec.nbytes, start + span.stop * spec.nbytes
            )
        return found

    def mapped(self, spec: RowSpec) -> npt.NDArray[Any]:
        """A whole array of the shard, [S, *shape], read-only; S is not 0. It stays when the files are closed."""
        offset = len(self._headers[spec.name])
        return np.asarray(np.memmap(self._files[spec.name], spec.dtype, "r", offset, (self.rows, *spec.shape)))


def array_path(place: Place, spec: RowSpec, shard: int) -> Path:
    """Where an array of an output shard lies once it is composed."""
    return place.out / f"{spec.name}-{shard:05d}.npy"


def blob_path(place: Place, ordinal: int) -> Path:
    """The folder of an item's own raw files, one an array, until its shard is composed."""
    return place.bookkeeping / "blobs" / f"{ordinal:08d}"


def blob_rows(blob: Path, specs: Sequence[RowSpec]) -> int:
    """T, the rows of an item by the lengths of its own files.

    Raises
    ------
    InputError
        They do not agree, or one is not a whole number of rows.
    FileNotFoundError
        One is not there.
    """
    nbytes = {spec.name: (blob / spec.name).stat().st_size for spec in specs}
    rows = nbytes[specs[0].name] // specs[0].nbytes
    if any(nbytes[spec.name] != rows * spec.nbytes for spec in specs):
        raise InputError(f"{blob}: its files do not hold as many rows each; they are {nbytes} bytes long")
    return rows

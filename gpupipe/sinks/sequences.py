"""Blob sink: items of any number of rows, one ``{name}-{k:05d}.npy`` a declared array and output shard.

The rows of a shard's done items follow one another by ordinal, and ``ordinal-{k:05d}.npy`` says which item each row
belongs to. Until the shard is composed an item lies apart as raw files, one an array, so that composing is a header
and concatenation; by its ordinals a composed shard is taken apart again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError, OutputError
from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Expected, Fault, Place, Sample
from gpupipe.sinks.composed import ORDINAL, UNORDERED, Composed, array_path, blob_path, blob_rows
from gpupipe.sinks.composing import Composing
from gpupipe.sinks.files import (
    BatchSync,
    Buffer,
    Checksum,
    checksum_of,
    file_pieces,
    output_errors,
    remove_tree,
    sync_file,
    sync_folder,
    write_file,
)
from gpupipe.sinks.npy import array_files, npy_header

_ORDINALS_AT_ONCE = 1 << 16


class SequenceSink(Composing):
    """Writes items as raw files, then composes them into arrays. One instance a process.

    Parameters
    ----------
    place : Place
    specs : sequence of RowSpec
        Shape and dtype of one row of each array. The files of an item's sample are the raw bytes of its arrays
        [T, *shape], in C order, under these names; T is the item's own, and may be 0.

    Raises
    ------
    ValueError
        There is no array, two have one name, one is called ``ordinal``, or its rows have no bytes.
    """

    def __init__(self, place: Place, specs: Sequence[RowSpec]) -> None:
        self._specs = tuple(specs)
        self._names = {spec.name for spec in specs}
        if not specs or len(self._names) != len(specs) or ORDINAL.name in self._names:
            raise ValueError(f"got {list(specs)}: expected arrays of different names, none of them {ORDINAL.name!r}")
        if empty := [spec for spec in specs if not spec.nbytes]:
            raise ValueError(f"got {empty[0]}: expected rows of some bytes, by which they are counted")
        self._arrays = (*self._specs, ORDINAL)
        super().__init__(place)

    def members(self, sample: Sample) -> Mapping[str, Iterable[Buffer]]:
        """The item's arrays; a ValueError where they are not those declared."""
        files = sample.files()
        if files.keys() != self._names:
            raise ValueError(f"item {sample.name}: got arrays {sorted(files)}, declared {sorted(self._names)}")
        return {name: _filled(pieces) for name, pieces in files.items()}

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Stage the item's arrays and move them among the blobs.

        Raises
        ------
        ValueError
            An array is not a whole number of rows, or they are not as many in each; a fault of the job.
        """
        staged = self._stage(ordinal)
        nbytes = {name: write_file(staged / name, pieces, checksum) for name, pieces in self.members(sample).items()}
        for spec in self._specs:
            if nbytes[spec.name] % spec.nbytes:
                raise ValueError(
                    f"item {sample.name}: {spec.name} has {nbytes[spec.name]} bytes, expected rows of {spec.nbytes}"
                )
        rows = {spec.name: nbytes[spec.name] // spec.nbytes for spec in self._specs}
        if len(set(rows.values())) > 1:
            raise ValueError(f"item {sample.name}: expected as many rows in each array, got {rows}")
        self._settle(ordinal, staged)

    def _stage(self, ordinal: int) -> Path:
        staged = self._place.staging / f"{ordinal}"
        remove_tree(staged)
        with output_errors(staged):
            staged.mkdir()
        return staged

    def _settle(self, ordinal: int, staged: Path) -> None:
        blob = self._blob(ordinal)
        # What may lie there is a killed run's: the item is pending, or its shard, still whole, is being taken apart.
        remove_tree(blob)
        with output_errors(blob):
            staged.rename(blob)

    def void(self, ordinal: int, name: str | None) -> None:
        """Remove what the item left in staging and among the blobs."""
        remove_tree(self._place.staging / f"{ordinal}")
        remove_tree(self._blob(ordinal))

    # ---- a shard is composed, and taken apart

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Compose the shard's files from its items' blobs, rename them, drop the blobs.

        Raises
        ------
        OutputError
            Writing failed, or the blob of a done item is gone or damaged.
        """
        if not self._whole(shard):
            items = self._place.shard_items(shard)
            rows = {ordinal: self._rows(ordinal) for ordinal, ok in zip(items, done, strict=True) if ok}
            paths = self._paths(shard)
            # Some may have their names already, by a killed run; they are made again, of the same blobs.
            for spec, path in zip(self._arrays, paths, strict=True):
                with output_errors(path):
                    write_file(_partial(path), self._array(spec, rows))
                    sync_file(_partial(path))
            with output_errors(self._place.out):
                for path in paths:
                    _partial(path).rename(path)
                sync_folder(self._place.out)
        self._drop_blobs(shard)

    def _array(self, spec: RowSpec, rows: Mapping[int, int]) -> Iterator[Buffer]:
        """An array of the shard: its header, then the rows of each item; `rows` says how many."""
        yield npy_header((sum(rows.values()), *spec.shape), spec.dtype)
        for ordinal, count in rows.items():
            if spec is ORDINAL:
                for start in range(0, count, _ORDINALS_AT_ONCE):
                    yield np.full(min(_ORDINALS_AT_ONCE, count - start), ordinal, spec.dtype)
            else:
                yield from file_pieces(self._blob(ordinal) / spec.name)

    def _rows(self, ordinal: int) -> int:
        """Rows of a done item, by its blob."""
        blob = self._blob(ordinal)
        try:
            with output_errors(blob):
                return blob_rows(blob, self._specs)
        except (OutputError, InputError) as error:
            raise OutputError(
                getattr(error, "errno", None) or 0,
                f"{blob}: the ledger says item {ordinal} is done but its rows are gone or damaged. "
                f"Run: gpupipe verify --repair {self._place.out}",
            ) from error

    def reopen(self, shard: int) -> None:
        """Take the shard's files apart into its items' blobs again; of a damaged shard nothing is kept.

        Damaged is one that lacks a file, or whose files have not the lengths or ordinals they must have. What a killed
        run left among the blobs is kept.

        Raises
        ------
        OutputError
            A file of it is a symbolic link, or writing failed.
        """
        paths = [path for path in self._paths(shard) if os.path.lexists(path)]
        if not paths:
            return
        for path in paths:
            with output_errors(path):
                if path.is_symlink():  # of a user who moved the shard: neither written through nor taken away
                    raise OSError(errno.ELOOP, "items of it are to be written")
        if len(paths) == len(self._arrays):
            with output_errors(paths[0]), Composed(self._place, self._specs, shard) as composed:
                for ordinal in self._place.shard_items(shard) if not composed.damages else ():
                    # One without rows may have failed or not: nothing here tells. Its blob without rows does no harm.
                    staged = self._stage(ordinal)
                    for name, pieces in composed.members(ordinal).items():
                        write_file(staged / name, pieces)
                    self._settle(ordinal, staged)
            with closing(BatchSync(self._blobs)) as sync:  # before what they were made of goes
                sync()
        for path in paths:
            remove_tree(path)
        with output_errors(self._place.out):
            sync_folder(self._place.out)

    def _paths(self, shard: int) -> list[Path]:
        return [array_path(self._place, spec, shard) for spec in self._arrays]

    def _blob(self, ordinal: int) -> Path:
        return blob_path(self._place, ordinal)

    def _whole(self, shard: int) -> bool:
        return all(path.exists() for path in self._paths(shard))

    def overhead(self, shard: int) -> int:
        """The headers; not the 8 bytes a row of the ordinals, as nobody knows the number of rows beforehand."""
        return sum(len(npy_header((0, *spec.shape), spec.dtype)) for spec in self._arrays)

    # ---- what lies there

    def verify(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        """Every byte of the shard's files; before they are all there, of its items' blobs."""
        if not expected:
            return
        if self._whole(shard):
            with Composed(self._place, self._specs, shard) as composed:
                yield from self._faults_of_shard(shard, composed, expected)
        else:
            yield from self._faults_of_blobs(shard, expected)

    def _faults_of_shard(self, shard: int, composed: Composed, expected: Sequence[Expected]) -> Iterator[Fault]:
        # Composing the shard anew puts a header right, and one item done again sees to that.
        first = (expected[0].ordinal,)
        if composed.damages:
            done = tuple(item.ordinal for item in expected if item.checksum)
            yield from (Fault(path, text, done or first) for path, text in composed.damages)
            return
        yield from (Fault(path, text, first) for path, text in composed.altered())
        path = self._paths(shard)[0]
        for item in expected:
            again, span = (item.ordinal,), composed.span(item.ordinal)
            where = f"rows {span.start} to {span.stop} of {', '.join(spec.name for spec in self._arrays)}"
            if not item.checksum:
                if span:
                    yield Fault(path, f"{where}: item {item.ordinal} failed, and these are here", again)
            elif checksum_of(composed.members(item.ordinal)) != item.checksum:
                yield Fault(path, f"{where}: item {item.ordinal} is altered", again)

    def _faults_of_blobs(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        missing: list[int] = []
        for item in expected:
            blob, again = self._blob(item.ordinal), (item.ordinal,)
            if not item.checksum:
                if os.path.lexists(blob) and not self._without_rows(blob):
                    yield Fault(blob, f"item {item.ordinal} failed, and this is here", again)
            elif blob.is_symlink() or not blob.is_dir():
                missing.append(item.ordinal)
            elif odd := [path.name for path in blob.iterdir() if path.is_symlink() or not path.is_file()]:
                yield Fault(blob, f"{odd[0]!r} in it is no plain file", again)
            elif checksum_of({path.name: file_pieces(path) for path in blob.iterdir()}) != item.checksum:
                yield Fault(blob, f"item {item.ordinal} is altered, or files are missing or added", again)
        gone = [path for path in self._paths(shard) if not path.exists()]
        if missing and len(gone) < len(self._arrays):  # it was whole, and somebody took a file away
            yield Fault(gone[0], "missing", tuple(missing))
        else:
            yield from (Fault(self._blob(ordinal), "missing", (ordinal,)) for ordinal in missing)

    def _without_rows(self, blob: Path) -> bool:
        """True for a blob that :meth:`reopen` made of an item without rows."""
        with suppress(FileNotFoundError, NotADirectoryError, InputError):
            return blob_rows(blob, self._specs) == 0
        return False

    def extra(self, names: Set[str]) -> Iterator[Fault]:
        """Array files of no shard, and partial ones beside a whole shard."""
        known = {path.name: shard for shard in range(self._place.shards) for path in self._paths(shard)}
        for path in self._ours():
            shard = known.get(path.name.removesuffix(".partial"))
            if shard is None or (path.name not in known and self._whole(shard)):
                yield Fault(path, "belongs to no item")

    def _ours(self) -> Iterable[Path]:
        return array_files(self._place.out, self._arrays)


def item_rows(place: Place, ordinal: int, specs: Sequence[RowSpec]) -> dict[str, npt.NDArray[Any]] | None:
    """One item's rows: of its shard or, while that is not composed, of its blob.

    Parameters
    ----------
    place : Place
        Of the dataset; a run may be at work on it.
    ordinal : int
        Of the item.
    specs : sequence of RowSpec
        The arrays asked for, some or all of those declared.

    Returns
    -------
    dict of str to numpy.ndarray, or None
        By name, [T, *shape], read-only, mapped from the file; None where no row of the item is there.

    Raises
    ------
    InputError
        What lies there is damaged.
    OSError
        It cannot be read.
    """
    # Between two looks a shard may be composed or taken apart; at each moment the item is in one place or the other.
    for look in (_rows_of_shard, _rows_of_blob, _rows_of_shard):
        with suppress(FileNotFoundError):
            return look(place, ordinal, specs)
    return None


def _rows_of_shard(place: Place, ordinal: int, specs: Sequence[RowSpec]) -> dict[str, npt.NDArray[Any]] | None:
    shard = ordinal // place.shard_size
    with Composed(place, specs, shard, count=False) as composed:
        for path, text in (*composed.damages, *composed.altered()):
            raise InputError(f"{path}: {text}; verify the output")
        if not composed.rows:
            return None
        ordinals = composed.mapped(ORDINAL)
        start, stop = np.searchsorted(ordinals, [ordinal, ordinal + 1]).tolist()
        found = start < stop
        # Where nothing is found all are looked at: in disorder it may only have been missed.
        ordered = ordinals[start:stop] == ordinal if found else ordinals[1:] >= ordinals[:-1]
        if not ordered.all():
            raise InputError(f"{array_path(place, ORDINAL, shard)}: {UNORDERED}; verify the output")
        return {spec.name: composed.mapped(spec)[start:stop] for spec in specs} if found else None


def _rows_of_blob(place: Place, ordinal: int, specs: Sequence[RowSpec]) -> dict[str, npt.NDArray[Any]] | None:
    blob = blob_path(place, ordinal)
    rows = blob_rows(blob, specs)
    if not rows:
        return None
    return {
        spec.name: np.asarray(np.memmap(blob / spec.name, spec.dtype, "r", 0, (rows, *spec.shape))) for spec in specs
    }


def _filled(pieces: Iterable[Buffer]) -> Iterator[Buffer]:
    """Without the empty ones: an array of no rows cannot be seen as plain bytes."""
    return (piece for piece in pieces if memoryview(piece).nbytes)


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")

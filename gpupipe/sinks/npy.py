"""Row sink: one ``{name}-{k:05d}.npy`` a declared array and output shard, rows written in place.

A shard is ``*.partial`` until each of its items has an outcome, then it is synced and renamed.
The bytes depend on the rows alone: headers are written here, not by NumPy, whose padding differs by version.
"""

from __future__ import annotations

import errno
import os
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Literal

import numpy as np

from gpupipe.memory import RowSpec
from gpupipe.sinks.base import Expected, Fault, Place, Sample
from gpupipe.sinks.files import Buffer, Checksum, allocate, checksum_of, output_errors, sync_file, sync_folder, write_at

_OPEN_FILES = 32


def npy_header(shape: Sequence[int], dtype: str | np.dtype) -> bytes:
    """Header of a version 1.0 ``.npy`` file in C order, padded to a multiple of 64 bytes.

    The layout is that of NumPy's documented format (``numpy.lib.format``).
    """
    sizes = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
    text = f"{{'descr': '{np.dtype(dtype).str}', 'fortran_order': False, 'shape': ({sizes}), }}"
    padding = -(10 + len(text) + 1) % 64
    body = text.encode("latin1") + b" " * padding + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


class NpySink:
    """Writes rows to shards. One instance a process; not thread-safe."""

    kind: Literal["rows", "blobs"] = "rows"
    composes = False

    def __init__(self, place: Place, specs: Sequence[RowSpec]) -> None:
        self._place, self._specs = place, specs
        self._files: OrderedDict[Path, int] = OrderedDict()

    def members(self, sample: Sample) -> Mapping[str, Iterable[Buffer]]:
        """The declared rows."""
        return {spec.name: [sample.rows[spec.name]] for spec in self._specs}

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Write the item's rows, each at its offset."""
        for spec in self._specs:
            row = sample.rows[spec.name]
            if row.shape != spec.shape or row.dtype != np.dtype(spec.dtype):
                raise ValueError(f"row {spec.name}: got {row.shape} {row.dtype}, declared {spec.shape} {spec.dtype}")
            checksum.begin(spec.name)
            checksum.update(spec.name, row)
            self._write(ordinal, spec, row)

    def void(self, ordinal: int, name: str | None) -> None:
        """Zero the item's rows."""
        for spec in self._specs:
            self._write(ordinal, spec, np.zeros(spec.shape, spec.dtype))

    def _write(self, ordinal: int, spec: RowSpec, row: np.ndarray) -> None:
        shard, index = divmod(ordinal, self._place.shard_size)
        path = self._path(spec, shard)
        with output_errors(path):
            header = self._header(spec, shard)
            write_at(self._open(path, shard, spec, header), [row], len(header) + index * spec.nbytes)

    def _header(self, spec: RowSpec, shard: int) -> bytes:
        return npy_header((len(self._place.shard_items(shard)), *spec.shape), spec.dtype)

    def _path(self, spec: RowSpec, shard: int) -> Path:
        return self._place.out / f"{spec.name}-{shard:05d}.npy"

    def _open(self, path: Path, shard: int, spec: RowSpec, header: bytes) -> int:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        if len(self._files) >= _OPEN_FILES:
            os.close(self._files.popitem(last=False)[1])
        # Several workers may make it at once: each does the same, and none truncates.
        fd = os.open(_partial(path), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            nbytes = len(header) + len(self._place.shard_items(shard)) * spec.nbytes
            if os.fstat(fd).st_size > nbytes:  # something was added to it
                os.ftruncate(fd, nbytes)
            allocate(fd, nbytes)
            write_at(fd, [header], 0)
        except BaseException:
            os.close(fd)
            raise
        self._files[path] = fd
        return fd

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Sync the shard's files and give them their names."""
        for spec in self._specs:
            path = self._path(spec, shard)
            with output_errors(path):
                if _partial(path).exists():
                    sync_file(_partial(path))
                    _partial(path).rename(path)
        with output_errors(self._place.out):
            sync_folder(self._place.out)

    def reopen(self, shard: int) -> None:
        """Make the shard's files partial again."""
        for spec in self._specs:
            path = self._path(spec, shard)
            with output_errors(path):
                if path.is_symlink():  # of a user who moved the shard: neither written through nor taken away
                    raise OSError(errno.ELOOP, "rows of it are to be written")
                if path.exists():
                    path.rename(_partial(path))

    def published(self, shard: int) -> bool:
        """True where every file of the shard has its final name."""
        return all(self._path(spec, shard).exists() for spec in self._specs)

    def overhead(self, shard: int) -> int:
        """The headers."""
        return sum(len(self._header(spec, shard)) for spec in self._specs)

    def verify(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        """Headers, lengths, the rows of done items, and that those of failed ones are zero."""
        if not expected:
            return
        files: list[tuple[RowSpec, IO[bytes], int]] = []
        with ExitStack() as stack:
            for spec in self._specs:
                path = self._path(spec, shard)
                path = path if path.exists() else _partial(path)
                try:
                    file = stack.enter_context(path.open("rb"))
                except FileNotFoundError:
                    yield Fault(path, "missing", tuple(item.ordinal for item in expected))
                    return
                header = self._header(spec, shard)
                yield from self._faults_of_file(path, file, header, spec, shard, expected[0].ordinal)
                files.append((spec, file, len(header)))
            for item in expected:
                yield from self._faults_of_item(item, files, self._path(self._specs[0], shard))

    def _faults_of_file(
        self, path: Path, file: IO[bytes], header: bytes, spec: RowSpec, shard: int, first: int
    ) -> Iterator[Fault]:
        # Writing one row anew puts header and length right.
        if file.read(len(header)) != header:
            yield Fault(path, "its header is altered", (first,))
        nbytes, due = os.fstat(file.fileno()).st_size, len(header) + len(self._place.shard_items(shard)) * spec.nbytes
        if nbytes != due:
            yield Fault(path, f"{nbytes} bytes long, expected {due}", (first,))

    def _faults_of_item(
        self, item: Expected, files: Sequence[tuple[RowSpec, IO[bytes], int]], path: Path
    ) -> Iterator[Fault]:
        index = item.ordinal % self._place.shard_size
        rows = {
            spec.name: os.pread(file.fileno(), spec.nbytes, start + index * spec.nbytes) for spec, file, start in files
        }
        if not item.checksum:
            if any(row.strip(b"\0") for row in rows.values()):
                yield Fault(
                    path, f"row {index}: item {item.ordinal} failed, and its rows are not zero", (item.ordinal,)
                )
        elif checksum_of({name: [row] for name, row in rows.items()}) != item.checksum:
            yield Fault(path, f"row {index} of {', '.join(rows)}: item {item.ordinal} is altered", (item.ordinal,))

    def extra(self, names: Set[str]) -> Iterator[Fault]:
        """Array files of no shard, and partial ones beside whole ones."""
        whole = {self._path(spec, shard).name for spec in self._specs for shard in range(self._place.shards)}
        for path in self._ours():
            base = path.name.removesuffix(".partial")
            if base not in whole or (base != path.name and path.with_name(base).exists()):
                yield Fault(path, "belongs to no item")

    def foreign(self) -> str | None:
        """An array file of one of our names."""
        return next((path.name for path in self._ours()), None)

    def remove(self, names: Iterable[str]) -> None:
        """Remove every shard, partial or whole."""
        for path in list(self._ours()):
            with output_errors(path):
                path.unlink()

    def _ours(self) -> Iterable[Path]:
        return array_files(self._place.out, self._specs)


def array_files(out: Path, specs: Iterable[RowSpec]) -> Iterator[Path]:
    """What lies in a folder under the names of arrays of output shards, partial ones too."""
    pattern = re.compile(rf"({'|'.join(re.escape(spec.name) for spec in specs)})-\d{{5,}}\.npy(\.partial)?")
    return (path for path in out.iterdir() if pattern.fullmatch(path.name))


def _partial(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial")

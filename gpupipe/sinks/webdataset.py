"""Blob sink: tar shards ``{k:05d}.tar``, an item's members named ``{key}.{extension}``, in ordinal order.

Each item is staged as the very bytes it has in the tar (headers, data, padding), so that composing a shard
is concatenation. Metadata is constant (owner, mode, time), so the bytes depend on the items alone.
"""

from __future__ import annotations

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal

import numpy as np

from gpupipe.errors import OutputError
from gpupipe.sinks.base import Place, Sample
from gpupipe.sinks.files import (
    Buffer,
    Checksum,
    output_errors,
    publish,
    remove_tree,
    sync_file,
    sync_folder,
    write_at,
    write_file,
)

_BLOCK = 512
_CHUNK = 1 << 22
_PATTERN = re.compile(r"\d{5,}\.tar(\.partial)?")


class WebDatasetSink:
    """Writes tar segments, then composes them into shards. One instance a process."""

    kind: Literal["rows", "blobs"] = "blobs"

    def __init__(self, place: Place) -> None:
        self._place = place
        self._blobs = place.bookkeeping / "blobs"
        self._left_over: set[int] | None = None  # shards with segments when this was first asked
        with output_errors(self._blobs):
            self._blobs.mkdir(parents=True, exist_ok=True)

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Stage the item's tar segment and move it among the blobs."""
        staged = self._place.staging / f"{ordinal}.tar"
        with output_errors(staged):
            fd = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            offset = 0
            for name, pieces in sample.files().items():
                offset = self._member(fd, staged, f"{sample.name}.{name}", pieces, offset, checksum)
        finally:
            os.close(fd)
        with output_errors(staged):
            staged.rename(self._blob(ordinal))

    def _member(self, fd: int, path: Path, name: str, pieces: Iterable[Buffer], offset: int, checksum: Checksum) -> int:
        start = offset + _BLOCK  # the header goes before the data but its length is known only after
        end = start
        for piece in pieces:
            checksum.update(piece)
            with output_errors(path):
                end += write_at(fd, [piece], end)
        padding = -(end - start) % _BLOCK
        with output_errors(path):
            write_at(fd, [bytes(padding)], end)
            write_at(fd, [_header(name, end - start)], offset)
        return end + padding

    def _blob(self, ordinal: int) -> Path:
        return self._blobs / f"{ordinal:08d}.tar"

    def _tar(self, shard: int) -> Path:
        return self._place.out / f"{shard:05d}.tar"

    def void(self, ordinal: int, name: str | None) -> None:
        """Remove the item's staged segments."""
        remove_tree(self._place.staging / f"{ordinal}.tar")
        remove_tree(self._blob(ordinal))

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Compose the shard from its items' segments, rename it, drop the segments."""
        items = self._place.shard_items(shard)
        path = self._tar(shard)
        if not path.exists():
            partial = path.with_name(f"{path.name}.partial")
            with output_errors(path):
                write_file(partial, self._segments(ordinal for ordinal, ok in zip(items, done, strict=True) if ok))
                sync_file(partial)
                partial.rename(path)
                sync_folder(path.parent)
        for ordinal in items:
            remove_tree(self._blob(ordinal))
        if self._left_over is not None:
            self._left_over.discard(shard)

    def _segments(self, ordinals: Iterable[int]) -> Iterator[bytes]:
        for ordinal in ordinals:
            try:
                with self._blob(ordinal).open("rb") as blob:
                    yield from _chunks(blob, 0, os.fstat(blob.fileno()).st_size)
            except FileNotFoundError as error:
                raise OutputError(
                    error.errno or 0,
                    f"{self._blob(ordinal)}: the ledger says item {ordinal} is done but its segment is gone. "
                    "Run again with --overwrite.",
                ) from error
        yield bytes(2 * _BLOCK)  # end of archive

    def reopen(self, shard: int) -> None:
        """Take the tar apart into its items' segments again."""
        path = self._tar(shard)
        if not path.exists():
            return
        with output_errors(path):
            for ordinal, segment in _split(path):
                publish(self._blob(ordinal), segment, self._place.staging)
            path.unlink()
            sync_folder(path.parent)

    def published(self, shard: int) -> bool:
        """True where the tar stands and a killed run left none of its segments."""
        if self._left_over is None:
            ordinals = (int(path.stem) for path in self._blobs.iterdir() if path.stem.isdigit())
            self._left_over = {ordinal // self._place.shard_size for ordinal in ordinals}
        return self._tar(shard).exists() and shard not in self._left_over

    def foreign(self) -> str | None:
        """A tar of one of our names."""
        return next((path.name for path in self._ours()), None)

    def remove(self, names: Iterable[str]) -> None:
        """Remove every tar; the segments go with the bookkeeping."""
        for path in list(self._ours()):
            remove_tree(path)

    def _ours(self) -> Iterable[Path]:
        return (path for path in self._place.out.iterdir() if _PATTERN.fullmatch(path.name))


def _split(path: Path) -> Iterator[tuple[int, Iterator[bytes]]]:
    """Ordinal and bytes of each item in a tar of ours: its members lie together, named by the ordinal."""
    starts: dict[int, int] = {}
    end = 0
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            starts.setdefault(int(member.name.partition(".")[0]), member.offset)
            end = member.offset_data + member.size + -member.size % _BLOCK
    bounds = [*starts.values(), end]
    with path.open("rb") as file:
        for (ordinal, start), stop in zip(starts.items(), bounds[1:], strict=True):
            yield ordinal, _chunks(file, start, stop)


def _chunks(file: IO[bytes], start: int, stop: int) -> Iterator[bytes]:
    for offset in range(start, stop, _CHUNK):
        yield os.pread(file.fileno(), min(_CHUNK, stop - offset), offset)


def _header(name: str, nbytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = nbytes, 0o644, 0
    # GNU format: names of any length and members over 8 GiB, and no time or owner creeps in.
    return info.tobuf(format=tarfile.GNU_FORMAT)

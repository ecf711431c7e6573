"""Blob sink: tar shards ``{k:05d}.tar``, an item's members named ``{key}.{extension}``, in ordinal order.

Each item is staged as the very bytes it has in the tar (headers, data, padding), so that composing a shard
is concatenation. Metadata is constant (owner, mode, time), so the bytes depend on the items alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import IO

import numpy as np

from gpupipe.errors import OutputError
from gpupipe.sinks.base import Expected, Fault, Sample
from gpupipe.sinks.composing import Composing
from gpupipe.sinks.files import (
    Buffer,
    Checksum,
    checksum_of,
    create,
    file_pieces,
    output_errors,
    publish,
    remove_tree,
    sync_file,
    sync_folder,
    write_at,
    write_file,
)
from gpupipe.sinks.segments import BLOCK, chunks, header, padding, segments

_PATTERN = re.compile(r"\d{5,}\.tar(\.partial)?")


class WebDatasetSink(Composing):
    """Writes tar segments, then composes them into shards. One instance a process."""

    def members(self, sample: Sample) -> Mapping[str, Iterable[Buffer]]:
        """The item's members in the tar."""
        return {f"{sample.name}.{extension}": pieces for extension, pieces in sample.files().items()}

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Stage the item's tar segment and move it among the blobs."""
        staged = self._place.staging / f"{ordinal}.tar"
        with output_errors(staged):
            fd = create(staged)
        try:
            offset = 0
            for name, pieces in self.members(sample).items():
                checksum.begin(name)
                offset = self._member(fd, staged, name, pieces, offset, checksum)
        finally:
            os.close(fd)
        with output_errors(staged):
            staged.rename(self._blob(ordinal))

    def _member(self, fd: int, path: Path, name: str, pieces: Iterable[Buffer], offset: int, checksum: Checksum) -> int:
        # The header goes before the data, whose length is known only after: its own does not depend on that.
        start = offset + len(header(name, 0))
        end = start
        for piece in pieces:
            checksum.update(name, piece)
            with output_errors(path):
                end += write_at(fd, [piece], end)
        gap = padding(end - start)
        with output_errors(path):
            write_at(fd, [bytes(gap)], end)
            write_at(fd, [header(name, end - start)], offset)
        return end + gap

    def _blob(self, ordinal: int) -> Path:
        return self._blobs / f"{ordinal:08d}.tar"

    def _tar(self, shard: int) -> Path:
        return self._place.out / f"{shard:05d}.tar"

    def _whole(self, shard: int) -> bool:
        return self._tar(shard).exists()

    def void(self, ordinal: int, name: str | None) -> None:
        """Remove the item's staged segments."""
        remove_tree(self._place.staging / f"{ordinal}.tar")
        remove_tree(self._blob(ordinal))

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Compose the shard from its items' segments, rename it, drop the segments."""
        path = self._tar(shard)
        if not path.exists():
            items = self._place.shard_items(shard)
            partial = path.with_name(f"{path.name}.partial")
            with output_errors(path):
                write_file(partial, self._segments(ordinal for ordinal, ok in zip(items, done, strict=True) if ok))
                sync_file(partial)
                partial.rename(path)
                sync_folder(path.parent)
        self._drop_blobs(shard)

    def _segments(self, ordinals: Iterable[int]) -> Iterator[bytes]:
        for ordinal in ordinals:
            try:
                yield from file_pieces(self._blob(ordinal))
            except FileNotFoundError as error:
                raise OutputError(
                    error.errno or 0,
                    f"{self._blob(ordinal)}: the ledger says item {ordinal} is done but its segment is gone. "
                    f"Run: gpupipe verify --repair {self._place.out}",
                ) from error
        yield bytes(2 * BLOCK)  # end of archive

    def reopen(self, shard: int) -> None:
        """Take the tar apart into its items' segments again; a damaged one is left behind."""
        path = self._tar(shard)
        if not path.exists():
            return
        with output_errors(path), path.open("rb") as file:
            for segment in segments(file):
                whole = segment.sound and not segment.torn and not segment.behind_gap
                if whole and segment.ordinal in self._place.shard_items(shard):
                    publish(self._blob(segment.ordinal), segment.pieces(file), self._place.staging)
            path.unlink()
            sync_folder(path.parent)

    def overhead(self, shard: int) -> int:
        """The end of the archive."""
        return 2 * BLOCK

    def verify(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        """Every byte of the tar; before there is one, of its items' segments."""
        path = self._tar(shard)
        if path.exists():
            with path.open("rb") as file:
                yield from _faults(path, file, expected)
            return
        for item in expected:
            blob = self._blob(item.ordinal)
            if not item.checksum:
                if blob.exists():
                    yield Fault(blob, f"item {item.ordinal} failed, and this is here", (item.ordinal,))
            elif not blob.exists():
                yield Fault(blob, "missing", (item.ordinal,))
            else:
                with blob.open("rb") as file:
                    yield from _faults(blob, file, [item], trailer=0)

    def extra(self, names: Set[str]) -> Iterator[Fault]:
        """Tars of no shard."""
        whole = {self._tar(shard).name for shard in range(self._place.shards)}
        yield from (Fault(path, "belongs to no item") for path in self._ours() if path.name not in whole)

    def _ours(self) -> Iterable[Path]:
        return (path for path in self._place.out.iterdir() if _PATTERN.fullmatch(path.name))


def _faults(path: Path, file: IO[bytes], expected: Sequence[Expected], trailer: int = 2 * BLOCK) -> Iterator[Fault]:
    found = {segment.ordinal: segment for segment in segments(file)}
    end, bad = 0, False
    for item in expected:
        again = (item.ordinal,)
        segment = found.pop(item.ordinal, None)
        if not item.checksum:
            if segment is not None:
                yield Fault(path, f"item {item.ordinal} failed, and its members are here", again)
            continue
        if segment is None:
            yield Fault(path, f"item {item.ordinal} is missing", again)
            bad = True
            continue
        moved = segment.start != end and not bad  # behind a damaged one the gap is that one's
        bad = not segment.sound or segment.torn or moved or checksum_of(segment.members(file)) != item.checksum
        if bad:
            yield Fault(path, f"item {item.ordinal} is altered, or what lies beside it", again)
        end = segment.stop
    # Composing the tar anew puts the rest right, and one item done again sees to that.
    first = tuple(item.ordinal for item in expected[:1])
    for ordinal in found:
        yield Fault(path, f"holds members of item {ordinal}, which has no place in it", first)
    rest = os.fstat(file.fileno()).st_size - end
    if not bad and (rest != trailer or any(piece.strip(b"\0") for piece in chunks(file, end, end + rest))):
        yield Fault(path, "its end is altered", first)

"""The contract of a sink: a place for every item, addressed by its ordinal.

Two kinds. *Row* sinks hold declared arrays: shard = ordinal // shard_size, row = ordinal % shard_size,
written in place. *Blob* sinks hold anything of any length under a name: each item is written beside its
place and moved there whole.

A worker commits and voids items; the supervisor publishes an output shard once each of its items has an
outcome in the ledger. Every operation may be repeated: after a crash it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from gpupipe.sinks.files import Buffer, Checksum

SHARD_SIZE = 256


@dataclass(frozen=True, slots=True)
class Sample:
    """What an operator hands over for one item.

    Attributes
    ----------
    name : str
        The blob's name: the item's folder or key; no path separator in it.
    rows : mapping of str to numpy.ndarray
        The declared rows.
    files : callable
        Makes the blob's members: file name to a stream of buffers, in a fixed order. Only blob sinks
        call it; it may decode while it streams.
    """

    name: str
    rows: Mapping[str, np.ndarray]
    files: Callable[[], Mapping[str, Iterable[Buffer]]]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a dataset lies and how it is cut.

    Attributes
    ----------
    out : Path
        The output folder.
    bookkeeping : Path
        ``OUT/.gpupipe``.
    staging : Path
        For half-written blobs, this run shard's alone; on the file system of `out`.
    count : int
        N, the number of items.
    shard_size : int
        Items an output shard.
    """

    out: Path
    bookkeeping: Path
    staging: Path
    count: int
    shard_size: int = SHARD_SIZE

    @property
    def shards(self) -> int:
        """Number of output shards."""
        return -(-self.count // self.shard_size)

    def shard_items(self, shard: int) -> range:
        """Ordinals of one output shard."""
        return range(shard * self.shard_size, min(self.count, (shard + 1) * self.shard_size))


@dataclass(frozen=True, slots=True)
class Expected:
    """What the ledger says of one item, for :meth:`Sink.verify`.

    Attributes
    ----------
    ordinal : int
    name : str or None
        Its blob name, as :meth:`Sink.void` takes it.
    checksum : str
        Of what was written; empty where the item failed.
    """

    ordinal: int
    name: str | None
    checksum: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A difference between the output and the ledger.

    Attributes
    ----------
    path : Path
        What is wrong.
    text : str
        How.
    ordinals : tuple of int
        The items to be done again that it may be right; empty where that would not help.
    """

    path: Path
    text: str
    ordinals: tuple[int, ...] = ()


class Sink(Protocol):
    """One output format."""

    kind: Literal["rows", "blobs"]
    composes: bool
    """True where an output shard is made of its items' blobs once they are complete: both are there for a moment."""

    def members(self, sample: Sample) -> Mapping[str, Iterable[Buffer]]:
        """What :meth:`commit` writes of a sample and its checksum is made of: names and bytes."""

    def commit(self, ordinal: int, sample: Sample, checksum: Checksum) -> None:
        """Put the item into its place; `checksum` sees every byte before it is written."""

    def void(self, ordinal: int, name: str | None) -> None:
        """The item failed: its place (blob `name`, None where it has none) holds nothing to take for a result."""

    def publish(self, shard: int, done: np.ndarray) -> None:
        """Every item of the output shard has an outcome (`done`: bool, one an item): give it its final name."""

    def reopen(self, shard: int) -> None:
        """Items of the output shard are pending (again): take its final name back, if it has it.

        What is damaged may be lost by that: its items must be pending before.
        """

    def published(self, shard: int) -> bool:
        """True where :meth:`publish` has nothing left to do."""

    def overhead(self, shard: int) -> int:
        """Bytes of a published output shard beside those of its items."""

    def verify(self, shard: int, expected: Sequence[Expected]) -> Iterator[Fault]:
        """Read back what lies in the places of an output shard's items; `expected`: those with an outcome."""

    def extra(self, names: Set[str]) -> Iterator[Fault]:
        """What lies under names of this sink and belongs to no item; `names`: every item's blob."""

    def foreign(self) -> str | None:
        """Name of something in the output folder that another program wrote in this format; None where nothing is."""

    def remove(self, names: Iterable[str]) -> None:
        """Remove all this sink wrote (``--overwrite``); `names` are the blob names of the plan."""

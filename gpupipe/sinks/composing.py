"""What sinks have in common that compose an output shard of its items' blobs, once each has an outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from gpupipe.sinks.base import Place
from gpupipe.sinks.files import output_errors, remove_tree


class Composing(ABC):
    """The folder of the blobs, which shards are composed, and what lies under the names of shards."""

    kind: Literal["rows", "blobs"] = "blobs"
    composes = True

    def __init__(self, place: Place) -> None:
        self._place = place
        self._blobs = place.bookkeeping / "blobs"
        self._left_over: set[int] | None = None  # shards with blobs when this was first asked
        with output_errors(self._blobs):
            self._blobs.mkdir(parents=True, exist_ok=True)

    def published(self, shard: int) -> bool:
        """True where the shard is composed and a killed run left none of its blobs."""
        if self._left_over is None:
            ordinals = (int(path.stem) for path in self._blobs.iterdir() if path.stem.isdigit())
            self._left_over = {ordinal // self._place.shard_size for ordinal in ordinals}
        return shard not in self._left_over and self._whole(shard)

    def foreign(self) -> str | None:
        """A file under a name that shards have."""
        return next((path.name for path in self._ours()), None)

    def remove(self, names: Iterable[str]) -> None:
        """Remove every file of shards; the blobs go with the bookkeeping."""
        for path in list(self._ours()):
            remove_tree(path)

    def _drop_blobs(self, shard: int) -> None:
        """The shard is composed: of its items' blobs none is needed any more."""
        for ordinal in self._place.shard_items(shard):
            remove_tree(self._blob(ordinal))
        if self._left_over is not None:
            self._left_over.discard(shard)

    # ---- where formats differ

    @abstractmethod
    def _blob(self, ordinal: int) -> Path:
        """Where an item lies until its shard is composed: among the blobs, the ordinal its name's stem."""

    @abstractmethod
    def _whole(self, shard: int) -> bool:
        """True where every file of the shard stands."""

    @abstractmethod
    def _ours(self) -> Iterable[Path]:
        """What lies in the output folder under names that shards have, partial ones too."""

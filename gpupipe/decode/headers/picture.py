"""What a packet's headers say about the picture in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

FLAGS = ("shown", "entry", "leading", "droppable", "broken", "anchor", "named")
FACTS = np.dtype(
    [("order", "<i8"), ("prefix", "<i8"), ("needs_end", "<i8"), *((name, "?") for name in FLAGS), ("padding", "?")]
)
"""One row a packet, as ``csrc/scanner.h`` lays it out."""


@dataclass(slots=True)
class Picture:
    """One packet, as its headers describe it.

    Attributes
    ----------
    shown : bool
        False where the packet only updates references (VP8, VP9 and AV1 hidden frames).
    order : int
        Rank in output order among all packets of the stream; any increasing integers.
    entry : bool
        Decoding may start here with nothing before it: this picture and all that follow it in output order are exact.
    leading : bool
        Comes after the last entry in decode order, and needs pictures from before that entry.
    droppable : bool
        No other picture, nor the decoder's state, depends on it.
    prefix : int
        Bytes of the packet behind which comes a picture that is droppable itself, though the packet is not; 0 where
        there is no such place.
    needs : tuple of int, or None
        Numbers of the packets whose pictures it may refer to, or that must be there for it; None where that is not
        known.
    anchor : bool
        The order of those that follow is counted from it (H.265's prevTid0Pic).
    broken : bool
        Its headers cannot be read; all that is known of it is what the container says.
    """

    shown: bool
    order: int
    entry: bool = False
    leading: bool = False
    droppable: bool = False
    broken: bool = False
    prefix: int = 0
    needs: tuple[int, ...] | None = None
    anchor: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Pictures(Sequence[Picture]):
    """The pictures of a stream's packets, in decode order.

    Attributes
    ----------
    facts : FACTS [P]
        Of each packet its :class:`Picture`; ``named`` where `needs` are known, which then end at ``needs_end``.
    needs : int64 [N]
        Those of all packets, one behind the other.
    """

    facts: npt.NDArray[np.void]
    needs: npt.NDArray[np.int64]

    @classmethod
    def of(cls, pictures: Iterable[Picture]) -> Pictures:
        """Make them from single ones."""
        rows, needs = [], list[int]()
        for picture in pictures:
            needs.extend(picture.needs or ())
            flags = (picture.needs is not None if name == "named" else getattr(picture, name) for name in FLAGS)
            rows.append((picture.order, picture.prefix, len(needs), *flags, False))
        return cls(np.array(rows, FACTS), np.array(needs, np.int64))

    @property
    def needed(self) -> Needed:
        """What each packet needs, if that is known."""
        return Needed(self.facts["needs_end"], self.needs)

    def __len__(self) -> int:
        return len(self.facts)

    @overload
    def __getitem__(self, number: int) -> Picture: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Picture]: ...
    def __getitem__(self, number: int | slice) -> Picture | Sequence[Picture]:
        if isinstance(number, slice):
            return [self[i] for i in range(len(self))[number]]
        number = range(len(self))[number]
        order, prefix, _, shown, entry, leading, droppable, broken, anchor, named, _ = self.facts[number].item()
        needs = tuple(self.needed[number]) if named else None
        return Picture(shown, order, entry, leading, droppable, broken, prefix, needs, anchor)


@dataclass(frozen=True, slots=True, eq=False)
class Needed:
    """The numbers that each packet needs, cut out of those of all when they are asked for."""

    ends: npt.NDArray[np.int64]
    numbers: npt.NDArray[np.int64]

    def __getitem__(self, number: int, /) -> list[int]:
        begin = self.ends[number - 1] if number else 0
        found: list[int] = self.numbers[begin : self.ends[number]].tolist()
        return found

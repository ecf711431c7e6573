"""What a packet's headers say about the picture in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from gpupipe.decode.headers.bits import HeaderError


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


class Scanner(Protocol):
    """Reads packet after packet, in decode order."""

    skips: bool
    """True where libavcodec's ``skip_frame`` drops exactly the pictures that are marked droppable.

    It is then given the packets, and keeps its count of them; elsewhere it never sees them.
    """
    reach: int
    """How far in that order the next picture may be from the last anchor; 0 where there is no such limit."""
    restarts: bool
    """True where a flushed decoder is as good as a new one."""

    def scan(self, data: bytes) -> None:
        """Take the next packet.

        Raises
        ------
        HeaderError
            The headers do not say for certain what the packet shows.
        """

    def lose(self) -> None:
        """Take the packet that :meth:`scan` just refused as a broken picture.

        Raises
        ------
        HeaderError
            Without it the others cannot be put in order.
        """

    def pictures(self, delay: int = 0) -> list[Picture]:
        """All packets taken, when the stream has ended.

        Parameters
        ----------
        delay : int
            Pictures that the decoder holds back from its start, so that it cannot show any too early.

        Raises
        ------
        HeaderError
        """


@dataclass(slots=True)
class PictureList:
    """Base of scanners that know each packet's picture at once."""

    found: list[Picture] = field(default_factory=list)
    reach: int = field(default=0, init=False)

    def lose(self) -> None:
        """Take a packet that cannot be read."""
        self.found.append(Picture(True, len(self.found), broken=True))

    def pictures(self, delay: int = 0) -> list[Picture]:
        """All packets taken."""
        return self.found


class ParameterSets:
    """The parameter sets in force, and whether a decoder that jumps to an entry would have the same.

    A decoder that was elsewhere in the stream may hold other sets. An entry is safe if every set is that of the
    container's header, or if the entry repeats them all.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], bytes] = {}
        self.moving = False

    def put(self, key: tuple[str, int], unit: bytes, in_band: bool, fixed: bool) -> None:
        """Take one set; a ``fixed`` one (size, format, reordering) must never change.

        Raises
        ------
        HeaderError
            A fixed set changes in mid-stream: what the decoder then does with delayed pictures must be seen.
        """
        unit = unit.rstrip(b"\0")
        before = self._known.get(key)
        if before == unit:
            return
        if fixed and before is not None:
            raise HeaderError("the sequence parameters change in mid-stream")
        self.moving |= in_band
        self._known[key] = unit

    def complete(self, sent: set[tuple[str, int]]) -> bool:
        """True if ``sent`` holds every set that is known so far."""
        return self._known.keys() <= sent

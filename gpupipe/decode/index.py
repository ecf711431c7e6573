"""The packet table of a stream, and the index of the pictures it shows.

An index is *exact* when the packets' headers and timestamps determine it; otherwise the pictures have been counted by
decoding all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gpupipe.decode.headers import HeaderError, Picture, Pictures
from gpupipe.decode.headers.picture import FACTS

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

NO_PTS = -(1 << 63)
"""FFmpeg's AV_NOPTS_VALUE."""

Row = tuple[int, int, int, int, bool, bool]
"""What the demuxer says of a packet: pts, dts, pos, size, discard, corrupt."""

_ROWS_AT_ONCE = 1024


class Needs(Protocol):
    """By packet, the numbers of those that it needs."""

    def __getitem__(self, number: int, /) -> Iterable[int]: ...


@dataclass(frozen=True, slots=True, eq=False)
class References:
    """What each packet needs, where all of them say.

    Attributes
    ----------
    needs : Needs
    anchor : bool [P]
        See :class:`gpupipe.decode.headers.Picture`.
    reach : int
        See :class:`gpupipe.decode.headers.Scanner`.
    """

    needs: Needs
    anchor: Bools
    reach: int

    @classmethod
    def of(cls, pictures: Pictures, reach: int) -> References | None:
        """Make them; None if a picture does not say."""
        if not pictures.facts["named"].all():
            return None
        return cls(pictures.needed, pictures.facts["anchor"], reach)


@dataclass(frozen=True, slots=True, eq=False)
class PacketTable:
    """The packets of one stream in decode order; arrays of length P.

    Attributes
    ----------
    pts, dts, pos, size : int64 [P]
        As the demuxer gives them: stream units (:data:`NO_PTS` where unknown), byte position (-1), bytes.
    discard : bool [P]
        The container says not to show it (edit lists).
    corrupt : bool [P]
        The demuxer saw damage in it.
    order : int64 [P]
        Rank in output order.
    shown, entry, leading, droppable, broken : bool [P]
        See :class:`gpupipe.decode.headers.Picture`.
    prefix : int64 [P]
        Likewise.
    skips, restarts : bool
        See :class:`gpupipe.decode.headers.Scanner`.
    references : References or None
    """

    pts: Int64s
    dts: Int64s
    pos: Int64s
    size: Int64s
    discard: Bools
    corrupt: Bools
    order: Int64s
    shown: Bools
    entry: Bools
    leading: Bools
    droppable: Bools
    broken: Bools
    prefix: Int64s
    skips: bool = False
    restarts: bool = False
    references: References | None = None

    def __len__(self) -> int:
        return len(self.pts)

    def rows(self, start: int, stop: int) -> Iterator[Row]:
        """What the demuxer said of some packets, as plain numbers."""
        for begin in range(start, stop, _ROWS_AT_ONCE):
            part = slice(begin, min(begin + _ROWS_AT_ONCE, stop))
            columns = (self.pts, self.dts, self.pos, self.size, self.discard, self.corrupt)
            yield from zip(*(column[part].tolist() for column in columns), strict=True)

    @classmethod
    def make(
        cls,
        rows: npt.ArrayLike,
        pictures: Sequence[Picture] | None,
        skips: bool = False,
        restarts: bool = False,
        reach: int = 0,
    ) -> PacketTable:
        """Build the table from rows (:data:`Row`), one behind the other or not, and pictures where they are known."""
        columns = np.ascontiguousarray(np.array(rows, np.int64).reshape(-1, 6).T)
        pts, dts, pos, size = columns[:4]
        discard, corrupt = columns[4:] != 0
        references = None
        if pictures is None:
            facts = np.zeros(len(pts), FACTS)
            facts["order"] = np.arange(len(pts))
        else:
            found = pictures if isinstance(pictures, Pictures) else Pictures.of(pictures)
            facts = found.facts
            references = References.of(found, reach)
        order, shown, entry, leading, droppable, broken, prefix = (
            np.ascontiguousarray(facts[name])
            for name in ("order", "shown", "entry", "leading", "droppable", "broken", "prefix")
        )
        return cls(
            pts, dts, pos, size, discard, corrupt, order, shown, entry, leading, droppable, broken, prefix, skips,
            restarts, references,
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class FrameIndex:
    """The pictures that a stream shows, in presentation order.

    Attributes
    ----------
    pts : int64 [T]
        Presentation timestamps in stream units, never decreasing.
    time_base : Fraction
        Seconds of one unit.
    exact : bool
        True if headers and timestamps alone determine it; False where the pictures were counted by decoding.
    packet : int64 [T] or None
        Row of each picture in the packet table; None where it was counted.
    fault : str or None
        What shows that the file ends early or cannot be read to its end; then T is that of what could be read.
    reason : str or None
        Why the pictures had to be counted.
    """

    pts: Int64s
    time_base: Fraction
    exact: bool
    packet: Int64s | None = None
    fault: str | None = None
    reason: str | None = None

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def pts_seconds(self) -> npt.NDArray[np.float64]:
        """Presentation times in seconds, float64 [T], as the container counts them."""
        return self.pts.astype(np.float64) * self.time_base.numerator / self.time_base.denominator

    @property
    def start(self) -> int:
        """Timestamp of the first picture in stream units; 0 where there is none."""
        return int(self.pts[0]) if len(self.pts) else 0

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Seconds since the first picture, float64 [T]."""
        return (self.pts - self.start).astype(np.float64) * self.time_base.numerator / self.time_base.denominator

    def number(self, pts: int | None) -> int | None:
        """Return the number of the picture with this timestamp (stream units), None if there is none."""
        if pts is None:
            return None
        at = int(np.searchsorted(self.pts, pts))
        return at if at < len(self.pts) and self.pts[at] == pts else None


def exact_index(table: PacketTable, time_base: Fraction, fault: str | None) -> FrameIndex:
    """Make the index from the packet table alone.

    Raises
    ------
    HeaderError
        The table does not determine it: a timestamp is missing or disagrees with the order of output, or the stream
        begins with what cannot be decoded.
    """
    if not len(table):
        return FrameIndex(np.zeros(0, np.int64), time_base, True, np.zeros(0, np.int64), fault)
    if not table.entry[0]:
        raise HeaderError("the stream does not begin with a picture that stands alone")
    start = np.flatnonzero(table.entry | table.broken)[1:2]
    if table.leading[: start[0] if len(start) else None].any():
        raise HeaderError("pictures at the start need others that came before")
    packets = np.flatnonzero(table.shown & ~table.discard)
    if (table.pts[packets] == NO_PTS).any():
        raise HeaderError("timestamps are missing")
    for part in _stretches(table, packets):
        ordered = part[np.argsort(table.order[part], kind="stable")]
        if (np.diff(table.pts[ordered]) <= 0).any() or (np.diff(table.order[ordered]) <= 0).any():
            raise HeaderError("timestamps are not those of the pictures")
    packets = packets[np.argsort(table.pts[packets], kind="stable")]
    pts = table.pts[packets]
    if (np.diff(pts) == 0).any():
        raise HeaderError("timestamps are not those of the pictures")
    return FrameIndex(pts, time_base, True, packets, fault)


def _stretches(table: PacketTable, packets: Int64s) -> list[Int64s]:
    """Those that are not broken, parted where one is: it may hide where the count of the order starts anew."""
    if not table.broken.any():
        return [packets]
    sound = packets[~table.broken[packets]]
    stretch = np.cumsum(table.broken)[sound]
    return [sound[stretch == number] for number in np.unique(stretch)]


def counted_index(
    stamps: Sequence[tuple[int | None, int | None]],
    time_base: Fraction,
    step: int,
    fault: str | None,
    reason: str | None,
) -> FrameIndex:
    """Make the index from decoded pictures in output order.

    Parameters
    ----------
    stamps : sequence of (pts, dts)
        Of each picture, stream units, None where the decoder gave none.
    time_base : Fraction
        Seconds of one unit.
    step : int
        Units from one picture to the next, where no timestamp tells.
    fault, reason : str or None
        See :class:`FrameIndex`.
    """
    guess = _TimestampGuess()
    values: list[int] = []
    for own, dts in stamps:
        value = guess.next(own, dts)
        values.append(value if value is not None else (values[-1] + step if values else 0))
    # Where only decoding times are known they are those of the pictures, out of order by as much as the pictures were.
    return FrameIndex(np.sort(np.array(values, np.int64)), time_base, False, None, fault, reason)


class _TimestampGuess:
    """FFmpeg's best effort (``guess_correct_pts``, libavcodec/decode.c): pts, unless they went wrong more than dts."""

    def __init__(self) -> None:
        self._faulty_pts = self._faulty_dts = 0
        self._last_pts = self._last_dts = NO_PTS

    def next(self, pts: int | None, dts: int | None) -> int | None:
        if dts is not None:
            self._faulty_dts += dts <= self._last_dts
            self._last_dts = dts
        elif pts is not None:
            self._last_dts = pts
        if pts is not None:
            self._faulty_pts += pts <= self._last_pts
            self._last_pts = pts
        elif dts is not None:
            self._last_pts = dts
        if pts is not None and (dts is None or self._faulty_pts <= self._faulty_dts):
            return pts
        return dts

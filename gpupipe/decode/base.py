"""The contract of a decoder: open a file, know its pictures, hand out some of them exactly."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from gpupipe.closing import Closing
from gpupipe.decode.index import FrameIndex
from gpupipe.errors import CorruptError, DecodeError, UsageError
from gpupipe.types import StreamInfo, Surface

MAX_PIXELS = 8192 * 4320
"""Height x width of the largest picture that is decoded unless more is asked for: 8K."""

Indices = Sequence[int] | npt.NDArray[np.integer]
Choice = Indices | Callable[[FrameIndex], Indices]


class IndexMismatch(DecodeError):
    """What the decoder showed is not what the packets said; the index has been made anew by counting.

    Numbers chosen from the old index mean nothing any more: choose again from ``decoder.index``.
    """


@dataclass(slots=True)
class Stats:
    """What a decoder has done, for benchmarks.

    Attributes
    ----------
    packets : int
        That the codec was to be fed.
    skipped : int
        Of those, dropped undecoded, by the codec or before it.
    decoded : int
        Frames that came out.
    """

    packets: int = 0
    skipped: int = 0
    decoded: int = 0


class Decoder(Closing):
    """One video stream of one file. Not for several threads at a time.

    Attributes
    ----------
    backend : str
        Name of the backend (``"ffmpeg"``).
    stats : Stats
    """

    backend: str
    stats: Stats

    @property
    @abstractmethod
    def info(self) -> StreamInfo:
        """The stream's facts."""

    @property
    @abstractmethod
    def index(self) -> FrameIndex:
        """The pictures that the stream shows, made when first asked for.

        Raises
        ------
        NoVideoError
            The stream shows none.
        TruncatedError
            Nothing can be read, because the file ends early.
        """

    def prepare(self) -> None:
        """Do what :attr:`index` needs short of decoding; a backend that cannot tell the two apart makes the index."""
        len(self.index)

    @abstractmethod
    def readable(self) -> FrameIndex:
        """Decode everything; return the pictures before the first fault, in presentation order.

        On a sound file that is all of them. May be empty.
        """

    @abstractmethod
    def frames(self, indices: Indices, strict: bool = False, partial: bool = False) -> Iterator[tuple[int, Surface]]:
        """Decode the pictures with these numbers.

        Parameters
        ----------
        indices : sequence of int
            Ascending, distinct, of :attr:`index` (of :meth:`readable` if ``partial``).
        strict : bool
            Decode everything and fail on any fault in the stream.
        partial : bool
            Take from the pictures before the first fault; what lies behind it is not judged.

        Yields
        ------
        index : int
        surface : Surface
            Valid until the next one is asked for. Ascending by index.

        Raises
        ------
        CorruptError
            A packet that a wanted picture depends on cannot be decoded. It may come late: after pictures were yielded,
            all of which are then void.
        TruncatedError
            The file ends early (not if ``partial``).
        IndexMismatch
            The index was wrong, and has been made anew; void what was yielded and ask again. :meth:`read` does that.
        UsageError
            Numbers that are not ascending, or out of range.
        """

    def near(
        self, indices: Indices, seconds: float, low: int = 0, high: int | None = None, partial: bool = False
    ) -> Indices:
        """Trade pictures for those that cost least to decode, no further than ``seconds`` from the wanted ones.

        Parameters
        ----------
        indices : sequence of int
            Not decreasing.
        seconds : float
            How far a picture may be from the wanted one.
        low, high : int
            Pictures outside ``low <= number < high`` are not taken.
        partial : bool
            See :meth:`frames`.

        Returns
        -------
        indices : sequence of int
            As many, not decreasing, repeats possible; the given ones where nothing is to be gained.
        """
        return indices

    @abstractmethod
    def close(self) -> None:
        """Give the file and the codec back; may be called again."""

    def read(
        self, choice: Choice, put: Callable[[int, Surface], None], strict: bool = False, partial: bool = False
    ) -> Indices:
        """Decode pictures in any order, repeated or not, into whatever ``put`` fills.

        Parameters
        ----------
        choice : sequence of int, or function of FrameIndex
            Numbers of the wanted pictures. A function chooses them from the index, and is asked again should the index
            turn out wrong (see :class:`IndexMismatch`).
        put : callable of (position, Surface)
            Called for every position of the chosen sequence, not in order, and perhaps again for the same position: the
            last call counts.
        strict, partial : bool
            See :meth:`frames`.

        Returns
        -------
        indices : sequence of int
            What was chosen in the end.

        Raises
        ------
        IndexMismatch
            ``choice`` was a sequence, and the recount gave other pictures.
        CorruptError, TruncatedError, UsageError
            See :meth:`frames`.
        """
        for last in (False, True):
            index = self.readable() if partial else self.index
            if partial and not len(index):
                raise CorruptError(f"{self.info.path}: no frame before the first fault can be read. Get it again", 0)
            indices = choice(index) if callable(choice) else choice
            positions: dict[int, list[int]] = {}
            for position, number in enumerate(indices):
                positions.setdefault(int(number), []).append(position)
            try:
                for number, surface in self.frames(sorted(positions), strict, partial):
                    for position in positions[number]:
                        put(position, surface)
            except IndexMismatch:
                if last or not (callable(choice) or np.array_equal(index.pts, self.index.pts)):
                    raise
            else:
                return indices
        raise AssertionError("the last attempt returns or raises")

    def __len__(self) -> int:
        return len(self.index)


def checked(indices: Indices, total: int, where: str) -> list[int]:
    """Return the numbers as a list.

    Raises
    ------
    UsageError
        Not ascending, repeated, or out of range.
    """
    numbers = [int(i) for i in indices]
    if any(b <= a for a, b in pairwise(numbers)):
        raise UsageError(f"{where}: frame numbers must ascend and be distinct; Decoder.read takes any order")
    if numbers and not 0 <= numbers[0] <= numbers[-1] < total:
        bad = numbers[0] if numbers[0] < 0 else numbers[-1]
        raise UsageError(f"{where}: frame {bad} was asked for; it has frames 0 to {total - 1}")
    return numbers

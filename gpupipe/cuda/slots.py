"""The rows of one item on the card, and what becomes of them: pictures in, runs of rows out to pinned memory."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from gpupipe.cuda.batcher import Batcher, Entry
from gpupipe.cuda.card import Card, Event, Target
from gpupipe.stages import Stages
from gpupipe.transform import Resizer
from gpupipe.types import DeviceSurface, Size, Surface

Pixels = npt.NDArray[np.uint8]


class DeviceRows:
    """Room for the rows of one item on the card, used for one item after another; for one thread.

    It has a stream of its own for what it copies out, so that this runs beside the kernel of other items.

    Parameters
    ----------
    card : Card
    batcher : Batcher
    count : int
        Rows.
    size : (int, int)
        ``(height, width)`` of a row in pixels; it is uint8 ``[H, W, 3]``.

    Raises
    ------
    DeviceMemoryError
        The card has not so much left.
    """

    def __init__(self, card: Card, batcher: Batcher, count: int, size: Size) -> None:
        self.count, self.size = count, size
        self.row_nbytes = size[0] * size[1] * 3
        self.card, self.batcher = card, batcher
        self.buffer = card.empty(count * self.row_nbytes)
        self.stream = card.stream()

    def pinned(self) -> Pixels:
        """New pinned memory for as many rows, uint8 ``[count, H, W, 3]``."""
        return self.card.pinned(self.count * self.row_nbytes).reshape(self.count, *self.size, 3)

    def ticket(self, out: Pixels, stages: Stages) -> Ticket:
        """Begin an item.

        Parameters
        ----------
        out : ndarray
            uint8 ``[T, H, W, 3]``, C-contiguous and pinned, with no more rows than there is room for.
        stages : Stages
            Counts the waiting of :meth:`Ticket.finish`.
        """
        return Ticket(self, out, stages)


class Ticket:
    """One item's use of its rows; a context manager: what was not finished is abandoned.

    A row comes from the card or, where FFmpeg decoded, straight from the host; whichever was put last counts.
    """

    def __init__(self, rows: DeviceRows, out: Pixels, stages: Stages) -> None:
        if len(out) > rows.count or out.shape[1:] != (*rows.size, 3) or not out.flags.c_contiguous:
            raise ValueError(f"out is {list(out.shape)}, and there is room for {rows.count} rows of {rows.size}")
        self._rows, self._out, self._stages = rows, out, stages
        self._entries: dict[int, Entry] = {}  # by row of the card
        self._sources: dict[int, int] = {}  # position -> row of the card; not for what came from the host
        self._last: tuple[DeviceSurface, int] | None = None

    def put(self, position: int, surface: Surface | DeviceSurface, resizer: Resizer) -> None:
        """Have a surface resized into a row. One of the card is given back when that has run; if it cannot be resized,
        :meth:`finish` says so. The same one may be put at several positions, one after the other.

        Raises
        ------
        DeviceLostError
        """
        if isinstance(surface, DeviceSurface):
            if self._last is not None and self._last[0] is surface:  # it may have been given back by now
                self._sources[position] = self._last[1]
                return
            rows = self._rows
            if position in self._entries:
                rows.batcher.withdraw([self._entries.pop(position)])
            target = Target(rows.buffer, position * rows.row_nbytes)
            self._entries[position] = rows.batcher.submit(surface, resizer, target)
            self._sources[position] = position
            self._last = surface, position
        else:
            self._sources.pop(position, None)
            resizer.resize(surface, self._out[position])

    def finish(self, count: int) -> None:
        """Have the first `count` rows in `out`.

        Raises
        ------
        DeviceMemoryError, UnsupportedError, InputError
            A picture could not be resized on the card.
        DeviceLostError
        """
        wanted = sorted((position, row) for position, row in self._sources.items() if position < count)
        if wanted:
            with self._stages("wait for card"):
                event = self._rows.batcher.launched([self._entries[row] for row in {row for _, row in wanted}])
                self._copy(wanted, event)
        self._forget()

    def _copy(self, wanted: list[tuple[int, int]], event: Event) -> None:
        rows = self._rows
        rows.stream.wait(event)
        for position, row, length in runs(wanted):
            out = self._out[position : position + length]
            rows.card.copy_out(rows.buffer, row * rows.row_nbytes, out, rows.stream)
        rows.stream.record().wait()

    def _forget(self) -> None:
        # What still waits was put behind the end of a sequence that had to be chosen anew, or its item failed.
        self._rows.batcher.withdraw(self._entries.values())
        self._entries.clear()
        self._sources.clear()
        self._last = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._forget()


def runs(pairs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Join ascending (position, row) to ``(position, row, length)``, where both go up by one."""
    joined: list[tuple[int, int, int]] = []
    for position, row in pairs:
        if joined:
            first, start, length = joined[-1]
            if (first + length, start + length) == (position, row):
                joined[-1] = (first, start, length + 1)
                continue
        joined.append((position, row, 1))
    return joined

"""Bits of a stream's header, and what is said where an engine may not have the stream."""

from __future__ import annotations

Colours = tuple[int | None, int | None]
"""Matrix and range as FFmpeg numbers them."""


class Bits:
    """Reads bits, most significant first; behind the end they are zeros, and `over` says so."""

    def __init__(self, data: bytes) -> None:
        self._value, self._left = int.from_bytes(data), 8 * len(data)

    @property
    def over(self) -> bool:
        """More was taken than there is."""
        return self._left < 0

    def take(self, count: int) -> int:
        """The next bits as a number."""
        self._left -= count
        shifted = self._value >> self._left if self._left >= 0 else self._value << -self._left
        return shifted & ((1 << count) - 1)

    def ue(self) -> int:
        """Exp-Golomb (H.264, 9.1); raises :class:`Unfit` where it has no end."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise Unfit("its header is damaged")
        return (1 << zeros) - 1 + self.take(zeros)

    def se(self) -> int:
        """Signed Exp-Golomb (H.264, 9.1.1)."""
        value = self.ue()
        return (value + 1) // 2 if value % 2 else -(value // 2)


class Unfit(Exception):
    """The engine would not show what FFmpeg shows; says why."""

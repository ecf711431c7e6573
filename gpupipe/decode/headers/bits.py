"""Reading bits out of a header, and the one error that reading may raise."""

from __future__ import annotations


class HeaderError(Exception):
    """A packet's headers do not say for certain what the packet shows; the frames must be counted by decoding."""


class Bits:
    """Reads big-endian bits from the start of ``data``.

    Parameters
    ----------
    data : bytes
        The header, emulation prevention already removed. Pass no more than is needed: it becomes one integer.

    Raises
    ------
    HeaderError
        By every method, when the data ends first.
    """

    __slots__ = ("_left", "_value")

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self._left = len(data) * 8

    def u(self, count: int) -> int:
        """Unsigned integer of ``count`` bits."""
        left = self._left - count
        if left < 0:
            raise HeaderError("a header ends early")
        self._left = left
        return (self._value >> left) & ((1 << count) - 1)

    def flag(self) -> bool:
        """One bit."""
        left = self._left - 1
        if left < 0:
            raise HeaderError("a header ends early")
        self._left = left
        return self._value >> left & 1 == 1

    def ue(self) -> int:
        """Unsigned Exp-Golomb code (ITU-T H.264, 9.1), at most 32 bits."""
        rest = self._value & ((1 << self._left) - 1)
        length = rest.bit_length()
        zeros = self._left - length
        if rest == 0 or zeros > 32:
            raise HeaderError("an Exp-Golomb code is too long")
        left = length - zeros - 1
        if left < 0:
            raise HeaderError("a header ends early")
        self._left = left
        return (rest >> left) - 1

    def se(self) -> int:
        """Signed Exp-Golomb code."""
        code = self.ue()
        return (code + 1) // 2 if code & 1 else -(code // 2)

    def leb128(self) -> int:
        """Little-endian base 128 (AV1, 4.10.5)."""
        value = 0
        for i in range(8):
            byte = self.u(8)
            value |= (byte & 0x7F) << (7 * i)
            if not byte & 0x80:
                return value
        raise HeaderError("a leb128 code is too long")


def unescape(data: bytes) -> bytes:
    """Remove emulation prevention bytes from a NAL unit (H.264 7.4.1, H.265 7.4.2)."""
    if b"\0\0\3" not in data:
        return data
    out = bytearray()
    start = 0
    while (at := data.find(b"\0\0\3", start)) >= 0:
        out += data[start : at + 2]
        start = at + 3
    return bytes(out + data[start:])

"""Reading of a FlatBuffer (https://flatbuffers.dev/internals): tables by the numbers of their fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a trusted file; a field that is absent has its default.

    Attributes
    ----------
    data : bytes
        The whole file.
    place : int
        Where the table begins.
    """

    data: bytes
    place: int

    @classmethod
    def root(cls, data: bytes) -> Table:
        """The file's own table."""
        return cls(data, _word(data, 0))

    def number(self, field: int, kind: str = "i", default: int = 0) -> int:
        """A scalar; `kind` is its code in :mod:`struct`."""
        place = self._field(field)
        if place is None:
            return default
        (value,) = struct.unpack_from(f"<{kind}", self.data, place)
        return int(value)

    def table(self, field: int) -> Table | None:
        """A table that this one refers to."""
        place = self._field(field)
        return None if place is None else Table(self.data, place + _word(self.data, place))

    def tables(self, field: int) -> list[Table]:
        """A list of tables."""
        first, count = self._vector(field)
        places = range(first, first + 4 * count, 4)
        return [Table(self.data, place + _word(self.data, place)) for place in places]

    def numbers(self, field: int, kind: str = "i") -> list[int]:
        """A list of scalars."""
        first, count = self._vector(field)
        return list(struct.unpack_from(f"<{count}{kind}", self.data, first))

    def bytes(self, field: int) -> bytes:
        """A list of bytes, or a string."""
        first, count = self._vector(field)
        return self.data[first : first + count]

    def _field(self, field: int) -> int | None:
        """Where a field's value is; a table begins with how far back its list of fields lies."""
        (back,) = struct.unpack_from("<i", self.data, self.place)
        fields = self.place - back
        (nbytes,) = struct.unpack_from("<H", self.data, fields)
        entry = 4 + 2 * field
        if entry >= nbytes:
            return None
        (offset,) = struct.unpack_from("<H", self.data, fields + entry)
        return self.place + int(offset) if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Where a list's items begin, and how many there are."""
        place = self._field(field)
        if place is None:
            return 0, 0
        vector = place + _word(self.data, place)
        return vector + 4, _word(self.data, vector)


def _word(data: bytes, place: int) -> int:
    (value,) = struct.unpack_from("<I", data, place)
    return int(value)

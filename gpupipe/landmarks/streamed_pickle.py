"""A pickle of keypoints that gpupipe wrote, read a thousand frames at a time without unpickling it."""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpupipe.closing import Closing
from gpupipe.errors import InputError
from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.names import stream_of
from gpupipe.landmarks.packing import PACKED_POINTS
from gpupipe.landmarks.parts import Counts, parts
from gpupipe.landmarks.pickle_file import LISTS, RESERVED
from gpupipe.landmarks.pickle_frame import FRAME, frame_arrays
from gpupipe.landmarks.records import unlisted_counts
from gpupipe.sinks.pickles import BATCH, body, loads

_WINDOW = 1 << 22
_MAX_TEXT = 1 << 16  # bytes of a path or a name
_MAX_WORDS = 1 << 24  # bytes of what stands behind the splits
_TEXT = re.compile(rb"\x8c(?P<short>.)|X(?P<long>.{4})", re.DOTALL)


class _ForeignError(Exception):
    """The bytes are not those that gpupipe writes."""


@dataclass(frozen=True, slots=True)
class _List:
    """Where a list lies in the file: the offsets of its batches of elements, and their ends."""

    count: int
    starts: array[int]
    ends: array[int]


class StreamedPickle(Closing):
    """Reads a pickle of :func:`gpupipe.landmarks.pickle_file.write_pickle`; made by :meth:`recognised`.

    Attributes
    ----------
    stream : int or None
        Of its videos, see :class:`gpupipe.landmarks.pictures.Pictures`.
    """

    points = PACKED_POINTS

    def __init__(self, path: Path, lists: dict[str, tuple[_List, _List, _List]], words: dict[str, Any]) -> None:
        self._path, self._lists, self._stats = path, lists, words.get("stats")
        self.stream = stream_of(words.get("dataset_info"))
        self._file = path.open("rb")

    @classmethod
    def recognised(cls, path: Path) -> StreamedPickle | None:
        """The file opened; None where it is anything else, damaged ones of ours included.

        Raises
        ------
        OSError
            It cannot be read.
        """
        try:
            with path.open("rb", 0) as file:
                lists, words = _Scanner(file.read).scan()
        except _ForeignError:
            return None
        return cls(path, lists, words)

    @property
    def splits(self) -> Sequence[str]:
        """Names of the splits, in the file's order."""
        return list(self._lists)

    def clips(self, split: str) -> Iterator[Clip]:
        """The clips of a split; a part of one ends at each thousandth frame."""
        frames, paths, videos = self._lists[split]
        for number in range(len(frames.starts)):
            found = self._matches(self._batch(frames, number))
            names = [self._texts(self._batch(each, number)) for each in (paths, videos)]
            if not len(found) == len(names[0]) == len(names[1]):
                raise self._changed()
            points, valid, shapes, readable = frame_arrays(found)
            yield from parts(split, names[1], names[0], points, valid, shapes, readable)

    def unlisted(self, split: str) -> Counts:
        """What the file counts of a split beside the frames it lists."""
        return unlisted_counts(self._stats, split, self._lists[split][0].count)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _batch(self, where: _List, number: int) -> bytes:
        start, end = where.starts[number], where.ends[number]
        try:
            self._file.seek(start)
            return self._file.read(end - start)
        except OSError as error:
            raise InputError(f"{self._path}: cannot be read ({error.strerror}).") from error

    def _matches(self, batch: bytes) -> list[re.Match[bytes]]:
        found, offset = [], 0
        while offset < len(batch):
            match = FRAME.match(batch, offset)
            if match is None:
                raise self._changed()
            found.append(match)
            offset = match.end()
        return found

    def _texts(self, batch: bytes) -> list[str]:
        found, offset = [], 0
        while offset < len(batch):
            match = _TEXT.match(batch, offset)
            if match is None:
                raise self._changed()
            offset = match.end() + _text_nbytes(match)
            try:
                found.append(batch[match.end() : offset].decode("utf-8", "surrogatepass"))
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self._path}: a path or video id is no text ({error}). Make the file again."
                ) from error
        return found

    def _changed(self) -> InputError:
        return InputError(f"{self._path}: it was changed while it was read. Run the command again.")


class _Scanner:
    """Goes through the file once and notes where everything lies."""

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._data, self._at, self._place = b"", 0, 0

    def scan(self) -> tuple[dict[str, tuple[_List, _List, _List]], dict[str, Any]]:
        """The lists of each split, and what stands behind the splits; :class:`_ForeignError` where it is not ours."""
        self._take(b"\x80\x04}(")
        lists: dict[str, tuple[_List, _List, _List]] = {}
        while not any(self._sees(body(key)) for key in RESERVED):
            name = self._name()
            if name in lists:
                raise _ForeignError
            lists[name] = self._split()
            if len(lists) % BATCH == 0:
                self._take(b"u(")
        return lists, self._words()

    def _name(self) -> str:
        try:
            return self._text().decode("utf-8", "surrogatepass")
        except UnicodeDecodeError as error:
            raise _ForeignError from error

    def _split(self) -> tuple[_List, _List, _List]:
        self._take(b"}(")
        found = []
        for key, element in zip(LISTS, (self._frame, self._text, self._text), strict=True):
            self._take(body(key) + b"]")
            found.append(self._list(element))
        self._take(b"u")
        frames, paths, videos = found
        if not frames.count == paths.count == videos.count:
            raise _ForeignError
        return frames, paths, videos

    def _list(self, element: Callable[[], object]) -> _List:
        where = _List(0, array("q"), array("q"))
        count = 0
        while count % BATCH == 0 and self._sees(b"("):
            self._take(b"(")
            where.starts.append(self._at + self._place)
            begun = count
            while not self._sees(b"e"):
                element()
                count += 1
            if not 0 < count - begun <= BATCH:
                raise _ForeignError
            where.ends.append(self._at + self._place)
            self._take(b"e")
        return _List(count, where.starts, where.ends)

    def _words(self) -> dict[str, Any]:
        rest = self._data[self._place :]
        while piece := self._read(_WINDOW):
            rest += piece
            if len(rest) > _MAX_WORDS:
                raise _ForeignError
        try:
            words = loads(b"\x80\x04}(" + rest)
        except InputError as error:
            raise _ForeignError from error
        if not isinstance(words, dict) or set(words) != set(RESERVED):
            raise _ForeignError
        return words

    def _frame(self) -> None:
        match = FRAME.match(self._data, self._place)
        if match is None:
            self._refill()
            match = FRAME.match(self._data, self._place)
        if match is None:
            raise _ForeignError
        self._place = match.end()

    def _text(self) -> bytes:
        if len(self._data) - self._place < _MAX_TEXT + 5:
            self._refill()
        match = _TEXT.match(self._data, self._place)
        if match is None or _text_nbytes(match) > _MAX_TEXT:
            raise _ForeignError
        self._place = match.end() + _text_nbytes(match)
        if self._place > len(self._data):
            raise _ForeignError
        return self._data[match.end() : self._place]

    def _sees(self, word: bytes) -> bool:
        if len(self._data) - self._place < len(word):
            self._refill()
        return self._data.startswith(word, self._place)

    def _take(self, word: bytes) -> None:
        if not self._sees(word):
            raise _ForeignError
        self._place += len(word)

    def _refill(self) -> None:
        self._at += self._place
        self._data = self._data[self._place :] + self._read(_WINDOW)
        self._place = 0


def _text_nbytes(match: re.Match[bytes]) -> int:
    return int.from_bytes(match["short"] if match["long"] is None else match["long"], "little")

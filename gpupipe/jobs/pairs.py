"""The pairs file: video and text, a JSON list or JSONL, read as a stream.

A list of 300,000 pairs is some 100 MB; as Python objects it would be ten times that. So one element at
a time is in memory, with the piece of text around it, and every error still has its line and column.
"""

from __future__ import annotations

import codecs
import json
import math
import os
import posixpath
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, NoReturn

import numpy as np

from gpupipe.errors import InputError, UsageError

_SPACE = re.compile(r"[ \t\n\r]*")
# A value cut by the end of the text in memory is seen as an error at most this many characters before that
# end ("-Infinit" is the longest), or as an unterminated string.
_CUT = 16
_ENDS = {"": "the end of the file", "\n": "the end of the line", "\r": "the end of the line"}


@dataclass(frozen=True, slots=True)
class Pair:
    """One element of the pairs file, its types checked.

    Attributes
    ----------
    vid : str
        Not empty, and writable as UTF-8. Whether it can name a folder is the plan's question.
    clip_name : str or None
        Name of the clip's file, without folders; None where the element has no ``clip_path``.
    text : str
        The transcript, empty where there is none.
    size : tuple of float or None
        As given, any length; see :func:`size_curve`.
    begin_time, end_time, duration : float or None
        Seconds in the uncut video.
    """

    vid: str
    clip_name: str | None
    text: str
    size: tuple[float, ...] | None
    begin_time: float | None
    end_time: float | None
    duration: float | None


def read_pairs(path: os.PathLike[str] | str, *, chunk: int = 1 << 20, limit: int = 64 << 20) -> Iterator[Any]:
    """The elements of a pairs file in their order, as JSON gives them; not only objects.

    A file whose first character is ``[`` is one JSON list. One that starts with ``{`` is JSONL: one whole
    value a line, blank lines skipped. UTF-8, with or without a byte order mark; NaN and Infinity are read.

    Parameters
    ----------
    path : path
        The file; read once, from begin to end.
    chunk : int
        Bytes read at a time; more where one element is longer.
    limit : int
        Characters one element may have.

    Yields
    ------
    object
        dict, list, str, int, float, bool or None.

    Raises
    ------
    UsageError
        The file cannot be read, is empty, holds an empty list or something else than these two forms, or is
        not JSON: with line and column, both from 1, the column in characters. Raised when the iteration
        gets there; elements before the fault have been yielded.
    """
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - a str will do
            text = _Text(os.fspath(path), file, chunk, limit)
            first = text.peek()
            if first == "[":
                yield from _read_list(text)
            elif first == "{":
                yield from _read_lines(text)
            elif first:
                text.fail(text.place, "expected a list, '[', or objects a line, '{'")
            else:
                raise UsageError(f"{path}: the pairs file is empty; expected a JSON list of objects, or JSONL.")
    except OSError as error:
        raise UsageError(f"{path}: the pairs file cannot be read: {error.strerror or error}.") from error


def parse_pair(raw: object, *, clip_required: bool = True) -> Pair:
    """Check one element's types.

    ``null`` counts as absent. Of ``clip_path`` what follows the last ``/`` is used; a backslash is part of
    the name, as it is on the systems this runs on. ``transcript`` goes before ``transcript clip``.

    Parameters
    ----------
    raw : object
        What :func:`read_pairs` yields.
    clip_required : bool
        Whether a missing ``clip_path`` is an error; not so for pairs within uncut videos.

    Raises
    ------
    InputError
        A key is missing or its value is of the wrong kind: `raw` is no object; ``vid`` is no text or empty;
        times are not finite, begin before 0, or do not end after their begin; ``size`` is no list of finite
        numbers.
    """
    if not isinstance(raw, dict):
        raise InputError(f"the pair is {_met(raw)}, expected an object with 'vid'.")
    transcript = _text(raw, "transcript")
    if transcript is None:
        transcript = _text(raw, "transcript clip")
    begin = _number(raw, "begin_time", least=0)
    end = _number(raw, "end_time", least=0)
    if end is not None and end <= (begin or 0):
        raise InputError(f"'end_time' is {end:g} s, expected more than 'begin_time', {begin or 0:g} s.")
    return Pair(
        vid=_vid(raw),
        clip_name=clip_name(raw, clip_required),
        text="" if transcript is None else transcript,
        size=_size(raw),
        begin_time=begin,
        end_time=end,
        duration=_number(raw, "duration", least=0),
    )


def size_curve(size: Sequence[float] | None, n: int = 16) -> list[float]:
    """The size values of a sample: as many as frames.

    Longer input is picked from at ``numpy.linspace(0, len - 1, n, dtype=int)``, as frames are (no value is
    made up between two); shorter is padded with its last value; absent or empty gives 0.5.

    Parameters
    ----------
    size : sequence of float or None
        Any length.
    n : int
        Values wanted.

    Returns
    -------
    list of float, n long
    """
    if not size:
        return [0.5] * n
    if len(size) > n:
        return [float(size[place]) for place in np.linspace(0, len(size) - 1, n, dtype=int)]
    return [float(value) for value in size] + [float(size[-1])] * (n - len(size))


# --- the stream ------------------------------------------------------------------------------------------


class _Text:
    """A window of decoded text that moves over the file.

    ``text[place:]`` is not consumed yet; `line` and `column`, from 0, are where ``text[0]`` is in the file.
    """

    def __init__(self, name: str, file: IO[bytes], chunk: int, limit: int) -> None:
        self.text = ""
        self.place = 0
        self._name, self._file, self._chunk, self._limit = name, file, chunk, limit
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._json = json.JSONDecoder()
        self._line = self._column = 0
        self._started = self._ended = False

    def peek(self) -> str:
        """The next character that is not white space, not consumed; empty at the end of the file."""
        while True:
            self.place = self._skip_space(self.place)
            if self.place < len(self.text):
                return self.text[self.place]
            if self._ended:
                return ""
            self._read_more()

    def value(self) -> Any:
        """Consume one JSON value, which starts right here."""
        while True:
            try:
                value, end = self._json.raw_decode(self.text, self.place)
                if self._ended or end + _CUT <= len(self.text):
                    self.place = end
                    return value
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated string") or error.pos + _CUT > len(self.text)
                if self._ended or not cut:
                    self.fail(error.pos, _expected(error))
            except (RecursionError, ValueError) as error:  # nested too deep; an integer of too many digits
                self.fail(self.place, f"an element here cannot be read ({error})", found=False)
            self._read_more()

    def line(self) -> Any:
        """Consume the JSON value that starts right here and ends on its line."""
        searched = self.place
        while (stop := self.text.find("\n", searched)) < 0 and not self._ended:
            searched = len(self.text) - self.place  # the window moves: `place` becomes 0
            self._read_more()
        stop = len(self.text) if stop < 0 else stop
        line = self.text[self.place : stop]
        try:
            value, end = self._json.raw_decode(line)
        except json.JSONDecodeError as error:
            self.fail(self.place + error.pos, _expected(error), hint=_JSONL)
        except (RecursionError, ValueError) as error:
            self.fail(self.place, f"the value here cannot be read ({error})", found=False)
        after = self._skip_space(self.place + end)
        if after < stop:
            self.fail(after, "expected the end of the line", hint=_JSONL)
        self.place = stop
        return value

    def fail(self, place: int, what: str, *, found: bool = True, hint: str = "") -> NoReturn:
        """Raise a UsageError for the character at `place`."""
        line, column = self._locate(place)
        if found:
            letter = self.text[place : place + 1]
            what += f", found {repr(letter) if letter.strip() else _ENDS.get(letter, 'white space')}"
        raise UsageError(f"{self._name}, line {line}, column {column}: {what}.{hint}")

    def _skip_space(self, place: int) -> int:
        match = _SPACE.match(self.text, place)
        assert match is not None  # it also matches nothing
        return match.end()

    def _locate(self, place: int) -> tuple[int, int]:
        """Line and column from 1 of ``text[place]``."""
        lines = self.text.count("\n", 0, place)
        column = place - self.text.rindex("\n", 0, place) if lines else self._column + place + 1
        return self._line + lines + 1, column

    def _read_more(self) -> None:
        """Drop what is consumed and append the next piece of the file; at its end, set `_ended`."""
        kept = len(self.text) - self.place
        if kept > self._limit:
            self.fail(self.place, f"an element is longer than {self._limit} characters", found=False)
        line, column = self._locate(self.place)
        self._line, self._column = line - 1, column - 1
        self.text, self.place = self.text[self.place :], 0
        # As much again as there is: a long element is scanned a few times, not once a chunk.
        data = self._file.read(max(self._chunk, kept))
        self._ended = not data
        try:
            piece = self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            self.text += error.object[: error.start].decode("utf-8")
            byte = error.object[error.start]
            self.fail(len(self.text), f"expected UTF-8, found the byte 0x{byte:02x} ({error.reason})", found=False)
        if piece and not self._started:
            self._started = True
            piece = piece.removeprefix("\ufeff")
        self.text += piece


_JSONL = " A file that starts with '{' is read as JSONL, one whole value a line; a JSON list starts with '['."


def _read_list(text: _Text) -> Iterator[Any]:
    start = text._locate(text.place)
    text.place += 1
    if text.peek() == "]":
        raise UsageError(f"{text._name}, line {start[0]}: the list is empty; there is nothing to do.")
    while True:
        yield text.value()
        mark = text.peek()
        if mark not in (",", "]"):
            text.fail(text.place, "expected ',' or ']' after an element of the list")
        text.place += 1
        if mark == "]":
            break
        text.peek()
    if text.peek():
        text.fail(text.place, "expected the end of the file after the list's ']'")


def _read_lines(text: _Text) -> Iterator[Any]:
    while text.peek():
        yield text.line()


def _expected(error: json.JSONDecodeError) -> str:
    """The JSON module's own word for it: "Expecting ',' delimiter" and the like."""
    return error.msg.removesuffix(": ").removesuffix(" at")


# --- the values ------------------------------------------------------------------------------------------


def _vid(raw: Mapping[str, Any]) -> str:
    vid = _text(raw, "vid")
    if not vid:
        raise InputError(f"'vid' is {'missing' if vid is None else 'empty'}, expected the video's id.")
    if any("\ud800" <= letter <= "\udfff" for letter in vid):
        raise InputError(f"'vid' is {_short(vid)}, which has half a surrogate pair: no file can carry it.")
    return vid


def clip_name(raw: Mapping[str, Any], needed: bool) -> str | None:
    """The name of the pair's clip, alone; raises :class:`InputError` as :func:`parse_pair` does for it."""
    path = _text(raw, "clip_path")
    if path is None:
        if needed:
            raise InputError("'clip_path' is missing, expected the name of the clip's file.")
        return None
    name = posixpath.basename(path)
    if name in ("", ".", "..") or "\0" in name:
        raise InputError(f"'clip_path' is {_short(path)}, expected to end in the name of a file.")
    try:
        os.fsencode(name)
    except UnicodeEncodeError as error:
        raise InputError(f"'clip_path' is {_short(path)}, which no file can be named: {error.reason}.") from error
    return name


def _size(raw: Mapping[str, Any]) -> tuple[float, ...] | None:
    size = raw.get("size")
    if size is None:
        return None
    if not isinstance(size, list):
        raise InputError(f"'size' is {_met(size)}, expected a list of numbers.")
    return tuple(_finite(value, f"'size[{place}]'") for place, value in enumerate(size))


def _number(raw: Mapping[str, Any], key: str, least: float) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    number = _finite(value, f"'{key}'")
    if number < least:
        raise InputError(f"'{key}' is {number:g}, expected at least {least:g}.")
    return number


def _finite(value: object, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputError(f"{name} is {_met(value)}, expected a number.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InputError(f"{name} is {_short(value)}, expected a finite number.")
    return number


def _text(raw: Mapping[str, Any], key: str) -> str | None:
    value = raw.get(key)
    if value is not None and not isinstance(value, str):
        raise InputError(f"'{key}' is {_met(value)}, expected text.")
    return value


def _met(value: object) -> str:
    """What was met instead, in JSON's words."""
    if value is None:
        return "null"
    kinds: dict[type, str] = {bool: "boolean", dict: "object", list: "list", str: "text"}
    return f"the {kinds.get(type(value), 'number')} {_short(value)}"


def _short(value: object) -> str:
    return reprlib.repr(value)

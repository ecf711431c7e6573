"""What is signed in each video: the glosses and the translation that a corpus file tells beside its pictures.

PHOENIX-2014-T has ``name|video|start|end|speaker|orth|translation``, PHOENIX-2014 ``id|folder|signer|annotation``.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from gpupipe.errors import UsageError
from gpupipe.sinks.files import checksum_of, file_pieces

Said = tuple[str | None, str | None]
"""The glosses (orth) and the translation of a video; None where the file has no such column."""
Annotations = dict[tuple[str, str], Said]
"""By split and video."""

_FOLDER = "annotations/manual"
_NAMES = ("PHOENIX-2014-T.{split}.corpus.csv", "{split}.corpus.csv")
_ABOVE = {"features": 1, "fullFrame-210x260px": 2}  # how far the annotations' folder is from these
_COLUMNS = {"video": ("name", "id"), "orth": ("orth", "annotation"), "translation": ("translation",)}
_DELIMITERS = "|\t,"


def read_annotations(files: Mapping[str, Path]) -> Annotations:
    """What the files of :func:`annotation_files` say of their splits' videos.

    The first line names the columns, in capitals or not, in any order; ``|`` delimits them, or else tab or comma.
    Wanted are ``name`` (or ``id``), ``orth`` (or ``annotation``) and ``translation``, of the last two at least one;
    others are not looked at. Between ``|`` a quote is a letter like others; with tab and comma it is the quote of CSV.
    Texts are kept as they are. Blank lines do not count.

    Parameters
    ----------
    files : mapping of split to path
        A file of several splits is read once, and says the same of each of them.

    Returns
    -------
    dict of (split, video) to (orth, translation)

    Raises
    ------
    UsageError
        A file cannot be read, is not UTF-8 (with or without a byte order mark), or lacks those columns; a line of it
        has more or fewer fields than the first, names no video, or says something else of it than an earlier line.
    """
    read = {path: _read(path) for path in dict.fromkeys(files.values())}
    return {(split, video): said for split, path in files.items() for video, said in read[path].items()}


def annotation_files(dataset: Path, given: str, splits: Sequence[str]) -> dict[str, Path]:
    """The files that say something of some splits.

    Parameters
    ----------
    dataset : Path
        Where nothing is given, its ``annotations/manual/PHOENIX-2014-T.{split}.corpus.csv`` or ``{split}.corpus.csv``
        are taken, those that are there; also where it is the ``features`` in which PHOENIX has its pictures.
    given : str
        One file for all splits, or the folder of such files; empty for none.
    splits : sequence of str
        Names.

    Returns
    -------
    dict of split to path
        Without the splits that have none.

    Raises
    ------
    UsageError
        There is no such file or folder as is given, it holds none of these, or a folder cannot be read.
    """
    if not given:
        root = Path(os.path.abspath(dataset))  # noqa: PTH100 - resolve() follows links
        return _in_folder((root, *root.parents, root)[_ABOVE.get(root.name, 0)] / _FOLDER, splits)
    path = Path(given)
    with _read_errors(path):
        if path.is_file():
            return dict.fromkeys(splits, path)
        if not path.is_dir():
            raise UsageError(f"{path}: no such file or folder; expected annotations, a CSV or a folder of them.")
    if not (found := _in_folder(path, splits)):
        wanted = " or ".join(name.format(split=f"{{{','.join(splits)}}}") for name in _NAMES)
        raise UsageError(f"{path}: no annotations in there; expected {wanted}. Name the file itself, or its folder.")
    return found


def annotations_digest(files: Mapping[str, Path]) -> str:
    """XXH3-128 of the splits' names and their files' bytes, 32 hexadecimal digits; empty without files.

    Raises
    ------
    UsageError
        A file cannot be read.
    """
    if not files:
        return ""
    with _read_errors(next(iter(files.values()))):
        return checksum_of({split: file_pieces(path) for split, path in files.items()})


def _in_folder(folder: Path, splits: Sequence[str]) -> dict[str, Path]:
    found = {}
    for split in splits:
        paths = (folder / name.format(split=split) for name in _NAMES)
        with _read_errors(folder):
            if path := next((path for path in paths if path.is_file()), None):
                found[split] = path
    return found


@contextmanager
def _read_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a :class:`UsageError` that names the file."""
    try:
        yield
    except OSError as error:
        raise UsageError(f"{error.filename or path}: cannot be read ({error.strerror}).") from error


def _read(path: Path) -> dict[str, Said]:
    """What a file says of each video."""
    text = _text(path)
    header = text.partition("\n")[0]
    delimiter = next((mark for mark in _DELIMITERS if mark in header), _DELIMITERS[0])
    source = io.StringIO(text, newline="")
    if delimiter == "|":
        reader = csv.reader(source, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    else:
        reader = csv.reader(source, delimiter=delimiter, strict=True)
    found: dict[str, Said] = {}
    lines: dict[str, int] = {}
    try:
        names = next(reader, [])
        places = _places(path, names)
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if not any(field.strip() for field in row):
                continue
            if len(row) != len(names):
                raise UsageError(f"{where}: has {len(row)} fields, expected {len(names)}, as the first line.")
            video, *said = (None if place is None else row[place] for place in places)
            video = (video or "").strip()
            if not video:
                raise UsageError(f"{where}: names no video; expected one in the column {names[places[0] or 0]}.")
            if found.setdefault(video, (said[0], said[1])) != (said[0], said[1]):
                raise UsageError(f"{where}: says of {video} something else than line {lines[video]}.")
            lines.setdefault(video, reader.line_num)
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: is no CSV ({error}).") from error
    return found


def _text(path: Path) -> str:
    with _read_errors(path):
        data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{path}, line {line}: expected UTF-8, found the byte 0x{data[error.start]:02x} ({error.reason}). "
            "Convert the file: iconv -t UTF-8."
        ) from error


def _places(path: Path, names: Sequence[str]) -> list[int | None]:
    """Column of the video, of the glosses and of the translation; None for one that is not there."""
    known = [name.strip().lower() for name in names]
    places = [next((known.index(name) for name in column if name in known), None) for column in _COLUMNS.values()]
    if places[0] is None or places[1:] == [None, None]:
        raise UsageError(
            f"{path}, line 1: names the columns {', '.join(names)[:200] or '(none)'}; expected name, orth and "
            "translation (or id and annotation), with | between them."
        )
    return places

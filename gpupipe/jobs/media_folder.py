"""A folder of pictures or of videos, and the folders in it, known by their names alone."""

from __future__ import annotations

import errno
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from gpupipe.errors import UsageError

PICTURE_SUFFIXES = ("png", "jpg", "jpeg", "bmp", "webp", "tif", "tiff")
VIDEO_SUFFIXES = (
    *("mp4", "mkv", "webm", "mov", "avi", "m4v", "mpg", "mpeg", "ts", "mts", "m2ts", "m2v", "vob"),
    *("wmv", "asf", "flv", "f4v", "3gp", "3g2", "ogv", "divx", "mxf", "nut"),
)

_IS_PICTURE = {**dict.fromkeys(PICTURE_SUFFIXES, True), **dict.fromkeys(VIDEO_SUFFIXES, False)}


class MediaFolder:
    """What is in a folder. Hidden names (``.``), other files and links to a folder above are not part of it.

    Parameters
    ----------
    root : Path
    path : str
        Relative to the root, with ``/``; empty for the root itself.

    Attributes
    ----------
    where : str
        Its path with the root's.
    folders : list of str
        Names, sorted; linked folders are among them.
    names : list of str
        Of its pictures, or of its videos, sorted.
    pictures : bool
        Whether `names` are pictures.

    Raises
    ------
    UsageError
        It holds pictures and videos, or it cannot be read.
    """

    def __init__(self, root: Path, path: str) -> None:
        self.root, self.path, self.where = root, path, str(root / path)
        self.folders: list[str] = []
        found: dict[bool, list[str]] = {True: [], False: []}
        try:
            with os.scandir(self.where) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    if _is_folder(entry):
                        if not (entry.is_symlink() and _is_above(self.where, entry.path)):
                            self.folders.append(name)
                    elif (picture := is_picture(name)) is not None:
                        found[picture].append(name)
        except OSError as error:
            raise UsageError(f"{error.filename or self.where}: cannot be read ({error.strerror}).") from error
        self.pictures = bool(found[True])
        self.names = found[self.pictures]
        self.names.sort()
        self.folders.sort()
        if found[True] and found[False]:
            raise UsageError(
                f"{self.where}: holds {self} and {_told(sorted(found[False]), False)}; expected one of the two. "
                "Move one of them elsewhere, or choose another folder."
            )

    def __str__(self) -> str:
        return _told(self.names, self.pictures)

    def below(self, name: str) -> MediaFolder:
        """The folder of that name in it."""
        return MediaFolder(self.root, posixpath.join(self.path, name))

    def first(self) -> MediaFolder | None:
        """Itself or the first folder below, however deep, that holds pictures or videos; None where none does.

        Raises
        ------
        UsageError
            As for itself, of a folder below.
        """
        if self.names:
            return self
        waiting, seen = self._paths(), set()
        while waiting:
            path = waiting.pop()
            real = os.path.realpath(self.root / path)
            if real not in seen:  # links may go round in circles
                seen.add(real)
                folder = MediaFolder(self.root, path)
                if folder.names:
                    return folder
                waiting += folder._paths()
        return None

    def _paths(self) -> list[str]:
        """Of its folders, the first one last."""
        return [posixpath.join(self.path, name) for name in reversed(self.folders)]


def is_picture(name: str) -> bool | None:
    """By a file's name: a picture, a video (False), or neither (None)."""
    stem, _, suffix = name.rpartition(".")
    return _IS_PICTURE.get(suffix.lower()) if stem else None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Asks the file system only about links."""
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link to itself: as one to nothing
            return False
        raise


def _is_above(folder: str, link: str) -> bool:
    """Whether the folder that is linked to is `folder`, or holds it."""
    here, there = os.path.realpath(folder), os.path.realpath(link)
    return os.path.commonpath((here, there)) == there


def _told(names: Sequence[str], pictures: bool) -> str:
    """How many, with an example."""
    word = "picture" if pictures else "video"
    return f"{len(names)} {word}{'s' if len(names) > 1 else ''} ({names[0]})"

"""From ``--dataset-path`` to clips: folders of pictures or video files, told apart and put in order by names alone.

Nothing is opened but a list of videos, and folders are asked for names only: a million pictures are planned in seconds,
with one folder of them in memory at a time.
"""

from __future__ import annotations

import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path

from gpupipe.errors import UsageError
from gpupipe.jobs.media_folder import VIDEO_SUFFIXES, MediaFolder, is_picture

STANDARD_SPLITS = ("train", "dev", "test")
ALL = "all"
"""The split of a source without splits."""

_PHOENIX = ("features/fullFrame-210x260px", "fullFrame-210x260px")
_INNER = "1"  # PHOENIX-2014 has its pictures in {video}/1/
_LONGEST_LINE = 1 << 16  # of a list; Linux takes 4096 bytes a path
_SHOWN = 10
_LAYOUTS = (
    "pictures ({split}/{video}/*.png, {video}/*.png or *.png), videos ({split}/*.mp4 or *.mp4), one video, "
    "or a text file that lists videos"
)


@dataclass(frozen=True, slots=True)
class SourceClip:
    """A clip of a dataset. Names that are not UTF-8 carry half surrogate pairs, as everywhere in Python: they open.

    Attributes
    ----------
    split : str
        Name of the split's folder; ``"all"`` where there are no splits.
    video : str
        Unique in its split: name of the folder of frames, or of the video without its suffix. Videos that have that in
        common keep their suffix, and where that tells them no more apart, all but the first are numbered from
        ``{video}~2`` on.
    path : str
        Of the folder of frames or the video, with ``/``, relative to :attr:`Clips.root`; empty for the root itself. Of
        a video in a list, as the list has it: it may be absolute.
    frames : tuple of str or None
        File names in `path`, sorted, at least one; None for a video.
    time : int
        How many times `path` came up to here; more than 1 only where a list names a video again.
    """

    split: str
    video: str
    path: str
    frames: tuple[str, ...] | None
    time: int = 1

    @property
    def id(self) -> str:
        """Unique in the dataset: its path, from the second time on with ``~2``, ``~3``, ..., as `video` has it."""
        return self.path if self.time == 1 else f"{self.path}~{self.time}"

    def frame_path(self, place: int) -> str:
        """Path of the picture at a place from 0, relative to :attr:`Clips.root`; only of a folder of frames."""
        assert self.frames is not None
        return posixpath.join(self.path, self.frames[place])


class Clips(Iterator[SourceClip]):
    """The clips of a dataset, one after the other; made by :func:`clips`.

    Attributes
    ----------
    root : Path
        The folder that paths are relative to: the dataset, or the folder in which its file lies.
    pictures : bool
        Whether its clips are folders of pictures; else they are videos.
    splits : tuple of str
        In the order in which they come; one may turn out to be empty.
    left_out : tuple of str
        Folders beside train, dev and test: they are taken only when they are asked for.
    empty : list of str
        Folders where a clip could be and is none, relative to the root; whole once all clips are out.
    """

    def __init__(self, dataset: Path, splits: Sequence[str] | None, max_videos: int | None) -> None:
        self.root = dataset
        self.pictures = False
        self.left_out: tuple[str, ...] = ()
        self.empty: list[str] = []
        self._folders = {ALL: ""}  # split to folder, relative to the root
        self._named = False
        self._listed: list[str] | None = None
        asked = tuple(splits or ())
        try:
            if dataset.is_dir():
                self._look(asked)
            elif dataset.is_file():
                self.root = dataset.parent
                self._folders = _chosen(asked, self._folders, str(dataset))
                self._listed = _listed(dataset)
            else:
                raise UsageError(f"{dataset}: no such file or folder; expected {_LAYOUTS}.")
        except OSError as error:
            raise UsageError(f"{error.filename or dataset}: cannot be read ({error.strerror}).") from error
        self.splits = tuple(self._folders)
        self._clips = (clip for split in self.splits for clip in islice(self._split(split), max_videos))

    def __next__(self) -> SourceClip:
        return next(self._clips)

    # ---- what the folders are

    def _look(self, asked: tuple[str, ...]) -> None:
        """Find the splits, and whether they hold pictures; looks into no more folders than that takes."""
        base = next((path for path in _PHOENIX if (self.root / path).is_dir()), "")
        top = MediaFolder(self.root, base)
        standard = [name for name in STANDARD_SPLITS if name in top.folders]
        names = [*standard, *(name for name in top.folders if name not in standard)]
        folders = {name: posixpath.join(base, name) for name in names}
        self._named = not top.names and any(name in folders for name in (*standard, *asked))
        if self._named:  # by their names these are splits, whatever is in them
            self._folders = _chosen(asked or tuple(standard), folders, top.where)
            self.left_out = () if asked else tuple(names[len(standard) :])
            found = next(filter(None, (MediaFolder(self.root, path).first() for path in self._folders.values())), None)
        else:
            self._folders = {ALL: base}
            if (found := top.first()) is not None:
                there = folders if _holds_splits(top, found) else self._folders
                self._folders = _chosen(asked, there, top.where)
        if found is None:
            looked = _several([str(self.root / path) for path in self._folders.values()])
            raise UsageError(f"{looked}: no pictures and no videos in there; expected {_LAYOUTS}.")
        self.pictures = found.pictures

    # ---- what is in them

    def _split(self, split: str) -> Iterator[SourceClip]:
        if self._listed is not None:
            yield from _videos(split, "", self._listed)
            return
        folder = MediaFolder(self.root, self._folders[split])
        if not folder.names:
            self.empty += [] if folder.folders else [folder.path]
            for name in folder.folders:
                yield from self._video(split, folder.below(name))
            return
        self._check(folder)
        if beside := next(filter(None, (folder.below(name).first() for name in folder.folders)), None):
            raise UsageError(
                f"{folder.where}: holds {folder}, and below it {beside.where} holds {beside}; expected clips on one "
                "level. Move one of the two elsewhere, or choose another folder."
            )
        if not self.pictures:
            yield from _videos(split, folder.path, sorted(folder.names, key=lambda name: (_stem(name), name)))
        elif self._named or split == ALL:
            yield SourceClip(split, _name(folder), folder.path, tuple(folder.names))
        else:
            raise UsageError(
                f"{folder.where}: holds {folder}, and folders beside it hold folders of pictures; expected "
                "{split}/{video}/ or {video}/ all through. Move one of the two elsewhere, or name splits with --splits."
            )

    def _video(self, split: str, folder: MediaFolder) -> Iterator[SourceClip]:
        """The clip of a folder of frames; none where it is empty."""
        inner = folder.below(_INNER) if folder.folders == [_INNER] and not folder.names else folder
        found = inner.first()
        if found is None:
            self.empty.append(folder.path)
            return
        self._check(found)
        if found is not inner or not self.pictures:
            raise UsageError(
                f"{found.where}: holds {found}, deeper than expected: {_LAYOUTS}. "
                "Choose the folder that holds the splits, the videos' folders or the videos."
            )
        yield SourceClip(split, posixpath.basename(folder.path), inner.path, tuple(inner.names))

    def _check(self, folder: MediaFolder) -> None:
        if folder.pictures != self.pictures:
            raise UsageError(
                f"{folder.where}: holds {folder}, other folders hold {'pictures' if self.pictures else 'videos'}; "
                "expected one of the two. Choose a folder that holds one, or name splits with --splits."
            )


def clips(dataset: Path, splits: Sequence[str] | None, max_videos: int | None) -> Clips:
    """The clips of a dataset by split, within it by the videos' names, found as they are asked for.

    ==========================================  ========================================================================
    Dataset                                     Clips
    ==========================================  ========================================================================
    ``{split}/{video}/*.png``                   a folder of pictures each
    ``{video}/*.png``                           the same, of the split "all"
    ``{split}/{video}/1/*.png``, ``{video}/1``  the same, as PHOENIX-2014 has it: ``1`` is all there is in the video
    ``*.png``                                   one, named after the folder, of the split "all"; so is in a tree with
                                                splits a split that holds pictures itself
    ``{split}/*.mp4``                           a video each
    ``*.mp4``, or one video                     the same, of the split "all"
    a text file                                 a video a line, in the list's order, of the split "all"; relative to the
                                                list's folder; blanks around, empty lines and lines with ``#`` are not
                                                part of it
    ==========================================  ========================================================================

    In each of them the tree may also lie in ``features/fullFrame-210x260px``, as PHOENIX has it, or in
    ``fullFrame-210x260px``. The first level is splits if one of its folders is ``train``, ``dev``, ``test`` or a split
    asked for, or if what it holds can be nothing else.

    Files are known by their suffix, in capitals or not (those of :mod:`gpupipe.jobs.media_folder`); a file with
    one of these that is no such file, or a link to nothing, is a clip's or frame's fault when it is read. Other files,
    hidden files and folders (``.``), folders within a folder of frames, and links to a folder above are passed over.
    Other linked folders are as folders. Names are sorted by their code points.

    Parameters
    ----------
    dataset : Path
        Folder or file.
    splits : sequence of str or None
        In the order wanted; None for those of train, dev and test that are there, or for all folders, sorted, where
        there is none of these.
    max_videos : int or None
        The first so many clips of each split; None for all.

    Raises
    ------
    UsageError
        Here: there is nothing of the kind, or not such a split; the list cannot be read or names what is no video. Here
        or when the iteration gets there: pictures and videos in one folder, or in one source; clips on more than one
        level, or deeper than above; a folder that cannot be read.
    """
    return Clips(dataset, splits, max_videos)


# ---- folders


def _holds_splits(top: MediaFolder, found: MediaFolder) -> bool:
    """Whether the folders in `top` are splits, where `found` is the first one that holds pictures or videos."""
    if found is top:
        return False
    if not found.pictures:
        return True
    if posixpath.dirname(found.path) == top.path:  # {video}/*.png
        return False
    videos = map(top.below, top.folders)
    return not all(video.names or video.folders in ([], [_INNER]) for video in videos)  # {video}/1/*.png


def _name(folder: MediaFolder) -> str:
    """Of the folder, though it were given as ``.`` or ``..``; a link's own, not that of what it leads to."""
    return posixpath.basename(os.path.abspath(folder.where)) or ALL  # noqa: PTH100 - resolve() follows links


def _chosen(asked: tuple[str, ...], there: dict[str, str], where: str) -> dict[str, str]:
    """The splits asked for, or all that are there."""
    for split in asked:
        if split not in there:
            raise UsageError(f"--splits {split}: there is no such split in {where}, but {_several(list(there))}.")
    return {split: there[split] for split in asked or there}


# ---- videos


def _videos(split: str, folder: str, names: Sequence[str]) -> Iterator[SourceClip]:
    times: Counter[str] = Counter()
    for video, name in zip(_distinct([posixpath.basename(name) for name in names]), names, strict=True):
        times[name] += 1
        yield SourceClip(split, video, posixpath.join(folder, name), None, times[name])


def _distinct(names: Sequence[str]) -> Iterator[str]:
    """An id for each file name; see :attr:`SourceClip.video`."""
    stems = [_stem(name) for name in names]
    by_stem, by_name = Counter(stems), Counter(names)
    plain = [stem if by_stem[stem] == 1 or by_name[name] > 1 else name for stem, name in zip(stems, names, strict=True)]
    taken, given = set(plain), set()
    numbers: dict[str, Iterator[int]] = defaultdict(lambda: count(2))
    for video in plain:
        if video in given:
            other = next(other for number in numbers[video] if (other := f"{video}~{number}") not in taken)
            taken.add(other)
            yield other
        else:
            given.add(video)
            yield video


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _listed(path: Path) -> list[str]:
    """The videos a file stands for: itself, or those it lists."""
    picture = is_picture(path.name)
    if picture is False:
        return [path.name]
    if picture:
        raise UsageError(f"{path}: is one picture; expected a folder of them. Choose the folder it is in.")
    found = []
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE), b""), 1):
            name = os.fsdecode(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line).strip()
            if name and not name.startswith("#"):
                if is_picture(posixpath.basename(name)) is not False:
                    raise UsageError(
                        f"{path}, line {number}: {name[:200]!r} is no video; expected a list of videos, a path a line "
                        f"that ends in one of .{', .'.join(VIDEO_SUFFIXES)}."
                    )
                found.append(name)
    if not found:
        raise UsageError(f"{path}: lists no videos; expected a path a line.")
    return found


def _several(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

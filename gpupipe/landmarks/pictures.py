"""The pictures that points were found in, wherever they lie now."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpupipe.closing import Closing
from gpupipe.decode.images import open_images
from gpupipe.errors import InputError, MissingInputError, UsageError
from gpupipe.video import Video, open_video

Pixels = npt.NDArray[np.uint8]

NOT_FOUND = "picture not found"
UNREADABLE = "picture cannot be read"

_OF_VIDEO = re.compile(r"(.+)#([0-9]{1,9})", re.DOTALL)
_BYTES_AT_A_TIME = 64 << 20


class Pictures(Closing):
    """Reads pictures by the paths that keypoint files give: a picture's own, or ``{video}#{frame}``.

    Parameters
    ----------
    root : Path, optional
        Where the dataset lies now. Of each path the longest end that is a file there is taken, else the path itself.
    stream : int, optional
        Of videos: index in the container; default the one FFmpeg calls best.
    """

    def __init__(self, root: Path | None = None, stream: int | None = None) -> None:
        self._root, self._stream = root, stream
        self._tail = 0  # parts of a path that came before the dataset's own, as last seen
        self._stills = open_images("cpu")
        self._video: tuple[Path, Video] | None = None

    def each(self, paths: Iterable[str]) -> Iterator[Pixels | str]:
        """Pictures in the order of their paths.

        Yields
        ------
        ndarray or str
            uint8 [H, W, 3], upright RGB; else why there is none, :data:`NOT_FOUND` or :data:`UNREADABLE`.
        """
        for video, group in groupby(map(_parse, paths), key=lambda place: place[0] if place[1] is not None else None):
            if video is None:
                yield from (self._still(path) for path, _ in group)
            else:
                yield from self._frames(video, [number for _, number in group if number is not None])

    def close(self) -> None:
        """Close what is open."""
        self._stills.close()
        if self._video is not None:
            self._video[1].close()
            self._video = None

    def _still(self, path: str) -> Pixels | str:
        try:
            return self._stills.decode(self._find(path)).rgb
        except MissingInputError:
            return NOT_FOUND
        except InputError:
            return UNREADABLE

    def _frames(self, path: str, numbers: list[int]) -> Iterator[Pixels | str]:
        try:
            video = self._open(self._find(path))
        except InputError as error:
            yield from [NOT_FOUND if isinstance(error, MissingInputError) else UNREADABLE] * len(numbers)
            return
        some = max(1, _BYTES_AT_A_TIME // (video.height * video.width * 3))
        for start in range(0, len(numbers), some):
            wanted = numbers[start : start + some]
            try:
                yield from video.frames(indices=wanted).data
            except (InputError, UsageError):  # of one of them, or they are of several sizes
                yield from (_frame(video, number) for number in wanted)

    def _open(self, path: Path) -> Video:
        if self._video is not None and self._video[0] == path:
            return self._video[1]
        if self._video is not None:
            self._video[1].close()
            self._video = None
        video = open_video(path, stream=self._stream)
        self._video = path, video
        return video

    def _find(self, path: str) -> Path:
        if self._root is None:
            return Path(path)
        parts = [part for part in Path(path).parts if part not in ("/", "..")]
        for tail in (self._tail, *range(len(parts))):
            found = self._root.joinpath(*parts[tail:])
            if tail < len(parts) and found.is_file():
                self._tail = tail
                return found
        return Path(path)


def _parse(path: str) -> tuple[str, int | None]:
    """A picture and None, or a video and the frame's number."""
    found = _OF_VIDEO.fullmatch(path)
    return (path, None) if found is None else (found[1], int(found[2]))


def _frame(video: Video, number: int) -> Pixels | str:
    try:
        return video[number].data
    except (InputError, UsageError):
        return UNREADABLE

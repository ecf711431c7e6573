"""``.pose`` files, one a video: format 0.2 of the pose-format package, laid out as by its MediaPipe converter.

Little-endian. Head: float32 version; uint16 width, height, depth; uint16 number of components; of each its name and
its format (uint16 length, UTF-8), uint16 numbers of points, lines and colours, the points' names, the lines as pairs
of uint16, the colours as triples of uint16. Body: float32 fps, uint32 frames, uint16 people, float32 [T, 1, K, 3]
coordinates, float32 [T, 1, K] confidence.
https://github.com/sign-language-processing/pose/blob/master/docs/specs/v0.2.md
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError, UsageError
from gpupipe.landmarks.clip import Clip, Landmarks
from gpupipe.landmarks.frame_rate import DEFAULT_FPS, Clock
from gpupipe.landmarks.names import chosen_splits, file_name, whole_videos
from gpupipe.landmarks.skeleton import (
    HAND_LINES,
    HAND_POINTS,
    POSE_LINES,
    POSE_POINTS,
    Lines,
    face_mesh,
    face_points,
    part_slices,
)
from gpupipe.ops.keypoints.points import PARTS, Floats
from gpupipe.sinks.files import create, output_errors, staged, write_at

_VERSION = 0.2
_FORMAT = "XYZC"
_COMPONENTS = {
    "pose": "POSE_LANDMARKS",
    "face": "FACE_LANDMARKS",
    "left_hand": "LEFT_HAND_LANDMARKS",
    "right_hand": "RIGHT_HAND_LANDMARKS",
}  # in the order of the files
_LARGEST = 0xFFFF
_FASTEST = 1e6
_FRAMES_AT_A_TIME = 1024

Colours = tuple[tuple[int, int, int], ...]


def _hand_colours() -> Colours:
    """One a point, as pose-format's: a hue a finger, brighter towards its tip (some exceed 255 there too)."""
    hues = ((192, 0, 0), (0, 0, 192), (0, 192, 0), (0, 192, 192))
    fingers = [(r + 35 * joint, g + 35 * joint, b + 35 * joint) for r, g, b in hues for joint in range(4)]
    return ((232, 232, 232), *fingers, (255, 128, 0), (255, 178, 102), (255, 153, 51), (255, 128, 0))


_COLOURS: dict[str, Colours] = {
    "pose": ((255, 0, 0),),
    "face": ((128, 0, 0),),
    "left_hand": _hand_colours(),
    "right_hand": _hand_colours(),
}


def write_pose_files(
    landmarks: Landmarks, folder: str | os.PathLike[str], fps: float | None = None, splits: Sequence[str] | None = None
) -> int:
    """Write ``{folder}/{split}/{video}.pose`` for every video of which a picture could be read.

    A file that is there is replaced; memory does not grow with the number of videos.

    Coordinates are x and y in pixels of the frame's own picture and MediaPipe's z; the file's width and height are
    the largest of its frames'. Confidence is 1 for points of a part that was found, the point's visibility for those
    of the body where the source has it, and 0, with zeros for coordinates, for all others.

    Parameters
    ----------
    landmarks : Landmarks
        Read once.
    folder : path
        Made if it is not there.
    fps : float, optional
        Frames a second to write into the files; default what each video's times say, 25 where it has none.
    splits : sequence of str, optional
        Default all.

    Returns
    -------
    int
        Files written.

    Raises
    ------
    UsageError
        There is no such split, or ``fps`` is no rate.
    InputError
        A name cannot be a file's, a video comes in two places, or the size of a picture with somebody in it is not
        known or does not fit the format.
    OutputError
    """
    if fps is not None and not 0 < fps < _FASTEST:
        raise UsageError(f"fps={fps}: expected a number above 0 and below {_FASTEST:.0f}")
    count = 0
    for split in chosen_splits(landmarks, splits):
        target = Path(folder) / file_name("split", split)
        with output_errors(target):
            target.mkdir(parents=True, exist_ok=True)
        for video, parts in whole_videos(landmarks, split):
            count += _write_file(pose_path(Path(folder), split, video), landmarks.points, parts, fps)
    return count


def pose_path(folder: Path, split: str, video: str) -> Path:
    """The file of a video; raises :class:`InputError` where a name cannot be a file's."""
    return folder / file_name("split", split) / f"{file_name('video', video)}.pose"


class _NothingReadable(Exception):
    """No picture of a video could be read."""


def _write_file(path: Path, points: int, parts: Iterable[Clip], fps: float | None) -> bool:
    """Write one file; False, and no file, where nothing could be read."""
    try:
        with output_errors(path), staged(path, None) as partial:
            _write_parts(partial, points, parts, fps)
    except _NothingReadable:
        with output_errors(path):
            path.unlink(missing_ok=True)
        return False
    return True


def _write_parts(partial: Path, points: int, parts: Iterable[Clip], fps: float | None) -> None:
    """Coordinates come first in the file and are written as they come; of the confidence, its sources are kept."""
    clock, sure, size, frames, readable = Clock(), [], np.zeros(2, np.int64), 0, False
    # The head's length does not depend on what is still to be found out: it is written last.
    offset = len(_head(points, size, 0.0, 0))
    fd = create(partial)
    try:
        for clip in parts:
            _check_sizes(clip)
            clock.add(clip.pts_seconds)
            size = np.maximum(size, clip.shapes.max(axis=0, initial=0))
            offset += write_at(fd, [_pixels(clip)], offset)
            sure.append((clip.valid.copy(), None if clip.visibility is None else clip.visibility.copy()))
            frames += len(clip)
            readable = readable or bool(clip.readable.any())
        if not readable:
            raise _NothingReadable
        for piece in _confidence(sure, points):
            offset += write_at(fd, [piece], offset)
        write_at(fd, [_head(points, size, fps or clock.rate or DEFAULT_FPS, frames)], 0)
    finally:
        os.close(fd)


def _check_sizes(clip: Clip) -> None:
    unknown = np.flatnonzero(clip.valid.any(axis=1) & (clip.shapes <= 0).any(axis=1))
    if len(unknown):
        raise InputError(
            f"{clip.split}/{clip.video}, {clip.paths[unknown[0]]}: the size of the picture is not in this file, and "
            ".pose files are in pixels; write them from a file that has image_shape, or from the folder"
        )
    largest = clip.shapes.max(initial=0)
    if largest > _LARGEST:
        raise InputError(f"{clip.split}/{clip.video}: a picture of {largest} pixels; .pose files take {_LARGEST}")


def _pixels(clip: Clip) -> Floats:
    """float32 [T, K, 3], part after part, zeros where nothing was found."""
    scale = np.ones((len(clip), 1, 3), np.float32)
    scale[:, 0, :2] = clip.shapes[:, ::-1]
    pixels = np.empty(clip.points.shape, "<f4")
    for part, source, place in _places(clip.points.shape[1]):
        np.multiply(clip.points[:, source], scale, out=pixels[:, place])
        pixels[~clip.valid[:, PARTS.index(part)], place] = 0
    return pixels


def _confidence(sure: Iterable[tuple[npt.NDArray[np.bool_], Floats | None]], points: int) -> Iterator[Floats]:
    """float32 [some frames, K], some at a time."""
    for valid, visibility in sure:
        for start in range(0, len(valid), _FRAMES_AT_A_TIME):
            some = slice(start, start + _FRAMES_AT_A_TIME)
            confidence = np.empty((len(valid[some]), points), "<f4")
            for part, _, place in _places(points):
                seen = 1 if part != "pose" or visibility is None else visibility[some]
                confidence[:, place] = valid[some, PARTS.index(part), None] * seen
            yield confidence


def _places(points: int) -> Iterator[tuple[str, slice, slice]]:
    """Each part, where it is among the points, and where in the file."""
    start = 0
    slices = part_slices(points)
    for part in _COMPONENTS:
        count = slices[part].stop - slices[part].start
        yield part, slices[part], slice(start, start + count)
        start += count


def _head(points: int, size: npt.NDArray[np.int64], fps: float, frames: int) -> bytes:
    height, width = (int(value) for value in size)
    opening = struct.pack("<fHHHH", _VERSION, width, height, 0, len(_COMPONENTS))
    return opening + _components(points) + struct.pack("<fIH", fps, frames, 1)


@cache
def _components(points: int) -> bytes:
    names: dict[str, Sequence[str]] = {
        "pose": POSE_POINTS,
        "face": [str(point) for point in face_points(points)],
        "left_hand": HAND_POINTS,
        "right_hand": HAND_POINTS,
    }
    lines: dict[str, Lines] = {
        "pose": POSE_LINES,
        "face": face_mesh(points),
        "left_hand": HAND_LINES,
        "right_hand": HAND_LINES,
    }
    pieces: list[bytes] = []
    for part, name in _COMPONENTS.items():
        counts = len(names[part]), len(lines[part]), len(_COLOURS[part])
        pieces += [_string(name), _string(_FORMAT), struct.pack("<HHH", *counts)]
        pieces += map(_string, names[part])
        pieces += [np.asarray(table, "<u2").tobytes() for table in (lines[part], _COLOURS[part])]
    return b"".join(pieces)


def _string(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<H", len(data)) + data

"""Keypoint files in words: what is in them, by split, by part and by video."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np

from gpupipe.landmarks.clip import Landmarks
from gpupipe.landmarks.dataset import LandmarkFile
from gpupipe.landmarks.names import chosen_splits
from gpupipe.landmarks.parts import Counts
from gpupipe.landmarks.shots import Shot, shots
from gpupipe.landmarks.skeleton import part_slices
from gpupipe.landmarks.tally import Spread, Tally
from gpupipe.ops.keypoints.points import PARTS, POINTS

WORDS = {"pose": "body", "left_hand": "left hand", "right_hand": "right hand", "face": "face"}
"""The parts as people read of them."""

_FIRST = 3  # frames shown of each split
_SIZES = 5  # picture sizes named


def check_lines(landmarks: LandmarkFile, splits: Sequence[str] | None = None) -> Iterator[str]:
    """A few lines a split, each when it has been read: videos, frames, in how many each part was found.

    Parameters
    ----------
    landmarks : LandmarkFile
        Read once.
    splits : sequence of str, optional
        Default all.

    Yields
    ------
    str
        One line.

    Raises
    ------
    UsageError
        There is no such split.
    InputError
        The file is damaged.
    """
    for split in chosen_splits(landmarks, splits):
        tally = Tally()
        for clip in landmarks.clips(split):
            tally.add(clip)
        yield from _split_lines(split, tally, landmarks.unlisted(split))


def view_lines(landmarks: LandmarkFile, splits: Sequence[str] | None = None, detailed: bool = False) -> Iterator[str]:
    """What is in a file: as :func:`check_lines`, and picture sizes, ranges of x, y and z, and the first frames.

    With `detailed` also a line for each video, as it is read, and means and deviations.
    """
    yield _points_line(landmarks)
    for split in chosen_splits(landmarks, splits):
        tally, spread, first = Tally(), Spread(), list[Shot]()
        for video, parts in groupby(landmarks.clips(split), key=lambda clip: clip.video):
            one = Tally()
            for clip in parts:
                one.add(clip)
                tally.add(clip)
                spread.add(clip)
                first += shots(clip, range(min(len(clip), _FIRST - len(first))))
            if detailed:
                yield _video_line(split, video, one)
        yield from _split_lines(split, tally, landmarks.unlisted(split))
        times = f"times of {tally.timed:,} frames" if tally.timed else "no times"
        yield f"  pictures (height x width): {_sizes(tally)}; {times}"
        yield from _spread_lines(spread, detailed)
        for shot in first:
            yield from _shot_lines(shot)


def _points_line(landmarks: Landmarks) -> str:
    slices = part_slices(landmarks.points)
    counts = ", ".join(f"{WORDS[part]} {slices[part].stop - slices[part].start}" for part in PARTS)
    kept = "" if landmarks.points == POINTS else " (of 468)"
    return f"splits {', '.join(landmarks.splits)}; {landmarks.points} points a frame: {counts}{kept}"


def _split_lines(split: str, tally: Tally, unlisted: Counts) -> Iterator[str]:
    counts = tally.counts
    yield f"{split}: {tally.videos:,} videos, {counts.total:,} frames"
    yield f"  found: {_shares(tally)}"
    if counts.nobody or counts.unreadable:
        yield f"  nobody in {counts.nobody:,} frames; {counts.unreadable:,} frames could not be read"
    if unlisted.total:
        told = unlisted.nobody + unlisted.unreadable
        why = f" ({unlisted.nobody:,} with nobody, {unlisted.unreadable:,} that could not be read)" if told else ""
        yield f"  {unlisted.total:,} more frames were left out of the file{why}"
    if math.isfinite(unlisted.seconds) and unlisted.seconds > 0:
        yield f"  took {unlisted.seconds:,.1f} s, as the file says"


def _shares(tally: Tally) -> str:
    total = max(1, tally.counts.total)
    return ", ".join(
        f"{WORDS[part]} {100 * found / total:.1f}%" for part, found in zip(PARTS, tally.found.tolist(), strict=True)
    )


def _video_line(split: str, video: str, tally: Tally) -> str:
    lost = "".join(
        f"; {count:,} {words}"
        for count, words in ((tally.counts.nobody, "with nobody"), (tally.counts.unreadable, "not read"))
        if count
    )
    return f"  {split}/{video}: {tally.counts.total:,} frames, {_sizes(tally)}; {_shares(tally)}{lost}"


def _sizes(tally: Tally) -> str:
    named = tally.sizes.most_common(_SIZES)
    if not named:
        return "sizes not known"
    more = len(tally.sizes) - len(named)
    words = [f"{height}x{width}" + ("" if len(named) == 1 else f" ({n:,})") for (height, width), n in named]
    return ", ".join(words) + (f" and {more} more" if more else "")


def _spread_lines(spread: Spread, detailed: bool) -> Iterator[str]:
    for number, part in enumerate(PARTS):
        if not spread.count[number]:
            continue
        ranges = _numbers("{:.3f} to {:.3f}", spread.low[number], spread.high[number])
        yield f"  {WORDS[part]}: {ranges}; {100 * spread.outside[number] / spread.count[number]:.1f}% beyond the edges"
        if detailed:
            means = _numbers("{:.3f}, {:.3f}", spread.mean[number], spread.deviation[number], "; ")
            yield f"    mean, deviation: {means}"
    if spread.broken:
        yield f"  {spread.broken:,} points are no numbers (NaN or infinite)"


def _numbers(form: str, one: np.ndarray, other: np.ndarray, between: str = ", ") -> str:
    return between.join(f"{axis} {form.format(a, b)}" for axis, a, b in zip("xyz", one, other, strict=True))


def _shot_lines(shot: Shot) -> Iterator[str]:
    height, width = shot.shape
    size = f"{height}x{width}" if min(shot.shape) > 0 else "size not known"
    yield f"  {shot.video}, {shot.path}: {size}{'' if shot.readable else ', could not be read'}"
    for part in PARTS:
        points = shot.part(part)
        if points is not None:
            yield f"    {WORDS[part]} [{len(points)}, 3], first ({', '.join(f'{value:.4f}' for value in points[0])})"

"""What people look at to judge keypoints: a contact sheet a split, and videos with the points drawn over them."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from itertools import chain
from pathlib import Path

from gpupipe.errors import UsageError
from gpupipe.landmarks.clip import Landmarks
from gpupipe.landmarks.contact_sheet import contact_sheet, png
from gpupipe.landmarks.frame_rate import DEFAULT_FPS, Clock
from gpupipe.landmarks.names import chosen_splits, file_name, whole_videos
from gpupipe.landmarks.overlay_video import write_overlay_video
from gpupipe.landmarks.pictures import Pictures
from gpupipe.landmarks.shots import Sample, sample
from gpupipe.sinks.files import output_errors, publish


def write_overlays(
    landmarks: Landmarks,
    folder: Path,
    *,
    num_samples: int = 10,
    splits: Sequence[str] | None = None,
    videos: Collection[str] = (),
    num_videos: int = 0,
    seed: int = 0,
    root: Path | None = None,
    stream: int | None = None,
    note: str = "",
) -> Iterator[Path]:
    """Write ``{folder}/{split}.png`` and ``{folder}/{split}/{video}.mp4`` (``.webm`` where H.264 cannot be written).

    Parameters
    ----------
    landmarks : Landmarks
        Read once, and once more for videos.
    folder : Path
        Made if it is not there.
    num_samples : int
        Frames on each sheet, chosen at random; 0 makes none.
    splits : sequence of str, optional
        Default all.
    videos : collection of str
        Videos to write, by their ids.
    num_videos : int
        So many more of each split, chosen at random.
    seed : int
        Of both choices.
    root : Path, optional
        Where the dataset's pictures lie now, if not where the file says.
    stream : int, optional
        Of videos, see :class:`gpupipe.landmarks.pictures.Pictures`.
    note : str
        Above each sheet.

    Yields
    ------
    Path
        Each file when it is there.

    Raises
    ------
    UsageError
        No such split or video, or a number below 0.
    InputError
        A name cannot be a file's, or a video comes in two places.
    OutputError
    """
    if num_samples < 0 or num_videos < 0:
        raise UsageError(f"{min(num_samples, num_videos)} samples or videos: expected 0 or more")
    found = {split: sample(landmarks.clips(split), num_samples, seed) for split in chosen_splits(landmarks, splits)}
    chosen = {split: _chosen(each, videos, num_videos, seed) for split, each in found.items()}
    for video in videos:
        if not any(video in there for there in chosen.values()):
            raise UsageError(f"video {video!r}: not in {', '.join(found) or 'this file, which has no splits'}")
    with output_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with Pictures(root, stream) as pictures:
        for split, each in found.items():
            if each.shots:
                path = folder / file_name("split", f"{split}.png")
                title = f"{split}: {len(each.shots)} of {each.frames} frames"
                publish(path, [png(contact_sheet(each.shots, pictures, title, note))])
                yield path
        for split, wanted in chosen.items():
            if wanted:
                yield from _write_videos(landmarks, folder / file_name("split", split), split, wanted, pictures)


def _chosen(found: Sample, videos: Collection[str], count: int, seed: int) -> set[str]:
    named = [video for video in found.videos if video in videos]
    others = [video for video in found.videos if video not in videos]
    return {*named, *random.Random(seed).sample(others, min(count, len(others)))}


def _write_videos(
    landmarks: Landmarks, folder: Path, split: str, wanted: set[str], pictures: Pictures
) -> Iterator[Path]:
    with output_errors(folder):
        folder.mkdir(exist_ok=True)
    left = set(wanted)
    for video, parts in whole_videos(landmarks, split):
        if video in wanted:
            first = next(parts)
            fps = Clock().add(first.pts_seconds).rate or DEFAULT_FPS
            yield write_overlay_video(folder / file_name("video", video), chain([first], parts), pictures, fps)
            left.discard(video)
        if not left:
            return

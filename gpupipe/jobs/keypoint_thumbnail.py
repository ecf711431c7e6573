"""Pictures of a keypoints output for people: frames of an item with their points drawn, read back from the output."""

from __future__ import annotations

import posixpath
from typing import Any

import numpy as np

from gpupipe.jobs.keypoint_work import CLIP_ROWS, PICTURE_ROWS
from gpupipe.jobs.thumbnail import COLUMNS, Picture, row_of_shard, strip
from gpupipe.landmarks.drawing import draw_person
from gpupipe.landmarks.pictures import Pictures
from gpupipe.landmarks.shots import Shot
from gpupipe.sinks.base import Place
from gpupipe.sinks.sequences import item_rows

SIDE = 320  # pixels of the longer one


def picture_thumbnail(place: Place, ordinal: int, item: Any, root: str) -> Picture | None:
    """One picture with its points.

    Parameters
    ----------
    place : Place
        Of the dataset.
    ordinal : int
        Of the item.
    item : Any
        As planned.
    root : str
        What its path is relative to.

    Returns
    -------
    numpy.ndarray or None
        uint8 [H, W, 3]; None where the picture cannot be read any more.

    Raises
    ------
    InputError, OSError
        What lies in the item's place cannot be read.
    """
    shard, row = divmod(ordinal, place.shard_size)
    rows = {spec.name: row_of_shard(place.out / f"{spec.name}-{shard:05d}.npy", row) for spec in PICTURE_ROWS}
    drawn = _drawn([(posixpath.join(root, item["path"]), rows)])
    return drawn[0] if drawn else None


def clip_thumbnail(place: Place, ordinal: int, item: Any, root: str, stream: int | None) -> Picture | None:
    """A few frames of a clip (of that stream of a video), side by side; see :func:`picture_thumbnail`."""
    rows = item_rows(place, ordinal, CLIP_ROWS)
    if rows is None:
        return None
    path = posixpath.join(root, item["path"])
    chosen = []
    for at in np.linspace(0, len(rows["frame"]) - 1, COLUMNS).astype(int):
        number = int(rows["frame"][at])
        name = posixpath.join(path, item["frames"][number]) if "frames" in item else f"{path}#{number}"
        chosen.append((name, {key: values[at] for key, values in rows.items()}))
    drawn = _drawn(chosen, stream)
    return strip(np.stack(drawn), COLUMNS) if len({picture.shape for picture in drawn}) == 1 else None


def _drawn(frames: list[tuple[str, dict[str, np.ndarray]]], stream: int | None = None) -> list[Picture]:
    from PIL import Image

    drawn = []
    with Pictures(stream=stream) as reader:
        pictures = reader.each(name for name, _ in frames)
        for (name, rows), picture in zip(frames, pictures, strict=True):
            if isinstance(picture, str):
                return []
            height, width = picture.shape[:2]
            scale = min(1.0, SIDE / max(height, width))
            made = Image.fromarray(picture).resize((max(1, round(width * scale)), max(1, round(height * scale))))
            shot = Shot("", "", name, rows["keypoints"], rows["valid"], rows["visibility"], (height, width), True)
            draw_person(made, shot)
            drawn.append(np.asarray(made))
    return drawn

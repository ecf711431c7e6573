"""Pictures of a clips output for people: a few frames of an item side by side, read back from where they lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpupipe.errors import InputError
from gpupipe.sinks import pickles
from gpupipe.sinks.base import Place
from gpupipe.sinks.segments import segments

Picture = npt.NDArray[np.uint8]

COLUMNS = 4
MAX_PICKLE_BYTES = 128 << 20  # a pickle is read whole, unlike arrays and tars


def thumbnail(place: Place, form: str, ordinal: int, name: str | None) -> Picture | None:
    """A few frames of one done item.

    Parameters
    ----------
    place : Place
        Of the dataset.
    form : str
        ``"samples"``, ``"npy"`` or ``"webdataset"``.
    ordinal : int
        Of the item.
    name : str or None
        Its blob name.

    Returns
    -------
    numpy.ndarray or None
        uint8 [H, W, 3]; None where the item is too large to be read for this.

    Raises
    ------
    InputError
        What lies there is no clip.
    OSError
        Nothing lies there, or it cannot be read.
    """
    if form == "npy":
        shard, row = divmod(ordinal, place.shard_size)
        array = row_of_shard(place.out / f"frames-{shard:05d}.npy", row)
    elif form == "webdataset":
        array = _of_tar(place, ordinal)
    else:
        path = place.out / (name or "") / "video_input.pkl"
        if path.stat().st_size > MAX_PICKLE_BYTES:
            return None
        with path.open("rb") as file:
            array = pickles.load(file)
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.ndim != 4 or 0 in array.shape:
        raise InputError(f"item {ordinal}: expected frames, uint8 [T, H, W, 3]; verify the output")
    if array.shape[3] != 3:
        raise InputError(f"item {ordinal}: expected frames of 3 channels, met {array.shape[3]}; verify the output")
    return strip(array, COLUMNS)


def strip(frames: Picture, columns: int, gap: int = 4, paper: int = 32) -> Picture:
    """Lay frames, evenly chosen, side by side.

    Parameters
    ----------
    frames : numpy.ndarray
        uint8 [T, H, W, 3].
    columns : int
        Frames to show; some come twice where there are fewer.
    gap, paper : int
        Pixels between two, and their grey.

    Returns
    -------
    numpy.ndarray
        uint8 [H, columns * (W + gap) - gap, 3].
    """
    _, height, width, _ = frames.shape
    sheet = np.full((height, columns * (width + gap) - gap, 3), paper, dtype=np.uint8)
    for column, index in enumerate(np.linspace(0, len(frames) - 1, columns).astype(int)):
        left = column * (width + gap)
        sheet[:, left : left + width] = frames[index]
    return sheet


def row_of_shard(path: Path, row: int) -> npt.NDArray[Any]:
    """A row of an array file, under its final name or while it is partial; see :func:`thumbnail` for errors."""
    partial = path.with_name(f"{path.name}.partial")
    # Where neither is there at these looks it was renamed between them, or is gone.
    there = next((one for one in (path, partial) if one.exists()), path)
    try:
        return np.asarray(np.load(there, mmap_mode="r", allow_pickle=False)[row])
    except (ValueError, IndexError) as error:
        raise InputError(f"{there}: {error}") from error


def _of_tar(place: Place, ordinal: int) -> Picture:
    """From the shard, or from the item's own segment while there is no shard yet."""
    tar = place.out / f"{ordinal // place.shard_size:05d}.tar"
    path = tar if tar.exists() else place.bookkeeping / "blobs" / f"{ordinal:08d}.tar"
    if not path.exists():
        path = tar
    with path.open("rb") as file:
        for segment in segments(file):
            for name, (start, _) in segment.places.items():
                if segment.ordinal == ordinal and name.endswith(".npy"):
                    return _member(path, start)
    raise InputError(f"{path}: item {ordinal} is not in it; verify the output")


def _member(path: Path, start: int) -> Picture:
    with path.open("rb") as file:
        file.seek(start)
        try:
            if np.lib.format.read_magic(file) != (1, 0):
                raise InputError(f"{path}: no array of this package at byte {start}")
            shape, _, dtype = np.lib.format.read_array_header_1_0(file)
            return np.asarray(np.memmap(path, dtype, "r", file.tell(), shape))
        except ValueError as error:
            raise InputError(f"{path}: {error}") from error

"""The pictures of one clip, one after the other: of a folder, or decoded from a video."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gpupipe import decode
from gpupipe.decode.base import Decoder, IndexMismatch
from gpupipe.decode.image_base import ImageDecoder
from gpupipe.decode.sampling import at_rate
from gpupipe.transform import Resizer


class ClipFrame(NamedTuple):
    """One picture of a clip.

    Attributes
    ----------
    place : int
        In the clip, from 0; 0 again where all before was void: the packets did not tell what is shown.
    number : int
        Of the frame in its video, in presentation order; the place again in a folder.
    pts_seconds : float
        NaN in a folder.
    rgb : ndarray, uint8 [H, W, 3]
        Upright.
    """

    place: int
    number: int
    pts_seconds: float
    rgb: npt.NDArray[np.uint8]


def pictures(folder: Path, names: Sequence[str], decoder: ImageDecoder) -> Iterator[ClipFrame]:
    """The pictures of a folder in the order of `names`.

    Raises
    ------
    InputError
        One of them cannot be read; the message names it.
    """
    for place, name in enumerate(names):
        yield ClipFrame(place, place, math.nan, decoder.decode(folder / name).rgb)


def video(path: Path, fps: float | None, stream: int | None, max_pixels: int) -> Iterator[ClipFrame]:
    """The pictures of a video, all of them or those on show at a rate; none comes twice.

    Parameters
    ----------
    path : Path
        Of the video.
    fps : float or None
        Pictures a second from the first one on; None for all.
    stream : int or None
        Index in the container; None for the one FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture.

    Raises
    ------
    InputError, OSError
        As :func:`gpupipe.decode.open` and the decoder raise.
    """
    with decode.open(path, "ffmpeg", stream, max_pixels) as decoder:
        try:
            yield from _read(decoder, fps)
        except IndexMismatch:  # counted now, and once is enough
            yield from _read(decoder, fps)


def _read(decoder: Decoder, fps: float | None) -> Iterator[ClipFrame]:
    resizer = Resizer(None)
    index = decoder.index
    chosen = np.arange(len(index)) if fps is None else np.unique(at_rate(index, fps))
    times = index.pts_seconds
    for place, (number, surface) in enumerate(decoder.frames(chosen)):
        rgb = np.empty((*surface.format.upright, 3), np.uint8)
        resizer.resize(surface, rgb)
        yield ClipFrame(place, number, float(times[number]), rgb)

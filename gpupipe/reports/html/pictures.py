"""The contact sheet: a seeded choice of done items, each a small JPEG inside the page."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange

from gpupipe.errors import InputError
from gpupipe.job import Job
from gpupipe.outcome import Outcome
from gpupipe.plan import Plan
from gpupipe.sinks.base import Place

MAX_WIDTH, MAX_HEIGHT = 640, 240
_QUALITY = 4  # of mjpeg, 1 is best


@dataclass(frozen=True)
class Card:
    """One item of the sheet.

    Attributes
    ----------
    ordinal : int
    id : str
    src : str
        A data URL; empty where there is no picture.
    size : (int, int)
        Height and width in pixels.
    why : str
        Why there is no picture.
    """

    ordinal: int
    id: str
    src: str = ""
    size: tuple[int, int] = (0, 0)
    why: str = ""


def choose(ordinals: npt.NDArray[np.int64], count: int, seed: int) -> list[int]:
    """So many of them at random, in their order; the same for the same seed."""
    chosen = np.random.default_rng(seed).choice(ordinals, min(count, len(ordinals)), replace=False)
    return sorted(map(int, chosen))


def card(job: Job, place: Place, plan: Plan, outcome: Outcome) -> Card:
    """The card of a done item."""
    ordinal, item = outcome.ordinal, plan.item(outcome.ordinal)
    name = job.item_id(ordinal, item)
    try:
        picture = job.thumbnail(place, ordinal, item, outcome)
    except (InputError, OSError) as error:  # damaged, or done anew this instant: judging that is not for a report
        return Card(ordinal, name, why=_why(error))
    if picture is None:
        return Card(ordinal, name, why="the job has no picture of it")
    src, size = jpeg_url(picture)
    return Card(ordinal, name, src, size)


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{Path(error.filename).name}: {error.strerror}"
    return str(error)


def jpeg_url(picture: npt.NDArray[np.uint8]) -> tuple[str, tuple[int, int]]:
    """A picture as a data URL, and its height and width there.

    Parameters
    ----------
    picture : numpy.ndarray
        uint8 [H, W, 3].
    """
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    scale = min(1.0, MAX_WIDTH / frame.width, MAX_HEIGHT / frame.height)
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    small = frame.reformat(
        width, height, "yuv420p", dst_color_range="JPEG", dst_colorspace="ITU601", interpolation="AREA"
    )
    small.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
    encoder.color_range = ColorRange.JPEG
    encoder.time_base = Fraction(1)
    encoder.qmin = encoder.qmax = _QUALITY
    data = b"".join(bytes(packet) for packet in [*encoder.encode(small), *encoder.encode(None)])
    return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}", (height, width)

"""A contact sheet of a dataset: a row a clip, as a PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gpupipe.demo.scenes import Picture
from gpupipe.jobs.thumbnail import strip
from gpupipe.sinks.files import publish

_GAP = 4
_PAPER, _HOLE = 32, 72


def contact_sheet(clips: Sequence[Picture | None], columns: int = 8) -> Picture:
    """Lay frames out, evenly chosen of each clip.

    Parameters
    ----------
    clips : sequence of uint8 [T, H, W, 3] or None
        None for a clip that failed: its row is a crossed-out grey.
    columns : int
        Frames of a clip to show.

    Returns
    -------
    uint8 [H', W', 3]
    """
    height, width = next((clip.shape[1:3] for clip in clips if clip is not None), (160, 256))
    sheet = np.full((len(clips) * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, 3), _PAPER, dtype=np.uint8)
    for row, clip in enumerate(clips):
        frames = _crossed_out(height, width)[None] if clip is None else clip
        top = _GAP + row * (height + _GAP)
        sheet[top : top + height, _GAP:-_GAP] = strip(frames, columns, _GAP, _PAPER)
    return sheet


def _crossed_out(height: int, width: int) -> Picture:
    y, x = np.mgrid[0:height, 0:width]
    slope = x * height / width
    line = (abs(y - slope) < 2) | (abs(height - y - slope) < 2)
    return np.where(line[..., None], np.uint8(160), np.full((height, width, 3), _HOLE, np.uint8))


def write_png(path: Path, picture: Picture) -> None:
    """Write an 8-bit RGB PNG (ISO/IEC 15948), unfiltered rows, one IDAT chunk."""
    height, width, _ = picture.shape
    rows = np.zeros((height, 1 + 3 * width), np.uint8)  # a filter byte, then the samples
    rows[:, 1:] = picture.reshape(height, -1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows.tobytes(), 6)), chunk(b"IEND", b"")]
    publish(path, [b"\x89PNG\r\n\x1a\n", *chunks])

"""Frames of a split side by side, each with its points, as one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpupipe.landmarks.drawing import FAINT, GROUND, INK, LINE_PIXELS, legend, tile, write
from gpupipe.landmarks.pictures import Pictures
from gpupipe.landmarks.shots import Shot

if TYPE_CHECKING:
    from PIL import Image

_COLUMNS = 4
_WIDTH, _TALLEST = 400, 520
_GAP = 8


def contact_sheet(shots: Sequence[Shot], pictures: Pictures, title: str, note: str) -> Image.Image:
    """Lay frames out, four a row, under a title and what the colours mean.

    Parameters
    ----------
    shots : sequence of Shot
        At least one.
    pictures : Pictures
        Where their pictures come from.
    title, note : str
        Above them: what it is, and more about it.

    Returns
    -------
    Image
        RGB.
    """
    from PIL import Image, ImageDraw

    columns = min(_COLUMNS, len(shots))
    rows = [shots[start : start + columns] for start in range(0, len(shots), columns)]
    width = columns * (_WIDTH + _GAP) + _GAP
    words = legend(width)
    bands: list[Image.Image] = []
    for row in rows:
        found = list(pictures.each(shot.path for shot in row))
        shapes = [shot.shape if isinstance(each, str) else each.shape for shot, each in zip(row, found, strict=True)]
        height = max(min(_TALLEST, round(_WIDTH * shape[0] / shape[1])) if min(shape) else 0 for shape in shapes)
        tiles = [tile(shot, each, (height or _WIDTH, _WIDTH)) for shot, each in zip(row, found, strict=True)]
        band = Image.new("RGB", (width, tiles[0].height), GROUND)
        for column, each_tile in enumerate(tiles):
            band.paste(each_tile, (_GAP + column * (_WIDTH + _GAP), 0))
        bands.append(band)
    top = LINE_PIXELS + 6 + words.height
    sheet = Image.new("RGB", (width, top + sum(band.height + _GAP for band in bands)), GROUND)
    write(ImageDraw.Draw(sheet), (6, 4), [(title, INK), (note, FAINT)], width - 12)
    sheet.paste(words, (0, LINE_PIXELS + 4))
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height + _GAP
    return sheet


def png(picture: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()

"""A person's points drawn over their picture, so that left and right and the alignment are seen at a glance.

What is the person's own left has one colour in all parts, what is their right another; hands are also lettered.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.pictures import Pixels
from gpupipe.landmarks.shots import Shot
from gpupipe.landmarks.skeleton import HAND_LINES, POSE_LINES, face_outlines
from gpupipe.ops.keypoints.points import PARTS, Floats
from gpupipe.types import Size

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

Colour = tuple[int, int, int]

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")  # names of files may hold line feeds, which would be drawn over other lines

LEFT: Colour = (255, 140, 0)
RIGHT: Colour = (0, 190, 255)
MIDDLE: Colour = (120, 235, 120)
GROUND: Colour = (30, 32, 38)
INK: Colour = (235, 235, 235)
FAINT: Colour = (150, 152, 160)

LEGEND = (
    ("left hand and arm (left = the person's own left)", LEFT),
    ("right hand and arm", RIGHT),
    ("face and trunk", MIDDLE),
)

LINE_PIXELS = 18
"""Height of a line of text."""

_TEXT_PIXELS = 14
_SIDES = {"left": LEFT, "right": RIGHT, "middle": MIDDLE}
_FINER = 2  # drawn so much larger, then made smaller: smooth edges
_SEEN = 0.5  # visibility from which a joint is drawn in full
_HIDDEN_ALPHA = 60
_SHADOW = (0, 0, 0, 120)
_PLAIN_SIZE = 300  # the smaller side of a picture whose thin lines are a pixel wide
_MARGIN = 26  # thin lines around the points, for the letters
_LARGE_FACE, _LARGE_HAND = 50, 45  # thin lines high or wide: from there with all their points, with full lines
_MANY = 100  # points of a face that in a small one would be a blot
_TIPS = (4, 8, 12, 16, 20)
_LEFT_OF_HEAD, _RIGHT_OF_HEAD = (1, 2, 3, 7, 9), (4, 5, 6, 8, 10)


def tile(shot: Shot, picture: Pixels | str, size: Size) -> Image.Image:
    """The points over the picture, with the video, the frame and what is missing below.

    Parameters
    ----------
    shot : Shot
        The points.
    picture : ndarray or str
        uint8 [H, W, 3]; else, in words, why there is none: then the ground is dark.
    size : (int, int)
        (height, width) in pixels for the picture, which fills one of them.

    Returns
    -------
    Image
        RGB, `size` and three lines of words.
    """
    from PIL import Image, ImageDraw

    height, width = size
    made = Image.new("RGB", (width, height + 3 * LINE_PIXELS + 4), GROUND)
    shape = shot.shape if isinstance(picture, str) else picture.shape[:2]
    high, wide = _fitted(shape if min(shape) > 0 else (1, 1), size)
    if isinstance(picture, str):
        ground = Image.new("RGB", (wide, high), tuple(value // 2 for value in GROUND))
    else:
        ground = Image.fromarray(picture).resize((wide, high), Image.Resampling.BICUBIC)
    draw_person(ground, shot)
    made.paste(ground, ((width - wide) // 2, 0))
    words = missing(shot) or [("all parts found", FAINT)]
    if isinstance(picture, str) and shot.readable:
        words.append((picture, FAINT))
    pen = ImageDraw.Draw(made)
    for number, line in enumerate(([(shot.video, INK)], [(shot.frame, FAINT)], words)):
        write(pen, (6, high + 3 + number * LINE_PIXELS), line, width - 12)
    return made


def missing(shot: Shot) -> list[tuple[str, Colour]]:
    """What was not found, in words, each with its colour; nothing where all was."""
    if not shot.readable:
        return [("the picture could not be read", INK)]
    if not shot.valid.any():
        return [("nobody found", INK)]
    colours = {"pose": MIDDLE, "left_hand": LEFT, "right_hand": RIGHT, "face": MIDDLE}
    lost = [part for part, found in zip(PARTS, shot.valid, strict=True) if not found]
    return [(f"no {part.replace('pose', 'body').replace('_', ' ')}", colours[part]) for part in lost]


def legend(width: int) -> Image.Image:
    """What the colours mean; RGB, `width` pixels wide, as many lines as that takes."""
    from PIL import Image, ImageDraw

    font = _font(_TEXT_PIXELS)
    places, x, line = [], 6, 0
    for text, _ in LEGEND:
        needed = round(font.getlength(text)) + 36
        if x > 6 and x + needed > width:
            x, line = 6, line + 1
        places.append((x, line))
        x += needed
    made = Image.new("RGB", (width, (line + 1) * LINE_PIXELS + 6), GROUND)
    pen = ImageDraw.Draw(made)
    for (text, colour), (x, line) in zip(LEGEND, places, strict=True):
        top = line * LINE_PIXELS + 3
        pen.rectangle((x, top + 4, x + 12, top + 14), fill=colour)
        pen.text((x + 18, top), text, fill=INK, font=font)
    return made


def write(pen: ImageDraw.ImageDraw, at: tuple[int, int], words: list[tuple[str, Colour]], width: int) -> None:
    """Write words one after the other, with commas; what does not fit into `width` pixels is cut in its middle."""
    font = _font(_TEXT_PIXELS)
    x, y = at
    for number, (text, colour) in enumerate(words):
        comma = ", " if number + 1 < len(words) else ""
        shown = _shortened(_CONTROL.sub(" ", text) + comma, font, width - (x - at[0]))
        pen.text((x, y), shown, fill=colour, font=font)
        x += round(font.getlength(shown))


def draw_person(picture: Image.Image, shot: Shot) -> None:
    """Draw the points over an RGB picture of any size."""
    from PIL import Image, ImageDraw

    figure = _Figure(shot, (picture.height, picture.width))
    left, top, right, bottom = box = figure.box()
    if left >= right or top >= bottom:
        return
    layer = Image.new("RGBA", ((right - left) * _FINER, (bottom - top) * _FINER), (0, 0, 0, 0))
    figure.draw(ImageDraw.Draw(layer), (left, top))
    layer = layer.resize((right - left, bottom - top), Image.Resampling.BOX)
    picture.paste(layer, box, layer)


class _Figure:
    """One person in a picture of that size; all lengths are those of a picture `_FINER` times as large."""

    _pen: ImageDraw.ImageDraw

    def __init__(self, shot: Shot, size: Size) -> None:
        self._shot = shot
        self._size = size
        self._scale = np.array([size[1], size[0]], np.float32) * _FINER
        self._unit = _FINER * max(0.6, (min(size) / _PLAIN_SIZE) ** 0.7)  # the width of a thin line
        self._corner = np.zeros(2, np.float32)

    def box(self) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of what is drawn, within the picture, in its own pixels; empty for nobody."""
        there = [points[:, :2] for part in PARTS if (points := self._shot.part(part)) is not None]
        if not there:
            return 0, 0, 0, 0
        at = self._pixels(np.concatenate(there)) / _FINER
        at = at[np.isfinite(at).all(axis=1)]
        if not len(at):
            return 0, 0, 0, 0
        around = _MARGIN * self._unit / _FINER
        low, high = np.floor(at.min(axis=0) - around), np.ceil(at.max(axis=0) + around)
        return (
            max(0, int(low[0])),
            max(0, int(low[1])),
            min(self._size[1], int(high[0])),
            min(self._size[0], int(high[1])),
        )

    def draw(self, pen: ImageDraw.ImageDraw, corner: tuple[int, int]) -> None:
        """Draw on a layer whose corner lies there in the picture; what matters most comes last, on top."""
        self._pen, self._corner = pen, np.array(corner, np.float32) * _FINER
        pose = self._shot.part("pose")
        if pose is not None:
            self._draw_pose(pose)
        face = self._shot.part("face")
        if face is not None:
            self._draw_face(face)
        badges = []
        for side in ("left", "right"):
            hand = self._shot.part(f"{side}_hand")
            if hand is not None:
                badges.append((side, *self._draw_hand(hand, _SIDES[side])))
        self._draw_badges(badges)

    def _draw_pose(self, pose: Floats) -> None:
        at = self._pixels(pose)
        seen = np.ones(len(pose)) if self._shot.visibility is None else self._shot.visibility
        face = self._shot.part("face") is not None
        lines = [(a, b) for a, b in POSE_LINES if not (face and max(a, b) <= 10)]  # the face's own points say more
        clear = [(a, b) for a, b in lines if min(seen[a], seen[b]) >= _SEEN]
        for a, b in clear:
            self._line(at[a], at[b], None, 2.4 if _fine(a, b) else 4)
        for a, b in lines:
            alpha = 255 if (a, b) in clear else _HIDDEN_ALPHA
            self._line(at[a], at[b], _SIDES[_side(a, b)], 1.2 if _fine(a, b) else 2.4, alpha)
        for joint in range(11 if face else 0, len(pose)):
            alpha = 255 if seen[joint] >= _SEEN else _HIDDEN_ALPHA
            self._dot(at[joint], _SIDES[_side(joint, joint)], 1.6 if _fine(joint, joint) else 2.8, alpha)

    def _draw_face(self, face: Floats) -> None:
        at = self._pixels(face)
        if len(at) < _MANY or np.ptp(at[:, 1]) > _LARGE_FACE * self._unit:
            for point in at:
                self._dot(point, MIDDLE, 0.5, 120)
        for side, lines in face_outlines(len(self._shot.points)).items():
            for a, b in lines:
                self._line(at[a], at[b], _SIDES[side], 1.0, 200)

    def _draw_hand(self, hand: Floats, colour: Colour) -> tuple[Floats, float]:
        """Returns where its letter belongs, float32 [2], and the radius of that."""
        at = self._pixels(hand)
        size = min(1.0, float(np.ptp(at, axis=0).max()) / (_LARGE_HAND * self._unit))
        for a, b in HAND_LINES:
            self._line(at[a], at[b], None, 3.4 * size)
        for a, b in HAND_LINES:
            self._line(at[a], at[b], colour, 1.8 * size)
        for number, point in enumerate(at):
            self._dot(point, INK if number in _TIPS else colour, 1.4 * size)
        away = at[0] - at[9]  # from the fingers to behind the wrist
        away /= max(float(np.hypot(*away)), 1e-6)
        radius = max(5.5, 7 * size) * self._unit
        return at[0] + away * 1.6 * radius, radius

    def _draw_badges(self, badges: list[tuple[str, Floats, float]]) -> None:
        if len(badges) == 2:
            (_, one, radius), (_, other, other_radius) = badges
            apart = other - one
            missing = radius + other_radius - float(np.hypot(*apart))
            if missing > 0:  # neither hides the other
                apart = apart / np.hypot(*apart) if apart.any() else np.array([-1, 0], np.float32)
                one -= apart * missing / 2
                other += apart * missing / 2
        for side, (x, y), r in badges:
            if not np.isfinite([x, y, r]).all():
                continue
            self._pen.ellipse((x - r, y - r, x + r, y + r), fill=(*_SIDES[side], 255), outline=_SHADOW)
            self._pen.text((x, y), side[0].upper(), fill=(0, 0, 0, 255), font=_font(round(1.5 * r)), anchor="mm")

    def _pixels(self, points: Floats) -> Floats:
        """float32 [n, 2]; far outside is brought near, where it is not seen either; NaN, which is not drawn, stays."""
        bound = 10 * self._scale
        return np.asarray(np.clip(points[:, :2] * self._scale, -bound, bound) - self._corner, np.float32)

    def _line(self, a: Floats, b: Floats, colour: Colour | None, width: float, alpha: int = 255) -> None:
        ink = _SHADOW if colour is None else (*colour, alpha)
        if np.isfinite(a).all() and np.isfinite(b).all():
            self._pen.line((*map(float, a), *map(float, b)), fill=ink, width=max(1, round(width * self._unit)))

    def _dot(self, at: Floats, colour: Colour, radius: float, alpha: int = 255) -> None:
        x, y, r = float(at[0]), float(at[1]), radius * self._unit
        if np.isfinite(at).all():
            self._pen.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, alpha))


def _fine(a: int, b: int) -> bool:
    """Whether a line of the pose is in the head or in a hand."""
    return max(a, b) <= 10 or (min(a, b) >= 15 and max(a, b) <= 22)


def _side(a: int, b: int) -> str:
    """Whose side a line of the pose is on; of its points from 11 on the odd ones are left."""
    sides = {
        "left" if point in _LEFT_OF_HEAD or (point > 10 and point % 2) else "right" if point else "middle"
        for point in (a, b)
    }
    return sides.pop() if len(sides) == 1 else "middle"


def _fitted(shape: npt.ArrayLike, size: Size) -> Size:
    """The largest size of that shape within `size`."""
    high, wide = (float(value) for value in np.asarray(shape))
    scale = min(size[0] / high, size[1] / wide)
    return max(1, round(high * scale)), max(1, round(wide * scale))


def _font(pixels: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    from PIL import ImageFont

    return ImageFont.load_default(max(6, pixels))


def _shortened(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 0, -1):
        shown = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
        if font.getlength(shown) <= width:
            return shown
    return ""

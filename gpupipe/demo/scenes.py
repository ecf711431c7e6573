"""Moving pictures from formulas: what the demo's clips show. Each carries its frame number in the top left corner."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpupipe.types import Size

Picture = npt.NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""
Plane = npt.NDArray[np.float32]
Scene = Callable[[float, Size], Plane]
"""``(seconds, (height, width))`` to float32 [H, W, 3], 0 to 1."""

# Three columns by five rows a digit.
_DIGITS = (
    *("111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001"),
    *("111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111"),
)


def draw(scene: Scene, number: int, seconds: float, size: Size) -> Picture:
    """Draw one frame with its number on it."""
    picture = (np.clip(scene(seconds, size), 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    unit = max(1, min(size) // 45)
    label = _label(f"{number:03d}").repeat(unit, axis=0).repeat(unit, axis=1)
    height, width = label.shape
    picture[unit : unit + height, unit : unit + width] = label[..., None]
    return picture


def _label(text: str) -> Picture:
    """White digits on black, one blank column and row around each."""
    canvas = np.zeros((7, 4 * len(text) + 1), np.uint8)
    for place, digit in enumerate(text):
        bits = np.array([int(bit) for bit in _DIGITS[int(digit)]], np.uint8).reshape(5, 3)
        canvas[1:6, 4 * place + 1 : 4 * place + 4] = bits * 255
    return canvas


@functools.lru_cache(maxsize=2)
def _grid(size: Size) -> tuple[Plane, Plane]:
    """Coordinates: y from -1 at the top to 1, x in the same unit."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return (2 * y - height) / height, (2 * x - width) / height


def _palette(value: Plane, phase: float = 0.0) -> Plane:
    """A smooth round of colours; `value` in turns."""
    turn = 2 * np.pi * (value[..., None] + np.array([0.0, 0.33, 0.67], np.float32) + phase)
    return np.asarray(0.5 + 0.5 * np.cos(turn), np.float32)


def sunset(seconds: float, size: Size) -> Plane:
    """A low sun over moving water."""
    y, x = _grid(size)
    height = 0.15 - 0.06 * seconds
    below = np.maximum(y - 0.1, 0.0)
    ripple = 0.06 * np.sin(40.0 * y / (0.3 + below) + 5.0 * seconds) + 0.04 * np.sin(9.0 * x + 3.0 * seconds)
    mirrored = np.where(y > 0.1, 0.2 - y + ripple * below * 3.0, y)
    sun = np.exp(-9.0 * ((x + ripple * (y > 0.1) * 2.0) ** 2 + (mirrored + height) ** 2))
    sky = np.stack([0.75 + 0.35 * mirrored, 0.32 + 0.45 * mirrored, 0.42 - 0.15 * mirrored], axis=-1)
    shade = np.where(y > 0.1, 0.62 + 0.6 * ripple, 1.0)[..., None]
    return np.asarray(sky * shade + sun[..., None] * np.array([0.9, 0.6, 0.25]), np.float32)


def julia(seconds: float, size: Size) -> Plane:
    """A Julia set whose parameter walks round a circle; drawn at half size."""
    y, x = _grid((size[0] // 2, size[1] // 2))
    z = (1.25 * x + 1.25j * y).astype(np.complex64)
    c = np.complex64(0.7885 * np.exp(1j * (2.2 + 0.25 * seconds)))
    count = np.zeros(z.shape, np.float32)
    for _ in range(28):
        z = z * z + c
        inside = z.real**2 + z.imag**2 < 16.0
        count += inside
        z = np.where(inside, z, np.complex64(4.0))
    light = (count / 28.0)[..., None]
    picture = _palette(0.5 + count / 40.0, 0.05 * seconds) * np.sqrt(light)
    return np.asarray(picture.repeat(2, axis=0).repeat(2, axis=1), np.float32)


def lava(seconds: float, size: Size) -> Plane:
    """Warm drops that rise and sink."""
    y, x = _grid(size)
    heat = np.zeros(size, np.float32)
    for drop in range(7):
        cx = 0.32 * np.sin(1.7 * drop + 0.6 * seconds)
        cy = 0.85 * np.sin(2.3 * drop + (0.5 + 0.11 * drop) * seconds)
        heat += (0.018 + 0.005 * (drop % 3)) / ((x - cx) ** 2 + (y - cy) ** 2 + 0.004)
    glow = 1.0 / (1.0 + np.exp(-6.0 * (heat - 1.0)))
    drops = np.stack([1.1 * glow, glow * (0.3 + 0.25 * y), 0.12 * glow], axis=-1)
    back = np.stack([0.16 - 0.05 * y, 0.05 + 0.0 * y, 0.28 + 0.1 * y], axis=-1)
    return np.asarray(drops + back * (1.0 - glow[..., None]), np.float32)


def orbits(seconds: float, size: Size) -> Plane:
    """Planets with tails round a sun."""
    y, x = _grid(size)
    light = 0.015 / (x**2 + y**2 + 0.01)
    picture = light[..., None] * np.array([1.0, 0.85, 0.5], np.float32)
    for planet, (radius, speed) in enumerate(((0.35, 2.4), (0.6, 1.5), (0.85, 0.9), (1.2, 0.6))):
        tail = np.zeros(size, np.float32)
        for step in range(10):
            angle, spread = speed * (seconds - 0.035 * step) + 1.9 * planet, 0.004 - 0.0003 * step
            down = np.exp(-((y[:, :1] - 0.75 * radius * np.sin(angle)) ** 2) / spread)
            across = np.exp(-((x[:1] - radius * np.cos(angle)) ** 2) / spread)
            tail += 0.5 * 0.9**step * down * across
        picture += tail[..., None] * _palette(np.full((1, 1), planet / 4.0, np.float32))
    return np.asarray(picture, np.float32)


def tunnel(seconds: float, size: Size) -> Plane:
    """A flight through a chequered tunnel."""
    y, x = _grid(size)
    x = x - 0.25 * np.sin(0.9 * seconds)
    radius = np.sqrt(x**2 + y**2) + 1e-3
    along, around = 0.6 / radius + 1.5 * seconds, np.arctan2(y, x) / np.pi + 0.1 * seconds
    tiles = 0.5 + 0.5 * np.sin(np.pi * 2 * along) * np.sin(np.pi * 6 * around)
    depth = np.clip(1.4 * radius, 0.0, 1.0)
    return np.asarray(_palette(0.1 * along + 0.15 * tiles) * (depth * (0.45 + 0.55 * tiles))[..., None], np.float32)


def plasma(seconds: float, size: Size) -> Plane:
    """Waves of colour that run through each other."""
    y, x = _grid(size)
    value = np.sin(3.0 * x + seconds) + np.sin(2.5 * y - 1.3 * seconds) + np.sin(2.0 * (x + y) + 0.7 * seconds)
    return _palette(np.asarray(value / 5.0, np.float32), 0.05 * seconds)

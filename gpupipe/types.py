"""The nouns that cross module borders: a stream's facts and a decoded surface.

Sizes are ``(height, width)``; times are seconds; presentation timestamps are in stream time-base units.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

Size = tuple[int, int]
"""``(height, width)`` in pixels."""


@dataclass(frozen=True, slots=True)
class Colour:
    """How a surface's samples become R'G'B'.

    Attributes
    ----------
    matrix : str
        FFmpeg's name of the matrix coefficients (``"bt709"``, ``"smpte170m"``, ``"bt2020nc"``, ``"gbr"``,
        ...), ``"unknown"`` where the stream does not say.
    full_range : bool
        True where code 0 is black and the highest code is white.
    siting : str
        Chroma sample location, FFmpeg's names: ``"left"``, ``"center"``, ``"topleft"``, ``"top"``,
        ``"bottomleft"``, ``"bottom"``.
    """

    matrix: str = "unknown"
    full_range: bool = False
    siting: str = "left"


@dataclass(frozen=True, slots=True)
class SurfaceFormat:
    """Everything about a surface but its bytes; hashable, so that resize plans are kept by it.

    Attributes
    ----------
    height, width : int
        Visible size in samples of the first plane, as decoded (before rotation).
    layout : str
        FFmpeg's pixel format name: ``"yuv420p"``, ``"nv12"``, ``"p010le"``, ``"gray"``, ``"gbrp"``, ...
    colour : Colour
    rotation : int
        Clockwise degrees (0, 90, 180, 270) that turn the decoded picture upright.
    mirrored : bool
        True if the decoded picture is flipped left to right before that rotation.
    """

    height: int
    width: int
    layout: str
    colour: Colour = Colour()
    rotation: int = 0
    mirrored: bool = False

    @property
    def upright(self) -> Size:
        """``(height, width)`` of the picture as shown."""
        return (self.width, self.height) if self.rotation in (90, 270) else (self.height, self.width)


@dataclass(frozen=True, slots=True)
class Surface:
    """One decoded picture, in the decoder's own memory.

    Attributes
    ----------
    format : SurfaceFormat
    planes : sequence of buffers
        One object with the buffer protocol a plane (host memory), first visible row first.
    strides : sequence of int
        Bytes from one row to the next, by plane.
    pts : int or None
        Presentation timestamp in stream time-base units.
    owner : object
        Keeps the memory alive as long as the surface is.
    """

    format: SurfaceFormat
    planes: Sequence[Any]
    strides: Sequence[int]
    pts: int | None = None
    owner: object = None


@dataclass(frozen=True, slots=True)
class DeviceSurface:
    """One decoded picture in a device's memory.

    Attributes
    ----------
    format : SurfaceFormat
    pointers : sequence of int
        Device address of each plane's first visible row.
    strides : sequence of int
        Bytes from one row to the next, by plane.
    pts : int or None
        Presentation timestamp in stream time-base units.
    owner : object
        Keeps the memory alive as long as the surface is; says itself how it is given back.
    """

    format: SurfaceFormat
    pointers: Sequence[int]
    strides: Sequence[int]
    pts: int | None = None
    owner: object = None


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """Facts of one video stream, as its headers give them. The frame count is the reader's ``len()``.

    Attributes
    ----------
    path : str
    stream : int
        Index of the stream in its container.
    container, codec : str
        FFmpeg's names (``"mov,mp4,m4a,3gp,3g2,mj2"``, ``"h264"``).
    profile : str or None
    layout : str or None
        Pixel format the header names; None where only decoding tells.
    height, width : int
        Coded picture size before rotation.
    rotation : int
        Clockwise degrees (0, 90, 180, 270) that turn the picture upright.
    mirrored : bool
    fps : float or None
        Average frame rate the container names; None where it names none.
    time_base : Fraction
        Seconds of one pts unit.
    start_seconds : float or None
        Time of the first picture by the header.
    duration_seconds : float or None
    colour : Colour
    transfer : str
        FFmpeg's name of the transfer characteristics (``"bt709"``, ``"smpte2084"``, ...); kept, never applied.
    bits : int or None
        Bits a sample by the header.
    """

    path: str
    stream: int
    container: str
    codec: str
    profile: str | None
    layout: str | None
    height: int
    width: int
    rotation: int
    mirrored: bool
    fps: float | None
    time_base: Fraction
    start_seconds: float | None
    duration_seconds: float | None
    colour: Colour
    transfer: str
    bits: int | None

    @property
    def upright(self) -> Size:
        """``(height, width)`` as shown."""
        return (self.width, self.height) if self.rotation in (90, 270) else (self.height, self.width)

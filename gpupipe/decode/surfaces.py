"""Frames of libavcodec as surfaces."""

from __future__ import annotations

from typing import Any

import numpy as np
from av.video.frame import VideoFrame

from gpupipe.decode.facts import colour_of
from gpupipe.decode.ffmpeg_file import MediaFile, orientation_of
from gpupipe.errors import UnsupportedError
from gpupipe.layouts import native_layout
from gpupipe.types import Surface, SurfaceFormat


class Surfaces:
    """Makes the surfaces of one stream's frames: planes in the decoder's memory.

    Parameters
    ----------
    media : MediaFile
    """

    def __init__(self, media: MediaFile) -> None:
        self._media = media
        self._formats: dict[tuple[object, ...], SurfaceFormat] = {}

    def of(self, frame: VideoFrame, pts: int | None, first: bool) -> Surface:
        """Make the surface of a frame.

        Parameters
        ----------
        frame : av.VideoFrame
            Whose memory the surface keeps.
        pts : int or None
            Stream units.
        first : bool
            It is the stream's first.

        Raises
        ------
        UnsupportedError
            Its pixel format is not understood.
        """
        name = frame.format.name
        turned = orientation_of(frame) or (self._media.info.rotation, self._media.info.mirrored)
        if first:
            self._media.turn(*turned)
        key = (name, frame.height, frame.width, frame.colorspace, frame.color_range, turned)
        made = self._formats.get(key)
        if made is None:
            siting, codec = self._media.facts.colour.siting, self._media.facts.codec
            colour = colour_of(name, frame.colorspace, frame.color_range, siting, codec)
            try:
                layout = native_layout(name)
            except UnsupportedError as error:
                raise UnsupportedError(f"{self._media.name}: {error}") from error
            made = SurfaceFormat(frame.height, frame.width, layout, colour, *turned)
            self._formats[key] = made
        if made.layout != name:
            frame = frame.reformat(format=made.layout)
        planes: list[Any] = []
        strides: list[int] = []
        for plane in frame.planes:
            stride = plane.line_size
            if stride < 0:  # stored from the bottom up
                rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -stride)
                planes.append(rows[::-1].tobytes())
            else:
                planes.append(plane)
            strides.append(abs(stride))
        return Surface(made, planes, strides, pts, frame)

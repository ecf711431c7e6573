"""The truth that backends are held to: a plain, full decode with PyAV."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np

from gpupipe.layouts import layout_of, native_layout
from gpupipe.types import Surface


def visible(layout: str, height: int, width: int, planes: Sequence[Any], strides: Sequence[int]) -> str:
    """Digest of the bytes that are seen: no padding, whatever the strides."""
    format = av.VideoFormat(layout, width, height)
    digest = hashlib.md5()
    count = max(c.plane for c in format.components) + 1
    for number in range(count):
        parts = [c for c in format.components if c.plane == number]
        if count == 1:
            nbytes = (width * format.padded_bits_per_pixel + 7) // 8
        else:
            nbytes = parts[0].width * len(parts) * (2 if parts[0].bits > 8 else 1)
        rows = np.frombuffer(memoryview(planes[number]), np.uint8)
        rows = rows[: parts[0].height * strides[number]].reshape(parts[0].height, strides[number])
        digest.update(np.ascontiguousarray(rows[:, :nbytes]))
    return digest.hexdigest()


_PLANAR = {
    "nv12": "yuv420p", "p010le": "yuv420p10le", "p012le": "yuv420p12le",
    "nv16": "yuv422p", "p210le": "yuv422p10le", "p212le": "yuv422p12le",
    "yuv444p10msble": "yuv444p10le", "yuv444p12msble": "yuv444p12le",
}  # fmt: skip


def of_surface(surface: Surface) -> str:
    """Digest of a surface; of a card's layouts that of FFmpeg's with the same samples."""
    format = surface.format
    if format.layout in _PLANAR:
        planes = _planar(surface)
        name = _PLANAR[format.layout]
        return visible(name, format.height, format.width, planes, [plane.shape[1] for plane in planes])
    return visible(format.layout, format.height, format.width, surface.planes, surface.strides)


def _planar(surface: Surface) -> list[np.ndarray]:
    """The planes Y, U and V, samples in the low bits, as rows of bytes."""
    layout = layout_of(surface.format.layout)
    planes = []
    for component in layout.components:
        rows = np.frombuffer(memoryview(surface.planes[component.plane]), np.uint8)
        rows = rows[: len(rows) // surface.strides[component.plane] * surface.strides[component.plane]]
        words = rows.reshape(-1, surface.strides[component.plane]).view("<u2" if layout.word_bytes == 2 else np.uint8)
        samples = words[:, component.offset :: component.step] >> layout.shift
        planes.append(np.ascontiguousarray(samples).view(np.uint8))
    return planes


def of_frame(frame: av.VideoFrame) -> str:
    """Digest of a PyAV frame, in the native layout."""
    native = native_layout(frame.format.name)
    if native != frame.format.name:
        frame = frame.reformat(format=native)
    planes: list[Any] = []
    for plane in frame.planes:
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, abs(plane.line_size))
        planes.append(np.ascontiguousarray(rows[::-1] if plane.line_size < 0 else rows).reshape(-1))
    return visible(native, frame.height, frame.width, planes, [abs(p.line_size) for p in frame.planes])


@functools.cache
def full(path: Path, stream: int | None = None) -> tuple[str, ...]:
    """Digests of all pictures of a stream, in the order in which a plain decode shows them."""
    with av.open(str(path)) as container:
        chosen = container.streams[stream] if stream is not None else container.streams.best("video")
        chosen.codec_context.thread_count = 1
        return tuple(of_frame(frame) for frame in container.decode(chosen))

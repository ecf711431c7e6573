"""Makes small clips whose frame number is in their pixels: every codec and container that PyAV can write.

A picture is a 16-bit number in two rows of eight blocks (bright is 1), over a texture that moves. :func:`read_number`
finds it again in RGB or luma, after any lossy codec at sane quality, at any size from about 64 x 48 on.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

os.environ.setdefault("SVT_LOG", "0")  # the AV1 encoder writes to stderr otherwise

_BITS = 16
_COLUMNS = 8
_DARK, _BRIGHT = 48, 208


@dataclass(frozen=True)
class Clip:
    """What to encode.

    Attributes
    ----------
    codec : str
        PyAV encoder (``"libx264"``).
    suffix : str
        Chooses the container (``"mp4"``).
    count : int
        Frames.
    size : (int, int)
        (height, width) in pixels.
    layout : str
        Pixel format to encode.
    options : mapping
        Of the encoder.
    muxer : mapping
        Of the container.
    gop, b_frames : int or None
        Distance of keyframes, and pictures that may be reordered between others; None leaves the encoder's own choice.
    rate : Fraction
        Frames a second.
    pts : sequence of int or None
        Timestamps in units of 1/1000 s, one a frame; None counts at ``rate``.
    turn : int
        Counterclockwise degrees of the display matrix; 0 writes none.
    flip : bool
        Mirror left to right in the display matrix.
    first : int
        Number in the first frame.
    """

    codec: str = "libx264"
    suffix: str = "mp4"
    count: int = 40
    size: tuple[int, int] = (96, 128)
    layout: str = "yuv420p"
    options: Mapping[str, str] = field(default_factory=dict)
    muxer: Mapping[str, str] = field(default_factory=dict)
    gop: int | None = None
    b_frames: int | None = None
    rate: Fraction = Fraction(25)
    pts: Sequence[int] | None = None
    turn: int = 0
    flip: bool = False
    first: int = 0


@functools.lru_cache(maxsize=8)
def _texture(size: tuple[int, int]) -> Pixels:
    """Smooth blobs of colour, twice as wide as the picture so that it can move."""
    height, width = size
    random = np.random.default_rng(7)
    coarse = random.integers(40, 216, (height // 8 + 2, width // 4 + 2, 3)).astype(np.float32)
    rows = np.linspace(0, coarse.shape[0] - 1.001, height)
    columns = np.linspace(0, coarse.shape[1] - 1.001, 2 * width)
    r, c = rows.astype(int), columns.astype(int)
    fr, fc = (rows - r)[:, None, None], (columns - c)[None, :, None]
    top = coarse[r][:, c] * (1 - fc) + coarse[r][:, c + 1] * fc
    low = coarse[r + 1][:, c] * (1 - fc) + coarse[r + 1][:, c + 1] * fc
    return np.asarray(top * (1 - fr) + low * fr, np.uint8)


def picture(number: int, size: tuple[int, int]) -> Pixels:
    """Draw a frame.

    Parameters
    ----------
    number : int
        0 to 65535.
    size : (int, int)
        (height, width) in pixels.

    Returns
    -------
    uint8 [H, W, 3]
        RGB.
    """
    height, width = size
    shift = (3 * number) % width
    image = _texture(size)[:, shift : shift + width].copy()
    band = height // 2
    image[:band] = _DARK
    for bit in range(_BITS):
        if number >> bit & 1:
            top, left, bottom, right = _block(bit, band, width)
            image[top:bottom, left:right] = _BRIGHT
    return image


def read_number(image: npt.NDArray[Any]) -> int:
    """Read the number of a frame.

    Parameters
    ----------
    image : uint8 [H, W, 3] or [H, W]
        RGB or luma, upright as drawn, at any size.
    """
    gray = image if image.ndim == 2 else image.mean(axis=2)
    height, width = gray.shape
    number = 0
    for bit in range(_BITS):
        top, left, bottom, right = _block(bit, height // 2, width)
        dy, dx = (bottom - top) // 4, (right - left) // 4
        if gray[top + dy : bottom - dy, left + dx : right - dx].mean() > (_DARK + _BRIGHT) / 2:
            number |= 1 << bit
    return number


def _block(bit: int, band: int, width: int) -> tuple[int, int, int, int]:
    row, column = divmod(bit, _COLUMNS)
    rows = _BITS // _COLUMNS
    return band * row // rows, width * column // _COLUMNS, band * (row + 1) // rows, width * (column + 1) // _COLUMNS


def encode(path: Path, clip: Clip, *more: Clip, audio: bool = False) -> Path:
    """Write a clip; further ones become further video streams of the same file.

    Returns
    -------
    Path
        ``path``
    """
    clips = (clip, *more)
    with av.open(str(path), "w", options=dict(clip.muxer)) as container:
        streams = [_add_stream(container, each) for each in clips]
        sound = (
            container.add_stream("aac" if path.suffix in (".mp4", ".mov", ".mkv") else "mp2", rate=48000)
            if audio
            else None
        )
        for number in range(max(each.count for each in clips)):
            for stream, each in zip(streams, clips, strict=True):
                if number < each.count:
                    container.mux(stream.encode(_frame(each, number)))
        for stream in streams:
            container.mux(stream.encode(None))
        if sound is not None:
            _write_sound(container, sound, clip)
    return path


def _add_stream(container: Any, clip: Clip) -> Any:
    options = dict(clip.options)
    if clip.codec == "libx265":
        options["x265-params"] = ":".join(filter(None, ("log-level=none", options.get("x265-params"))))
    stream = container.add_stream(clip.codec, rate=clip.rate, options=options)
    stream.height, stream.width = clip.size
    stream.pix_fmt = clip.layout
    stream.codec_context.thread_count = 1
    if clip.pts is not None:
        stream.codec_context.time_base = Fraction(1, 1000)
    if clip.gop is not None:
        stream.codec_context.gop_size = clip.gop
    if clip.b_frames is not None:
        stream.codec_context.max_b_frames = clip.b_frames
    if clip.turn or clip.flip:
        stream.set_display_rotation(clip.turn, hflip=clip.flip)
    return stream


def _frame(clip: Clip, number: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(picture(clip.first + number, clip.size), format="rgb24")
    if clip.layout == "pal8":
        frame = _with_palette(picture(clip.first + number, clip.size))
    elif clip.layout != "rgb24":
        frame = frame.reformat(format=clip.layout)
    if clip.pts is None:
        frame.pts, frame.time_base = number, 1 / clip.rate
    else:
        frame.pts, frame.time_base = clip.pts[number], Fraction(1, 1000)
    return frame


def _with_palette(image: Pixels) -> av.VideoFrame:
    """Quantise to 6 x 6 x 6 colours."""
    height, width = image.shape[:2]
    frame = av.VideoFrame(width, height, "pal8")
    steps = (image.astype(np.int32) + 25) // 51
    index = (steps[..., 0] * 36 + steps[..., 1] * 6 + steps[..., 2]).astype(np.uint8)
    stride = frame.planes[0].line_size
    rows = np.zeros((height, stride), np.uint8)
    rows[:, :width] = index
    frame.planes[0].update(rows.tobytes())
    colours = np.arange(256).clip(0, 215)
    red, green, blue = colours // 36 * 51, colours // 6 % 6 * 51, colours % 6 * 51
    frame.planes[1].update((0xFF000000 | red << 16 | green << 8 | blue).astype(np.uint32).tobytes())
    return frame


def _write_sound(container: Any, stream: Any, clip: Clip) -> None:
    layout = "stereo"
    samples = int(48000 * clip.count / clip.rate)
    wave = (8000 * np.sin(np.arange(samples) * 0.05)).astype(np.int16)
    for start in range(0, samples, 1152):
        part = np.repeat(wave[start : start + 1152], 2)[None]
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(part), format="s16", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def sound_only(path: Path) -> Path:
    """Write a file with an audio stream and nothing else."""
    with av.open(str(path), "w") as container:
        _write_sound(container, container.add_stream("aac", rate=48000), Clip())
    return path


def truncate(source: Path, target: Path, share: float) -> Path:
    """Copy the first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target


def remux(source: Path, target: Path, change: Callable[[int, bytes], bytes | None] | None = None, **muxer: str) -> Path:
    """Copy the packets of a file's first video stream into another container.

    Parameters
    ----------
    source, target : Path
        The suffix of ``target`` chooses its container.
    change : callable of (packet number, payload), optional
        Gives the payload to write; None leaves the packet out.
    muxer : str
        Options of the container.
    """
    with av.open(str(source)) as reader, av.open(str(target), "w", options=muxer) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        number = 0
        for packet in reader.demux(stream):
            if packet.dts is None:
                continue
            payload: bytes | None = bytes(packet)
            if change is not None:
                payload = change(number, bytes(packet))
            number += 1
            if payload is None:
                continue
            fresh = av.Packet(payload)
            fresh.pts, fresh.dts, fresh.time_base = packet.pts, packet.dts, packet.time_base
            fresh.is_keyframe = packet.is_keyframe
            if packet.duration:
                fresh.duration = packet.duration
            fresh.stream = copy
            writer.mux(fresh)
    return target


def flip_bits(data: bytes, seed: int, count: int = 8, start: int = 32) -> bytes:
    """Damage a payload behind its first bytes."""
    random = np.random.default_rng(seed)
    damaged = bytearray(data)
    first = min(start, len(damaged) - 1)
    for at in random.integers(first, len(damaged), count):
        damaged[at] ^= 1 << int(random.integers(8))
    return bytes(damaged)


def concatenate(target: Path, parts: Iterable[Path]) -> Path:
    """Put files one after the other, as transport and elementary streams allow."""
    target.write_bytes(b"".join(part.read_bytes() for part in parts))
    return target


def variable(clip: Clip) -> Clip:
    """The same clip with timestamps that are not evenly spaced."""
    random = np.random.default_rng(3)
    return replace(clip, pts=tuple(np.cumsum(random.integers(5, 200, clip.count)).tolist()))

"""A video with the points of every frame drawn over it, to be watched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpupipe.errors import UsageError
from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.drawing import GROUND, legend, tile
from gpupipe.landmarks.pictures import Pictures
from gpupipe.landmarks.shots import shots
from gpupipe.sinks.files import output_errors, staged

if TYPE_CHECKING:
    from PIL import Image

_ENCODERS = (
    ("libx264", "mp4", {"crf": "20", "preset": "veryfast"}),
    ("libvpx-vp9", "webm", {"crf": "30", "b:v": "0", "deadline": "realtime", "cpu-used": "6"}),
)
_LARGEST = (720, 960)
_NARROWEST = 480  # takes the legend in two lines
_SLOWEST, _FASTEST = 0.1, 240.0  # frames a second that players take
_MUXER = {"mp4": {"movflags": "faststart"}, "webm": {}}


def write_overlay_video(stem: Path, parts: Iterable[Clip], pictures: Pictures, fps: float) -> Path:
    """Write one video: every frame of the clip, the legend above, its words below.

    Parameters
    ----------
    stem : Path
        The file's without its suffix, which is ``.mp4`` (H.264), or ``.webm`` (VP9) where H.264 cannot be written. Its
        folder is there.
    parts : iterable of Clip
        At least one frame of one video.
    pictures : Pictures
        Where their pictures come from.
    fps : float
        Frames a second; each frame is shown for as long.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    UsageError
        This PyAV has neither encoder.
    OutputError
    """
    import av

    codec, suffix, options = _encoder()
    path = stem.with_name(f"{stem.name}.{suffix}")
    rate = Fraction(min(max(fps, _SLOWEST), _FASTEST)).limit_denominator(1001)
    with (
        output_errors(path),
        staged(path, None) as partial,
        av.open(str(partial), "w", format=suffix, options=_MUXER[suffix]) as container,
    ):
        stream: Any = None
        for number, page in enumerate(_pages(parts, pictures)):
            if stream is None:
                stream = container.add_stream(codec, rate=rate, options=options)
                stream.width, stream.height, stream.pix_fmt = page.width, page.height, "yuv420p"
                stream.codec_context.thread_count = 1  # the same bytes each time
            frame = av.VideoFrame.from_ndarray(np.asarray(page), format="rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def _encoder() -> tuple[str, str, dict[str, str]]:
    import av

    for codec, suffix, options in _ENCODERS:
        if codec in av.codecs_available:
            return codec, suffix, options
    names = " nor ".join(codec for codec, _, _ in _ENCODERS)
    raise UsageError(
        f"this PyAV has neither {names}, so no video can be written; install the one of PyPI: pip install av"
    )


def _pages(parts: Iterable[Clip], pictures: Pictures) -> Iterator[Image.Image]:
    """All of one size, even in both directions as 4:2:0 wants it."""
    from PIL import Image

    page: Image.Image | None = None
    for clip in parts:
        for shot, picture in zip(shots(clip), pictures.each(clip.paths), strict=True):
            if page is None:
                size = _size(shot.shape if isinstance(picture, str) else picture.shape[:2])
                above = legend(size[1])
                first = tile(shot, picture, size)
                page = Image.new("RGB", (size[1], (above.height + first.height + 1) // 2 * 2), GROUND)
                page.paste(above, (0, 0))
            page.paste(tile(shot, picture, size), (0, above.height))
            yield page


def _size(shape: tuple[int, ...]) -> tuple[int, int]:
    """(height, width) for the picture: as large as is allowed in its own shape, not too narrow for the words."""
    high, wide = shape if min(shape) > 0 else _LARGEST
    scale = min(_LARGEST[0] / high, _LARGEST[1] / wide)
    return max(1, round(high * scale)), max(_NARROWEST, round(wide * scale) // 2 * 2)

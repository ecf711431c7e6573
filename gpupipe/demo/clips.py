"""The demo's clips: what each is made of, and their encoding through PyAV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from gpupipe.demo import scenes
from gpupipe.types import Size

_MILLISECOND = Fraction(1, 1000)


def _even(number: int) -> int:
    return number * 40


def _uneven(number: int) -> int:
    # Swings between 20 and 80 ms a frame, as a phone does between light and dark.
    return round(50 * number + 150 * float(np.sin(number / 5)))


@dataclass(frozen=True)
class DemoClip:
    """One clip to make.

    Attributes
    ----------
    vid : str
    about : str
        What is special about the file, for people.
    transcript : str
        The text of the pair.
    scene : callable
        See :data:`gpupipe.demo.scenes.Scene`.
    codec : str
        PyAV encoder.
    options : dict
        Of the encoder.
    layout : str
        Pixel format.
    count : int
        Frames.
    size : (int, int)
        (height, width) upright.
    pts : callable
        Milliseconds of a frame.
    turned : bool
        Stored lying on its side with a rotation tag, as phones do.
    share : float
        Of the file's bytes to keep; below 1 the file is broken.
    """

    vid: str
    about: str
    transcript: str
    scene: scenes.Scene
    codec: str
    options: dict[str, str]
    layout: str = "yuv420p"
    count: int = 125
    size: Size = (360, 640)
    pts: Callable[[int], int] = _even
    turned: bool = False
    share: float = 1.0

    @property
    def file_name(self) -> str:
        """``{vid}_{begin}_{end}.mp4``, whole seconds."""
        return f"{self.vid}_0_{self.pts(self.count) // 1000}.mp4"

    def pair(self) -> dict[str, Any]:
        """Its entry in pairs.json."""
        return {
            "vid": self.vid,
            "clip_path": f"clips/{self.file_name}",
            "transcript": self.transcript,
            "begin_time": 0,
            "end_time": self.pts(self.count) / 1000,
        }

    def make(self, folder: Path) -> bool:
        """Encode it, unless it is there already: a file appears under its name only when it is whole."""
        path = folder / self.file_name
        if path.exists():
            return False
        partial = path.with_suffix(".partial")
        self._encode(partial)
        if self.share < 1:
            data = partial.read_bytes()
            partial.write_bytes(data[: int(len(data) * self.share)])
        partial.rename(path)
        return True

    def _encode(self, path: Path) -> None:
        with av.open(str(path), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream: Any = container.add_stream(self.codec, rate=25, options=self.options)
            stream.height, stream.width = self.size[::-1] if self.turned else self.size
            stream.pix_fmt = self.layout
            stream.codec_context.time_base = _MILLISECOND
            if self.turned:
                stream.set_display_rotation(-90)
            for number in range(self.count):
                milliseconds = self.pts(number)
                picture = scenes.draw(self.scene, number, milliseconds / 1000, self.size)
                if self.turned:
                    picture = np.rot90(picture)
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
                frame = frame.reformat(format=self.layout)
                frame.pts, frame.time_base = milliseconds, _MILLISECOND
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))


_H264 = {"preset": "veryfast", "crf": "20", "bf": "3", "g": "50", "x264-params": "b-pyramid=normal:log-level=-1"}

CLIPS = (
    DemoClip(
        "sunset", "H.264 with B-frames", "a low sun over the water 🌅, and the waves come and go",
        scenes.sunset, "libx264", _H264,
    ),
    DemoClip(
        "julia", "VP9", "a fractal unfolds and folds again",
        scenes.julia, "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "32", "b": "0"},
    ),
    DemoClip(
        "tunnel", "HEVC, 10 bits", "we fly through a chequered tunnel",
        scenes.tunnel, "libx265", {"preset": "ultrafast", "crf": "22", "x265-params": "log-level=none"}, "yuv420p10le",
    ),
    DemoClip(
        "lava", "portrait, stored on its side with a rotation tag", "drops of lava rise and sink in a tall lamp",
        scenes.lava, "libx264", _H264, size=(640, 360), turned=True,
    ),
    DemoClip(
        "orbits", "variable frame rate, 20 to 80 ms a frame", "four planets round a small sun",
        scenes.orbits, "libx264", _H264, pts=_uneven,
    ),
    DemoClip(
        "broken", "truncated: half of the file is missing", "this download was cut off",
        scenes.plasma, "libx264", _H264, share=0.5,
    ),
)  # fmt: skip
BROKEN = frozenset(clip.vid for clip in CLIPS if clip.share < 1)
"""The clips that fail, as they should."""

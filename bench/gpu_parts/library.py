"""The clips that the parts decode, made by PyAV in the folder that they share, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import av

from bench.media import _SUFFIXES, _synth
from gpupipe.machine import usable_cores
from gpupipe.types import Size

T = TypeVar("T")
U = TypeVar("U")

_VPX = {"cpu-used": "8", "deadline": "realtime"}
KINDS: dict[str, dict[str, Any]] = {
    "h264": {"codec": "libx264", "b_frames": 3, "gop": 30, "options": {"preset": "veryfast"}},
    "h264 10 bit": {"codec": "libx264", "b_frames": 3, "layout": "yuv420p10le", "options": {"preset": "veryfast"}},
    "hevc": {"codec": "libx265", "b_frames": 3, "gop": 30, "options": {"preset": "ultrafast"}},
    "hevc 10 bit": {"codec": "libx265", "b_frames": 3, "layout": "yuv420p10le", "options": {"preset": "ultrafast"}},
    "hevc 4:4:4": {"codec": "libx265", "layout": "yuv444p", "options": {"preset": "ultrafast"}},
    "vp8": {"codec": "libvpx", "suffix": "webm", "options": _VPX},
    "vp9": {"codec": "libvpx-vp9", "suffix": "webm", "options": _VPX},
    "vp9 10 bit": {
        "codec": "libvpx-vp9",
        "suffix": "webm",
        "layout": "yuv420p10le",
        "options": {**_VPX, "profile": "2"},
    },
    "av1": {"codec": "libsvtav1", "suffix": "mp4", "options": {"preset": "12"}},
    "av1 10 bit": {"codec": "libsvtav1", "suffix": "mp4", "layout": "yuv420p10le", "options": {"preset": "12"}},
}
"""By name: what makes a clip of it."""

_LONG_SIDE = {"preset": "veryfast", "x264-params": "b-pyramid=normal:log-level=-1"}


def kinds(folder: Path, names: list[str] | None = None) -> dict[str, Path | str]:
    """A clip of each kind, or why PyAV makes none of it here."""
    chosen = [name for name in KINDS if names is None or name in names]

    def one(name: str) -> Path | str:
        about = dict(KINDS[name])
        path = folder / f"{name.replace(' ', '-').replace(':', '')}.{about.pop('suffix', 'mp4')}"
        try:
            return _made(path, count=48, size=(180, 322), **about)
        except (av.FFmpegError, ValueError) as error:
            return f"PyAV encodes none here: {error}"

    return dict(zip(chosen, _at_once(one, chosen), strict=True))


def h264(folder: Path, name: str, files: int, count: int, size: Size) -> list[Path]:
    """H.264 with B-frames at 25 frames a second, a keyframe every 2 s: different clips of `count` frames."""

    def one(number: int) -> Path:
        about = {"count": count, "size": size, "b_frames": 3, "gop": 50, "options": _LONG_SIDE, "first": 1000 * number}
        return _made(folder / f"{name}-{number}.mp4", **about)

    return _at_once(one, range(files))


def videos(folder: Path) -> list[Path]:
    """The video files of a folder, by name."""
    return sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)


def _at_once(make: Callable[[T], U], of: Iterable[T]) -> list[U]:
    _synth()  # imported by one thread, before several want it
    with ThreadPoolExecutor(usable_cores()) as pool:
        return list(pool.map(make, of))


def _made(path: Path, **about: Any) -> Path:
    """Encode it, unless it is there: whatever is there under its name is whole."""
    if not path.exists():
        synth = _synth()
        partial = path.with_name(f"partial-{path.name}")
        synth.encode(partial, synth.Clip(**about))
        partial.rename(path)
    return path

"""The files a benchmark runs on, and the shape of each: codec, keyframes, reordering."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import av

from bench.harness import ROOT

MEDIA = ROOT.parent / "shared" / "media"
_SUFFIXES = {".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts"}
_LONG = 100


@dataclass(frozen=True)
class Shape:
    """What decides the work of a clip.

    Attributes
    ----------
    codec : str
    size : (int, int)
        (height, width) as coded.
    packets, keyframes : int
    reordered : bool
        It has B-frames: packets do not come in the order they are shown.
    """

    codec: str
    size: tuple[int, int]
    packets: int
    keyframes: int
    reordered: bool

    def groups(self) -> list[str]:
        """Names of the groups that the clip counts in."""
        found = [self.codec, "B-frames" if self.reordered else "no B-frames"]
        if self.keyframes == self.packets:
            found.append("all intra")
        else:
            found.append("long GOP" if self.packets / max(self.keyframes, 1) > _LONG else "short GOP")
        return found


def shape(path: Path) -> Shape:
    """Read a file's packets; raises av.FFmpegError."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stamps, keyframes = [], 0
        for packet in container.demux(stream):
            if packet.size:
                stamps.append(packet.pts)
                keyframes += packet.is_keyframe
        known = [stamp for stamp in stamps if stamp is not None]
        codec = stream.codec_context
        return Shape(
            codec=codec.codec.canonical_name,
            size=(codec.height, codec.width),
            packets=len(stamps),
            keyframes=keyframes,
            reordered=known != sorted(known) or (bool(codec.has_b_frames) and len(known) < len(stamps)),
        )


def files(folder: Path | None, names: list[str]) -> list[Path]:
    """The video files of a folder (default: the shared media, else clips made here), or those with these names."""
    folder = folder or (MEDIA if MEDIA.is_dir() else synthetic(Path(tempfile.mkdtemp(prefix="bench-media-"))))
    found = sorted(path for path in folder.iterdir() if path.suffix in _SUFFIXES)
    return [path for path in found if not names or any(name in path.name for name in names)]


def synthetic(folder: Path, count: int = 60, size: tuple[int, int] = (180, 320)) -> Path:
    """Make a few clips of the usual shapes."""
    synth = _synth()
    clip = synth.Clip(count=count, size=size)
    kinds = {
        "h264_bframes.mp4": {"b_frames": 3, "gop": count},
        "h264_short_gop.mp4": {"b_frames": 0, "gop": 10},
        "vp9.webm": {"codec": "libvpx-vp9", "suffix": "webm", "options": {"cpu-used": "8", "deadline": "realtime"}},
    }
    for name, changes in kinds.items():
        synth.encode(folder / name, synth.replace(clip, **changes))
    return folder


def keyframes_every(folder: Path, seconds: float, length: float) -> Path:
    """Make a clip of ``length`` seconds at 25 frames/s with B-frames, and a keyframe every so many seconds."""
    synth = _synth()
    path = folder / f"keyframes_every_{seconds:g}s.mp4"
    # Without scene cuts the encoder puts keyframes where it is told to and nowhere else.
    options = {"sc_threshold": "0"}
    gap = max(1, round(25 * seconds))
    synth.encode(path, synth.Clip(count=round(25 * length), size=(360, 640), gop=gap, b_frames=3, options=options))
    return path


def _synth() -> ModuleType:
    """The tests' clip maker."""
    if "synth" not in sys.modules:
        spec = importlib.util.spec_from_file_location("synth", ROOT / "tests" / "synth.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["synth"] = module
        spec.loader.exec_module(module)
    return sys.modules["synth"]

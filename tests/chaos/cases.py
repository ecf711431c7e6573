"""What the storm runs over: a job in a format, its inputs made from a seed, and what must come of each item."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import planted
import synth

FORMATS = ("npy", "samples", "webdataset")
MISDEEDS = {
    "fail": "InputError",
    "bug": "ZeroDivisionError",
    "crash": "crash",
    "segfault": "crash",
    "stuck": "hang",
    "hungry": "memory",
}
SEVERAL = {"fail": 6, "bug": 3, "crash": 1, "segfault": 1, "stuck": 1, "hungry": 1}
GOOD = {
    "plain": synth.Clip(count=40, gop=10),
    "reordered": synth.Clip(count=60, b_frames=3, gop=30),
    "turned": synth.Clip(count=30, turn=90),
    "short": synth.Clip(count=5),
    "uneven": synth.variable(synth.Clip(count=30)),
    "slow": synth.Clip(count=24, rate=Fraction(5)),
    "hevc": synth.Clip(codec="libx265", count=20),
    "mpeg2": synth.Clip(codec="mpeg2video", suffix="mpg", count=30),
}
BAD = {
    "truncated.mp4": "TruncatedError",
    "cut.mpg": "TruncatedError",
    "garbage.mp4": "DecodeError",
    "empty.mp4": "DecodeError",
    "sound.mp4": "NoVideoError",
    "missing.mp4": "MissingInputError",
}


@dataclass(frozen=True)
class Case:
    """One job over one set of inputs.

    Attributes
    ----------
    kind : str
        Class of :mod:`planted`.
    options : dict
        Of the job.
    errors : dict of int to str
        The items that fail, and the error each is listed with; every other item is innocent.
    count : int
        Items.
    """

    kind: str
    options: dict[str, Any]
    errors: dict[int, str]
    count: int

    @property
    def name(self) -> str:
        return f"{self.kind.removeprefix('Planted').lower()} {self.options['format']}"

    @property
    def marks(self) -> Path:
        return Path(self.options["marks"])

    def job(self):
        return getattr(planted, self.kind)(**self.options)


def toy(folder: Path, form: str, count: int, chance: random.Random, delay: float, several=SEVERAL) -> Case:
    """`count` items without media."""
    words = _words(count, chance, several)
    folder.mkdir(parents=True)
    (folder / "words.json").write_text(json.dumps(words))
    options = {
        "format": form, "shard_size": 32, "delay": delay,
        "plan_file": str(folder / "words.json"), "marks": str(_marks(folder)),
    }  # fmt: skip
    errors = {ordinal: MISDEEDS[word] for ordinal, word in enumerate(words) if word in MISDEEDS}
    return Case("PlantedToy", options, errors, count)


def clips(folder: Path, form: str, count: int, chance: random.Random, media: Path, several=SEVERAL) -> Case:
    """`count` pairs over the clips that :func:`make_media` made; every tenth is of a bad file."""
    words = _words(count, chance, several)
    good, bad = sorted(path.name for path in media.iterdir() if path.name not in BAD), sorted(BAD)
    pairs, errors = [], {}
    for ordinal, word in enumerate(words):
        name = chance.choice(bad if chance.random() < 0.1 else good)
        pairs.append({"vid": f"{word}:{ordinal}", "clip_path": name, "transcript": f"number {ordinal}"})
        error = MISDEEDS.get(word) or BAD.get(name)
        if error is not None:
            errors[ordinal] = error
    folder.mkdir(parents=True)
    (folder / "pairs.json").write_text(json.dumps(pairs))
    options = {
        "format": form, "shard_size": 32, "num_frames": 8, "frame_height": 120, "frame_width": 160,
        "pairs_json": str(folder / "pairs.json"), "clips_dir": str(media), "marks": str(_marks(folder)),
    }  # fmt: skip
    return Case("PlantedClips", options, errors, count)


def make_media(folder: Path) -> Path:
    """Good clips of several kinds, and bad files."""
    folder.mkdir(parents=True)
    for name, clip in GOOD.items():
        synth.encode(folder / f"{name}.{clip.suffix}", clip)
    synth.truncate(folder / "plain.mp4", folder / "truncated.mp4", 0.5)
    synth.truncate(folder / "mpeg2.mpg", folder / "cut.mpg", 0.6)
    (folder / "garbage.mp4").write_bytes(random.Random(0).randbytes(20_000))
    (folder / "empty.mp4").write_bytes(b"")
    synth.sound_only(folder / "sound.mp4")
    return folder


def _words(count: int, chance: random.Random, several: dict[str, int]) -> list[str]:
    words = ["ok"] * count
    bad = [word for word, times in several.items() for _ in range(times)]
    for ordinal, word in zip(chance.sample(range(count), len(bad)), bad, strict=True):
        words[ordinal] = word
    return words


def _marks(folder: Path) -> Path:
    marks = folder / "marks"
    marks.mkdir()
    return marks

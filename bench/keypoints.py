"""What do the keypoints of an image cost, and how does that compare with MediaPipe's own Holistic?

    gpupipe models fetch mediapipe --environment
    python -m bench.keypoints [--images PATH ...] [--rounds 5]

Images in memory, one after the other; CPU milliseconds an image, of all threads, in turn with MediaPipe in an
environment of its own. `stateless` is ours. MediaPipe: `static` keeps its graph and so remembers hands and faces from
image to image; `flush` is sent a blank image before each, `fresh` is made anew for each: these two find what ours
finds, the first does not.

Pictures: the stills given and three frames of each video given; by default those with people in ../shared.

Last answer (epyc-2core, AVX-512): see docs/benchmarks.md.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from bench.harness import ROOT, finish, interleave, options, ratio
from gpupipe.errors import MissingInputError
from gpupipe.machine import usage
from gpupipe.ops.keypoints.holistic import Holistic
from gpupipe.ops.keypoints.models import read_models
from gpupipe.ops.keypoints.networks import Networks
from gpupipe.ops.keypoints.original import original_python
from gpupipe.ops.keypoints.points import PARTS
from gpupipe.ops.keypoints.stages import Stages

SHARED = ROOT.parent / "shared"
PEOPLE = ("people/*.png", "people/*.jpg", *(f"media/{name}_*" for name in ("asl", "sign", "hand", "squats", "biker")))
STILLS = {".png", ".jpg", ".jpeg"}
WAYS = ("static", "flush", "fresh")
SHARES = (0.25, 0.5, 0.75)
"""Where in a video its frames are taken."""


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", metavar="PATH", help="stills and videos")
    arguments = parser.parse_args(argv)
    paths = arguments.images or sorted(path for pattern in PEOPLE for path in SHARED.glob(pattern))
    images = [image for path in paths for image in _pictures(path)]
    if not images:
        parser.error(f"no pictures with people in {SHARED}; give some with --images")
    holistic = Holistic(Stages(Networks(read_models())))
    found = [holistic.find(image) for image in images]
    peaks: dict[str, float] = {"stateless": usage().peak_bytes / 1e6}

    def ours() -> float:
        began = time.process_time()
        for image in images:
            holistic.find(image)
        return (time.process_time() - began) / len(images) * 1e3

    runs: dict[str, Callable[[], float]] = {"stateless": ours}
    with tempfile.TemporaryDirectory() as folder:
        unavailable, player = None, None
        try:
            player = _Legacy(original_python(), images, Path(folder), peaks)
        except MissingInputError as error:
            unavailable = str(error)
        else:
            runs |= {way: lambda way=way: player.run(way) for way in WAYS}
        for run in runs.values():
            run()  # once for warmth
        times = interleave(runs, arguments.rounds)
        if player is not None:
            player.close()
    cases = {
        name: {"cpu_ms": statistics.median(cost), "times_ours": ratio(cost, times["stateless"])}
        for name, cost in times.items()
    }
    for name, case in cases.items():
        print(f"{name:10} {case['cpu_ms']:7.1f} ms an image  {case['times_ours']:5.2f} times ours")
    if unavailable:
        print(f"MediaPipe unavailable: {unavailable}")
    finish(
        "keypoints",
        arguments,
        {
            "rounds": arguments.rounds,
            "images": len(images),
            "parts_found": {part: int(sum(each.valid[place] for each in found)) for place, part in enumerate(PARTS)},
            "tools": cases,
            "peak_mb": peaks,
            "unavailable": unavailable,
        },
    )
    return 0


class _Legacy:
    """MediaPipe in its own process, one way after the other."""

    def __init__(self, python: Path, images: Sequence[np.ndarray], folder: Path, peaks: dict[str, float]) -> None:
        path = folder / "images.npz"
        np.savez(path, **{f"{number:05d}": image for number, image in enumerate(images)})
        script = Path(__file__).parent / "scripts" / "legacy_holistic.py"
        self._count, self._peaks = len(images), peaks
        self._process: subprocess.Popen[str] = subprocess.Popen(
            [str(python), str(script), str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def run(self, way: str) -> float:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{way}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        self._peaks["mediapipe"] = answer["peak_bytes"] / 1e6
        return float(answer["cpu_seconds"]) / self._count * 1e3

    def close(self) -> None:
        self._process.communicate()


def _pictures(path: Path) -> Iterator[np.ndarray]:
    if path.suffix.lower() in STILLS:
        with Image.open(path) as still:
            yield np.asarray(still.convert("RGB"))
        return
    with av.open(str(path)) as file:
        frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    yield from (frames[int(share * len(frames))] for share in SHARES)


if __name__ == "__main__":
    sys.exit(main())

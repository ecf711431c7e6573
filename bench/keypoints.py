"""What do the keypoints of an image cost, and how does that compare with MediaPipe's own Holistic?

    gpupipe models fetch mediapipe --environment
    python -m bench.keypoints [--images PATH ...] [--rounds 5]

Pictures in memory, one after the other; CPU milliseconds a picture, of all threads, in turn with MediaPipe in an
environment of its own. `stateless` is ours. MediaPipe's `static` keeps its graph and so remembers hands and faces from
picture to picture; `flush` is sent a blank one before each, `fresh` is made anew for each: these two find what ours
finds, the first does not. `video` is ours and `legacy-video` MediaPipe's, both after a clip's first frame.

On a GPU: images a second from frames in memory to points in memory, by torch in batches, in fp32 and hybrid; and how
far the points are from those of one image at a time, in pixels, beside parts found by one of the two alone.

Pictures: the stills given and three frames of each video given, and its first frames as a clip; by default those with
people in ../shared.

Last answer (epyc-2core, AVX-512; 18 pictures, a hand in 2 of 3; 9 rounds): 47 ms, and 29 ms in video. MediaPipe takes
1.47 times that in static mode, 1.67 with blank pictures between, 3.8 with new graphs, 1.57 in video; earlier runs of 3
and 5 rounds gave 1.29 to 1.36, 1.59 to 1.68, 3.4 to 4.0 and 1.44 to 1.47. 166 MB a process. On a GPU: not measured.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from bench.harness import ROOT, finish, interleave, options, ratio
from gpupipe.errors import MissingInputError, UsageError
from gpupipe.machine import usage
from gpupipe.ops.keypoints.batched.executor import TorchExecutor, identity
from gpupipe.ops.keypoints.executors import PRECISIONS
from gpupipe.ops.keypoints.holistic import Holistic
from gpupipe.ops.keypoints.models import read_models
from gpupipe.ops.keypoints.networks import Networks
from gpupipe.ops.keypoints.original import original_python
from gpupipe.ops.keypoints.points import PARTS, Keypoints
from gpupipe.ops.keypoints.stages import Stages
from gpupipe.ops.keypoints.video import SequentialHolistic

SHARED = ROOT.parent / "shared"
PEOPLE = ("people/*.png", "people/*.jpg", *(f"media/{name}_*" for name in ("asl", "sign", "hand", "squats", "biker")))
STILLS = {".png", ".jpg", ".jpeg"}
WAYS = {"static": "stateless", "flush": "stateless", "fresh": "stateless", "legacy-video": "video"}
"""MediaPipe's ways, and which of ours each is held against."""

CLIP_FRAMES = 25
SHARES = (0.25, 0.5, 0.75)
"""Where in a video its frames are taken."""


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--images", type=Path, nargs="+", metavar="PATH", help="stills and videos")
    arguments = parser.parse_args(argv)
    paths = arguments.images or sorted(path for pattern in PEOPLE for path in SHARED.glob(pattern))
    networks = Networks(read_models())
    holistic = Holistic(Stages(networks))
    holistic.find(np.zeros((64, 64, 3), np.uint8))
    resident = usage().resident_bytes / 1e6
    stills, clips = pictures(paths)
    if not stills or not clips:
        parser.error(f"no pictures or no videos with people in {SHARED}; give some with --images")

    def stateless() -> float:
        began = time.process_time()
        for image in stills:
            holistic.find(image)
        return (time.process_time() - began) / len(stills) * 1e3

    def video() -> float:
        seconds = 0.0
        for frames in clips:
            sequential = SequentialHolistic(Stages(networks))
            sequential.find(frames[0])
            began = time.process_time()
            for image in frames[1:]:
                sequential.find(image)
            seconds += time.process_time() - began
        return seconds / sum(len(frames) - 1 for frames in clips) * 1e3

    runs: dict[str, Callable[[], float]] = {"stateless": stateless, "video": video}
    with tempfile.TemporaryDirectory() as folder:
        unavailable, legacy = None, None
        try:
            legacy = _Legacy(original_python(), stills, clips, Path(folder))
        except MissingInputError as error:
            unavailable = str(error)
        else:
            runs |= {way: lambda way=way: legacy.run(way.removeprefix("legacy-")) for way in WAYS}
        for run in runs.values():
            run()  # once for warmth
        times = interleave(runs, arguments.rounds)
        if legacy is not None:
            legacy.close()
    tools = {
        name: {"cpu_ms": statistics.median(cost), "times_ours": ratio(cost, times[WAYS.get(name, name)])}
        for name, cost in times.items()
    }
    for name, tool in tools.items():
        print(f"{name:13} {tool['cpu_ms']:7.1f} ms a picture  {tool['times_ours']:5.2f} times ours")
    if unavailable:
        print(f"MediaPipe unavailable: {unavailable}")
    found = [holistic.find(image) for image in stills]
    gpu = {precision: batched(stills, found, "cuda", precision, arguments.rounds) for precision in PRECISIONS}
    for precision, told in gpu.items():
        print(
            f"GPU, {precision}: {told.get('unavailable') or '{images_per_second:.0f} images a second'.format(**told)}"
        )
    result = {
        "rounds": arguments.rounds,
        "stills": len(stills),
        "clips": len(clips),
        "parts_found": {part: int(sum(each.valid[place] for each in found)) for place, part in enumerate(PARTS)},
        "tools": tools,
        "resident_mb": resident,
        "gpu": gpu,
        "unavailable": unavailable,
    }
    finish("keypoints", arguments, result)
    return 0


def batched(
    images: list[np.ndarray], singly: list[Keypoints], device: str, precision: str, rounds: int, batches: int = 8
) -> dict[str, Any]:
    """Speed of torch on a device, and what differs from points found singly; `batches` are timed together."""
    try:
        executor = TorchExecutor("stateless", device=device, precision=precision)
    except UsageError as error:
        return {"unavailable": str(error)}
    many = list(itertools.islice(itertools.cycle(images), batches * executor.batch))
    held = [Keypoints.nobody() for _ in many]
    seconds = []
    for _ in range(rounds + 1):  # the first for warmth
        began = time.perf_counter()
        executor.find(many, [None] * len(many), held)
        seconds.append(time.perf_counter() - began)
    pairs = list(zip(images, singly, held, strict=False))
    told: dict[str, Any] = {
        "networks": identity(device, precision),
        "images_per_second": len(many) / statistics.median(seconds[1:]),
        "flips": int(sum((one.valid != other.valid).sum() for _, one, other in pairs)),
    }
    for part in PARTS:
        errors = [_pixels(image, one, other, part) for image, one, other in pairs]
        met = np.concatenate([each for each in errors if each is not None] or [np.zeros(0)])
        told[f"{part}_pixels"] = (
            dict(zip(("p50", "p99"), np.percentile(met, (50, 99)), strict=True)) if len(met) else None
        )
    executor.close()
    return told


def _pixels(image: np.ndarray, one: Keypoints, other: Keypoints, part: str) -> np.ndarray | None:
    """Distances between a part's points that are to be seen."""
    first, second = one.part(part), other.part(part)
    if first is None or second is None:
        return None
    height, width, _ = image.shape
    apart: np.ndarray = np.linalg.norm((first[:, :2].astype(np.float64) - second[:, :2]) * [width, height], axis=1)
    return apart[one.visibility > 0.5] if part == "pose" else apart


class _Legacy:
    """MediaPipe in its own process, one way after the other."""

    def __init__(self, python: Path, stills: list[np.ndarray], clips: list[list[np.ndarray]], folder: Path) -> None:
        path = folder / "pictures.npz"
        pictures = {f"still-{number:05d}": image for number, image in enumerate(stills)}
        for clip, frames in enumerate(clips):
            pictures |= {f"clip-{clip:03d}-{number:05d}": image for number, image in enumerate(frames)}
        np.savez(path, **pictures)
        script = Path(__file__).parent / "scripts" / "legacy_holistic.py"
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
        return float(answer["cpu_ms"])

    def close(self) -> None:
        self._process.communicate()


def pictures(paths: Iterable[Path]) -> tuple[list[np.ndarray], list[list[np.ndarray]]]:
    """Stills, and the first frames of clips."""
    stills, clips = [], []
    for path in paths:
        if path.suffix.lower() in STILLS:
            with Image.open(path) as still:
                stills.append(np.asarray(still.convert("RGB")))
            continue
        with av.open(str(path)) as file:
            frames = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
        stills += [frames[int(share * len(frames))] for share in SHARES]
        clips.append(frames[:CLIP_FRAMES])
    return stills, clips


if __name__ == "__main__":
    sys.exit(main())

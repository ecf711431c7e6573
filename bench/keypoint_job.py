"""What does the whole keypoints job cost beside the networks, and what do two workers give?

    gpupipe models fetch mediapipe
    python -m bench.keypoint_job [--images PATH ...] [--parts reading run plan] [--rounds 3]

A tree of PNG files of 210x260, as PHOENIX has them, made of pictures with people. `reading`: CPU milliseconds a picture
to read and decode them, apart. `run`: the command with one worker and with two in turn, from its start to its end,
and the networks alone on the same pictures in memory. `plan`: 950,000 pictures planned, resumed with one left, and
their index and pickle written.

Last answer (epyc-2core): 0.9 ms to read a picture, 35 ms for its points; 1,500 pictures in 55 s with one worker, 30 s
with two (1.83 times), start and end included; 9% more CPU than the networks alone. 950,000 pictures are planned in 6 s
and resumed in 16 s, in 195 MiB; the index and the pickle of them take 50 s more.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.harness import ONE_THREAD, ROOT, cpu_of_children, finish, interleave, options, ratio
from bench.keypoints import PEOPLE, SHARED, pictures
from gpupipe.decode.images import open_images
from gpupipe.ops.keypoints.holistic import Holistic
from gpupipe.ops.keypoints.models import read_models
from gpupipe.ops.keypoints.networks import Networks
from gpupipe.ops.keypoints.stages import Stages

PARTS = ("reading", "run", "plan")
SIZE = (210, 260)
"""(width, height) of PHOENIX's pictures."""


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--images", type=Path, nargs="+", metavar="PATH", help="stills and videos")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pictures", type=int, default=1500, metavar="N", help="of `reading` and `run`")
    parser.add_argument("--items", type=int, default=950_000, metavar="N", help="pictures of `plan`")
    arguments = parser.parse_args(argv)
    paths = arguments.images or sorted(path for pattern in PEOPLE for path in SHARED.glob(pattern))
    result: dict[str, Any] = {"rounds": arguments.rounds}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"reading", "run"} & set(arguments.parts):
            stills, _ = pictures(paths)
            if not stills:
                parser.error(f"no pictures with people in {SHARED}; give some with --images")
            _write_tree(folder / "tree", stills, arguments.pictures)
        if "reading" in arguments.parts:
            result["reading"] = _reading(folder / "tree", arguments.rounds)
        if "run" in arguments.parts:
            result["run"] = _run(folder, arguments.rounds)
        if "plan" in arguments.parts:
            words = [sys.executable, "-m", "bench.scripts.many_pictures", str(arguments.items), str(folder / "many")]
            ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
            result["plan"] = json.loads(ended.stdout.splitlines()[-1])
    for part in arguments.parts:
        print(part, json.dumps(result[part]))
    finish("keypoint-job", arguments, result)
    return 0


def _write_tree(tree: Path, stills: list[np.ndarray], count: int) -> None:
    small = [Image.fromarray(still).resize(SIZE) for still in stills]
    for number in range(count):
        path = tree / "train" / f"video{number // 50:03d}" / f"images{number % 50:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        small[number % len(small)].save(path)


def _files(tree: Path) -> list[Path]:
    return sorted(tree.rglob("*.png"))


def _reading(tree: Path, rounds: int) -> dict[str, Any]:
    costs = []
    files = _files(tree)
    with open_images("cpu") as decoder:
        for _ in range(rounds):
            began = time.process_time()
            for path in files:
                _ = decoder.decode(path).rgb
            costs.append((time.process_time() - began) / len(files) * 1e3)
    return {"pictures": len(files), "cpu_ms": statistics.median(costs)}


def _run(folder: Path, rounds: int) -> dict[str, Any]:
    files = _files(folder / "tree")
    holistic = Holistic(Stages(Networks(read_models())))
    with open_images("cpu") as decoder:
        images = [decoder.decode(path).rgb for path in files]
    walls: dict[str, list[float]] = {"1": [], "2": [], "networks": []}

    def run(workers: str) -> float:
        out = folder / f"out-{workers}"
        words = [sys.executable, "-m", "gpupipe.cli.main", "keypoints", "--dataset-path", str(folder / "tree")]
        words += ["--output-path", str(out), "--num-workers", workers, "--quiet", "--overwrite"]
        cpu, wall = cpu_of_children(), time.perf_counter()
        subprocess.run(words, env={**os.environ, **ONE_THREAD}, cwd=ROOT, capture_output=True, check=True)
        walls[workers].append(time.perf_counter() - wall)
        return cpu_of_children() - cpu

    def networks() -> float:
        cpu, wall = time.process_time(), time.perf_counter()
        for image in images:
            holistic.find(image)
        walls["networks"].append(time.perf_counter() - wall)
        return time.process_time() - cpu

    times = interleave({"1": lambda: run("1"), "2": lambda: run("2"), "networks": networks}, rounds)
    tools = {name: {"cpu": statistics.median(times[name]), "wall": statistics.median(walls[name])} for name in times}
    return {
        "pictures": len(files),
        "tools": tools,
        "scaling_2_workers": ratio(walls["1"], walls["2"]),
        "cpu_over_networks": ratio(times["1"], times["networks"]),
        "pictures_per_second": len(files) / tools["2"]["wall"],
    }


if __name__ == "__main__":
    sys.exit(main())

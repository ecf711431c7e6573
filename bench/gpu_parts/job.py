"""The whole clips job, `gpupipe clips` as a user runs it: on the GPU, on CPU cores, on both at once.

16 frames of clips of 10 s, 640x360 H.264. Each way runs over few clips, then over as many as there is time for; the
rate is of those that were more, so that what a start costs does not count. NVML is read meanwhile: the share of the
time in which any kernel ran is what preprocessing takes from whoever else uses the card.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.gpu_parts import library
from bench.gpu_parts.board import Board
from bench.gpu_parts.child import Tell
from bench.gpu_parts.counters import Counters
from bench.harness import ROOT
from gpupipe.machine import free_memory_bytes
from gpupipe.types import Size

WAYS = {
    "gpu": ["--backend", "nvdec", "--gpus", "1"],
    "cpu": ["--backend", "ffmpeg"],
    "both": ["--backend", "auto", "--gpus", "1"],
}
_FEW = 200
_MOST = 4000
_CLIP_BYTES = 16 * 160 * 256 * 3


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    until = time.monotonic() + 0.9 * options["seconds"]
    scratch = Path(options["scratch"])
    ways: dict[str, list[str]] = options.get("ways") or WAYS
    if "ways" not in options:
        board.device().close()  # says what is missing, before minutes of work on CPU cores
    size: Size = tuple(options.get("size", (360, 640)))
    clips = library.h264(scratch, "clip", options.get("files", 12), options.get("clip_frames", 250), size)
    few, most = options.get("few", _FEW), options.get("most", _MOST)
    with tempfile.TemporaryDirectory(prefix="job-", dir=_roomy(scratch, few)) as folder:
        firsts: dict[str, dict[str, Any]] = {}
        digests = set()
        for name, words in ways.items():
            try:
                firsts[name] = one(Path(folder), clips, few, words)
            except JobFailed as error:
                tell({"failed": str(error)}, "ways", name)
                continue
            digests.add(firsts[name].pop("digest"))
            tell(firsts[name], "ways", name)
        if len(firsts) > 1:
            tell(len(digests) == 1, "same_bytes")
        for place, (name, first) in enumerate(firsts.items()):
            end = time.monotonic() + (until - time.monotonic()) / (len(firsts) - place)
            room = min(most, shutil.disk_usage(folder).free // 3 // _CLIP_BYTES)

            def run(count: int, words: list[str] = ways[name]) -> dict[str, Any]:
                return one(Path(folder), clips, count, words)

            try:
                tell(grown(run, first, room, lambda end=end: end - time.monotonic()), "ways", name)
            except JobFailed as error:
                tell({**first, "failed": str(error)}, "ways", name)


def grown(
    run: Callable[[int], dict[str, Any]], first: dict[str, Any], most: int, left: Callable[[], float]
) -> dict[str, Any]:
    """Run over more and more clips as long as there is time; ``clips_per_second`` is of those behind the first ones.

    Parameters
    ----------
    run : callable of int
        Runs over so many.
    first : dict
        Of the run over the fewest.
    most : int
    left : callable
        Seconds.
    """
    last, rate = first, first["items_per_second"]
    for _ in range(2):
        spare = 0.8 * left() - last["seconds"]
        count = int(min(most, 5 * last["items"], last["items"] + spare * rate))
        if count < 2 * last["items"]:
            break
        found = run(count)
        seconds = found["seconds"] - first["seconds"]
        if seconds > 0:
            rate = found["clips_per_second"] = (count - first["items"]) / seconds
        last = found
    return last


def one(folder: Path, clips: list[Path], count: int, words: list[str]) -> dict[str, Any]:
    """Run the job over so many clips."""
    pairs = folder / "pairs.json"
    pairs.write_text(
        json.dumps([
            {"vid": f"v{number}", "clip_path": clips[number % len(clips)].name, "transcript": f"clip {number}"}
            for number in range(count)
        ])
    )  # fmt: skip
    out = folder / "out"
    command = [
        sys.executable, "-m", "gpupipe.cli.main", "clips", "--pairs-json", str(pairs), "--clips-dir",
        str(clips[0].parent), "--output-dir", str(out), "--format", "npy", "--quiet", "--json", *words,
    ]  # fmt: skip
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        with Counters() as counters:
            ended = subprocess.run(
                command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False
            )
        if ended.returncode:
            last = ended.stderr.strip().splitlines()[-1:] or ended.stdout.strip().splitlines()[-1:]
            raise JobFailed(f"gpupipe clips {' '.join(words)} ended with {ended.returncode}: {' '.join(last)[:300]}")
        summary = json.loads(ended.stdout.splitlines()[-1])
        return {
            **{key: summary[key] for key in ("items", "seconds", "items_per_second", "workers", "cpu_seconds")},
            **shares(summary["stages"]),
            **counters.found(),
            "digest": digest(out),
        }
    finally:
        shutil.rmtree(out, ignore_errors=True)


class JobFailed(RuntimeError):
    """A run that did not end as it should; its last words."""


def shares(stages: Mapping[str, float]) -> dict[str, Any]:
    """Each stage's share of the workers' time, and of what their pipelines waited within it; not before and after it.

    ``wait`` is for a lease and ``start`` is before the first; the other waits are within an item.
    """
    at_work = {name: seconds for name, seconds in stages.items() if name not in ("wait", "start")}
    total = sum(at_work.values()) or 1.0
    found = {name: seconds / total for name, seconds in sorted(at_work.items(), key=lambda pair: -pair[1])}
    return {"stages": found, "waits": sum(share for name, share in found.items() if name.startswith("wait"))}


def digest(out: Path) -> str:
    """Of all arrays of an output."""
    found = hashlib.blake2b()
    for path in sorted(out.glob("*.npy")):
        found.update(path.name.encode())
        with path.open("rb") as file:
            while piece := file.read(1 << 22):
                found.update(piece)
    return found.hexdigest()


def _roomy(scratch: Path, few: int) -> Path:
    """Memory where there is room for it, so that no disk is measured."""
    shared = Path("/dev/shm")
    needed = 20 * few * _CLIP_BYTES
    if os.access(shared, os.W_OK) and min(shutil.disk_usage(shared).free, free_memory_bytes()) > 2 * needed:
        return shared
    return scratch

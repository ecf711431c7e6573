"""The whole clips job, `gpupipe clips` as a user runs it: on the GPU, on CPU cores, on both at once.

16 frames of clips of 10 s, 640x360 H.264. Each way runs twice, over few clips and over many; the rate is that of the
clips between, so that what a start costs does not count. NVML is read meanwhile: the share of the time in which any
kernel ran is what preprocessing takes from whoever else uses the card.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.gpu_parts import library
from bench.gpu_parts.board import Board
from bench.gpu_parts.child import Tell
from bench.harness import ROOT
from gpupipe.cuda.nvml import GpuSample, Sampler
from gpupipe.machine import free_memory_bytes

WAYS = {"gpu": ["--backend", "nvdec"], "cpu": ["--backend", "ffmpeg"], "both": ["--backend", "auto"]}
_FEW = 200
_MOST = 4000
_CLIP_BYTES = 16 * 160 * 256 * 3
_SAMPLE_SECONDS = 0.2


def measure(board: Board, options: dict[str, Any], tell: Tell) -> None:
    until = time.monotonic() + 0.9 * options["seconds"]
    scratch = Path(options["scratch"])
    ways: dict[str, list[str]] = options.get("ways") or WAYS
    if "ways" not in options:
        board.device().close()  # says what is missing, before minutes of work on CPU cores
    clips = library.h264(
        scratch,
        "clip",
        options.get("files", 12),
        options.get("clip_frames", 250),
        tuple(options.get("size", (360, 640))),
    )
    few = options.get("few", _FEW)
    with tempfile.TemporaryDirectory(prefix="job-", dir=_roomy(scratch, few)) as folder:
        bytes_of: dict[str, str] = {}
        firsts = {}
        for name, words in ways.items():
            firsts[name] = one(Path(folder), clips, few, words)
            bytes_of[name] = firsts[name].pop("digest")
        tell(len(set(bytes_of.values())) == 1, "same_bytes")
        for place, (name, words) in enumerate(ways.items()):
            first = firsts[name]
            seconds = (until - time.monotonic()) / (len(ways) - place) / 2
            room = shutil.disk_usage(folder).free // 3 // _CLIP_BYTES
            many = int(min(options.get("most", _MOST), room, first["items_per_second"] * max(seconds, 0)))
            if many < 2 * few:
                tell({"unavailable": f"no time or room for more than {many} clips", "few": first}, "ways", name)
                continue
            found = one(Path(folder), clips, many, words)
            found.pop("digest")
            seconds = found["seconds"] - first["seconds"]
            if seconds > 0:
                found["clips_per_second"] = (many - few) / seconds
            tell(found, "ways", name)


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
            raise RuntimeError(f"gpupipe clips {' '.join(words)} ended with {ended.returncode}: {' '.join(last)[:300]}")
        summary = json.loads(ended.stdout.splitlines()[-1])
        return {
            **{key: summary[key] for key in ("items", "seconds", "items_per_second", "workers", "cpu_seconds")},
            **shares(summary["stages"]),
            **counters.found(),
            "digest": digest(out),
        }
    finally:
        shutil.rmtree(out, ignore_errors=True)


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


class Counters:
    """NVML's counters of the first card, read while the block runs; means of the samples in which it decoded."""

    def __init__(self) -> None:
        self._samples: list[GpuSample] = []
        self._stop = threading.Event()
        self._sampler = Sampler()
        self._reason = self._sampler.reason
        self._thread = threading.Thread(target=self._run, name="counters", daemon=True)

    def __enter__(self) -> Counters:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._sampler.close()

    def found(self) -> dict[str, Any]:
        if self._reason is not None:
            return {"counters": {"unavailable": self._reason}}
        busy = [sample for sample in self._samples if sample.decoder_percent]
        means = {
            name: statistics.mean(values)
            for name in ("sm_percent", "decoder_percent", "power_watts")
            if (values := [value for sample in busy if (value := getattr(sample, name)) is not None])
        }
        return {"counters": {"samples": len(busy), **means}}

    def _run(self) -> None:
        while not self._stop.wait(_SAMPLE_SECONDS):
            self._samples += self._sampler.sample()[:1]


def _roomy(scratch: Path, few: int) -> Path:
    """Memory where there is room for it, so that no disk is measured."""
    shared = Path("/dev/shm")
    needed = 20 * few * _CLIP_BYTES
    if os.access(shared, os.W_OK) and min(shutil.disk_usage(shared).free, free_memory_bytes()) > 2 * needed:
        return shared
    return scratch

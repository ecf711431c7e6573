"""What does the whole job cost against the scripts people write, and what does the engine add to the bare work?

    python -m bench.clips [--media DIR] [--parts job engine scaling plan status] [--rounds 3]

`job`: H.264 files of the media to sample folders (frames, tokens), whole commands with start-up, CPU seconds of all
processes and wall: `gpupipe clips` against a multiprocessing script that seeks with OpenCV (scripts/seed_style.py) and
a DataLoader over torchcodec (scripts/torchcodec_loader.py), 1 and 2 workers. Both tokenize with our tokenizer. Our
workers' malloc takes huge pages; theirs does with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 before this command.
`engine`: 1,000 short clips, one worker, against the same operator and sink in a bare loop (bench/scripts/bare_loop.py).
`scaling`: twice as many, one worker on one core, one that has two, and two, against what two bare loops at once give.
`plan`: 300,000 items planned, and resumed with one left. `status`: `gpupipe status` on a ledger of 1,000,000 rows.

The engine's part is best run in memory (--scratch /dev/shm): else the kernel's writing back is most of the difference.

Last answer (epyc-2core, load 1 to 2.4): 36 clips take 0.12 of the seeking script's CPU and 0.48 of the loader's; 2,000
short clips take 22.1 s with one worker on one core, 16.3 s where it has two (it writes beside its decoding then) and
12.2 s with two workers, 21.4 s in a bare loop and 12.9 s in two at once; the engine takes 2% less CPU than the bare
loop, its start included, 6% less without; 300,000 items are planned in 2.3 s and resumed in 3.5 s, in 131 MiB; status
0.6 s.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.harness import ONE_THREAD, ROOT, cpu_of_children, earlier, finish, interleave, options, ratio
from bench.media import files, shape, synthetic
from bench.scripts.many_items import planned, settled
from gpupipe.member import environment

PARTS = ("job", "engine", "scaling", "plan", "status")
UNLIKE = 24.0
"""Mean absolute difference of a clip's frames from ours, levels of 255; see bench/decode.py."""
_SCRIPTS = {"seed-style": "bench.scripts.seed_style", "torchcodec-loader": "bench.scripts.torchcodec_loader"}
_ENVIRONMENT = {
    **os.environ,
    **ONE_THREAD,
    "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
}

_WORKERS = {**environment(), **_ENVIRONMENT}
"""What a worker has, for the bare loop too: what it saves is no merit of the engine."""


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    parts = {"job": _job, "engine": _engine, "scaling": _scaling, "plan": _plan, "status": _status}
    known = earlier("clips", arguments) if arguments.keep else {}
    result: dict[str, Any] = {"rounds": arguments.rounds, **{name: known[name] for name in PARTS if name in known}}
    with tempfile.TemporaryDirectory(prefix="bench-clips-", dir=arguments.scratch) as scratch:
        for name in arguments.parts:
            folder = Path(scratch, name)
            folder.mkdir()
            began = os.getloadavg()[0]
            # Other work on the machine takes the second core away: walls mean little where the load was high.
            result[name] = {**parts[name](folder, arguments), "load_average": [began, os.getloadavg()[0]]}
            print(name, json.dumps(result[name]), flush=True)
    finish("clips", arguments, result)
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    parser.set_defaults(rounds=3)
    parser.add_argument("--media", type=Path, metavar="DIR")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--keep", action="store_true", help="add to the parts of this very code that are there")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N")
    parser.add_argument("--copies", type=int, default=2, metavar="N", help="times each file is in the job")
    parser.add_argument("--short-clips", type=int, default=1000, metavar="N", help="clips of the engine's part")
    parser.add_argument("--items", type=int, default=300_000, metavar="N", help="items planned")
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of the ledger")
    parser.add_argument("--scratch", type=Path, metavar="DIR", help="where outputs are written (default: temporary)")
    return parser.parse_args(argv)


# ---- the whole job


def _job(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    media = [path for path in files(arguments.media, []) if _ordinary(path)]
    clips = media[0].parent
    pairs = _write_pairs(folder / "pairs.json", [path.name for path in media] * arguments.copies)
    tools: dict[str, dict[str, Any]] = {}
    runs: dict[str, Callable[[], float]] = {}
    walls: dict[str, list[float]] = {}

    for workers in arguments.workers:
        for tool in ("gpupipe", *_SCRIPTS):
            name = f"{tool}-{workers}"
            out = folder / name
            command = _command(tool, pairs, clips, out, workers)
            tools[name] = {}
            if said := _refused(command, out):
                tools[name] = {"unavailable": said}
                continue
            if tool != "gpupipe":
                tools[name] |= _compare(folder / f"gpupipe-{workers}", out)
            walls[name] = []
            runs[name] = lambda command=command, out=out, name=name: _timed(command, out, walls[name])

    times = interleave(runs, arguments.rounds)
    for name, found in times.items():
        tools[name] |= {"cpu": statistics.median(found), "wall": statistics.median(walls[name])}
        ours = f"gpupipe-{name.rpartition('-')[2]}"
        if name != ours:
            tools[name] |= {"ratio": ratio(times[ours], found), "wall_ratio": ratio(walls[ours], walls[name])}
    scaling = ratio(walls["gpupipe-1"], walls["gpupipe-2"]) if {"gpupipe-1", "gpupipe-2"} <= walls.keys() else None
    return {"clips": len(media) * arguments.copies, "files": len(media), "scaling_2_workers": scaling, "tools": tools}


def _ordinary(path: Path) -> bool:
    """A sound, upright H.264 file of 30 frames or more."""
    from gpupipe import decode
    from gpupipe.errors import GpupipeError

    try:
        with decode.open(path) as decoder:
            sound = len(decoder.readable()) == len(decoder.index) >= 30
            return sound and shape(path).codec == "h264" and not decoder.info.rotation
    except GpupipeError:
        return False


def _write_pairs(path: Path, names: list[str]) -> Path:
    pairs = [
        {"vid": f"v{number}", "clip_path": name, "transcript": f"a player walks over the hill, clip {number}"}
        for number, name in enumerate(names)
    ]
    path.write_text(json.dumps(pairs))
    return path


def _command(tool: str, pairs: Path, clips: Path, out: Path, workers: int) -> list[str]:
    if tool != "gpupipe":
        return [sys.executable, "-m", _SCRIPTS[tool], str(pairs), str(clips), str(out), str(workers)]
    return [
        sys.executable, "-m", "gpupipe.cli.main", "clips", "--pairs-json", str(pairs), "--clips-dir", str(clips),
        "--output-dir", str(out), "--num-workers", str(workers), "--quiet", "--overwrite",
    ]  # fmt: skip


def _refused(command: list[str], out: Path) -> str | None:
    """Warm up; the last word of a command that fails."""
    out.mkdir(exist_ok=True)
    ended = subprocess.run(command, env=_ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=False)
    if not ended.returncode:
        return None
    last = ended.stderr.strip().splitlines()[-1:]
    return " ".join(last)[:160] or f"exit code {ended.returncode}"


def _timed(
    command: list[str],
    out: Path,
    walls: list[float],
    cores: set[int] | None = None,
    variables: dict[str, str] = _ENVIRONMENT,
) -> float:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    cpu, wall = cpu_of_children(), time.perf_counter()
    pinned = None if cores is None else partial(os.sched_setaffinity, 0, cores)
    subprocess.run(command, env=variables, cwd=ROOT, capture_output=True, check=True, preexec_fn=pinned)
    walls.append(time.perf_counter() - wall)
    return cpu_of_children() - cpu


def _compare(ours: Path, theirs: Path) -> dict[str, Any]:
    """Items that are missing from a script's output, and its worst clip."""
    worst, missing, unlike = 0.0, 0, 0
    for folder in sorted(ours.glob("sample_*")):
        other = theirs / folder.name / "video_input.pkl"
        if not other.is_file():
            missing += 1
            continue
        a, b = (pickle.loads(path.read_bytes()) for path in (folder / "video_input.pkl", other))
        difference = float(np.abs(a.astype(np.int16) - b).mean()) if a.shape == b.shape else 255.0
        worst, unlike = max(worst, difference), unlike + (difference > UNLIKE)
    return {"missing": missing, "unlike": unlike, "worst_difference": worst}


# ---- the engine


def _short(clips: Path, count: int) -> list[str]:
    """Names of so many short clips, a few of which are there."""
    clips.mkdir()
    synthetic(clips, count=32, size=(240, 320))
    names = [path.name for path in sorted(clips.iterdir()) if path.suffix == ".mp4"]
    return (names * count)[:count]


def _engine(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    clips = folder / "clips"
    names = _short(clips, arguments.short_clips)
    many = _write_pairs(folder / "many.json", names)
    one = _write_pairs(folder / "one.json", names[:1])
    walls: list[float] = []

    def command(tool: str, pairs: Path) -> Callable[[], float]:
        out = folder / f"{tool}-{pairs.stem}"
        if tool == "gpupipe":
            return lambda: _timed(_command(tool, pairs, clips, out, 1), out, walls)
        words = [sys.executable, "-m", "bench.scripts.bare_loop", str(pairs), str(clips), str(out)]
        return lambda: _timed(words, out, walls, variables=_WORKERS)

    runs = {(tool, pairs): command(tool, pairs) for tool in ("gpupipe", "bare") for pairs in (many, one)}
    times = interleave(runs, arguments.rounds)
    starts = {tool: statistics.median(times[tool, one]) for tool in ("gpupipe", "bare")}
    work = {tool: [each - starts[tool] for each in times[tool, many]] for tool in starts}
    return {
        "clips": arguments.short_clips,
        "gpupipe_cpu": statistics.median(times["gpupipe", many]),
        "bare_cpu": statistics.median(times["bare", many]),
        "gpupipe_start_cpu": starts["gpupipe"],
        "bare_start_cpu": starts["bare"],
        "overhead": ratio(times["gpupipe", many], times["bare", many]) - 1,
        "overhead_without_start": ratio(work["gpupipe"], work["bare"]) - 1,
    }


def _scaling(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Walls, with the start of the processes: nobody gets a result before that.

    A worker writes beside its decoding, so one worker keeps more than one core busy: `scaling` is therefore two workers
    to one that has a single core, and `at_most` what two full cores would do over one worker that has both.
    """
    clips = folder / "clips"
    names = _short(clips, 2 * arguments.short_clips)
    half = len(names) // 2
    whole = _write_pairs(folder / "whole.json", names)
    halves = [_write_pairs(folder / f"half-{n}.json", part) for n, part in enumerate((names[:half], names[half:]))]

    cpus: dict[str, list[float]] = {}

    def ours(name: str, workers: int, cores: set[int] | None = None) -> Callable[[], float]:
        walls: list[float] = []
        out = folder / name
        cpus[name] = []

        def run() -> float:
            cpus[name].append(_timed(_command("gpupipe", whole, clips, out, workers), out, walls, cores))
            return walls[-1]

        return run

    def bare(parts: list[Path]) -> Callable[[], float]:
        outs = [folder / f"bare-{path.stem}" for path in parts]

        def run() -> float:
            for out in outs:
                shutil.rmtree(out, ignore_errors=True)
                out.mkdir()
            words = [sys.executable, "-m", "bench.scripts.bare_loop"]
            began = time.perf_counter()
            loops = [
                subprocess.Popen([*words, str(path), str(clips), str(out)], env=_WORKERS, cwd=ROOT)
                for path, out in zip(parts, outs, strict=True)
            ]
            for loop in loops:
                if loop.wait():
                    raise RuntimeError(f"the bare loop ended with {loop.returncode}")
            return time.perf_counter() - began

        return run

    core = {min(os.sched_getaffinity(0))}
    runs = {
        "gpupipe-1-on-1-core": ours("gpupipe-1-on-1-core", 1, core),
        "gpupipe-1": ours("gpupipe-1", 1),
        "gpupipe-2": ours("gpupipe-2", 2),
        "bare-1": bare([whole]),
        "bare-2": bare(halves),
    }
    times = interleave(runs, arguments.rounds)
    busy = statistics.median(cpu / wall for cpu, wall in zip(cpus["gpupipe-1"], times["gpupipe-1"], strict=True))
    return {
        "clips": len(names),
        "walls": {name: statistics.median(found) for name, found in times.items()},
        "cpus": {name: statistics.median(found) for name, found in cpus.items()},
        "scaling": ratio(times["gpupipe-1-on-1-core"], times["gpupipe-2"]),
        "over_one_worker": ratio(times["gpupipe-1"], times["gpupipe-2"]),
        "at_most": min(2, len(os.sched_getaffinity(0))) / busy,
        "ceiling": ratio(times["bare-1"], times["bare-2"]),
    }


# ---- many items


def _plan(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    clips = folder / "clips"
    clips.mkdir()
    synthetic(clips, count=8, size=(96, 128))
    name = next(path.name for path in clips.iterdir() if path.suffix == ".mp4")
    # Each item has a name of its own to be looked up; the file behind them is one.
    names = [f"{number:06d}.mp4" for number in range(arguments.items)]
    for one in names:
        (clips / one).symlink_to(name)
    pairs = _write_pairs(folder / "pairs.json", names)
    words = [sys.executable, "-m", "bench.scripts.many_items", str(pairs), str(clips), str(folder / "out")]
    ended = subprocess.run(words, env=_ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


def _status(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    from gpupipe.jobs.clips import ClipsJob

    out = folder / "out"
    pairs = _write_pairs(folder / "pairs.json", ["a.mp4"] * arguments.rows)
    plan = planned(ClipsJob(pairs_json=str(pairs), clips_dir=str(folder)), out)
    settled(out, plan, plan.count)
    words = [sys.executable, "-m", "gpupipe.cli.main", "status", str(out)]
    walls: list[float] = []
    cpus = []
    for _ in range(arguments.rounds):
        cpu, wall = cpu_of_children(), time.perf_counter()
        subprocess.run(words, env=_ENVIRONMENT, cwd=ROOT, capture_output=True, check=True)
        walls.append(time.perf_counter() - wall)
        cpus.append(cpu_of_children() - cpu)
    return {"rows": arguments.rows, "seconds": statistics.median(walls), "cpu": statistics.median(cpus)}


if __name__ == "__main__":
    sys.exit(main())

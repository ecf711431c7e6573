"""What does `--tolerance` save, and what could it save at most?

    python -m bench.tolerance [--media DIR] [--only NAME ...] [--seconds 0.5] [--rounds 5] [--length 43]

16 frames from first to last to 256x160, exactly and with `--tolerance`, in turn in one process, one codec thread; CPU
seconds from opening the file on. Two sets of clips: those of a folder, and clips of `--length` seconds made here that
differ only in how far apart their keyframes are.

Beside what was decoded stands `bound`: no choice of frames within reach, however clever, decodes less. It adds up, over
the stretches from keyframe to keyframe, the largest of the least closures of those wanted frames whose whole reach lies
in that stretch; closures of different stretches share no packet. Where the wanted frames are further apart than the
keyframes are, a chain of G seconds is decoded to its middle on average, and with a tolerance of t seconds from either
side only (G - 2t)^2 / G^2 of that: 4 times less is to be had where keyframes are no further apart than 4t.

Last answer (epyc-2core): with keyframes 100 frames apart or more (12 files) 1.10 times less CPU, 1.20 times fewer
packets, where 1.20 is the most; with one every second or closer 1.3 to 5.5 times less CPU.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench.harness import SIZE, finish, geometric_mean, interleave, options, ratio, write
from bench.media import files, keyframes_every, shape
from gpupipe import decode
from gpupipe.decode.base import MAX_PIXELS
from gpupipe.decode.ffmpeg_file import MediaFile
from gpupipe.decode.ffmpeg_packets import PacketSource
from gpupipe.decode.index import FrameIndex, PacketTable
from gpupipe.decode.planner import governing, plan
from gpupipe.decode.sampling import uniform
from gpupipe.errors import GpupipeError
from gpupipe.transform import Resizer

WANTED = 16
SHORTEST = 30
"""Clips of fewer frames are left out: most of their frames are wanted."""
GAPS = (0.5, 1, 2, 4, 10)
"""Seconds between the keyframes of the clips that are made."""


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    found: dict[str, list[dict[str, Any]]] = {"files": [], "made": []}

    def result() -> dict[str, Any]:
        return {"rounds": arguments.rounds, "seconds": arguments.seconds, **found, "summary": summary(found["files"])}

    with tempfile.TemporaryDirectory(prefix="bench-tolerance-") as folder:
        made = [(gap, keyframes_every(Path(folder), gap, arguments.length)) for gap in GAPS]
        for gap, path in made:
            found["made"].append({"gap": gap, **_file(path, arguments)})
            _say(found["made"][-1])
        for path in files(arguments.media, arguments.only):
            try:
                found["files"].append({"groups": shape(path).groups(), **_file(path, arguments)})
            except (av.FFmpegError, GpupipeError):  # bench/decode.py says which are refused
                continue
            _say(found["files"][-1])
            write("tolerance", arguments, result())
    finish("tolerance", arguments, result())
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--media", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="files with one of these in their name")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="tolerance (default: %(default)s)")
    parser.add_argument("--length", type=float, default=43, metavar="S", help="of the clips that are made")
    return parser.parse_args(argv)


def _file(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """One clip; without figures where it is short or its frames are known by counting only."""
    with decode.open(path) as decoder:
        index = decoder.index
    report: dict[str, Any] = {"file": path.name, "frames": len(index)}
    if not index.exact or len(index) < SHORTEST:
        return report
    with MediaFile(str(path), None, MAX_PIXELS) as media:
        table = PacketSource(media, 0).table
    report["keyframe_seconds"] = float(index.times[-1]) / int(table.entry.sum())
    report["bound"] = bound(table, index, arguments.seconds)
    stats: dict[str, int] = {}

    def run(name: str, seconds: float) -> float:
        cpu = time.process_time()
        stats[name] = _small(path, seconds)
        return time.process_time() - cpu

    ways = {"exact": 0.0, "near": arguments.seconds}
    for name, seconds in ways.items():
        run(name, seconds)
    times = interleave({name: lambda n=name, s=seconds: run(n, s) for name, seconds in ways.items()}, arguments.rounds)
    return report | {
        "decoded": stats,
        "cpu": {name: statistics.median(each) for name, each in times.items()},
        "gain": ratio(times["exact"], times["near"]),
    }


def _small(path: Path, seconds: float) -> int:
    """Decode the wanted pictures and make them small; packets decoded for that, hidden pictures among them."""
    resizer = Resizer(SIZE)
    frames = np.empty((WANTED, *SIZE, 3), np.uint8)
    with decode.open(path) as decoder:
        wanted = decoder.near(uniform(len(decoder.index), WANTED)[0], seconds)
        decoder.read(wanted, lambda place, surface: resizer.resize(surface, frames[place]))
        return decoder.stats.packets - decoder.stats.skipped


def bound(table: PacketTable, index: FrameIndex, seconds: float) -> int:
    """Packets that any choice of pictures within reach of the wanted ones depends on, at the least."""
    assert index.packet is not None
    entries, stretch = governing(table, index.packet)
    ends = np.append(entries[1:], len(table))
    least: dict[int, int] = {}
    for number in uniform(len(index), WANTED)[0].tolist():
        reach = np.flatnonzero(np.abs(index.times - index.times[number]) <= seconds + 1e-9)
        if len(set(stretch[reach].tolist())) > 1:
            continue
        own = int(stretch[number])
        inside = slice(int(entries[own]), int(ends[own]))
        costs = [int(plan(table, index, [each]).closure[inside].sum()) for each in reach.tolist()]
        least[own] = max(least.get(own, 0), min(costs))
    return sum(least.values())


def summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of exact / near by group, and of packets decoded, beside what the bound would allow."""
    found = {}
    measured = [report for report in reports if "gain" in report]
    for group in sorted({group for report in measured for group in report["groups"]}):
        chosen = [report for report in measured if group in report["groups"]]
        found[group] = {
            "files": len(chosen),
            "gain": geometric_mean(report["gain"] for report in chosen),
            "packets": geometric_mean(report["decoded"]["exact"] / report["decoded"]["near"] for report in chosen),
            "at_most": geometric_mean(report["decoded"]["exact"] / max(1, report["bound"]) for report in chosen),
        }
    return found


def _say(report: dict[str, Any]) -> None:
    if "gain" not in report:
        print(f"{report['file']}: {report['frames']} frames, not measured")
        return
    decoded = report["decoded"]
    print(
        f"{report['file']}: a keyframe every {report['keyframe_seconds']:.1f} s; {decoded['exact']} packets, "
        f"{decoded['near']} with tolerance, at least {report['bound']}; {report['gain']:.2f} times less CPU"
    )
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

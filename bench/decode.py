"""How much CPU does it take to get some frames of a clip, small and RGB, against every well-known library?

    python -m bench.decode [--media DIR] [--only NAME ...] [--modes uniform at every4 all] [--rounds 5]

One codec thread each; every tool in a process of its own, asked in turn (round-robin), so that only one works at a
time. CPU seconds of the tool's process, all its threads, from opening the file to the last small picture. The ratio
to a peer is the median over the rounds of ours / theirs. Modes: `uniform` 16 frames from first to last, `at` 8 frames
at random times, `every4` each fourth frame, `all` every frame; all to 256x160, antialiased, upright RGB. What each
tool does for that is in bench/peers.py. Ours decodes in the environment of a gpupipe worker, whose malloc takes huge
pages; to give the peers the same, run it with GLIBC_TUNABLES=glibc.malloc.hugetlb=1.

A peer's frames are compared with ours: mean absolute difference of a frame below 24 levels (libraries differ in colour
matrices and filters, which comes to 1 to 12), and each nearer to our frame of the same number than to its neighbours,
once gain and offset by channel are taken out. A peer that fails is reported as `unlike` with its time, and is never
the best peer.

Last answer (epyc-2core, FFmpeg of PyAV 18.1, 33 clips, `uniform`): 0.73 of the best peer of each file, 0.62 with
B-frames, 0.65 on H.264 of 200 frames or more; 0.15 of OpenCV seeking on the last.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import zlib
from pathlib import Path
from typing import Any

import av
import numpy as np

from bench.harness import SIZE, earlier, finish, geometric_mean, interleave, options, ratio, write
from bench.media import files, shape
from bench.peers import TOOLS, Request
from bench.players import Player, Unavailable, shown
from gpupipe import decode
from gpupipe.errors import GpupipeError
from gpupipe.transform import Resizer

MODES = ("uniform", "at", "every4", "all")
UNLIKE = 24.0
"""Mean absolute difference, levels of 255, from which on a frame is another one."""
MARGIN = 0.1
"""Levels by which a frame must be nearer to our neighbour to be called the neighbour."""
_AT = 8


def main(argv: list[str] | None = None) -> int:
    arguments = _arguments(argv)
    players = {name: Player(name, arguments.patience) for name in arguments.tools}
    known = earlier("decode", arguments) if arguments.keep else {}
    reports = {report["file"]: report for report in known.get("files", [])}

    def result() -> dict[str, Any]:
        ordered = [reports[name] for name in sorted(reports)]
        return {"rounds": arguments.rounds, "files": ordered, "summary": summary(ordered)}

    for path in files(arguments.media, arguments.only):
        reports[path.name] = _file(path, players, arguments, reports.get(path.name, {}).get("modes", {}))
        _say(reports[path.name])
        write("decode", arguments, result())
    for player in players.values():
        player.close()
    finish("decode", arguments, result())
    return 0


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = options(__doc__)
    parser.add_argument("--media", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="files with one of these in their name")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--tools", nargs="+", choices=list(TOOLS), default=list(TOOLS))
    parser.add_argument("--keep", action="store_true", help="add to the results of this very code that are there")
    parser.add_argument("--patience", type=float, default=120, metavar="S", help="seconds for one request")
    parser.add_argument(
        "--slow", type=float, default=1, metavar="S", help="a peer that takes longer, and 3 times ours, is asked once"
    )
    parser.add_argument(
        "--longest", type=int, default=2000, metavar="N", help="longer clips are left out of every4 and all"
    )
    return parser.parse_args(argv)


class Reference:
    """Our frames of one file, decoded here, with their neighbours."""

    def __init__(self, path: Path) -> None:
        self._decoder = decode.open(path)
        self.total = len(self._decoder.index)
        self.rotation = self._decoder.info.rotation

    def request(self, mode: str) -> Request:
        """What a mode means for this file."""
        path = self._decoder.info.path
        if mode in ("uniform", "every4", "all"):
            kind = "uniform" if mode == "uniform" else "every"
            return Request(path, kind, {"uniform": 16, "every4": 4, "all": 1}[mode], rotation=self.rotation)
        random = np.random.default_rng(zlib.crc32(Path(path).name.encode()))
        numbers = np.sort(random.choice(self.total, min(_AT, self.total), replace=False))
        times = self._decoder.index.times
        ends = np.append(times[1:], times[-1] + 1e-3)
        seconds = (times + ends) / 2
        return Request(path, "at", 0, tuple(numbers.tolist()), tuple(seconds[numbers].tolist()), self.rotation)

    def close(self) -> None:
        self._decoder.close()

    def judge(self, request: Request, count: int, frames: np.ndarray) -> tuple[float | None, str | None]:
        """Worst mean absolute difference of a frame, and what is wrong with them."""
        wanted = request.of(self.total)
        if count != len(wanted):
            return None, f"{count} frames of {len(wanted)}"
        picked = [wanted[place] for place in shown(count)]
        ours = self._frames(sorted({near for number in picked for near in self._around(number)}))
        worst, wrong = 0.0, []
        for number, frame in zip(picked, frames, strict=True):
            worst = max(worst, float(np.abs(frame.astype(np.float32) - ours[number]).mean()))
            left = {near: _residual(frame, ours[near]) for near in self._around(number)}
            nearest = min(left, key=lambda near: left[near])
            if left[nearest] < left[number] - MARGIN:
                wrong.append(f"{nearest} for {number}")
        if wrong:
            return worst, f"wrong frames: {len(wrong)} of {len(picked)}, {wrong[0]}"
        return worst, f"differs by {worst:.1f} levels" if worst > UNLIKE else None

    def _around(self, number: int) -> range:
        return range(max(0, number - 1), min(self.total, number + 2))

    def _frames(self, numbers: list[int]) -> dict[int, np.ndarray]:
        resizer = Resizer(SIZE)
        out = np.empty((len(numbers), *SIZE, 3), np.uint8)
        self._decoder.read(numbers, lambda place, surface: resizer.resize(surface, out[place]))
        return dict(zip(numbers, out, strict=True))


def _residual(frame: np.ndarray, ours: np.ndarray) -> float:
    """Mean absolute difference once gain and offset of each channel are taken out."""
    a, b = (picture.reshape(-1, 3).astype(np.float32) for picture in (frame, ours))
    a, b = a - a.mean(0), b - b.mean(0)
    gain = (a * b).sum(0) / np.maximum((b * b).sum(0), 1)
    return float(np.abs(a - gain * b).mean())


def _file(
    path: Path, players: dict[str, Player], arguments: argparse.Namespace, known: dict[str, Any]
) -> dict[str, Any]:
    """One file; the modes that are known are not measured again."""
    report: dict[str, Any] = {"file": path.name, "modes": {}}
    try:
        form = shape(path)
        report |= {**dataclasses.asdict(form), "groups": form.groups()}
        reference = Reference(path)
    except (av.FFmpegError, IndexError, GpupipeError) as error:
        return report | {"unreadable": _said(error, path)}
    report["frames"] = reference.total
    if form.codec == "h264" and reference.total >= 200:
        report["groups"].append("H.264 of 200 frames or more")
    if reference.total >= 30:
        report["groups"].append("30 frames or more")
    try:
        for mode in MODES:
            if mode in known:
                report["modes"][mode] = known[mode]
            elif mode in arguments.modes and (mode in ("uniform", "at") or reference.total <= arguments.longest):
                report["modes"][mode] = _cell(reference, reference.request(mode), players, arguments)
    except GpupipeError as error:
        report |= {"unreadable": _said(error, path), "modes": {}}
    finally:
        reference.close()
    tools = report["modes"].get("uniform", {}).get("tools", {})
    if form.codec in ("vp9", "av1") and tools.get("gpupipe", {}).get("stats", {}).get("skipped"):
        report["groups"].append("VP9/AV1 with droppable frames")
    return report


def _said(error: Exception, path: Path) -> str:
    return " ".join(str(error).replace(str(path), path.name).split())[:200]


def _cell(
    reference: Reference, request: Request, players: dict[str, Player], arguments: argparse.Namespace
) -> dict[str, Any]:
    """One file in one mode."""
    tools: dict[str, dict[str, Any]] = {}
    quick, ours = {}, 0.0
    for name, player in players.items():
        try:
            count, frames, cpu = player.look(request)
        except Unavailable as error:
            tools[name] = {"unavailable": str(error)}
            continue
        difference, unlike = reference.judge(request, count, frames)
        tools[name] = {"difference": difference}
        if unlike:
            tools[name]["unlike"] = unlike
        if player.stats:
            tools[name]["stats"] = player.stats
        ours = ours or cpu  # ours is the first
        if cpu <= max(arguments.slow, 3 * ours):
            quick[name] = player
        else:
            tools[name] |= {"cpu": cpu, "wall": None, "rounds": 1}
    walls: dict[str, list[float]] = {name: [] for name in quick}

    def asked(name: str) -> float:
        cpu, wall = quick[name].time(request)
        walls[name].append(wall)
        return cpu

    times = interleave({name: lambda name=name: asked(name) for name in quick}, arguments.rounds)
    for name, found in times.items():
        tools[name] |= {
            "cpu": statistics.median(found), "wall": statistics.median(walls[name]), "rounds": len(found)
        }  # fmt: skip
    if "gpupipe" in times:
        for name, tool in tools.items():
            if name != "gpupipe" and "cpu" in tool:
                tool["ratio"] = ratio(times["gpupipe"], times.get(name, [tool["cpu"]]))
    able = {name: tool for name, tool in tools.items() if "ratio" in tool and "unlike" not in tool}
    best = max(able, key=lambda name: able[name]["ratio"], default=None)
    return {"best_peer": best, "ratio": able[best]["ratio"] if best else None, "tools": tools}


def summary(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Geometric means of ours / theirs by mode and group: of the best peer of each file, and of each peer."""
    found: dict[str, Any] = {}
    for mode in MODES:
        cells = [(report["groups"], report["modes"][mode]) for report in reports if mode in report["modes"]]
        groups = ["all files", *sorted({group for names, _ in cells for group in names})]
        for group in groups:
            chosen = [cell for names, cell in cells if group in ("all files", *names) and cell["ratio"]]
            if not chosen:
                continue
            peers = {}
            for tool in TOOLS:
                ratios = [
                    cell["tools"][tool]["ratio"]
                    for cell in chosen
                    if "ratio" in cell["tools"].get(tool, {}) and "unlike" not in cell["tools"][tool]
                ]
                if ratios:
                    peers[tool] = {"files": len(ratios), "ratio": geometric_mean(ratios), "worst": max(ratios)}
            ratios = [cell["ratio"] for cell in chosen]
            found.setdefault(mode, {})[group] = {
                "files": len(chosen),
                "best_peer": geometric_mean(ratios),
                "worst": max(ratios),
                "peers": peers,
            }
    return found


def _say(report: dict[str, Any]) -> None:
    print(f"{report['file']}: {', '.join(report.get('groups', []))} {report.get('unreadable', '')}")
    for mode, cell in report["modes"].items():
        print(f"  {mode}: {cell['ratio'] or float('nan'):.2f} of {cell['best_peer']}")
        for name, tool in cell["tools"].items():
            time = f"{tool['cpu'] * 1e3:9.1f} ms" if "cpu" in tool else " " * 12
            more = tool.get("unavailable") or tool.get("unlike") or tool.get("stats") or ""
            print(f"    {name:24}{time} {tool.get('ratio', float('nan')):6.2f} {tool.get('difference')} {more}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())

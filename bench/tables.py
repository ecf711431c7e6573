"""Writes docs/benchmarks.md from the files in bench/results/.

Command: ``python -m bench.tables``
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bench.gpu_parts import table
from bench.harness import RESULTS, ROOT

_TARGET = ROOT / "docs" / "benchmarks.md"
_MODES = {
    "uniform": "16 frames from first to last",
    "at": "8 frames at random times",
    "every4": "Every fourth frame",
    "all": "Every frame",
}
_HEAD = """# Benchmarks

Written by `python -m bench.tables` from `bench/results/`; do not edit. How each number is made, and its command, is in
the docstring of the file in `bench/`. `pip install -e .[bench]` brings the peers.

Ratios are ours / theirs in CPU seconds, medians over interleaved rounds: below 1 we use less. A peer whose frames are
not those asked for is marked *unlike* and is never the best peer.

Ours runs in the environment of a gpupipe worker, whose malloc takes huge pages; the peers run in the plain one. With
`GLIBC_TUNABLES=glibc.malloc.hugetlb=1` before a command all have it.
"""
_NO_GPU = """## On a GPU: `bench/gpu.py`

The GPU path is not yet measured on hardware. `python -m bench.gpu` does it in less than 8 minutes on a machine that has
a card; [gpu.md](gpu.md) says what is measured and what is to be reached.
"""


def main() -> int:
    _TARGET.write_text(page([RESULTS]))
    return 0


def page(folders: Sequence[Path]) -> str:
    """The whole document."""
    parts = [_HEAD]
    writers = {
        "decode": _decode, "tolerance": _tolerance, "transform": _transform, "clips": _clips, "keypoints": _keypoints,
        "keypoint-job": _keypoint_job, "gpu": _gpu,
    }  # fmt: skip
    found = [json.loads(path.read_text()) for folder in folders for path in sorted(folder.glob("*.json"))]
    for name, write in writers.items():
        parts += [write(result) for result in found if result["benchmark"] == name]
    if not any(result["benchmark"] == "gpu" for result in found):
        parts.append(_NO_GPU)
    return "\n".join(parts)


def _place(result: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    return (
        f"{result['machine']} ({result['cpu']}, {result['cores']} cores), {result['date']}, commit {result['commit']}, "
        f"{result['rounds']} rounds. Python {result['python']}, {versions}.\n"
    )


def _decode(result: dict[str, Any]) -> str:
    text = [f"## Decoding: `bench/decode.py`, {result['machine']}\n", _place(result)]
    for mode, title in _MODES.items():
        if mode not in result["summary"]:
            continue
        groups = result["summary"][mode]
        tools = sorted({tool for group in groups.values() for tool in group["peers"]})
        text.append(f"### {title}\n")
        text.append("Geometric means of ours / theirs by group; in brackets the number of files.\n")
        once = sum(tool.get("rounds") == 1 for file in result["files"] for tool in _tools_of(file, mode))
        if once and result["rounds"] > 1:
            text.append(
                f"{once} slow peers (over 1 s and 3 times ours) were asked once, not {result['rounds']} times.\n"
            )
        rows = []
        for name, group in groups.items():
            peers = [group["peers"].get(tool) for tool in tools]
            cells = [f"{_number(peer['ratio'])} ({peer['files']})" if peer else "" for peer in peers]
            rows.append([name, group["files"], _number(group["best_peer"]), _number(group["worst"]), *cells])
        text.append(_table(["group", "files", "best peer", "worst file", *tools], rows))
        text.append("File by file; CPU milliseconds, and ours / the best peer.\n")
        text.append(_files(result["files"], mode))
    unreadable = [f"- {file['file']}: {file['unreadable']}" for file in result["files"] if "unreadable" in file]
    if unreadable:
        text += ["### Files that we refuse\n", *unreadable, ""]
    return "\n".join(text)


def _tools_of(file: dict[str, Any], mode: str) -> Iterable[dict[str, Any]]:
    return file["modes"].get(mode, {}).get("tools", {}).values()


def _files(files: list[dict[str, Any]], mode: str) -> str:
    rows, unlike = [], []
    for file in files:
        cell = file["modes"].get(mode)
        if cell is None:
            continue
        tools = cell["tools"]
        ours = tools["gpupipe"]
        best = cell["best_peer"]
        stats = ours.get("stats", {})
        rows.append([
            file["file"], f"{file['size'][1]}x{file['size'][0]}", file["frames"], ", ".join(file["groups"][:3]),
            stats.get("wanted"), stats.get("decoded"), stats.get("skipped"),
            _milliseconds(ours.get("cpu")), best, _milliseconds(tools[best]["cpu"]) if best else "",
            _number(cell["ratio"]), _number(tools.get("opencv-seek", {}).get("ratio")),
        ])  # fmt: skip
        for name, tool in tools.items():
            if reason := tool.get("unavailable") or tool.get("unlike"):
                unlike.append(f"- {file['file']}, {name}: {'unlike' if 'unlike' in tool else 'unavailable'}: {reason}")
    heads = [
        "file", "size", "frames", "kind", "wanted", "decoded", "skipped", "ours", "best peer", "theirs", "ratio",
        "ratio to opencv-seek",
    ]  # fmt: skip
    table = _table(heads, rows)
    return "\n".join([table, "Peers left out:\n", *unlike, ""]) if unlike else table


def _tolerance(result: dict[str, Any]) -> str:
    text = [f"## `--tolerance {result['seconds']:g}`: `bench/tolerance.py`, {result['machine']}\n", _place(result)]
    text.append(
        "Packets decoded for 16 frames from first to last, and CPU exact / with tolerance. No choice within reach "
        "decodes fewer than *at least*.\n"
    )
    heads = ["clip", "frames", "a keyframe every", "exact", "with tolerance", "at least", "times less CPU"]
    rows = [
        [
            each["file"], each["frames"], f"{each['keyframe_seconds']:.1f} s", each["decoded"]["exact"],
            each["decoded"]["near"], each["bound"], _number(each["gain"]),
        ]
        for each in (*result["made"], *result["files"]) if "gain" in each
    ]  # fmt: skip
    text.append(_table(heads, rows))
    heads = ["group", "files", "times less CPU", "times fewer packets", "at most"]
    groups = result["summary"].items()
    cells = [
        [name, each["files"], *(_number(each[key]) for key in ("gain", "packets", "at_most"))] for name, each in groups
    ]
    text.append(_table(heads, cells))
    return "\n".join(text)


def _transform(result: dict[str, Any]) -> str:
    text = [f"## Planes to small RGB: `bench/transform.py`, {result['machine']}\n", _place(result)]
    names = list(dict.fromkeys(name for case in result["cases"] for name in case["tools"]))
    cases = result["cases"]
    heads = ["CPU microseconds a picture", *(f"{case['height']}p, {case['depth']} bit" for case in cases)]
    rows = [[name, *(_transform_cell(case["tools"][name]) for case in cases)] for name in names]
    text.append(f"To 256x160; `gpupipe` runs {cases[0]['simd']} here. In brackets ours / theirs.\n")
    text.append(_table(heads, rows))
    bounds = ", ".join(_number(case["times_read_bound"]) for case in cases)
    text.append(f"Ours takes {bounds} times as long as reading the planes.\n")
    return "\n".join(text)


def _transform_cell(tool: dict[str, Any]) -> str:
    if "unavailable" in tool:
        return "unavailable"
    share = f" ({_number(tool['ratio'])})" if "ratio" in tool else ""
    return f"{tool['cpu_us']:.0f}{share}{' unlike' if 'unlike' in tool else ''}"


def _clips(result: dict[str, Any]) -> str:
    text = [f"## The whole job: `bench/clips.py`, {result['machine']}\n", _place(result)]
    if job := result.get("job"):
        text.append(f"{job['clips']} clips ({job['files']} files); in brackets ours / theirs with as many workers.\n")
        rows = [[name, *_job_cells(tool)] for name, tool in job["tools"].items()]
        text.append(_table(["command and workers", "CPU s", "wall s", "remarks"], rows))
        if job["scaling_2_workers"]:
            load = " to ".join(map(_number, job["load_average"]))
            scaling = _number(job["scaling_2_workers"])
            text.append(f"Wall of one worker / two: {scaling}; the machine's load average was {load} meanwhile.\n")
    if found := result.get("scaling"):
        text.append(
            f"{found['clips']} short clips, wall with one worker on one core / with two on two: "
            f"{_number(found['scaling'])}; with one worker that has both cores / with two: "
            f"{_number(found['over_one_worker'])}, of {_number(found['at_most'])} that two full cores would give; two "
            f"bare loops at once on this machine give {_number(found['ceiling'])}.\n"
        )
    if engine := result.get("engine"):
        load = " to ".join(map(_number, engine["load_average"]))
        text.append(f"The engine's part ran at a load average of {load}: above 1 its overhead is not to be trusted.\n")
        text.append(
            f"Engine: {engine['clips']} short clips take {_number(engine['gpupipe_cpu'])} CPU s, "
            f"{_number(engine['bare_cpu'])} in a bare loop: {engine['overhead']:.1%} more, "
            f"{engine['overhead_without_start']:.1%} without the start of the processes "
            f"({_number(engine['gpupipe_start_cpu'])} and {_number(engine['bare_start_cpu'])} CPU s).\n"
        )
    if plan := result.get("plan"):
        text.append(
            f"{plan['items']} items: planned in {_number(plan['plan_seconds'])} s, resumed in "
            f"{_number(plan['resume_seconds'])} s; the supervisor's peak is {plan['peak_mib']:.0f} MiB.\n"
        )
    if status := result.get("status"):
        seconds = f"{_number(status['seconds'])} s, {_number(status['cpu'])} CPU s"
        text.append(f"`gpupipe status` on a ledger of {status['rows']} rows: {seconds}.\n")
    return "\n".join(text)


def _job_cells(tool: dict[str, Any]) -> list[str]:
    if "unavailable" in tool:
        return ["", "", f"unavailable: {tool['unavailable']}"]
    share, wall = (f" ({_number(tool[key])})" if key in tool else "" for key in ("ratio", "wall_ratio"))
    remarks = ", ".join(f"{tool[key]} {key}" for key in ("missing", "unlike") if tool.get(key))
    return [_number(tool["cpu"]) + share, _number(tool["wall"]) + wall, remarks]


def _keypoints(result: dict[str, Any]) -> str:
    text = [f"## Keypoints: `bench/keypoints.py`, {result['machine']}\n", _place(result)]
    found = ", ".join(f"{count} {part.replace('_', ' ')}" for part, count in result["parts_found"].items())
    text.append(f"{result['stills']} pictures and {result['clips']} clips in memory; in the pictures {found}.\n")
    rows = [[name, f"{tool['cpu_ms']:.1f}", _number(tool["times_ours"])] for name, tool in result["tools"].items()]
    text.append(_table(["way", "CPU ms a picture", "times ours"], rows))
    text.append(
        f"`stateless` and `video` are ours, the others MediaPipe's. {result['resident_mb']:.0f} MB a process.\n"
    )
    for precision, card in result["gpu"].items():
        words = (
            f"not measured ({card['unavailable'].partition(': ')[2].partition('. ')[0]})"
            if "unavailable" in card
            else card
        )
        text.append(f"On a GPU, {precision}: {words}.\n")
    return "\n".join(text)


def _keypoint_job(result: dict[str, Any]) -> str:
    text = [f"## The whole keypoints job: `bench/keypoint_job.py`, {result['machine']}\n", _place(result)]
    if reading := result.get("reading"):
        text.append(f"Reading a PNG of 210x260: {_number(reading['cpu_ms'])} CPU ms.\n")
    if run := result.get("run"):
        rows = [
            [f"{name} workers" if name.isdigit() else name, _number(tool["cpu"]), _number(tool["wall"])]
            for name, tool in run["tools"].items()
        ]
        text.append(_table([f"{run['pictures']} pictures", "CPU s", "wall s"], rows))
        text.append(
            f"Wall of one worker / two: {_number(run['scaling_2_workers'])}, start and end included; CPU of the whole "
            f"command with one worker over the networks alone: {_number(run['cpu_over_networks'])}.\n"
        )
    if plan := result.get("plan"):
        text.append(
            f"{plan['items']} pictures: planned in {_number(plan['plan_seconds'])} s, resumed in "
            f"{_number(plan['resume_seconds'])} s, to the end with index and pickle of all in "
            f"{_number(plan['resume_to_end_seconds'])} s; the supervisor's peak is {plan['peak_mib']:.0f} MiB.\n"
        )
    return "\n".join(text)


def _gpu(result: dict[str, Any]) -> str:
    device = result["device"]
    card = device.get("gpu", "no GPU")
    cuda = f", driver for CUDA {device['driver_cuda']}" if "driver_cuda" in device else ""
    text = [f"## On a GPU: `bench/gpu.py`, {card}\n", f"{card}{cuda}. {_place(result)}"]
    rows = [[row.part, row.what, row.value, row.target, row.verdict] for row in table.rows(result)]
    text.append(_table(["part", "", "found", "to reach", ""], rows))
    return "\n".join(text)


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [["" if cell is None else str(cell).replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join("| " + " | ".join(line) + " |" for line in cells) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.4g}"


if __name__ == "__main__":
    sys.exit(main())

"""What bench/gpu.py found, line by line, beside what it was to reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.gpu_parts.parent import PARTS


@dataclass(frozen=True)
class Target:
    """A bound: ``least`` or ``most``, and how it is written."""

    least: float | None = None
    most: float | None = None

    def met(self, value: float) -> bool:
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    def text(self, write: Callable[[float], str]) -> str:
        return f">= {write(self.least)}" if self.least is not None else f"<= {write(self.most or 0.0)}"


@dataclass(frozen=True)
class Row:
    """One line: what, how much, what was to be reached, and ``"met"``, ``"missed"`` or nothing."""

    part: str
    what: str
    value: str
    target: str = ""
    verdict: str = ""


def rows(result: dict[str, Any]) -> list[Row]:
    """The lines of a result; a part that is not there has one that says why."""
    found: list[Row] = []
    for part in PARTS:
        told = result["parts"].get(part.name, {"unavailable": "not asked for"})
        if "unavailable" in told:
            found.append(Row(part.title, "", f"unavailable: {told['unavailable']}"))
            continue
        if "failed" in told:
            found.append(Row(part.title, "", f"failed: {told['failed']}"))
        found += [Row(part.title, *cells) for cells in _WRITERS[part.name](told)]
    return found


def text(found: list[Row]) -> str:
    """For a terminal."""
    lines = []
    for row in found:
        if not row.what:
            lines.append(f"{row.part}: {row.value}")
        else:
            lines.append(f"{row.part}: {row.what:58}{row.value:>26}  {row.target:12}{row.verdict}".rstrip())
    return "\n".join(lines)


Cells = tuple[str, ...]


def _cells(
    what: str, value: float | None, write: Callable[[float], str], target: Target | None = None
) -> Iterator[Cells]:
    if value is None:
        return
    if target is None:
        yield what, write(value)
    else:
        yield what, write(value), target.text(write), "met" if target.met(value) else "missed"


def _kernel(told: dict[str, Any]) -> Iterator[Cells]:
    yield from _cells("copy within the card", told.get("copy_bytes_per_second"), _rate)
    for case, about in told.get("cases", {}).items():
        tools = about.get("tools", {})
        for name, tool in tools.items():
            if "unavailable" in tool:
                yield f"{case}: {name}", f"unavailable: {tool['unavailable']}"
                continue
            own = name == "gpupipe"
            if own:
                wrong = float(not tool["same_as_cpu"])
                yield from _cells(f"{case}: pictures unlike the CPU's", wrong, _count, Target(most=0))
            if "us_a_picture" not in tool:
                continue
            said = f" {tool['unlike']}" if "unlike" in tool else ""
            yield f"{case}: {name}{said}", f"{tool['us_a_picture']:.2f} us a picture"
            if own:
                yield from _cells(f"{case}: {name}, of the copy", tool["share_of_copy"], _percent, Target(least=0.7))
        for name, least in (("torch", 15.0), ("cvcuda", 4.0), ("dali", 4.0)):
            yield from _cells(
                f"{case}: as fast as {name}", about.get("times_as_fast_as", {}).get(name), _times, Target(least=least)
            )


def _parity(told: dict[str, Any]) -> Iterator[Cells]:
    surfaces = told.get("synthetic", {})
    if "different" in surfaces:
        what = f"{surfaces['surfaces']} random surfaces, {surfaces['layouts']} layouts: different"
        yield from _cells(what, surfaces["different"], _count, Target(most=0))
    if surfaces.get("first_different"):
        yield "the first", surfaces["first_different"]
    clips = told.get("clips", {})
    if "unavailable" in clips:
        yield "clips", f"unavailable: {clips['unavailable']}"
        return
    for name, clip in clips.items():
        said = next((f"{key}: {clip[key]}" for key in ("unavailable", "skipped", "error") if key in clip), None)
        if said is not None:
            yield name, said
            continue
        wrong = clip["planes_different"] + clip["rows_different"]
        yield from _cells(f"{name}, {clip['frames']} pictures: different", wrong, _count, Target(most=0))


def _nvdec(told: dict[str, Any]) -> Iterator[Cells]:
    yield from _cells("engines", told.get("engines"), _count)
    for name, frames in told.get("ceiling_frames_per_second", {}).items():
        busy = told.get("ceiling_counters", {}).get(name, {}).get("decoder_percent")
        said = f", engines busy {busy:.0f}%" if busy is not None else ""
        yield from _cells(f"ceiling, H.264 {name}{said}", frames, _frames)
    for name, way in told.get("clips", {}).items():
        yield from _cells(f"{way['clips']:.0f} clips of 10 s, {name}", way["clips_per_second"], _clips)
        yield from _cells(f"decoded, {name}", way["decoded_frames_per_second"], _frames)
        target = Target(least=0.85) if name == "skipping" else None
        yield from _cells(f"of the ceiling, {name}", way["share_of_ceiling"], _percent, target)
    yield from _cells("skipping against feeding all", told.get("skipping_gain"), _times, Target(least=1.3))
    for name, way in told.get("two_second_clips", {}).items():
        yield from _cells(f"{way['clips']:.0f} clips of 2 s, decoders: {name}", way["clips_per_second"], _clips)
    yield from _cells("a pool of decoders against fresh ones", told.get("pool_gain"), _times, Target(least=3))


def _job(told: dict[str, Any]) -> Iterator[Cells]:
    if "same_bytes" in told:
        yield from _cells("ways whose bytes differ", float(not told["same_bytes"]), _count, Target(most=0))
    for name, way in told.get("ways", {}).items():
        if "failed" in way:
            yield name, f"failed: {way['failed']}"
        if "items" not in way:
            continue
        rate = way.get("clips_per_second", way["items_per_second"])
        yield from _cells(f"{way['items']} clips, {name}", rate, _clips, Target(least=200) if name == "gpu" else None)
        stages = ", ".join(f"{stage} {_percent(share)}" for stage, share in list(way["stages"].items())[:5])
        yield f"stages, {name}", stages
        if name != "gpu":
            continue
        yield from _cells("waits within an item, gpu", way["waits"], _percent, Target(most=0.05))
        counters = way["counters"]
        if "unavailable" in counters:
            yield "time of the multiprocessors", f"unavailable: {counters['unavailable']}"
        elif "sm_percent" in counters:
            yield from _cells("time of the multiprocessors", counters["sm_percent"] / 100, _percent, Target(most=0.05))
            yield from _cells("time of the video engines", counters["decoder_percent"] / 100, _percent)


def _pinned(told: dict[str, Any]) -> Iterator[Cells]:
    for name, rate in told.get("bytes_per_second", {}).items():
        yield from _cells(name, rate, _rate)
    yield from _cells("overlapped against one after the other", told.get("overlap_gain"), _times)
    yield from _cells("the writer's wait for the copy", told.get("waiting_for_copy"), _percent, Target(most=0.05))


_WRITERS: dict[str, Callable[[dict[str, Any]], Iterator[Cells]]] = {
    "kernel": _kernel,
    "parity": _parity,
    "nvdec": _nvdec,
    "job": _job,
    "pinned": _pinned,
}


def _rate(value: float) -> str:
    return f"{value / 1e9:.1f} GB/s"


def _percent(value: float) -> str:
    return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"


def _times(value: float) -> str:
    return f"{value:.2f} x" if value < 10 else f"{value:.1f} x"


def _count(value: float) -> str:
    return f"{value:.0f}"


def _frames(value: float) -> str:
    return f"{value:.0f} frames/s"


def _clips(value: float) -> str:
    return f"{value:.1f} clips/s"

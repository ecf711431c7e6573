"""How near a run came to what its machines can give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpupipe.outcome import RunRecord
from gpupipe.reports.html import text
from gpupipe.reports.html.axis import joined
from gpupipe.stages import START, WAITS

_BOUND = 0.75  # of a ceiling; from there on it holds the run back
_GPU_NOTE = "Means of the driver’s counters, a sample a second; other programs on the card are in them."


@dataclass(frozen=True)
class Resource:
    """One resource.

    Attributes
    ----------
    name, used, ceiling : str
        In words.
    share : float or None
        Used of the ceiling; None where the ceiling was not measured.
    note : str
    """

    name: str
    used: str
    ceiling: str
    share: float | None
    note: str = ""


def stop(run: RunRecord) -> float:
    """Unix time of its last commit."""
    return max(run.at, run.started + run.seconds)


def active_seconds(runs: Sequence[RunRecord]) -> float:
    """Time in which at least one of them was at work."""
    return sum(end - start for start, end in joined(((run.started, stop(run)) for run in runs), 0.0))


def core_seconds(runs: Sequence[RunRecord]) -> float | None:
    """What the cores of their machines could have given while they ran; None where a run does not say how many."""
    total = 0.0
    for host in sorted({run.host for run in runs}):
        there = [run for run in runs if run.host == host]
        cores = [fact(run, "cores") for run in there]
        if None in cores:
            return None
        total += active_seconds(there) * max(core or 0 for core in cores)
    return total


def cpu_share(runs: Sequence[RunRecord]) -> float | None:
    """CPU time used of what there was; None where that is not known."""
    there = core_seconds(runs)
    return min(1.0, sum(run.cpu_seconds for run in runs) / there) if there else None


def fact(run: RunRecord, name: str) -> int | None:
    """A number the run noted of its machine."""
    machine = run.facts.get("machine")
    value = machine.get(name) if isinstance(machine, dict) else None
    return value if isinstance(value, int) and value > 0 else None


def workers(run: RunRecord) -> int:
    """As many as the run had at most."""
    asked = run.facts.get("asked_workers")
    return max(run.workers, asked if isinstance(asked, int) else 0)


def resources(runs: Sequence[RunRecord]) -> list[Resource]:
    """Of all runs together."""
    if not runs:
        return []
    seconds = active_seconds(runs) or 1e-3
    used = sum(run.cpu_seconds for run in runs)
    there = core_seconds(runs)
    hosts = {run.host: fact(run, "cores") or 0 for run in runs}
    cores = f"{sum(hosts.values())} cores" + (f" on {len(hosts)} machines" if len(hosts) > 1 else "")
    cpu = Resource(
        "CPU",
        f"{text.duration(used)} of CPU time",
        f"{text.duration(there)} ({cores})" if there else "not recorded",
        cpu_share(runs),
        "The workers’ own time, of the cores the runs could use while they ran.",
    )
    return [cpu, *_gpus(runs), _memory(runs), *_storage(runs, seconds)]


def _gpus(runs: Sequence[RunRecord]) -> list[Resource]:
    """The video decoders of each card, over all runs that used it, weighted by their samples."""
    found: dict[str, list[dict[str, float]]] = {}
    for run in runs:
        gpus = run.facts.get("gpus")
        for label, gauge in gpus.items() if isinstance(gpus, dict) else ():
            if isinstance(gauge, dict) and isinstance(gauge.get("samples"), int) and gauge["samples"] > 0:
                found.setdefault(f"{label} of {run.host}", []).append(gauge)
    lines = []
    for name, gauges in sorted(found.items()):
        decoder, sm = _mean(gauges, "decoder_percent"), _mean(gauges, "sm_percent")
        peak = max(gauge.get("peak_bytes") or 0 for gauge in gauges)
        used = [] if decoder is None else [f"video decoders {decoder:.0f}% busy"]
        used += [] if sm is None else [f"multiprocessors {sm:.0f}%"]
        used += [f"{text.nbytes(peak)} of its memory at most"] if peak else []
        share = None if decoder is None else decoder / 100
        lines.append(Resource(f"GPU {name}", ", ".join(used), "all its video decoders", share, _GPU_NOTE))
    return lines


def _mean(gauges: Sequence[dict[str, float]], name: str) -> float | None:
    known = [(gauge[name], gauge["samples"]) for gauge in gauges if isinstance(gauge.get(name), (int, float))]
    return sum(value * count for value, count in known) / sum(count for _, count in known) if known else None


def _memory(runs: Sequence[RunRecord]) -> Resource:
    needs = [(run.peak_bytes * workers(run), fact(run, "memory_bytes"), run) for run in runs]
    known = [(need / memory, need, memory, run) for need, memory, run in needs if memory]
    if not known:
        return Resource("Memory", f"{text.nbytes(max(run.peak_bytes for run in runs))} a worker", "not recorded", None)
    share, need, memory, run = max(known, key=lambda one: one[0])
    return Resource(
        "Memory",
        f"{text.nbytes(run.peak_bytes)} a worker, {text.nbytes(need)} for all {workers(run)}",
        text.nbytes(memory),
        min(1.0, share),
        "Reckoned as if every worker had been at the largest worker’s peak at once; pages they share count each time.",
    )


def _storage(runs: Sequence[RunRecord], seconds: float) -> list[Resource]:
    note = "What the workers asked the system for, page cache included. A ceiling would need a measurement of the disk."
    return [
        Resource(name, f"{text.nbytes(total / seconds)}/s, {text.nbytes(total)}", "not measured", None, words)
        for name, total, words in (
            ("Storage, read", sum(run.read_bytes for run in runs), ""),
            ("Storage, written", sum(run.written_bytes for run in runs), note),
        )
    ]


def verdict(runs: Sequence[RunRecord]) -> str:
    """What held the runs back, as far as the numbers tell."""
    share = cpu_share(runs)
    stages: dict[str, float] = {}
    for run in runs:
        for name, seconds in run.stages.items():
            stages[name] = stages.get(name, 0.0) + seconds
    busy = {name: seconds for name, seconds in stages.items() if name not in (*WAITS, START)}
    total = sum(stages.values())
    if share is None or not busy or not total:
        return ""
    largest = max(busy, key=lambda name: busy[name])
    if share >= _BOUND:
        return (
            f"The CPU cores are the ceiling: the workers used {text.share(share)} of their time, most of it in "
            f"“{largest}”. More cores, or cheaper items, make it faster."
        )
    waits = {name: stages.get(name, 0.0) / total for name in (*WAITS, START)}
    name = max(waits, key=lambda key: waits[key])
    meaning = {
        "wait": "waiting for work: there were too few items for so many workers, or the end of the run was uneven",
        "wait to write": "waiting until the item before was written: storage is slower than the workers",
        "wait for card": "waiting for the GPU: its video decoders or its copies are the ceiling",
        "start": "starting: the run was short",
    }[name]
    begun = f"The CPU was not the ceiling: the workers used {text.share(share)} of their cores’ time"
    if waits[name] < 0.1:
        return f"{begun} and hardly waited for each other. Fewer workers than cores, or slow reading, explain that."
    return f"{begun}, and spent {text.share(waits[name])} of theirs {meaning}."

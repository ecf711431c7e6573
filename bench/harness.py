"""What every benchmark shares: CPU clocks, interleaved rounds, medians and ratios, facts of the machine, results."""

from __future__ import annotations

import argparse
import datetime
import json
import math
import os
import platform
import re
import resource
import statistics
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
SIZE = (160, 256)
"""(height, width) of every small picture."""

ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1")

_PACKAGES = (
    "numpy", "av", "opencv-python-headless", "decord", "torchcodec", "torch", "spdl_io", "xxhash", "pyarrow", "pillow",
    "simplejpeg",
)  # fmt: skip
_WORDS = re.compile(r"(epyc|xeon|ryzen|core|graviton|neoverse|apple m\d+)", re.IGNORECASE)

Key = TypeVar("Key")


def cpu_of_children() -> float:
    """CPU seconds, user and system, of all child processes that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def interleave(runs: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, list[float]]:
    """Run everything once a round, so that a slow minute of the machine falls on all alike.

    The order turns by one from round to round, so that nobody always follows the same one.
    """
    found: dict[Key, list[float]] = {key: [] for key in runs}
    keys = list(runs)
    for number in range(rounds):
        turn = number % max(len(keys), 1)
        for key in keys[turn:] + keys[:turn]:
            found[key].append(runs[key]())
    return found


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Median over the rounds of ours / theirs; of the medians where the rounds do not pair."""
    if len(ours) == len(theirs):
        return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return statistics.median(ours) / statistics.median(theirs)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Geometric mean; None of nothing."""
    logs = [math.log(value) for value in values]
    return math.exp(sum(logs) / len(logs)) if logs else None


def rounded(value: Any, digits: int = 4) -> Any:
    """Floats of a result to so many significant digits, however deep."""
    if isinstance(value, float):
        return float(f"{value:.{digits}g}")
    if isinstance(value, Mapping):
        return {str(key): rounded(each, digits) for key, each in value.items()}
    return [rounded(each, digits) for each in value] if isinstance(value, (list, tuple)) else value


def machine_name() -> str:
    """A generic name for the kind of machine: ``epyc-2core``."""
    model = _cpu_model()
    found = _WORDS.search(model)
    word = found.group(1).lower().replace(" ", "") if found else platform.machine().lower()
    return f"{word}-{len(os.sched_getaffinity(0))}core"


def facts() -> dict[str, Any]:
    """Machine, versions, date and the commit that was measured."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": _commit(),
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "versions": {name: version for name in _PACKAGES if (version := _version(name))},
    }


def options(docstring: str | None) -> argparse.ArgumentParser:
    """A parser with the flags that every benchmark has."""
    parser = argparse.ArgumentParser(description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="measured rounds (default: %(default)s)")
    parser.add_argument("--machine", default=machine_name(), help="name in the result's file (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where results are written")
    return parser


def write(name: str, arguments: argparse.Namespace, result: dict[str, Any]) -> dict[str, Any]:
    """Write the result's file; return what is in it."""
    whole = rounded({"benchmark": name, "machine": arguments.machine, **facts(), **result})
    arguments.results.mkdir(parents=True, exist_ok=True)
    _file(name, arguments).write_text(json.dumps(whole, indent=1) + "\n")
    return whole


def finish(name: str, arguments: argparse.Namespace, result: dict[str, Any]) -> None:
    """Write the result's file; print it without what is told file by file, as the last line."""
    whole = write(name, arguments, result)
    print(json.dumps({key: value for key, value in whole.items() if key != "files"}))


def earlier(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """What an earlier run of this very code found; empty where there is none."""
    path = _file(name, arguments)
    found = json.loads(path.read_text()) if path.exists() else {}
    now = facts()
    same = all(found.get(key) == now[key] for key in ("commit", "cpu", "versions"))
    return found if same and found.get("rounds") == arguments.rounds else {}


def _file(name: str, arguments: argparse.Namespace) -> Path:
    return Path(arguments.results, f"{name}-{arguments.machine}.json")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False).stdout

    changed = git("status", "--porcelain", "--untracked-files=no", "gpupipe", "csrc")
    return (git("rev-parse", "--short", "HEAD").strip() or "unknown") + ("+changes" if changed.strip() else "")


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())

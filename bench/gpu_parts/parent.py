"""Runs the parts, each in a process of its own with a time limit, and keeps what they told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bench.harness import ROOT


@dataclass(frozen=True)
class Part:
    """One of them.

    Attributes
    ----------
    name : str
        Of its module in this package.
    title : str
        For people.
    seconds : float
        It is ended after so many.
    """

    name: str
    title: str
    seconds: float


PARTS = (
    Part("kernel", "kernel", 100),
    Part("parity", "parity, CPU and GPU", 110),
    Part("nvdec", "video engines", 110),
    Part("job", "the clips job", 110),
    Part("pinned", "pinned memory to file", 40),
)
"""Together they take less than 8 minutes whatever happens."""


def run(part: Part, options: dict[str, Any]) -> dict[str, Any]:
    """Run a part to its end or its limit.

    Returns
    -------
    dict
        What it told, level by level. ``unavailable``: why there is nothing; ``failed``: what ended
        it early, what it found before that is there too.
    """
    command = [
        sys.executable,
        "-m",
        "bench.gpu_parts.child",
        part.name,
        json.dumps({**options, "seconds": part.seconds}),
    ]
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    child = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # so that what it starts ends with it
    )
    late = threading.Event()

    def end() -> None:
        late.set()
        _kill(child)

    timer = threading.Timer(part.seconds, end)
    timer.start()
    try:
        out, err = child.communicate()
    finally:
        timer.cancel()
        _kill(child)
    found = merge(out.decode(errors="replace").splitlines())
    if late.is_set():
        found["failed"] = f"ended after {part.seconds:.0f} s"
    elif child.returncode and "failed" not in found:
        found["failed"] = f"the process ended with {_ended(child.returncode)}"
    if "failed" in found and err:
        found["said"] = err.decode(errors="replace").strip().splitlines()[-8:]
    return found


def merge(lines: Iterable[str]) -> dict[str, Any]:
    """What a part told, from its lines; the last may be cut short."""
    found: dict[str, Any] = {}
    for line in lines:
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            continue  # cut short when it was killed
        *levels, name = told["names"]
        place = found
        for level in levels:
            place = place.setdefault(level, {})
        place[name] = told["value"]
    return found


def _kill(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)


def _ended(code: int) -> str:
    if code >= 0:
        return f"code {code}"
    return signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"

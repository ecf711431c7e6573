"""The storm: runs are killed at random moments, continued, and compared with a run that nobody disturbed.

``make chaos``, or ``python tests/chaos/storm.py --kills 200 --seed 1``. A kill is SIGKILL of a worker, of the
supervisor or of the whole process group. Its moment is drawn by progress (items settled, or the phase a process shows
on its board) and then a delay of a few milliseconds, so that also what is short is met. What a process was doing when
it died is read from its board afterwards.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
_PLACES = [str(HERE), str(HERE.parent / "engine"), str(HERE.parent), str(HERE.parents[1])]
sys.path[:0] = _PLACES

import board  # noqa: E402
import cases  # noqa: E402
import checks  # noqa: E402
from cases import Case  # noqa: E402
from helpers import alive, workers_of  # noqa: E402

from gpupipe.pulse import Pulse  # noqa: E402

WORKERS = 2
ITEM_TIMEOUT = 2.0
MEMORY = 640 << 20
COMMIT_SECONDS = 0.15  # many commits in a short run
ENDED = (0, 3)
SECONDS = 240.0  # for one run; the deadline is the failure
WORKER_AIMS = ("writing", "working", "starting", "between items")
AIMS = {
    "progress": 10,
    "planning": 1,
    "first leases": 2,
    "reopening": 2,
    "syncing": 4,
    "committing": 5,
    "publishing": 5,
    "voiding": 1,
    "finishing": 3,
    "ending": 2,
    "worker": 10,
}


def environment() -> dict[str, str]:
    """Of a process that finds the planted jobs, and this package."""
    return dict(os.environ, PYTHONPATH=os.pathsep.join([*_PLACES, os.environ.get("PYTHONPATH", "")]))


@dataclass
class Toll:
    """What was done: kills by victim and by what the victim was doing."""

    kills: Counter[str] = field(default_factory=Counter)
    phases: Counter[str] = field(default_factory=Counter)
    items: int = 0
    outputs: int = 0

    def __add__(self, other: Toll) -> Toll:
        return Toll(
            self.kills + other.kills,
            self.phases + other.phases,
            self.items + other.items,
            self.outputs + other.outputs,
        )

    def add(self, victim: str, phase: str) -> None:
        self.kills[victim] += 1
        self.phases[phase] += 1


class Storm:
    """Kills the runs of one case until it has killed often enough, output after output."""

    def __init__(self, case: Case, folder: Path, chance: random.Random) -> None:
        self._case, self._folder, self._chance = case, folder, chance
        self.toll = Toll()
        self._pids: list[int] = []
        self._out = folder

    def run(self, kills: int, each: int) -> None:
        """At most `each` kills an output."""
        calm = self._folder / "calm"
        self._out = calm
        process = self._start()
        if process.wait(SECONDS) not in ENDED:
            raise AssertionError(f"{self._case.name}: undisturbed, it ended with {process.returncode}{self._said()}")
        self._judge(calm, calm)
        while kills > 0:
            self._out = self._folder / "killed"
            kills -= self._round(min(kills, each))
            self._judge(self._out, calm)
            shutil.rmtree(self._out)

    def _judge(self, out: Path, calm: Path) -> None:
        found = [f"{self._case.name}: {text}" for text in checks.faults(self._case, out, calm)]
        found += [f"{self._case.name}: worker of {pid} alive" for pid in self._pids if any(map(alive, workers_of(pid)))]
        if found:
            raise AssertionError("\n".join([f"{out}:", *found[:20]]))
        self.toll.items += self._case.count
        self.toll.outputs += 1

    def _round(self, kills: int) -> int:
        """One output from nothing to its end; returns the number of kills."""
        killed = 0
        while True:
            process = self._start()
            try:
                while killed < kills and process.poll() is None:
                    struck = self._strike(process, killed)
                    killed += bool(struck)
                    if struck in ("supervisor", "group"):
                        break
                else:
                    process.wait(SECONDS)
                    if process.returncode not in ENDED:
                        raise AssertionError(f"{self._case.name}: ended with {process.returncode}{self._said()}")
                    return killed
            finally:
                process.kill()
                process.wait()

    def _log(self) -> Path:
        return self._folder / "run.log"

    def _said(self) -> str:
        return f"; it said last:\n{self._log().read_text(errors='replace')[-3000:]}"

    def _start(self) -> subprocess.Popen[bytes]:
        how = {
            "output": str(self._out), "workers": WORKERS, "item_timeout": ITEM_TIMEOUT, "memory_per_worker": MEMORY,
            "commit_seconds": COMMIT_SECONDS,
        }  # fmt: skip
        words = [HERE / "start.py", self._case.kind, json.dumps(self._case.options), json.dumps(how)]
        with self._log().open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, *words], start_new_session=True, env=environment(),
                stdout=log, stderr=log,
            )  # fmt: skip
        self._pids.append(process.pid)
        return process

    # ---- one kill

    def _strike(self, process: subprocess.Popen[bytes], killed: int) -> str:
        """Wait for the moment that is drawn, then kill; what was killed, empty if the run ended before."""
        aim = self._chance.choices(list(AIMS), list(AIMS.values()))[0]
        planned = (self._out / ".gpupipe/plan/plan.json").exists()
        if not killed and self._chance.random() < 0.5:
            aim = "planning"
        elif planned and aim == "planning":
            aim = "progress"
        delay = self._chance.random() ** 2 * 0.02
        if aim == "worker" or (aim == "progress" and self._chance.random() < 0.4):
            return self._strike_worker(process, self._chance.choice(WORKER_AIMS) if aim == "worker" else "", delay)
        shown = self._wait_for_board(process)
        if shown is None:
            return ""
        if aim == "progress":
            goal = shown.count + self._goal()
            self._wait(process, lambda: shown.count >= goal)
        else:
            self._wait(process, lambda: shown.phase == aim)
            delay *= 0.2  # these last for milliseconds
        _pause(delay)
        if process.poll() is not None:
            return ""
        group = self._chance.random() < 0.4
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        process.wait()
        victim = "group" if group else "supervisor"
        self.toll.add(victim, shown.phase or "starting")
        return victim

    def _strike_worker(self, process: subprocess.Popen[bytes], aim: str, delay: float) -> str:
        shown = self._wait_for_board(process)
        if shown is None:
            return ""
        goal = shown.count + self._goal()
        self._wait(process, lambda: shown.count >= goal)
        seen: list[tuple[int, Pulse]] = []

        def found() -> bool:
            for pid in _children(process.pid):
                pulse = _pulse(pid)
                if pulse is not None and (not aim or self._phase(pid, pulse) == aim):
                    seen.append((pid, pulse))
                elif pulse is not None:
                    pulse.close()
            return bool(seen)

        self._wait(process, found, patience=1.0)
        _pause(delay * 0.2)
        try:
            return self._kill_one(process, seen)
        finally:
            for _, pulse in seen:
                pulse.close()

    def _kill_one(self, process: subprocess.Popen[bytes], seen: list[tuple[int, Pulse]]) -> str:
        if not seen or process.poll() is not None:
            return ""
        pid, pulse = self._chance.choice(seen)
        with suppress(ProcessLookupError):  # it ended on its own
            os.kill(pid, signal.SIGKILL)
            self._wait(process, lambda: not alive(pid))
            self.toll.add("worker", f"worker {self._phase(pid, pulse)}")
            return "worker"
        return ""

    def _phase(self, pid: int, pulse: Pulse) -> str:
        shown, beat = board.of(self._case.marks, pid), pulse.read()
        if shown is not None and shown.phase:
            return shown.phase
        if beat.stage == "start":
            return "starting"
        return "between items" if beat.ordinal is None else "working"

    def _goal(self) -> int:
        return self._chance.randint(0, self._case.count // 10)

    def _wait_for_board(self, process: subprocess.Popen[bytes]) -> board.Board | None:
        self._wait(process, lambda: board.of(self._case.marks, process.pid) is not None)
        return board.of(self._case.marks, process.pid)

    def _wait(self, process: subprocess.Popen[bytes], condition, patience: float = SECONDS) -> None:
        """Until the condition holds, or the process has ended, or (with a patience of its own) that is over."""
        deadline = time.monotonic() + patience
        while not condition() and process.poll() is None:
            if time.monotonic() > deadline:
                if patience < SECONDS:
                    return
                raise AssertionError(f"{self._case.name}: a run neither goes on nor ends{self._said()}")
            time.sleep(0.0003)


def _pause(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        os.sched_yield()


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _pulse(pid: int) -> Pulse | None:
    """The pulse of a worker; None where it has none yet or is no more."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"gpupipe.worker" not in words:
            return None
        return Pulse(os.open(f"/proc/{pid}/fd/{int(words[words.index(b'gpupipe.worker') + 2])}", os.O_RDWR))
    except (OSError, ValueError):
        return None


def storm(folder: Path, kills: int, seed: int, count: int, each: int, kinds, several=cases.SEVERAL, tell=None) -> Toll:
    """Share the kills among the cases; raises AssertionError at the first output that is not as it must be."""
    media = folder / "media"
    if any(kind == "clips" for kind, _ in kinds):
        cases.make_media(media)

    def one(number: int) -> Toll:
        kind, form = kinds[number]
        chance = random.Random(f"{seed} {kind} {form}")
        place = folder / f"{kind}-{form}"
        if kind == "toy":
            case = cases.toy(place, form, count, chance, 0.004, several)
        else:
            case = cases.clips(place, form, count, chance, media, several)
        share = kills * (number + 1) // len(kinds) - kills * number // len(kinds)
        began = time.monotonic()
        one_storm = Storm(case, place, chance)
        one_storm.run(share, each)
        if tell is not None:
            tell(f"{case.name}: {share} kills in {time.monotonic() - began:.0f} s, nothing lost, nothing twice")
        return one_storm.toll

    # Two at once: most of the time is waiting, for what hangs and for the disk.
    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(one, range(len(kinds))), Toll())


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--items", type=int, default=512)
    parser.add_argument("--each", type=int, default=20, help="kills an output, at most")
    parser.add_argument("--only", nargs="+", metavar="KIND-FORMAT", help="toy-npy and the like")
    parser.add_argument("--results", type=Path, help="write the figures to this JSON file")
    asked = parser.parse_args()
    kinds = [(kind, form) for kind in ("toy", "clips") for form in cases.FORMATS]
    if asked.only:
        kinds = [(kind, form) for kind, form in kinds if f"{kind}-{form}" in asked.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpupipe-chaos-") as folder:
        place = Path(folder)
        toll = storm(place, asked.kills, asked.seed, asked.items, asked.each, kinds, tell=say)
    figures = {
        "kills": dict(toll.kills.most_common()), "phases": dict(toll.phases.most_common()), "outputs": toll.outputs,
        "items": toll.items, "seed": asked.seed, "seconds": round(time.monotonic() - began),
    }  # fmt: skip
    print(json.dumps(figures, indent=1))
    if asked.results is not None:
        asked.results.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

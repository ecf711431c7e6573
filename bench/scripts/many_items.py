"""Plans many items, then resumes with one of them left; prints seconds and peak memory as JSON.

Command: ``python -m bench.scripts.many_items PAIRS CLIPS_DIR OUT``
"""

import json
import sys
import time
from pathlib import Path

from gpupipe.fingerprint import fingerprint
from gpupipe.job import Job
from gpupipe.jobs.clips import ClipsJob
from gpupipe.launch import Run, run
from gpupipe.ledger import Ledger
from gpupipe.outcome import DONE, Outcome
from gpupipe.plan import BOOKKEEPING, Plan, PlanWriter


class Probe:
    """A reporter that notes when it is first called: the plan is read, the worker is being started."""

    def __init__(self) -> None:
        self.first = 0.0

    def update(self, snapshot: object) -> None:
        self.first = self.first or time.perf_counter()

    def notice(self, text: str) -> None:
        pass


def peak_mib() -> float:
    """Of this program; `ru_maxrss` would count what the process was before it became this program."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def main() -> None:
    pairs, clips_dir, out = sys.argv[1:4]
    job = ClipsJob(pairs_json=pairs, clips_dir=clips_dir)
    began = time.perf_counter()
    plan = planned(job, Path(out))
    found = {"items": plan.count, "plan_seconds": time.perf_counter() - began, "plan_peak_mib": peak_mib()}
    settled(Path(out), plan, plan.count - 1, fingerprint(job.input_file(plan.item(0))))
    probe = Probe()
    print(json.dumps(found | resumed(job, Path(out), probe)))


def planned(job: ClipsJob, out: Path) -> Plan:
    """The job's plan, as the launcher writes it."""
    facts = job.source().stat()
    source = {"path": str(job.source().absolute()), "size": facts.st_size, "mtime_ns": facts.st_mtime_ns}
    writer = PlanWriter(out / BOOKKEEPING, job.name, job.options(), job.inputs(), source)
    job.write_items(writer)
    return writer.publish()


def settled(out: Path, plan: Plan, count: int, identity: str = "1000:1") -> None:
    """A ledger that says of the first `count` items that they are done, of inputs of that identity."""
    folder = out / BOOKKEEPING / "shard-0"
    folder.mkdir(parents=True)
    ledger = Ledger(folder / "ledger.db", plan.hash)
    checksum = "0123456789abcdef" * 2
    for start in range(0, count, 50000):
        stop = min(count, start + 50000)
        ledger.commit(
            Outcome(n, DONE, 1, 0.01, 0, "ffmpeg", identity, checksum, 1966080, finished=1.8e9)
            for n in range(start, stop)
        )
    ledger.close()


def resumed(job: Job, out: Path, probe: Probe) -> dict[str, float]:
    """Go on with one worker; how long until it is started and until the end, and what memory that took."""
    began = time.perf_counter()
    summary = run(job, Run(out, workers=1), probe)
    return {
        "resume_seconds": probe.first - began,
        "resume_to_end_seconds": time.perf_counter() - began,
        "peak_mib": peak_mib(),
        "done": summary.done,
    }


if __name__ == "__main__":
    main()

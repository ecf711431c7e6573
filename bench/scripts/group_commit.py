"""What it costs that nothing is called done before it is on the disk: the clips job with and without its syncs.

Command: ``python -m bench.scripts.group_commit [--items N] [--rounds N] [--folder DIR]``

Without: no ``syncfs`` at a commit, and the ledger on ``synchronous = off``. The runs take turns, each begins with
nothing left to write from the one before, and each writes a folder an item (``--format samples``) of 16 frames of
160 x 256, 2 MB. Where a disk is slower than the job, the figure is the disk's speed, which ``disk_mb_per_second``
beside ``output_mb_per_second`` shows.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.harness import ROOT, finish, interleave, options, ratio
from bench.media import synthetic

_CLIPS = 4


def main(argv: list[str] | None = None) -> int:
    parser = options(__doc__)
    parser.add_argument("--items", type=int, default=1000, metavar="N", help="items a run (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    parser.add_argument("--frames", type=int, default=60, metavar="N", help="frames a clip (default: %(default)s)")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the outputs are written")
    parser.add_argument("--one", nargs=4, metavar=("HOW", "PAIRS", "CLIPS", "OUT"), help="one run, for internal use")
    arguments = parser.parse_args(argv)
    if arguments.one:
        return _one(arguments.workers, *arguments.one)
    with tempfile.TemporaryDirectory(prefix="bench-commit-", dir=arguments.folder) as scratch:
        finish("group-commit", arguments, _measure(Path(scratch), arguments))
    return 0


def _measure(folder: Path, arguments: Any) -> dict[str, Any]:
    (folder / "clips").mkdir()
    media = sorted(synthetic(folder / "clips", arguments.frames, (360, 640)).glob("*.mp4"))[:_CLIPS]
    pairs = [
        {"vid": f"v{number}", "clip_path": media[number % len(media)].name, "transcript": "a few words"}
        for number in range(arguments.items)
    ]
    (folder / "pairs.json").write_text(json.dumps(pairs))
    said: dict[str, list[dict[str, float]]] = {"with": [], "without": []}

    def run(how: str) -> float:
        out = folder / "out"
        words = [how, str(folder / "pairs.json"), str(folder / "clips"), str(out)]
        workers = ["--workers", str(arguments.workers)]
        command = [sys.executable, "-m", "bench.scripts.group_commit", *workers, "--one", *words]
        os.sync()
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        said[how].append(json.loads(done.stdout.splitlines()[-1]))
        shutil.rmtree(out)
        return said[how][-1]["seconds"]

    disk = _disk(folder)
    walls = interleave({how: lambda how=how: run(how) for how in said}, arguments.rounds)
    seconds = {how: statistics.median(found) for how, found in walls.items()}
    nbytes = said["with"][0]["nbytes"]
    return {
        "rounds": arguments.rounds,
        "items": arguments.items,
        "workers": arguments.workers,
        "seconds": walls,
        "throughput_with_sync": 1 / ratio(walls["with"], walls["without"]),
        "items_per_second": {how: arguments.items / found for how, found in seconds.items()},
        "commits": statistics.median(one["commits"] for one in said["with"]),
        # The supervisor's, while the workers go on; and the workers', which is what a run would lose by it.
        "sync_seconds": {how: statistics.median(one["syncing"] for one in runs) for how, runs in said.items()},
        "worker_wait_seconds": {how: statistics.median(one["waited"] for one in runs) for how, runs in said.items()},
        "output_mb_per_second": nbytes / seconds["without"] / 1e6,
        "disk_mb_per_second": disk,
        "load": os.getloadavg()[1],
    }


def _disk(folder: Path) -> float:
    """Sequential writing with an fsync at the end; the best of three."""
    data, best = os.urandom(1 << 24), 0.0
    for _ in range(3):
        os.sync()
        began = time.perf_counter()
        with (folder / "disk").open("wb") as file:
            for _ in range(16):
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        best = max(best, 16 * len(data) / (time.perf_counter() - began) / 1e6)
        (folder / "disk").unlink()
    return best


class _Silent:
    def update(self, snapshot: object) -> None:
        pass

    def notice(self, text: str) -> None:
        print(text, file=sys.stderr)


def _one(workers: int, how: str, pairs: str, clips: str, out: str) -> int:
    from gpupipe import commits as group
    from gpupipe import launch
    from gpupipe.jobs.clips import ClipsJob

    commits, seconds = 0, 0.0
    commit, opened = group.Ledger.commit, group.Ledger.__init__
    sync = group.BatchSync.__call__ if how == "with" else lambda self: None

    def counted(self: Any, outcomes: Any, *rest: Any, **words: Any) -> None:
        nonlocal commits, seconds
        commits += 1
        began = time.perf_counter()
        commit(self, outcomes, *rest, **words)
        seconds += time.perf_counter() - began

    def timed(self: Any) -> None:
        nonlocal seconds
        began = time.perf_counter()
        sync(self)
        seconds += time.perf_counter() - began

    def fast(self: Any, *rest: Any, **words: Any) -> None:
        opened(self, *rest, **words)
        self._db.execute("pragma synchronous = off")

    group.Ledger.commit = counted  # type: ignore[method-assign]
    group.BatchSync.__call__ = timed  # type: ignore[method-assign]
    if how == "without":
        group.Ledger.__init__ = fast  # type: ignore[method-assign]
    job = ClipsJob(pairs_json=pairs, clips_dir=clips)
    summary = launch.run(job, launch.Run(Path(out), workers=workers), _Silent())
    assert summary.done == summary.items, summary.reasons
    nbytes = sum(path.stat().st_size for path in Path(out).rglob("*") if path.is_file())
    waited = summary.stages.get("wait", 0.0) + summary.stages.get("wait to write", 0.0)
    print(
        json.dumps(
            {"seconds": summary.seconds, "commits": commits, "nbytes": nbytes, "syncing": seconds, "waited": waited}
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

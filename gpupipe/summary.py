"""What a run has to say at its end."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpupipe.machine import usable_cores
from gpupipe.stages import START, WAITS

if TYPE_CHECKING:  # what is only told of a run loads without NumPy
    from gpupipe.progress import Snapshot

INTERRUPTED = "interrupted"
FAILURE_RATE = "--max-failure-rate"
"""How the reason of a run begins that was stopped because too many items fail."""
"""The reason to stop of a run that a person ended."""

EXIT_DONE, EXIT_DIFFERENT, EXIT_USAGE, EXIT_FAILED_ITEMS, EXIT_STOPPED, EXIT_INTERRUPTED = 0, 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Summary:
    """The outcome of a run; ``items = done + failed`` once nothing is pending.

    Attributes
    ----------
    job, output : str
    items, done, failed, pending : int
        Of this run shard.
    earlier : int
        Items that had an outcome before this run.
    seconds : float
        Wall time of this run.
    items_per_second : float
        Of this run's own items.
    reasons : dict of str to int
        Failed items by error type, all runs.
    failures_file : str or None
        The file that lists the failures; None where nothing failed.
    workers : int
    cpu_seconds : float
        CPU time of the workers.
    stages : dict of str to float
        Busy seconds of the workers by stage.
    bottleneck : str or None
        The stage with the largest share; None where nothing was worked.
    ceiling_share : float or None
        CPU seconds used of those the workers' cores could give.
    complete : bool
        True once the whole dataset, all run shards, is finished and its index files are written.
    stop_reason : str
        Why the run ended early; empty where it did not.
    audited, differences : int
        Items made again on the CPU by ``--audit``, and how many of them came out otherwise.
    exit_code : int
    notices : list of str
    """

    job: str
    output: str
    items: int
    done: int
    failed: int
    pending: int
    earlier: int
    seconds: float
    items_per_second: float
    reasons: dict[str, int]
    failures_file: str | None
    workers: int
    cpu_seconds: float
    stages: dict[str, float]
    bottleneck: str | None
    ceiling_share: float | None
    complete: bool
    stop_reason: str
    exit_code: int
    audited: int = 0
    differences: int = 0
    notices: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return asdict(self)

    def stage_shares(self) -> dict[str, float]:
        """Share of the workers' time by stage, largest first."""
        total = sum(self.stages.values()) or 1.0
        return {name: seconds / total for name, seconds in sorted(self.stages.items(), key=lambda pair: -pair[1])}


def summarize(
    job: str,
    output: Path,
    shown: Snapshot,
    workers: int,
    reasons: Counter[str],
    failures: Path,
    complete: bool,
    stop_reason: str,
    continue_on_error: bool,
) -> Summary:
    """What a run has to say, from its last state.

    Parameters
    ----------
    job : str
        Its name.
    output : Path
        The output folder.
    shown : Snapshot
        The last state.
    workers : int
        How many were asked for.
    reasons : Counter of str
        Failed items by error type.
    failures : Path
        The file that lists them.
    complete : bool
        The whole dataset is finished.
    stop_reason : str
        Why the run ended early; empty where it did not.
    continue_on_error : bool
        Failed items are no failure of the run, once none is left.
    """
    worked = shown.done + shown.failed - shown.earlier
    if stop_reason == INTERRUPTED:
        code = EXIT_INTERRUPTED
    elif shown.differences:
        code = EXIT_DIFFERENT
    elif stop_reason.startswith(FAILURE_RATE):
        code = EXIT_STOPPED
    elif shown.failed and (shown.left or not continue_on_error):
        code = EXIT_FAILED_ITEMS
    else:
        code = EXIT_DONE
    cores = min(workers, usable_cores())
    return Summary(
        job=job,
        output=str(output),
        items=shown.total,
        done=shown.done,
        failed=shown.failed,
        pending=shown.left,
        earlier=shown.earlier,
        seconds=shown.seconds,
        items_per_second=worked / shown.seconds if shown.seconds > 0 else 0.0,
        reasons=dict(reasons.most_common()),
        failures_file=str(failures) if shown.failed else None,
        workers=workers,
        cpu_seconds=shown.cpu_seconds,
        stages=dict(shown.stages),
        bottleneck=bottleneck(shown.stages),
        ceiling_share=min(1.0, shown.cpu_seconds / (shown.seconds * cores)) if worked and shown.seconds > 0 else None,
        complete=complete,
        stop_reason=stop_reason,
        exit_code=code,
        audited=shown.audited,
        differences=shown.differences,
    )


def bottleneck(stages: dict[str, float]) -> str | None:
    """The busiest stage; waiting for a lease is none."""
    busy = {name: seconds for name, seconds in stages.items() if name not in (*WAITS, START)}
    return max(busy, key=lambda name: busy[name]) if busy else None

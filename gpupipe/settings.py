"""How a job is run: what a person may choose that changes no byte of the output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from operator import index
from pathlib import Path
from typing import Any

from gpupipe.errors import UsageError
from gpupipe.fingerprint import KINDS, Kind
from gpupipe.machine import memory_bytes
from gpupipe.ownership import MAX_SHARDS
from gpupipe.posts import Post, assign

MAX_FAILURE_RATE = 0.5
MIN_MEMORY, MAX_MEMORY = 256 << 20, 1 << 50
MAX_WORKERS = 4096
_GIVEN_AS = {"workers": "num_workers", "workers_per_gpu": "num_workers_per_gpu"}


@dataclass(frozen=True)
class Run:
    """How a job is run; nothing here changes a byte of the output.

    Attributes
    ----------
    output : Path
    workers : int or None
        Worker processes on CPU cores; None for one a usable core, less those that GPU workers need.
    gpus : str or int or None
        ``"all"``, or how many GPUs; None for all.
    gpu_ids : tuple of str
        Index or UUID of each GPU instead; a repeated one has so many shares.
    workers_per_gpu : int
        Processes a GPU, or a share of one.
    audit : float
        Share of the items decoded on a GPU that are made again on the CPU and compared.
    shard, total_shards : int
        Run shard I of N.
    overwrite : bool
        Remove what an earlier run left and start anew.
    fail_fast : bool
        Stop at the first failed item.
    continue_on_error : bool
        Exit 0 though items failed.
    item_timeout : float or None
        Seconds after which an item's worker is taken to hang; None for the job's own judgement.
    max_failure_rate : float or None
        Share of failed items that stops the run, judged after 100 items and not under `continue_on_error`; None for no
        bound.
    memory_per_worker : int or None
        Bytes of private memory; None sets no bound.
    fingerprint : str
        What identifies an input: ``"stat"`` (size and time) or ``"content"``.
    checkpoint_file : Path or None
        Exported for monitoring scripts; never read.
    """

    output: Path
    workers: int | None = None
    gpus: str | int | None = None
    gpu_ids: tuple[str, ...] = ()
    workers_per_gpu: int = 1
    audit: float = 0.0
    shard: int = 0
    total_shards: int = 1
    overwrite: bool = False
    fail_fast: bool = False
    continue_on_error: bool = False
    item_timeout: float | None = None
    max_failure_rate: float | None = MAX_FAILURE_RATE
    memory_per_worker: int | None = None
    fingerprint: Kind = "stat"
    checkpoint_file: Path | None = None

    def posts(self, backend: str) -> tuple[list[Post], list[str]]:
        """The places of the workers: as many as are asked for, and as fit into memory; and what there is to say.

        Raises
        ------
        UsageError
            The GPUs asked for are not there.
        """
        posts, notices = assign(backend, self.workers, self.gpus, self.gpu_ids, self.workers_per_gpu)
        each = self.memory_per_worker
        fit = len(posts) if each is None else max(1, memory_bytes() // each)
        if fit < len(posts):
            notices.append(
                f"{len(posts)} workers of {_gib(each or 0)} do not fit into {_gib(memory_bytes())}: {fit} run"
            )
        if self.audit and not any(post.device for post in posts):
            raise UsageError(
                f"--audit {self.audit:g} compares GPU and CPU, and no GPU is used here; see gpupipe doctor"
            )
        return posts[:fit], notices

    def check(self) -> None:
        """Raise :class:`UsageError` for values that cannot be."""
        if self.total_shards > MAX_SHARDS:
            raise UsageError(f"--total-shards {self.total_shards}: expected at most {MAX_SHARDS}")
        if not 0 <= self.shard < self.total_shards:
            raise UsageError(
                f"--shard {self.shard}: expected 0 to {self.total_shards - 1} (--total-shards {self.total_shards})"
            )
        if self.workers is not None and not 1 <= self.workers <= MAX_WORKERS:
            raise UsageError(f"--num-workers {self.workers}: expected 1 to {MAX_WORKERS}")
        if self.gpus is not None and self.gpu_ids:
            raise UsageError("--gpus says how many and --gpu-ids which: choose one")
        if self.gpus not in (None, "all") and (not isinstance(self.gpus, int) or not 1 <= self.gpus <= MAX_WORKERS):
            raise UsageError(f"--gpus {self.gpus}: expected all, or 1 to {MAX_WORKERS}")
        if not 1 <= self.workers_per_gpu <= MAX_WORKERS:
            raise UsageError(f"--num-workers-per-gpu {self.workers_per_gpu}: expected 1 to {MAX_WORKERS}")
        if not 0 <= self.audit <= 1:
            raise UsageError(f"--audit {self.audit}: expected a share, from 0 to 1")
        if self.checkpoint_file is not None and not self.checkpoint_file.absolute().parent.is_dir():
            raise UsageError(f"--checkpoint-file {self.checkpoint_file}: no such folder")
        if self.item_timeout is not None and self.item_timeout <= 0:
            raise UsageError(f"--item-timeout {self.item_timeout}: expected seconds above 0")
        if self.max_failure_rate is not None and not 0 <= self.max_failure_rate <= 1:
            raise UsageError(f"--max-failure-rate {self.max_failure_rate}: expected a share, from 0 to 1")
        if self.memory_per_worker is not None and self.memory_per_worker < MIN_MEMORY:
            raise UsageError(
                f"--memory-per-worker {self.memory_per_worker}: expected at least {MIN_MEMORY >> 20} MiB, which a "
                "worker needs for itself"
            )
        if self.memory_per_worker is not None and self.memory_per_worker > MAX_MEMORY:
            raise UsageError(f"--memory-per-worker {self.memory_per_worker}: expected at most {MAX_MEMORY >> 40} TiB")
        if self.fingerprint not in KINDS:
            raise UsageError(f"--fingerprint {self.fingerprint!r}: expected one of {', '.join(KINDS)}")
        if self.overwrite and self.total_shards > 1:
            raise UsageError("--overwrite removes the whole output, not one run shard of it: remove the folder first")


def run_of(output: Path, given: Mapping[str, Any]) -> Run:
    """The run that somebody asks for.

    Parameters
    ----------
    output : Path
        The folder.
    given : mapping of str
        The flags of a command, or the parameters of a function, which have the same names. What else is in it is
        passed over; what is missing is as :class:`Run` has it.
    """
    names = {field.name: _GIVEN_AS.get(field.name, field.name) for field in fields(Run) if field.name != "output"}
    asked = {field: given[name] for field, name in names.items() if name in given}
    # Numbers become plain int and paths Path, whatever the caller has of them: a run is recorded as JSON.
    for field, plain in (("workers_per_gpu", index), ("memory_per_worker", index), ("checkpoint_file", Path)):
        if asked.get(field) is not None:
            asked[field] = plain(asked[field])
    return Run(output, **{**asked, "gpu_ids": tuple(map(str, asked.get("gpu_ids", ())))})


def _gib(nbytes: int) -> str:
    return f"{nbytes / (1 << 30):.1f} GiB"

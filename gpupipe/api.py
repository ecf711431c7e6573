"""The jobs as functions: what the commands do, from a script, a thread or a notebook.

A function takes what its command takes, under the same names, and gives the same bytes. It reads no ``gpupipe.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from operator import index
from pathlib import Path
from typing import Any, Literal, overload

from gpupipe import jobs, launch, planning, verification
from gpupipe import plan as plans
from gpupipe.decode import BACKENDS, MAX_PIXELS
from gpupipe.errors import UsageError
from gpupipe.fingerprint import Kind
from gpupipe.forecast import Forecast
from gpupipe.job import Job, decoding_with
from gpupipe.jobs.clips import ClipsJob
from gpupipe.launch import Run
from gpupipe.plan import BOOKKEEPING, Plan, folder_of
from gpupipe.redo import Choice
from gpupipe.reports import final
from gpupipe.shown import StrPath, absolute, forecast_of, run_shown, unless_interrupted
from gpupipe.sinks import pickles
from gpupipe.sinks.base import SHARD_SIZE
from gpupipe.summary import Summary
from gpupipe.types import Size
from gpupipe.verification import Verdict


# fmt: off
@overload
def clips(
    pairs_json: StrPath, output_dir: StrPath, *, clips_dir: StrPath | None = ..., videos_dir: StrPath | None = ...,
    format: str = ..., num_frames: int = ..., size: Size = ..., split_mode: str = ..., seed: int = ...,
    max_samples: int | None = ..., stream: int | None = ..., max_pixels: int = ..., strict: bool = ...,
    allow_partial: bool = ..., all_frames: bool = ..., tolerance: float = ..., shard_size: int = ...,
    backend: str = ..., num_workers: int | None = ..., gpus: str | int | None = ..., gpu_ids: Sequence[str | int] = ...,
    num_workers_per_gpu: int = ..., audit: float = ..., shard: int = ..., total_shards: int = ...,
    overwrite: bool = ..., continue_on_error: bool = ..., fail_fast: bool = ..., max_failure_rate: float | None = ...,
    item_timeout: float | None = ..., memory_per_worker: int | None = ..., fingerprint: Kind = ...,
    checkpoint_file: StrPath | None = ..., metrics_port: int | None = ..., progress: bool = ...,
    dry_run: Literal[False] = ...,
) -> Summary: ...
@overload
def clips(
    pairs_json: StrPath, output_dir: StrPath, *, clips_dir: StrPath | None = ..., videos_dir: StrPath | None = ...,
    format: str = ..., num_frames: int = ..., size: Size = ..., split_mode: str = ..., seed: int = ...,
    max_samples: int | None = ..., stream: int | None = ..., max_pixels: int = ..., strict: bool = ...,
    allow_partial: bool = ..., all_frames: bool = ..., tolerance: float = ..., shard_size: int = ...,
    backend: str = ..., num_workers: int | None = ..., gpus: str | int | None = ..., gpu_ids: Sequence[str | int] = ...,
    num_workers_per_gpu: int = ..., audit: float = ..., shard: int = ..., total_shards: int = ...,
    overwrite: bool = ..., continue_on_error: bool = ..., fail_fast: bool = ..., max_failure_rate: float | None = ...,
    item_timeout: float | None = ..., memory_per_worker: int | None = ..., fingerprint: Kind = ...,
    checkpoint_file: StrPath | None = ..., metrics_port: int | None = ..., progress: bool = ...,
    dry_run: Literal[True],
) -> Forecast: ...
# fmt: on
def clips(
    pairs_json: StrPath,
    output_dir: StrPath,
    *,
    clips_dir: StrPath | None = None,
    videos_dir: StrPath | None = None,
    format: str = "samples",
    num_frames: int = 16,
    size: Size = (160, 256),
    split_mode: str = "random",
    seed: int = 42,
    max_samples: int | None = None,
    stream: int | None = None,
    max_pixels: int = MAX_PIXELS,
    strict: bool = False,
    allow_partial: bool = False,
    all_frames: bool = False,
    tolerance: float = 0.0,
    shard_size: int = SHARD_SIZE,
    backend: str = "auto",
    num_workers: int | None = None,
    gpus: str | int | None = None,
    gpu_ids: Sequence[str | int] = (),
    num_workers_per_gpu: int = 1,
    audit: float = 0.0,
    shard: int = 0,
    total_shards: int = 1,
    overwrite: bool = False,
    continue_on_error: bool = False,
    fail_fast: bool = False,
    max_failure_rate: float | None = launch.MAX_FAILURE_RATE,
    item_timeout: float | None = None,
    memory_per_worker: int | None = None,
    fingerprint: Kind = "stat",
    checkpoint_file: StrPath | None = None,
    metrics_port: int | None = None,
    progress: bool = False,
    dry_run: bool = False,
) -> Summary | Forecast:
    """Make frame tensors and CLIP tokens of video and text pairs: ``gpupipe clips``.

    Work goes on in processes of its own, which need no ``if __name__ == "__main__"`` in the caller's script. The same
    call again continues where an earlier one, or the command, ended.

    Parameters
    ----------
    pairs_json : path
        JSON list (or JSONL) of pairs.
    output_dir : path
        Made if it is not there.
    clips_dir, videos_dir : path
        Folder of the cut clips, or of the uncut videos; exactly one of them.
    format : str
        ``"samples"``, ``"npy"`` or ``"webdataset"``.
    num_frames : int
        Frames a clip (T), spread evenly; where there are fewer the last is repeated, and marked.
    size : (int, int)
        ``(height, width)`` of the frames in pixels.
    split_mode : str
        ``"random"``, ``"all_train"`` or ``"all_test"``.
    seed : int
        Of the splits and of ``max_samples``.
    max_samples : int, optional
        A seeded choice of so many pairs.
    stream : int, optional
        Index of the video stream in its container; default the one FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture; an item with larger ones fails before there is memory for them.
    strict : bool
        Decode every packet and fail the item on any fault.
    allow_partial : bool
        Sample from the frames before the first fault.
    all_frames : bool
        Keep every frame (``"samples"`` and ``"webdataset"``).
    tolerance : float
        Seconds. Take the frame that costs least to decode and is no further than this from the wanted one; one frame
        may then come several times. The metadata has the numbers and times of those that were taken. 0 takes the wanted
        ones; so does ``strict``.
    shard_size : int
        Items an output shard.
    backend : str
        ``"auto"`` (every GPU that can be used, and the CPU cores beside them), ``"ffmpeg"`` or ``"nvdec"``.
    num_workers : int, optional
        Worker processes on CPU cores; default one a usable core, less those that GPU workers need.
    gpus : str or int, optional
        ``"all"``, or how many GPUs; default all.
    gpu_ids : sequence of str or int
        Index or UUID of each GPU instead; a repeated one has so many shares.
    num_workers_per_gpu : int
        Processes a GPU, or a share of one.
    audit : float
        Share of the items decoded on a GPU that are made again on the CPU and compared.
    shard, total_shards : int
        Which part of the work this call does, where several share the output.
    overwrite : bool
        Remove what an earlier run made and start anew.
    continue_on_error : bool
        ``Summary.exit_code`` is 0 though items failed; changes nothing else.
    fail_fast : bool
        Stop at the first failed item.
    max_failure_rate : float, optional
        Share of failed items that stops the run once 100 are worked; None, or ``continue_on_error``, for no bound.
    item_timeout : float, optional
        Seconds after which an item at work counts as hanging; default by the size of its file.
    memory_per_worker : int, optional
        Bytes of private memory a worker may have; default no bound.
    fingerprint : str
        How a changed input is known on a later run: ``"stat"`` (size and time) or ``"content"``.
    checkpoint_file : path, optional
        Exported for monitoring scripts; replaces nothing but an earlier export.
    metrics_port : int, optional
        Serve Prometheus metrics at this port of 127.0.0.1 while it runs; 0 for a free one, which a notice names.
    progress : bool
        Show on stderr what the command shows there.
    dry_run : bool
        Say what would run and what it needs, from what is there and from trying a few items; start nothing, and leave
        nothing behind.

    Returns
    -------
    Summary, or Forecast for a dry run
        Failed items are in it (``failed``, ``reasons``, ``failures_file``); they raise nothing.

    Raises
    ------
    UsageError
        The call cannot be carried out as given (the message names the command's flags), the pairs file is none, or the
        output holds another configuration; nothing was started.
    LockedError
        Another run holds the output.
    OutputError, StoppedError
        The run ended early, for a reason that is no item's fault; the same call continues.
    KeyboardInterrupt
        Ctrl-C or SIGTERM on the main thread. Every worker has ended the item in hand; the same call continues. On
        another thread signals are the caller's business.
    """
    try:
        height, width = map(index, size)  # plain int: options are kept as JSON
    except (TypeError, ValueError):
        raise UsageError(f"size={size!r}: expected (height, width) in pixels") from None
    _check_backend(backend)
    job = ClipsJob(
        num_frames=index(num_frames),
        frame_height=height,
        frame_width=width,
        split_mode=split_mode,
        seed=index(seed),
        max_samples=None if max_samples is None else index(max_samples),
        format=format,
        strict=strict,
        allow_partial=allow_partial,
        all_frames=all_frames,
        tolerance=tolerance,
        stream=None if stream is None else index(stream),
        max_pixels=index(max_pixels),
        shard_size=index(shard_size),
        pairs_json=absolute(pairs_json),
        clips_dir=None if clips_dir is None else absolute(clips_dir),
        videos_dir=None if videos_dir is None else absolute(videos_dir),
        backend=backend,
    )
    run = Run(
        output=Path(output_dir).absolute(),
        workers=num_workers,
        gpus=gpus,
        gpu_ids=tuple(map(str, gpu_ids)),
        workers_per_gpu=index(num_workers_per_gpu),
        audit=audit,
        shard=shard,
        total_shards=total_shards,
        overwrite=overwrite,
        fail_fast=fail_fast,
        continue_on_error=continue_on_error,
        max_failure_rate=max_failure_rate,
        item_timeout=item_timeout,
        memory_per_worker=None if memory_per_worker is None else index(memory_per_worker),
        fingerprint=fingerprint,
        checkpoint_file=None if checkpoint_file is None else Path(checkpoint_file),
    )
    if dry_run:
        return forecast_of(job, run)
    shown = run_shown(lambda reporter: launch.run(job, run, reporter), "clips", progress, metrics_port=metrics_port)
    return unless_interrupted(shown)


def status(output_dir: StrPath) -> dict[str, Any]:
    """Say where an output stands, during a run or after it: ``gpupipe status --json``.

    Returns
    -------
    dict
        ``job, output, state, items, done, failed, pending, reasons, running, items_per_second, eta_seconds,
        active_seconds, bottleneck, stages``; JSON values.

    Raises
    ------
    UsageError
        No output of gpupipe is there.
    """
    return final.status(folder_of(Path(output_dir)))


def report(output_dir: StrPath, output: StrPath | None = None, *, pictures: int = 24, seed: int = 0) -> Path:
    """Write one HTML file that shows how an output came to be, during a run or after it: ``gpupipe report``.

    It is whole: it loads nothing and runs nothing. Failures with their next steps, a sample of the done items as
    pictures, throughput, workers, stages, ceilings, the slowest items, runs and settings.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file. Only read, but for the file itself.
    output : path, optional
        The file; default ``report.html`` in `output_dir`.
    pictures : int
        Done items to show.
    seed : int
        Of their choice.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    UsageError
        No planned output of gpupipe is there, or the file cannot be one.
    OutputError
        The file cannot be written.
    """
    from gpupipe.reports.html import page

    out = folder_of(Path(output_dir))
    return page.write(out, None if output is None else Path(output), index(pictures), index(seed))


def verify(
    output_dir: StrPath,
    *,
    deep: int = 0,
    seed: int = 0,
    repair: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Verdict:
    """Compare an output with its ledger: ``gpupipe verify``.

    Every byte is read back; missing, altered and added files are found. Reads only, unless it is to repair.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file.
    deep : int
        So many done items are also made again from their inputs and compared.
    seed : int
        Of their choice.
    repair : bool
        Have the damaged items done again by the next run, or by :func:`retry`.
    tell : callable, optional
        Called with each fault, a line of text, as it is found.

    Returns
    -------
    Verdict
        ``faults`` is empty where all is as it was written.

    Raises
    ------
    UsageError
        No output of gpupipe is there, or its plan cannot be read.
    LockedError
        A run is at work on it.
    """
    out = folder_of(Path(output_dir))
    return verification.verify(job_at(out), out, index(deep), seed, repair, tell)


def retry(
    output_dir: StrPath,
    *,
    reasons: Iterable[str] = (),
    ids: Iterable[str | int] = (),
    backend: str | None = None,
    num_workers: int | None = None,
    gpus: str | int | None = None,
    gpu_ids: Sequence[str | int] = (),
    num_workers_per_gpu: int = 1,
    item_timeout: float | None = None,
    memory_per_worker: int | None = None,
    metrics_port: int | None = None,
    progress: bool = False,
) -> Summary:
    """Try failed items of an output again, in their places, and whatever is pending: ``gpupipe retry``.

    Parameters
    ----------
    output_dir : path
        As it was given to the job, a folder or a file.
    reasons : iterable of str
        Only failures of these types, as in ``failed.jsonl``; default all.
    ids : iterable of str or int
        Only these ids or ordinals; default all.
    backend : str, optional
        ``"auto"``, ``"ffmpeg"`` or ``"nvdec"``; default the one that the output was planned with.
    num_workers, gpus, gpu_ids, num_workers_per_gpu, item_timeout, memory_per_worker, metrics_port, progress
        See :func:`clips`.

    Returns
    -------
    Summary

    Raises
    ------
    UsageError
        No output of gpupipe is there, no failed item has that reason or id, or the inputs are not where they were.
    LockedError, OutputError, StoppedError
        See :func:`clips`.
    """
    out = folder_of(Path(output_dir).absolute())
    job, choice = job_at(out, backend), Choice(frozenset(reasons), frozenset(map(str, ids)))
    run = Run(
        output=out,
        workers=num_workers,
        gpus=gpus,
        gpu_ids=tuple(map(str, gpu_ids)),
        workers_per_gpu=index(num_workers_per_gpu),
        item_timeout=item_timeout,
        memory_per_worker=None if memory_per_worker is None else index(memory_per_worker),
        max_failure_rate=None,
    )
    shown = run_shown(
        lambda reporter: launch.retry(job, run, choice, reporter), "items", progress, metrics_port=metrics_port
    )
    return unless_interrupted(shown)


def job_at(out: Path, backend: str | None = None) -> Job:
    """The job that an output was planned by, or with another backend; raises :class:`UsageError` where it is none."""
    _check_backend(backend)
    bookkeeping = out / BOOKKEEPING
    if not plans.exists(bookkeeping):
        raise UsageError(f"{out}: no output of gpupipe here (no plan in {BOOKKEEPING})")
    with closing(Plan(bookkeeping / "plan")) as plan:
        job = planning.job_of(jobs.kind(plan.job), plan)
    return job if backend is None else decoding_with(job, backend)


def load_pickle(path: StrPath) -> Any:
    """Read a pickle of arrays, plain containers and scalars, and run nothing from it.

    Parameters
    ----------
    path : path
        ``video_input.pkl``, ``text_input.pkl``, ...

    Returns
    -------
    object
        See :func:`gpupipe.sinks.pickles.load`.

    Raises
    ------
    InputError
        It is damaged, or names anything that is not one of those; the message says what.
    OSError
        The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return pickles.load(file)


def _check_backend(backend: str | None) -> None:
    if backend is not None and backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}: expected one of {', '.join(BACKENDS)}")

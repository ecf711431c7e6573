"""The clips job as a function: what ``gpupipe clips`` does, from a script, a thread or a notebook.

A job's function takes what its command takes, under the same names, and gives the same bytes. It reads no
``gpupipe.toml``.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import Literal, Unpack, overload

from gpupipe.calls import RunParameters, call, check_backend
from gpupipe.decode import MAX_PIXELS
from gpupipe.errors import UsageError
from gpupipe.fingerprint import Kind
from gpupipe.forecast import Forecast
from gpupipe.jobs.clips import ClipsJob
from gpupipe.settings import MAX_FAILURE_RATE
from gpupipe.shown import StrPath, absolute
from gpupipe.sinks.base import SHARD_SIZE
from gpupipe.summary import Summary
from gpupipe.types import Size


# fmt: off
@overload
def clips(
    pairs_json: StrPath, output_dir: StrPath, *, clips_dir: StrPath | None = ..., videos_dir: StrPath | None = ...,
    format: str = ..., num_frames: int = ..., size: Size = ..., split_mode: str = ..., seed: int = ...,
    max_samples: int | None = ..., stream: int | None = ..., max_pixels: int = ..., strict: bool = ...,
    allow_partial: bool = ..., all_frames: bool = ..., tolerance: float = ..., shard_size: int = ...,
    backend: str = ..., audit: float = ..., dry_run: Literal[False] = ..., **run: Unpack[RunParameters],
) -> Summary: ...
@overload
def clips(
    pairs_json: StrPath, output_dir: StrPath, *, clips_dir: StrPath | None = ..., videos_dir: StrPath | None = ...,
    format: str = ..., num_frames: int = ..., size: Size = ..., split_mode: str = ..., seed: int = ...,
    max_samples: int | None = ..., stream: int | None = ..., max_pixels: int = ..., strict: bool = ...,
    allow_partial: bool = ..., all_frames: bool = ..., tolerance: float = ..., shard_size: int = ...,
    backend: str = ..., audit: float = ..., dry_run: Literal[True], **run: Unpack[RunParameters],
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
    max_failure_rate: float | None = MAX_FAILURE_RATE,
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
    given = locals()  # the parameters, by their names
    try:
        height, width = map(index, size)  # plain int: options are kept as JSON
    except (TypeError, ValueError):
        raise UsageError(f"size={size!r}: expected (height, width) in pixels") from None
    check_backend(backend)
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
    return call(job, Path(output_dir).absolute(), "clips", given)

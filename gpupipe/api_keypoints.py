"""The keypoints job as a function: what ``gpupipe keypoints`` does, from a script, a thread or a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from operator import index
from pathlib import Path
from typing import Literal, Unpack, overload

from gpupipe.calls import RunParameters, call, check_backend
from gpupipe.decode import MAX_PIXELS
from gpupipe.fingerprint import Kind
from gpupipe.forecast import Forecast
from gpupipe.jobs import keypoint_poses
from gpupipe.jobs.keypoint_plan import dataset_folder, planned
from gpupipe.jobs.keypoints import KeypointsJob
from gpupipe.ops.keypoints.executors import Mode
from gpupipe.settings import MAX_FAILURE_RATE
from gpupipe.shown import StrPath, absolute
from gpupipe.sinks.base import SHARD_SIZE
from gpupipe.summary import Summary


# fmt: off
@overload
def keypoints(
    dataset_path: StrPath, output_path: StrPath = ..., *, splits: str | Sequence[str] = ...,
    max_samples_per_split: int | None = ..., mode: Mode = ..., min_detection_confidence: float = ...,
    min_tracking_confidence: float = ..., fps: float = ..., stream: int | None = ..., max_pixels: int = ...,
    annotations: StrPath | None = ..., drop_empty: bool = ..., pose_dir: StrPath | None = ..., executor: str = ...,
    precision: str = ..., shard_size: int = ..., backend: str = ..., dry_run: Literal[False] = ...,
    **run: Unpack[RunParameters],
) -> Summary: ...
@overload
def keypoints(
    dataset_path: StrPath, output_path: StrPath = ..., *, splits: str | Sequence[str] = ...,
    max_samples_per_split: int | None = ..., mode: Mode = ..., min_detection_confidence: float = ...,
    min_tracking_confidence: float = ..., fps: float = ..., stream: int | None = ..., max_pixels: int = ...,
    annotations: StrPath | None = ..., drop_empty: bool = ..., pose_dir: StrPath | None = ..., executor: str = ...,
    precision: str = ..., shard_size: int = ..., backend: str = ..., dry_run: Literal[True],
    **run: Unpack[RunParameters],
) -> Forecast: ...
# fmt: on
def keypoints(
    dataset_path: StrPath,
    output_path: StrPath = "phoenix_keypoints_full.pkl",
    *,
    splits: str | Sequence[str] = (),
    max_samples_per_split: int | None = None,
    mode: Mode = "stateless",
    min_detection_confidence: float = 0.5,
    min_tracking_confidence: float = 0.5,
    fps: float = 0.0,
    stream: int | None = None,
    max_pixels: int = MAX_PIXELS,
    annotations: StrPath | None = None,
    drop_empty: bool = False,
    pose_dir: StrPath | None = None,
    executor: str = "auto",
    precision: str = "fp32",
    shard_size: int = SHARD_SIZE,
    backend: str = "auto",
    num_workers: int | None = None,
    gpus: str | int | None = None,
    gpu_ids: Sequence[str | int] = (),
    num_workers_per_gpu: int = 1,
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
    """Find the 543 points of MediaPipe's Holistic model in pictures or videos: ``gpupipe keypoints``.

    The same call again continues where an earlier one, or the command, ended.

    Parameters
    ----------
    dataset_path : path
        The PHOENIX tree, any ``{split}/{video}/`` tree or folder of pictures, a folder of videos, a video, or a text
        file that lists videos.
    output_path : path
        A folder; or a file ``*.pkl``, which is then written from the dataset in the folder ``*.pkl.gpupipe`` beside it.
    splits : str or sequence of str
        Default train, dev and test where the tree has any of them, else all it has.
    max_samples_per_split : int, optional
        The first so many videos of each split.
    mode : str
        ``"stateless"``: each picture by itself. ``"video"``: followed and smoothed from frame to frame.
        ``"legacy_static"``: as the original's static mode, which lets hands and face leak from one picture to the next.
    min_detection_confidence, min_tracking_confidence : float
        From 0 to 1.
    fps : float
        Pictures a second taken of a video; 0 for all.
    stream : int, optional
        Index of the video stream in its container; default the one FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture; larger ones fail.
    annotations : path, optional
        A CSV with columns name, orth, translation; default the tree's own, as PHOENIX has them.
    drop_empty : bool
        Leave frames with nobody, or that cannot be read, out of the pickle.
    pose_dir : path, optional
        Also write a ``.pose`` file for each video there.
    executor : str
        ``"auto"`` (torch on a GPU, else the CPU's own), ``"torch"``, ``"cpu"`` or ``"mediapipe"``.
    precision : str
        Of torch on a GPU: ``"fp32"``, or ``"hybrid"`` with the landmark networks in fp16.
    shard_size : int
        Items an output shard.
    backend : str
        ``"auto"``, ``"ffmpeg"`` (CPU cores) or ``"nvdec"`` (GPUs).
    num_workers, gpus, gpu_ids, num_workers_per_gpu, shard, total_shards, overwrite, continue_on_error, fail_fast, \
max_failure_rate, item_timeout, memory_per_worker, fingerprint, checkpoint_file, metrics_port, progress, dry_run
        See :func:`gpupipe.clips`.

    Returns
    -------
    Summary, or Forecast for a dry run
        Failed items are in it (``failed``, ``reasons``, ``failures_file``); they raise nothing.

    Raises
    ------
    UsageError, LockedError, OutputError, StoppedError, KeyboardInterrupt
        See :func:`gpupipe.clips`.
    """
    given = locals()  # the parameters, by their names
    check_backend(backend)
    output, pickle = dataset_folder(Path(output_path).absolute())
    job = KeypointsJob(
        mode=mode,
        splits=[splits] if isinstance(splits, str) else list(splits),
        max_samples_per_split=None if max_samples_per_split is None else index(max_samples_per_split),
        min_detection_confidence=float(min_detection_confidence),
        min_tracking_confidence=float(min_tracking_confidence),
        fps=float(fps),
        stream=None if stream is None else index(stream),
        max_pixels=index(max_pixels),
        drop_empty=drop_empty,
        shard_size=index(shard_size),
        executor=executor,
        precision=precision,
        dataset_path=absolute(dataset_path),
        annotations_path="" if annotations is None else absolute(annotations),
        pickle=pickle,
        pose_dir="" if pose_dir is None else absolute(pose_dir),
    )
    job = planned(job, output, backend, overwrite)
    return call(job, output, job.items, given, keypoint_poses.run)

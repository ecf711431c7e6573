"""Where the workers of a run work: a share of a GPU each, or a CPU core."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gpupipe.cuda import devices
from gpupipe.cuda.device import OPENER
from gpupipe.errors import UsageError
from gpupipe.machine import usable_cores

CORES_OF_A_GPU_WORKER = 4  # demuxing, planning and feeding the card's decoders


@dataclass(frozen=True)
class Post:
    """One worker's place.

    Attributes
    ----------
    gpu : str
        The card's UUID; empty on a CPU core.
    label : str
        For people: ``"cuda:0"``, ``"cpu"``.
    device : tuple of (str, int) or None
        What opens the card in the worker's process, and its number there.
    environment : dict of str to str
        Set before the process starts: CUDA reads it once.
    cores : tuple of int
        Those it shall run on, near its card; empty for any.
    """

    gpu: str = ""
    label: str = "cpu"
    device: tuple[str, int] | None = None
    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()


def assign(
    backend: str, workers: int | None, gpus: str | int | None, gpu_ids: Sequence[str], workers_per_gpu: int
) -> tuple[list[Post], list[str]]:
    """Find the places for a run's workers.

    Parameters
    ----------
    backend : str
        ``"auto"``, ``"ffmpeg"`` or ``"nvdec"``.
    workers : int or None
        CPU processes; None for as many as there are cores for.
    gpus : str or int or None
        ``"all"``, or how many; None for all.
    gpu_ids : sequence of str
        Index or UUID of each; a repeated one has so many shares.
    workers_per_gpu : int
        Processes a GPU, or a share of one.

    Returns
    -------
    posts : list of Post
        Best first.
    notices : list of str
        What a person should be told about them.

    Raises
    ------
    UsageError
        ``nvdec`` where no GPU can be used, or GPUs that are not there.
    """
    reason = None if backend == "ffmpeg" else devices.missing()
    if backend == "nvdec" and reason is not None:
        raise UsageError(f"--backend nvdec: {reason}")
    if backend == "ffmpeg" or reason is not None:
        return _on_cores(workers, gpus, gpu_ids, workers_per_gpu, reason)
    found = devices.select(gpus, gpu_ids or None, devices.usable_devices())
    on_cards = [
        Post(
            gpu=device.uuid,
            label=f"cuda:{device.index}",
            device=(OPENER, 0),
            environment={"CUDA_VISIBLE_DEVICES": device.uuid, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"},
            cores=tuple(devices.near_cores(device)),
        )
        for device in found
        for _ in range(workers_per_gpu)
    ]
    if backend == "nvdec":
        return on_cards, []
    # Both at once: every worker draws items at its own speed, so the faster of the two does more of them.
    left = max(0, usable_cores() - CORES_OF_A_GPU_WORKER * len(on_cards))
    return on_cards + [Post()] * (left if workers is None else workers), []


def _on_cores(
    workers: int | None, gpus: str | int | None, gpu_ids: Sequence[str], workers_per_gpu: int, reason: str | None
) -> tuple[list[Post], list[str]]:
    """CPU workers alone; a count of GPUs is then one of processes."""
    notices = []
    if reason is not None:  # a machine without a GPU is no fault: the rest of the reason is for who asks
        notices.append(f"decoding with FFmpeg on CPU cores: {reason.partition('. ')[0]}; see gpupipe doctor")
    asked = len(gpu_ids) or (gpus if isinstance(gpus, int) else 0)
    if asked:
        words = f"--gpu-ids {' '.join(gpu_ids)}" if gpu_ids else f"--gpus {gpus}"
        workers = min(asked * workers_per_gpu if workers is None else workers, usable_cores())
        notices.append(f"{words}: no GPU is used, so it runs {workers} CPU processes")
    return [Post()] * (usable_cores() if workers is None else workers), notices

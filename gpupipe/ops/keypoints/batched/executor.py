"""Batches of pictures, and of clips in lock-step, by torch: what the keypoints job asks of every executor.

torch is imported when something is opened; all other modules of this package need it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.models import read_models
from gpupipe.ops.keypoints.points import Keypoints
from gpupipe.ops.keypoints.stages import Pixels

if TYPE_CHECKING:
    from gpupipe.ops.keypoints.batched.album import Album
    from gpupipe.ops.keypoints.batched.runtime import Runtime
    from gpupipe.ops.keypoints.clip_memory import ClipMemory


PICTURES = {"cpu": 8, "cuda": 128}
"""A batch in mode ``stateless``, by kind of device. Another number gives other last bits: it would be part of the
arithmetic version."""

CLIPS = {"cpu": 1, "cuda": 32}
"""Of the other modes; likewise. Between the networks each clip's memory is asked on the host, which takes longer than a
GPU needs; and clips that end leave places empty."""

_AHEAD = 2


class TorchExecutor:
    """Finds points in batches of pictures. Used by one thread at a time.

    Parameters
    ----------
    mode : str
        ``"stateless"``, ``"video"`` or ``"legacy_static"``.
    detection_confidence, tracking_confidence : float
        See :class:`gpupipe.ops.keypoints.batched.stages.BatchedStages`.
    device, precision : str
        See :class:`gpupipe.ops.keypoints.batched.runtime.Runtime`.
    batch : int, optional
        Default: :data:`PICTURES` or :data:`CLIPS`.

    Raises
    ------
    MissingInputError
        The networks are not there.
    UsageError
        torch is not installed, or there is no such device, or it does not compute so.
    """

    name = "torch"

    def __init__(
        self,
        mode: str,
        detection_confidence: float = 0.5,
        tracking_confidence: float = 0.5,
        device: str = "cpu",
        precision: str = "fp32",
        batch: int | None = None,
    ) -> None:
        usual = (PICTURES if mode == "stateless" else CLIPS).get(device.partition(":")[0], 1)
        runtime = open_runtime(device, precision, usual if batch is None else batch)
        from gpupipe.ops.keypoints.batched.holistic import BatchedHolistic
        from gpupipe.ops.keypoints.batched.networks import TorchNetworks
        from gpupipe.ops.keypoints.batched.stages import BatchedStages
        from gpupipe.ops.keypoints.batched.video import LockStepHolistic

        models = read_models()
        with runtime.work():
            stages = BatchedStages(
                TorchNetworks(models, runtime), _album(runtime), detection_confidence, tracking_confidence
            )
        # On a GPU pictures are copied while those before are worked; of clips the next frames wait for the last ones.
        self.batch = runtime.batch * (_AHEAD if runtime.on_card and mode == "stateless" else 1)
        self._mode, self._runtime = mode, runtime
        self._stateless = BatchedHolistic(runtime, stages)
        self._sequential = LockStepHolistic(runtime, stages)

    def begin(self) -> ClipMemory | None:
        """What is remembered of a clip, which begins now; None in mode ``stateless``."""
        from gpupipe.ops.keypoints.clip_memory import ClipMemory

        return None if self._mode == "stateless" else ClipMemory(self._mode == "legacy_static")

    def find(self, images: Sequence[Pixels], memories: Sequence[ClipMemory | None], into: Sequence[Keypoints]) -> None:
        """Find the points of pictures, of any number of them; in clips each is the next of another one.

        Parameters
        ----------
        images : sequence of ndarray, uint8 [H, W, 3]
            RGB, of any sizes.
        memories : sequence
            Of each picture's clip, see :meth:`begin`.
        into : sequence of Keypoints
            Wholly written.

        Raises
        ------
        InputError
            An image is not such an array; nothing is written.
        DeviceMemoryError, DeviceLostError
            See :meth:`gpupipe.ops.keypoints.batched.runtime.Runtime.work`.
        """
        clips = [memory for memory in memories if memory is not None]
        if clips:
            self._sequential.step(clips, images, into)
        else:
            self._stateless.find_all(images, into)

    def close(self) -> None:
        """Give the device's memory back."""
        del self._stateless, self._sequential
        self._runtime.close()


def open_runtime(device: str, precision: str, batch: int) -> Runtime:
    """The device; see :class:`gpupipe.ops.keypoints.batched.runtime.Runtime`.

    Raises
    ------
    UsageError
        torch is not installed, or there is no such device, or it does not compute so.
    """
    try:
        import torch  # noqa: F401
    except (ImportError, OSError) as error:
        raise UsageError(
            f"keypoints by torch need torch: {error}. Run: pip install 'gpupipe[cu13]'; for the CPU: pip install torch"
        ) from error
    from gpupipe.ops.keypoints.batched.runtime import Runtime

    return Runtime(device, precision, batch)


def identity(device: str, precision: str) -> str:
    """What decides the numbers, in words, for a plan's hash.

    Raises
    ------
    UsageError
        As :func:`open_runtime`.
    """
    return open_runtime(device, precision, PICTURES["cpu"]).identity()


def _album(runtime: Runtime) -> Album:
    if runtime.on_card:
        from gpupipe.ops.keypoints.batched.card_album import CardAlbum, CupyKernels

        return CardAlbum(runtime, CupyKernels(runtime.device))
    from gpupipe.ops.keypoints.batched.album import HostAlbum

    return HostAlbum(runtime.batch)

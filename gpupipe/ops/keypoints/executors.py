"""Who runs the Holistic graph: the choice, what decides the numbers of each, and one way to ask them all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal, Protocol

from gpupipe.errors import UsageError
from gpupipe.ops.keypoints.points import Keypoints
from gpupipe.ops.keypoints.stages import Pixels

Mode = Literal["stateless", "video", "legacy_static"]

EXECUTORS = ("auto", "torch", "cpu", "mediapipe")
MODES: tuple[Mode, ...] = ("stateless", "video", "legacy_static")
PRECISIONS = ("fp32", "hybrid")


class Executor(Protocol):
    """Finds points in pictures. Used by one thread at a time.

    Attributes
    ----------
    name : str
        One of :data:`EXECUTORS`, for the ledger.
    batch : int
        Pictures, or clips, that it likes to have at a time.
    """

    name: str
    batch: int

    def begin(self) -> Any:
        """What is remembered of a clip, which begins now; None in mode ``stateless``."""

    def find(self, images: Sequence[Pixels], memories: Sequence[Any], into: Sequence[Keypoints]) -> None:
        """Find the points of pictures, at most `batch` of them.

        Parameters
        ----------
        images : sequence of ndarray, uint8 [H, W, 3]
            RGB, of any size; of each clip at most one, the next.
        memories : sequence
            Of each picture's clip, see :meth:`begin`.
        into : sequence of Keypoints
            Wholly written.

        Raises
        ------
        InputError
            One of them is no such array, or a single one cannot be worked.
        """

    def close(self) -> None:
        """Give networks and processes back."""


class CpuExecutor:
    """LiteRT and native code, a picture at a time; see :mod:`gpupipe.ops.keypoints.networks`.

    Parameters
    ----------
    mode : str
        One of :data:`MODES`.
    detection_confidence, tracking_confidence : float
        See :class:`gpupipe.ops.keypoints.stages.Stages`.
    """

    name = "cpu"
    batch = 1

    def __init__(self, mode: Mode, detection_confidence: float, tracking_confidence: float) -> None:
        from gpupipe.ops.keypoints.holistic import Holistic
        from gpupipe.ops.keypoints.models import read_models
        from gpupipe.ops.keypoints.networks import Networks
        from gpupipe.ops.keypoints.stages import Stages

        self._mode = mode
        self._stages = Stages(Networks(read_models()), detection_confidence, tracking_confidence)
        self._stateless = Holistic(self._stages)

    def begin(self) -> Any:
        """What is remembered of a clip; None in mode ``stateless``."""
        from gpupipe.ops.keypoints.video import SequentialHolistic

        return None if self._mode == "stateless" else SequentialHolistic(self._stages, self._mode == "legacy_static")

    def find(self, images: Sequence[Pixels], memories: Sequence[Any], into: Sequence[Keypoints]) -> None:
        """Find the points of pictures."""
        for image, memory, found in zip(images, memories, into, strict=True):
            (self._stateless if memory is None else memory).find_into(image, found)

    def close(self) -> None:
        """Nothing is held beyond memory."""


class OriginalExecutor:
    """The real MediaPipe, a picture at a time; see :mod:`gpupipe.ops.keypoints.mediapipe_executor`.

    Parameters
    ----------
    mode : str
        One of :data:`MODES`.
    detection_confidence, tracking_confidence : float
        MediaPipe's own.
    """

    name = "mediapipe"
    batch = 1

    def __init__(self, mode: Mode, detection_confidence: float, tracking_confidence: float) -> None:
        from gpupipe.ops.keypoints.mediapipe_executor import MediaPipe

        self._original = MediaPipe(mode, detection_confidence, tracking_confidence)

    def begin(self) -> Any:
        """Forget the clip before; what is remembered lies in MediaPipe's own process."""
        self._original.reset()

    def find(self, images: Sequence[Pixels], memories: Sequence[Any], into: Sequence[Keypoints]) -> None:
        """Find the points of pictures."""
        for image, found in zip(images, into, strict=True):
            self._original.find_into(image, found)

    def close(self) -> None:
        """End the process."""
        self._original.close()


def choose(executor: str, cuda: bool) -> str:
    """The executor meant by ``"auto"``: torch on a GPU, else the CPU's own; others as they are.

    Raises
    ------
    UsageError
        There is no such executor.
    """
    if executor not in EXECUTORS:
        raise UsageError(f"--executor {executor!r}: expected one of {', '.join(EXECUTORS)}")
    return executor if executor != "auto" else "torch" if cuda else "cpu"


def identity(executor: str, device: str, precision: str) -> str:
    """What decides the numbers of an executor, in words, for a plan's hash.

    Raises
    ------
    MissingInputError, UsageError
        What it needs is not installed; the message has the command to run.
    """
    if executor == "cpu":
        from gpupipe.ops.keypoints import networks

        return networks.identity()
    if executor == "mediapipe":
        from gpupipe.ops.keypoints import mediapipe_executor

        return mediapipe_executor.identity()
    return _of_torch(device, precision)


@cache
def _of_torch(device: str, precision: str) -> str:
    """Found out once a process, since a GPU is opened for it."""
    from gpupipe.ops.keypoints.batched import executor as batched

    return batched.identity(device, precision)


def check(executor: str, device: str, precision: str) -> None:
    """Raise as :func:`open_executor` would, for what can be seen without making networks."""
    identity(executor, device, precision)
    if executor != "mediapipe":
        from gpupipe.ops.keypoints.models import read_models

        read_models()


def open_executor(
    executor: str, mode: Mode, detection_confidence: float, tracking_confidence: float, device: str, precision: str
) -> Executor:
    """Make an executor in the process that uses it.

    Parameters
    ----------
    executor : str
        One of :data:`EXECUTORS` but ``"auto"``.
    mode : str
        One of :data:`MODES`.
    detection_confidence, tracking_confidence : float
        See :class:`gpupipe.ops.keypoints.stages.Stages`.
    device : str
        ``"cpu"``, or ``"cuda"`` for torch.
    precision : str
        Of torch, one of :data:`PRECISIONS`.

    Raises
    ------
    MissingInputError, UsageError
        The models, or what runs them, are not installed; the message has the command to run.
    """
    if executor == "cpu":
        return CpuExecutor(mode, detection_confidence, tracking_confidence)
    if executor == "mediapipe":
        return OriginalExecutor(mode, detection_confidence, tracking_confidence)
    from gpupipe.ops.keypoints.batched.executor import TorchExecutor

    return TorchExecutor(mode, detection_confidence, tracking_confidence, device, precision)

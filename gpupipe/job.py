"""The contract of a job. A job says four things and no more: how to plan its items, what rows it declares,
how to make its operator, and what to write when all is complete. The engine does the rest.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np

from gpupipe.cuda.device import Device
from gpupipe.errors import DeviceLostError, DeviceMemoryError, OutputError, StoppedError, UsageError
from gpupipe.memory import HostSlot, RowSpec
from gpupipe.outcome import Outcome
from gpupipe.plan import Plan, PlanWriter
from gpupipe.sinks.base import Place, Sample, Sink
from gpupipe.stages import Stages
from gpupipe.types import Size

Made = TypeVar("Made")


class ItemMemoryError(MemoryError):
    """There was not enough memory for the item with this ordinal; its worker ends on it."""

    def __init__(self, ordinal: int) -> None:
        super().__init__(ordinal)
        self.ordinal = ordinal


@dataclass(slots=True)
class Work:
    """One item on its way through an operator.

    Attributes
    ----------
    ordinal : int
    item : Any
        The item's JSON value from the plan.
    slot : HostSlot
        Where its declared rows are computed.
    fingerprint : str
        Identity of its input file, taken before anything was read from it.
    stages : Stages
        Counts the time spent on it; for one thread at a time.
    backend : str
        Set by the operator: what decoded it.
    """

    ordinal: int
    item: Any
    slot: HostSlot
    fingerprint: str = ""
    stages: Stages = field(default_factory=Stages)
    backend: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an operator yields for each item it was given, in any order.

    Attributes
    ----------
    work : Work
    sample : Sample or None
        None where the item failed.
    record : str
        JSON the job wants back when it finishes; empty for none.
    error : Exception or None
        Why the item failed.
    """

    work: Work
    sample: Sample | None = None
    record: str = ""
    error: Exception | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What the headers of an item's input say, for a forecast; empty or None where it has no such thing.

    Attributes
    ----------
    codec, layout : str
        FFmpeg's names of the codec and the pixel format.
    size : tuple of int or None
        ``(height, width)`` in pixels, upright.
    seconds : float or None
        Its length.
    backend : str
        What would decode it.
    """

    codec: str = ""
    layout: str = ""
    size: Size | None = None
    seconds: float | None = None
    backend: str = ""


class Operator(Protocol):
    """Takes a stream of work, yields a completion for each.

    Attributes
    ----------
    depth : int
        Items it has in hand at the same time, at most; so many slots it needs.
    """

    depth: int

    def run(self, stream: Iterable[Work]) -> Iterator[Completion]:
        """Work the stream until it ends."""

    def close(self) -> None:
        """Give decoders, models and buffers back."""


class ItemLoop:
    """The operator of one CPU core: a function over one item at a time."""

    depth = 1

    def __init__(self, process: Callable[[Work], Completion], close: Callable[[], None]) -> None:
        self._process, self.close = process, close

    def run(self, stream: Iterable[Work]) -> Iterator[Completion]:
        """Work the stream item by item; an item's error is its own."""
        for work in stream:
            yield worked(self._process, work)


def worked(process: Callable[[Work], Made], work: Work) -> Made | Completion:
    """Work one item; an error is its own, a completion without a sample, but for those that any other item would meet.

    Raises
    ------
    OutputError, StoppedError, UsageError, DeviceLostError
        As the process met it.
    ItemMemoryError
        This process has not memory enough.
    """
    try:
        return process(work)
    except (OutputError, StoppedError, UsageError, DeviceLostError):
        raise
    except DeviceMemoryError as error:  # the card's: this process has all it needs to go on
        return Completion(work, error=error)
    except MemoryError as error:
        raise ItemMemoryError(work.ordinal) from error
    except Exception as error:
        return Completion(work, error=error)


@dataclass(frozen=True)
class Dataset:
    """A complete dataset, for :meth:`Job.finish`."""

    place: Place
    plan: Plan
    outcomes: Callable[[], Iterator[Outcome]] = field(repr=False)
    """Every item's outcome, by ordinal; may be iterated again."""


class Job(Protocol):
    """One bulk job. Made from the command line in the supervisor, from the plan's words in a worker."""

    name: ClassVar[str]
    pace: ClassVar[float]
    """How much longer than decoding its input an item takes, for the time after which it counts as hanging."""
    beside: ClassVar[tuple[str, ...]]
    """Those of the inputs that decide bytes of the files beside the items, and no others: these are written anew where
    they change."""
    elsewhere: ClassVar[tuple[str, ...]]
    """Those of the inputs that name a place to write to besides the output: whoever starts a run says so, never a plan.
    """

    @property
    def backend(self) -> str:
        """What may decode: ``"auto"``, ``"ffmpeg"`` or ``"nvdec"``; ``"ffmpeg"`` also where nothing is decoded."""

    @property
    def shard_size(self) -> int:
        """Items an output shard."""

    def options(self) -> dict[str, Any]:
        """What decides the bytes; JSON values. ``Job(**options, **inputs)`` makes the job again."""

    def inputs(self) -> dict[str, Any]:
        """Where the inputs are, and what decides no byte of an item; JSON values."""

    def check(self) -> None:
        """Raise :class:`UsageError` for what can be seen to be wrong before any work."""

    def source(self) -> Path:
        """The file the items are planned from."""

    def write_items(self, writer: PlanWriter) -> None:
        """Add every item to the plan, in order."""

    def item_id(self, ordinal: int, item: Any) -> str:
        """The item's id, as failures name it; never raises, whatever the item is."""

    def blob_name(self, ordinal: int, item: Any) -> str | None:
        """The item's name in a blob sink; None where its id is not fit to be one."""

    def input_file(self, item: Any) -> str | None:
        """Path of the item's input file, there or not; None where the item names none. Never raises."""

    def probe(self, item: Any) -> Facts:
        """Open the item's input and read no more than its headers; raises as working it would."""

    def rows(self) -> Sequence[RowSpec]:
        """The declared rows."""

    def sink(self, place: Place) -> Sink:
        """The output format asked for."""

    def operator(self, place: Place, device: Device | None) -> Operator:
        """The operator of one worker: of a CPU core, or of a share of a GPU."""

    def thumbnail(self, place: Place, ordinal: int, item: Any, outcome: Outcome) -> np.ndarray | None:
        """A done item as a person would know it, read back from the output: uint8 [H, W, 3]; None for no picture.

        Raises
        ------
        InputError, OSError
            What lies in the item's place cannot be read.
        """

    def finish(self, dataset: Dataset) -> None:
        """Write what stands beside the items, once every item of the dataset has an outcome."""

    def remains(self) -> Iterable[str]:
        """Names in the output folder that :meth:`finish` writes."""


AnyJob = TypeVar("AnyJob", bound=Job)


def class_path(job: Job) -> str:
    """``module:Class``, for :func:`restore`."""
    return f"{type(job).__module__}:{type(job).__qualname__}"


def restore(path: str, options: dict[str, Any], inputs: dict[str, Any]) -> Job:
    """Make the job again in another process."""
    module, _, name = path.partition(":")
    job: Job = getattr(importlib.import_module(module), name)(**options, **inputs)
    return job


def decoding_with(job: Job, backend: str) -> Job:
    """The same job over the same inputs with another backend, which decides no bytes.

    Raises
    ------
    UsageError
        Another one would give other bytes.
    """
    if job.backend == backend:
        return job
    inputs = job.inputs()
    if "backend" not in inputs:
        raise UsageError(f"the job {job.name} gives other bytes with --backend {backend} than as it was planned")
    return restore(class_path(job), job.options(), {**inputs, "backend": backend})


def blob_names(job: Job, plan: Plan) -> Iterator[str]:
    """The names of all items that may have one, by ordinal."""
    names = (job.blob_name(ordinal, item) for ordinal, item in enumerate(plan.items()))
    return (name for name in names if name is not None)

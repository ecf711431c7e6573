"""A look at a few items before a run: what their inputs say of themselves, and what working some of them costs.

Both in processes of their own, so that no file ends more than its own trial, and in a folder that is removed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from gpupipe.hand import Hand, Lost
from gpupipe.job import Facts, Job, class_path
from gpupipe.outcome import DONE
from gpupipe.plan import Plan
from gpupipe.posts import Post
from gpupipe.sinks.base import Place
from gpupipe.sinks.files import remove_tree

MIN_PROBED, MAX_PROBED = 8, 64
MIN_WORKED = 4
PROBE_SECONDS, TRIAL_SECONDS = 2.0, 3.0  # no new item after that, the least number aside
LONGEST_SECONDS = 60.0  # no new item after that, were it only the second: long clips take minutes each
LONGEST_ITEM_SECONDS = 600.0  # a run has more patience with a long one: a whole video may take hours
PATIENCE_SECONDS = 10.0  # for a look at one input
LOST_ALLOWED = 3  # each costs a new process, or all the patience there is


@dataclass
class Reason:
    """How many items met an error, and one of them."""

    count: int = 0
    example: str = ""


@dataclass(frozen=True)
class Spread:
    """Smallest, middle and largest of some values."""

    min: float
    median: float
    max: float


@dataclass
class Survey:
    """What the inputs of a sample say of themselves.

    Attributes
    ----------
    probed, readable : int
        Items looked at; those whose input could be opened.
    reasons : dict of str to Reason
        The others, by error type.
    codecs, layouts, sizes : dict of str to int
        Inputs by codec, by pixel format, by ``height x width`` in pixels.
    backends : dict of str to list of str
        What would decode each codec.
    seconds : Spread or None
        Their lengths; None where no input has one.
    """

    probed: int = 0
    readable: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)
    codecs: dict[str, int] = field(default_factory=dict)
    layouts: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    backends: dict[str, list[str]] = field(default_factory=dict)
    seconds: Spread | None = None


@dataclass
class Trial:
    """What working a few items cost.

    Attributes
    ----------
    worked, done : int
        Items tried; those that did not fail.
    reasons : dict of str to Reason
        The others, by error type; ``crash``, ``hang`` and ``memory`` ended the worker.
    seconds : list of float
        Of one worker, an item each. The first item of a process, which also loads its libraries, is not among them
        unless it is alone.
    nbytes, disk_bytes : list of int
        Output of each item that did not end its worker, failed ones included: as files are long, and in whole blocks.
    start_seconds : float
        Until a worker has its first item in hand, and what that one took beyond the others.
    peak_bytes : int
        Largest resident memory of the worker.
    stages : dict of str to float
        Busy seconds by stage.
    """

    worked: int = 0
    done: int = 0
    reasons: dict[str, Reason] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    nbytes: list[int] = field(default_factory=list)
    disk_bytes: list[int] = field(default_factory=list)
    start_seconds: float = 0.0
    peak_bytes: int = 0
    stages: dict[str, float] = field(default_factory=dict)


class Bench:
    """Where items of a plan are tried: the job, its plan, and a folder of its own.

    Parameters
    ----------
    job : Job
    plan : Plan
        Lies in ``folder / "bookkeeping"``, or is linked there.
    folder : Path
        Empty but for that; what is made here is removed by its owner.
    block : int
        Bytes that a file on the output's file system is rounded up to.
    settings : mapping
        ``fingerprint`` and ``memory_bytes`` of a worker's setup.
    post : Post
        Where the trial's worker works.
    """

    def __init__(self, job: Job, plan: Plan, folder: Path, block: int, settings: Mapping[str, Any], post: Post) -> None:
        self._job, self._plan, self._block, self._post = job, plan, block, post
        # Shards of one item: the rows of a whole one would be reserved for each item of the sample.
        self._place = Place(folder / "out", folder / "bookkeeping", folder / "staging", plan.count, shard_size=1)
        self._logs = folder / "logs"
        self._lost: set[int] = set()  # what ended one process is not given to another
        for made in (self._place.out, self._place.staging, self._logs):
            made.mkdir()
        self._positions = None if plan.order is None else np.argsort(plan.order)
        self._setup = {
            "bookkeeping": str(self._place.bookkeeping),
            "job": class_path(job),
            "options": job.options(),
            "inputs": job.inputs(),
            "out": str(self._place.out),
            "staging": str(self._place.staging),
            "count": plan.count,
            "shard_size": self._place.shard_size,
            "recycle_bytes": 1 << 62,
            "recycle_seconds": 1e9,
            **settings,
        }

    @property
    def folders(self) -> tuple[Path, Path, Path]:
        """For output, bookkeeping and staging."""
        return self._place.out, self._place.bookkeeping, self._place.staging

    def probe(self, sample: Iterable[int], patience: float = PATIENCE_SECONDS) -> Survey:
        """Look at the inputs of the sample's first items: as many as the time allows."""
        survey = Survey()
        lengths: list[float] = []
        with Hand("gpupipe.prober", self._setup, self._logs, lambda ordinal: patience) as hand:
            for ordinal in _in_time(sample, MIN_PROBED, PROBE_SECONDS, hand):
                survey.probed += 1
                answer = hand.ask({"probe": ordinal}, lambda message: True)
                if isinstance(answer, Lost):
                    self._lost.add(ordinal)
                said: Any = asdict(answer) if isinstance(answer, Lost) else answer[-1]
                if "facts" not in said:
                    self._count(survey.reasons, ordinal, said["error"], said["message"])
                    continue
                survey.readable += 1
                facts = Facts(**said["facts"])
                _tally(survey, facts)
                if facts.seconds is not None:
                    lengths.append(facts.seconds)
        survey.seconds = Spread(min(lengths), median(lengths), max(lengths)) if lengths else None
        return survey

    def work(self, sample: Iterable[int], patience: Callable[[int], float]) -> Trial:
        """Work the sample's first items as a run would, one after another: as many as the time allows.

        Each may take as long as in a run (`patience`, see :func:`gpupipe.watchdog.patience`), but for the longest.
        """
        trial = Trial()
        first: list[float] = []

        def bounded(ordinal: int) -> float:
            return min(patience(ordinal), LONGEST_ITEM_SECONDS)

        with Hand("gpupipe.worker", self._setup, self._logs, bounded, self._post) as hand:
            sound = (ordinal for ordinal in sample if ordinal not in self._lost)
            for ordinal in _in_time(sound, MIN_WORKED, TRIAL_SECONDS, hand):
                trial.worked += 1
                position = ordinal if self._positions is None else int(self._positions[ordinal])
                before, began = hand.started, time.monotonic()
                answer = hand.ask({"lease": [position, position + 1]}, lambda message: bool(message.get("completed")))
                fresh = hand.started != before
                nbytes, disk_bytes = self._take_away()
                if isinstance(answer, Lost):
                    self._count(trial.reasons, ordinal, answer.error, answer.message)
                    continue
                trial.nbytes.append(nbytes)
                trial.disk_bytes.append(disk_bytes)
                _, state, seconds, _, _, _, _, _, error, text, _ = answer[-1]["completed"][0]
                if fresh:
                    trial.start_seconds = max(trial.start_seconds, time.monotonic() - began)
                (first if fresh else trial.seconds).append(seconds)
                for message in answer:
                    if "usage" not in message:  # what a card has to say is for the run
                        continue
                    trial.peak_bytes = max(trial.peak_bytes, message["usage"][-1])
                    for stage, busy in message["stages"].items():
                        trial.stages[stage] = trial.stages.get(stage, 0.0) + busy
                if state == DONE:
                    trial.done += 1
                else:
                    self._count(trial.reasons, ordinal, error, text)
        trial.seconds = trial.seconds or first
        return trial

    def _count(self, reasons: dict[str, Reason], ordinal: int, error: str, message: str) -> None:
        reason = reasons.setdefault(error, Reason())
        reason.count += 1
        reason.example = reason.example or f"{self._job.item_id(ordinal, self._plan.item(ordinal))}: {message}"

    def _take_away(self) -> tuple[int, int]:
        """Bytes of what was just made, by length and in blocks; it is removed."""
        nbytes = disk_bytes = 0
        for root in (self._place.out, self._place.bookkeeping):
            for folder, folders, files in os.walk(root):
                if folder == str(self._place.bookkeeping):
                    folders.remove("plan")
                if root == self._place.out and Path(folder) != root:
                    disk_bytes += self._block
                for name in files:
                    path = Path(folder, name)
                    length = path.stat().st_size
                    nbytes += length
                    disk_bytes += -(-length // self._block) * self._block
                    path.unlink()
        for path in self._place.out.iterdir():
            remove_tree(path)
        return nbytes, disk_bytes


def _in_time(sample: Iterable[int], least: int, seconds: float, hand: Hand) -> Iterator[int]:
    asked = time.monotonic()
    began = asked
    for number, ordinal in enumerate(sample):
        now = time.monotonic()
        if hand.started > LOST_ALLOWED or (number and now - asked > LONGEST_SECONDS):
            return
        if number >= least and now - began > seconds:
            return
        yield ordinal
        if not number:
            began = time.monotonic()  # starting the process is not counted


def _tally(survey: Survey, facts: Facts) -> None:
    size = "" if facts.size is None else "x".join(map(str, facts.size))
    for counts, name in ((survey.codecs, facts.codec), (survey.layouts, facts.layout), (survey.sizes, size)):
        if name:
            counts[name] = counts.get(name, 0) + 1
    if facts.codec and facts.backend not in (backends := survey.backends.setdefault(facts.codec, [])):
        backends.append(facts.backend)

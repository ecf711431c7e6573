"""What there is to remember: an item's outcome, how a run went, what happened in it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

PENDING, DONE, FAILED = 0, 1, 2
STATES = ("pending", "done", "failed")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one item.

    Attributes
    ----------
    ordinal, state : int
        State is ``PENDING``, ``DONE`` or ``FAILED``.
    attempts : int
        Times the item was tried; innocent retries are not counted.
    seconds : float
        Worker time of the last try.
    worker : int
    backend : str
        What decoded it; empty where nothing did.
    fingerprint : str
        Identity of the input file at the time (``size:mtime_ns``), ``"absent"`` where there was none.
    checksum : str
        XXH3-128 of the bytes written, hexadecimal.
    nbytes : int
    stage, error, message : str
        Where and why it failed; empty where it did not.
    record : str
        JSON that the job wants back when it writes its index; empty where it wants nothing.
    finished : float
        Unix time.
    epoch : int
    """

    ordinal: int
    state: int
    attempts: int = 1
    seconds: float = 0.0
    worker: int = 0
    backend: str = ""
    fingerprint: str = ""
    checksum: str = ""
    nbytes: int = 0
    stage: str = ""
    error: str = ""
    message: str = ""
    record: str = ""
    finished: float = 0.0
    epoch: int = 0


@dataclass(slots=True)
class RunRecord:
    """How one run went, kept up to date with every commit.

    Attributes
    ----------
    started, at : float
        Unix times: when the run began, and of its last commit.
    seconds : float
        Its duration so far, by a clock that cannot be set.
    rate : float
        Items a second lately.
    workers : int
        Processes at work.
    host : str
    pid : int
    stages : dict of str to float
        Busy and waiting seconds of the workers by stage.
    cpu_seconds : float
        Of the workers.
    read_bytes, written_bytes : int
        What the workers read and wrote, page cache included.
    peak_bytes : int
        Largest resident memory of one worker.
    facts : dict
        JSON values that stay the same: how it was asked for, the machine, versions.
    """

    started: float
    at: float = 0.0
    seconds: float = 0.0
    rate: float = 0.0
    workers: int = 0
    host: str = ""
    pid: int = 0
    stages: dict[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    peak_bytes: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a run and is worth keeping.

    Attributes
    ----------
    at : float
        Unix time.
    kind : str
        ``"death"``, ``"hang"``, ``"memory"``, ``"recycle"``, ``"stop"``, ``"redo"``, ``"notice"``, ``"device"`` (of a
        GPU: memory ran short, or it is not used any more), ``"audit"`` (an item that two backends made otherwise).
    worker, ordinal : int
        Whom and which item it concerns; -1 for none.
    text : str
    """

    at: float
    kind: str
    worker: int
    ordinal: int
    text: str

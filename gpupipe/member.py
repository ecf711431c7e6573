"""A worker process as its supervisor sees it: started, supplied with leases, dismissed, reaped."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gpupipe.machine import Usage
from gpupipe.posts import Post
from gpupipe.pulse import Pulse
from gpupipe.wire import Wire

_HUGE_PAGES = "glibc.malloc.hugetlb"


@dataclass(eq=False)
class Member:
    """One worker process and what it holds.

    Attributes
    ----------
    number : int
    process : subprocess.Popen
    wire : Wire
    pulse : Pulse
    log : Path
        What the process writes to its standard streams.
    post : Post
    depth : int
        Items it works at the same time; 0 until it has said so.
    outstanding : set of int
        Positions leased to it and not completed.
    leases : deque of set of int
        The same, by lease.
    stopping : bool
        It was told to end.
    alone : bool
        It holds a suspect, and gets no second lease.
    hung : bool
        It was ended because it was on one item for too long.
    late : int or None
        Ordinal of that item; None where it had begun none.
    starved : int or None
        Ordinal of the item it had not enough memory for.
    lost : str or None
        Why its GPU cannot be worked with any more.
    recycled : bool
        It ends to be replaced by a fresh one.
    usage : Usage
        What it said it used.
    """

    number: int
    process: subprocess.Popen[bytes]
    wire: Wire
    pulse: Pulse
    log: Path
    post: Post
    depth: int = 0
    outstanding: set[int] = field(default_factory=set)
    leases: deque[set[int]] = field(default_factory=deque)
    stopping: bool = False
    alone: bool = False
    hung: bool = False
    late: int | None = None
    starved: int | None = None
    lost: str | None = None
    recycled: bool = False
    usage: Usage = field(default_factory=Usage)
    completed: int = 0
    since: float = field(default_factory=time.monotonic)

    @classmethod
    def spawn(
        cls, number: int, setup: dict[str, Any], folder: Path, module: str = "gpupipe.worker", post: Post | None = None
    ) -> Member:
        """Start a worker (`module`: its program) at its post and tell it what to do; its log goes to `folder`."""
        post = post or Post()
        ours, theirs = socket.socketpair()
        pulse = Pulse()
        log = folder / f"worker-{number}.log"
        # Ctrl-C reaches the whole group, and the supervisor decides what it means: a worker never sees it. The mask is
        # inherited, so there is no moment before a handler is set.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        with log.open("wb") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno()), str(pulse.fd), str(os.getpid())],
                pass_fds=(theirs.fileno(), pulse.fd),
                stdin=subprocess.DEVNULL,
                stdout=errors,
                stderr=errors,
                env=environment() | post.environment,
            )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
        member = cls(number, process, Wire(ours), pulse, log, post)
        setup = {**setup, "number": number, "device": post.device, "cores": post.cores}
        if post.device is not None:  # a card's driver reserves far more addresses than there is memory
            setup["memory_bytes"] = None
        member.wire.send({"setup": setup})
        return member

    def rate(self) -> float:
        """Items a second since it was started."""
        return self.completed / max(time.monotonic() - self.since, 1e-3)

    def lease(self, start: int, stop: int, alone: bool) -> None:
        """Hand it the positions from `start` up to `stop`."""
        positions = set(range(start, stop))
        self.outstanding |= positions
        self.leases.append(positions)
        self.alone = alone
        self.wire.send({"lease": [start, stop]})

    def complete(self, position: int) -> None:
        """Take note that it is done with a position."""
        self.outstanding.discard(position)
        self.completed += 1
        for lease in self.leases:
            lease.discard(position)
        while self.leases and not self.leases[0]:
            self.leases.popleft()
        self.alone = self.alone and bool(self.leases)

    def dismiss(self) -> None:
        """Let it finish the item in hand and end."""
        if not self.stopping:
            self.stopping = True
            self.wire.send({"lease": None})

    def reap(self) -> int:
        """End the process if it has not ended, wait for it, return its status; only its pulse can still be read."""
        self.process.kill()
        status = self.process.wait()
        self.wire.close()
        return status


def environment() -> dict[str, str]:
    """What every worker finds in its environment: this process's, and what a decoding process needs to be set early."""
    found = dict(os.environ, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")
    # The package's own place goes last on the path: a source tree that is run in place is found from anywhere.
    home = str(Path(__file__).parents[1])
    found["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), home]))
    # Frames are megabytes that are written and read from end to end: with pages of 4 KiB, faults and walks through the
    # page tables are part of the time of decoding. glibc reads this before main(); where the user chose, that stays.
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if _HUGE_PAGES not in tunables:
        found["GLIBC_TUNABLES"] = ":".join(filter(None, [tunables, f"{_HUGE_PAGES}=1"]))
    return found

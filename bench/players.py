"""A decoding tool in a process of its own: its libraries meet nobody else's, and its crash is its own."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from bench.harness import ONE_THREAD
from bench.peers import TOOLS, Request
from gpupipe.member import environment

SHOWN = 48
"""Frames of a clip that are compared at most, evenly spread."""


class Unavailable(Exception):
    """The tool cannot do this; the text says why."""


class Player:
    """Asks one tool for frames, one request at a time.

    Parameters
    ----------
    tool : str
        Key of :data:`bench.peers.TOOLS`.
    patience : float
        Seconds after which an unanswered request is given up and the process killed.
    """

    def __init__(self, tool: str, patience: float) -> None:
        self.tool, self._patience = tool, patience
        self._process: Any = None
        self._pipe: Connection | None = None

    def look(self, request: Request) -> tuple[int, np.ndarray, float]:
        """Number of frames, up to :data:`SHOWN` of them, uint8 [N, H, W, 3], CPU seconds; untimed, a warm-up."""
        count, frames, cpu, stats = self._ask("look", request)
        self.stats = stats
        return count, frames, cpu

    def time(self, request: Request) -> tuple[float, float]:
        """CPU and wall seconds of one request."""
        return self._ask("time", request)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
            self._process = None

    def _ask(self, what: str, request: Request) -> Any:
        if self._process is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((what, request))
            if not self._pipe.poll(self._patience):
                self.close()
                raise Unavailable(f"no answer within {self._patience:.0f} s")
            kind, value = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(5)
            code = self._process.exitcode
            self.close()
            raise Unavailable(f"its process died (exit code {code})") from None
        if kind == "error":
            raise Unavailable(value)
        return value

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        # Our decoder works in a worker's environment, which is part of it; a peer in the plain one.
        with _environment(os.environ | ONE_THREAD | (environment() if self.tool == "gpupipe" else {})):
            self._process = context.Process(target=_serve, args=(theirs, self.tool), daemon=True)
            self._process.start()
        theirs.close()


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """Let processes that are started here find these variables."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(pipe: Connection, name: str) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)  # what the libraries print of damaged files
    try:
        tool = TOOLS[name]()
    except Exception as error:
        tool, reason = None, _said(error)
    while True:
        try:
            what, request = pipe.recv()
        except EOFError:
            return
        if tool is None:
            pipe.send(("error", reason))
            continue
        try:
            wall, cpu = time.perf_counter(), time.process_time()
            frames = tool(request)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            if what == "time":
                pipe.send(("ok", (cpu, wall)))
            else:
                pipe.send(("ok", (len(frames), frames[shown(len(frames))], cpu, getattr(tool, "stats", {}))))
        except Exception as error:
            pipe.send(("error", _said(error)))


def shown(count: int) -> np.ndarray:
    """Positions that are compared."""
    return np.linspace(0, count - 1, min(count, SHOWN), dtype=int)


def _said(error: Exception) -> str:
    first = str(error).strip().splitlines()
    text = " ".join(f"{type(error).__name__}: {first[0] if first else ''}".split())
    # No paths of the machine in results.
    return " ".join(word.rsplit("/", 1)[-1] for word in text.split(" "))[:160]

"""One run in a process of its own, showing on a board what it does: ``start.py JOB OPTIONS HOW``, the last two JSON.

With ``die_at`` it kills itself before its n-th step: a call that changes the disk. The steps so far are on the board.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import board
import planted
from helpers import Quietly

from gpupipe import commits, launch, supervisor
from gpupipe.launch import Run

_STEPS = ("rename", "unlink", "mkdir", "rmdir", "fsync", "ftruncate", "pwritev", "write")


def main() -> int:
    name, options, how = sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3])
    job = getattr(planted, name)(**options)
    how["output"] = Path(how["output"])
    shown = board.mine(job.marks)
    commits.COMMIT_SECONDS = how.pop("commit_seconds")
    if "die_at" in how:
        _die_at(how.pop("die_at"), shown)
    else:
        _count_items(shown)
    shown.watch(commits.BatchSync, "__call__", "syncing")
    shown.watch(commits.Ledger, "commit", "committing")
    shown.watch(launch._Session, "_end", "ending")
    return launch.run(job, Run(**how), Quietly()).exit_code


def _count_items(shown: board.Board) -> None:
    settle, start = supervisor.Supervisor._settle, supervisor.Supervisor.run

    def settled(self, outcome):
        settle(self, outcome)
        shown.settle()
        if shown.phase == "first leases":
            shown.phase = "working"

    def started(self):
        shown.phase = "first leases"
        return start(self)

    supervisor.Supervisor._settle, supervisor.Supervisor.run = settled, started


def _die_at(number: int, shown: board.Board) -> None:
    """Of the supervisor alone: in workers a step is a random moment like any other."""

    def before(owner, name):
        function = getattr(owner, name)

        def step(*arguments, **words):
            shown.settle()
            if shown.count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments, **words)

        setattr(owner, name, step)

    for name in _STEPS:
        before(os, name)
    before(commits.BatchSync, "__call__")
    before(commits.Ledger, "commit")


if __name__ == "__main__":
    sys.exit(main())

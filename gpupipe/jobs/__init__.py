"""The jobs, one a file, and where each is found by its name."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from gpupipe.errors import UsageError
from gpupipe.job import Job

JOBS = {"clips": "gpupipe.jobs.clips:ClipsJob", "keypoints": "gpupipe.jobs.keypoints:KeypointsJob"}


def kind(name: str) -> Callable[..., Job]:
    """The class of the job of that name; raises :class:`UsageError` where there is none."""
    if name not in JOBS:
        raise UsageError(f"job {name!r}: this gpupipe has {', '.join(JOBS)}")
    module, _, word = JOBS[name].partition(":")
    found: Callable[..., Job] = getattr(importlib.import_module(module), word)
    return found

"""A GPU as a worker has it: the card and its video engine, opened by name."""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass

from gpupipe.cuda.card import Card, Stream
from gpupipe.cuda.devices import missing
from gpupipe.decode.session import VideoEngine
from gpupipe.errors import UsageError

OPENER = "gpupipe.cuda.cupy_card:open"
"""Opens a real card."""


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Device:
    """What a worker on a GPU works with.

    Attributes
    ----------
    card : Card
    engine : VideoEngine
        Its pictures lie in the card's memory.
    stream : Stream
        Of the card. The engine's pictures are ready for work that is enqueued here.
    tell : callable of str
        Told what a person should know of the card; default standard error.
    """

    card: Card
    engine: VideoEngine
    stream: Stream
    tell: Callable[[str], object] = _log

    def close(self) -> None:
        """Give the card back."""
        self.card.close()


def open_device(opener: str, number: int) -> Device:
    """Open a device.

    Parameters
    ----------
    opener : str
        ``module:function`` that takes the number.
    number : int
        Among the devices this process sees.
    """
    module, _, name = opener.partition(":")
    device: Device = getattr(importlib.import_module(module), name)(number)
    return device


@functools.cache
def default_device() -> Device:
    """The first card this process sees, opened once and kept; for a caller's own process, not for workers.

    Raises
    ------
    UsageError
        There is none, or what drives it is missing; the message says what.
    """
    reason = missing()
    if reason is not None:
        raise UsageError(f"backend 'nvdec': {reason}")
    return open_device(OPENER, 0)

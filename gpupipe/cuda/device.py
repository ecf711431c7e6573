"""A GPU as a worker has it: the card and its video engine, opened by name."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from gpupipe.cuda.card import Card
from gpupipe.decode.session import VideoEngine


@dataclass(frozen=True)
class Device:
    """What a worker on a GPU works with.

    Attributes
    ----------
    card : Card
    engine : VideoEngine
        Its pictures lie in the card's memory.
    """

    card: Card
    engine: VideoEngine

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

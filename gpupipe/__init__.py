"""Bulk media work on every core and every GPU.

The names below are loaded when they are first used, so that ``import gpupipe`` costs nothing.

>>> import gpupipe
>>> with gpupipe.open_video("clip.mp4") as video:  # doctest: +SKIP
...     batch = video.frames(num=16, size=(160, 256))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpupipe.api import load_pickle, report, retry, status, verify
    from gpupipe.api_clips import clips
    from gpupipe.api_keypoints import keypoints
    from gpupipe.errors import (
        CorruptError,
        DecodeError,
        GpupipeError,
        InputError,
        LockedError,
        MissingInputError,
        NoVideoError,
        OutputError,
        StoppedError,
        TruncatedError,
        UnsupportedError,
        UsageError,
    )
    from gpupipe.forecast import Forecast
    from gpupipe.frame_batch import Frame, FrameBatch
    from gpupipe.summary import Summary
    from gpupipe.types import StreamInfo
    from gpupipe.verification import Verdict
    from gpupipe.video import Video, open_video

__version__ = "0.1.0"

__all__ = [
    "CorruptError",
    "DecodeError",
    "Forecast",
    "Frame",
    "FrameBatch",
    "GpupipeError",
    "InputError",
    "LockedError",
    "MissingInputError",
    "NoVideoError",
    "OutputError",
    "StoppedError",
    "StreamInfo",
    "Summary",
    "TruncatedError",
    "UnsupportedError",
    "UsageError",
    "Verdict",
    "Video",
    "__version__",
    "clips",
    "keypoints",
    "load_pickle",
    "open_video",
    "report",
    "retry",
    "status",
    "verify",
]

_HOMES = {
    "api": ("load_pickle", "report", "retry", "status", "verify"),
    "api_clips": ("clips",),
    "api_keypoints": ("keypoints",),
    "forecast": ("Forecast",),
    "frame_batch": ("Frame", "FrameBatch"),
    "summary": ("Summary",),
    "types": ("StreamInfo",),
    "verification": ("Verdict",),
    "video": ("Video", "open_video"),
}
_MODULES = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)

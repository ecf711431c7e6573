"""The error tree. Every error says where, what was met, what was expected and the next step.

Each class is also the builtin that a caller would catch by habit: an :class:`InputError` is a
``ValueError``, an :class:`OutputError` an ``OSError``.
"""

from __future__ import annotations


class GpupipeError(Exception):
    """Root of everything gpupipe raises on purpose."""


class UsageError(GpupipeError, ValueError):
    """The command or call cannot be carried out as given; nothing was started (exit 2)."""


class InputError(GpupipeError, ValueError):
    """One item's input is wrong; the item fails, the others go on."""


class MissingInputError(InputError, FileNotFoundError):
    """The item's file does not exist, or is not a regular file."""


class DecodeError(InputError):
    """The item's file exists but its pictures cannot be had from it."""


class NoVideoError(DecodeError):
    """The file holds no video stream, or its stream shows no picture."""


class CorruptError(DecodeError):
    """A packet that a wanted frame depends on cannot be decoded.

    Attributes
    ----------
    readable : int or None
        Pictures that a full decode gives before the first fault; None where that was not counted.
    """

    def __init__(self, message: str, readable: int | None = None) -> None:
        super().__init__(message)
        self.readable = readable


class TruncatedError(CorruptError):
    """The file ends before its own index or header says it should."""


class UnsupportedError(DecodeError, NotImplementedError):
    """A codec, pixel format or colour matrix that this backend does not take."""


class OutputError(GpupipeError, OSError):
    """Writing failed (disk full, permission, I/O): the run stops, no item is blamed (exit 4)."""


class LockedError(GpupipeError, BlockingIOError):
    """Another run holds this output (exit 4)."""


class StoppedError(GpupipeError, RuntimeError):
    """The run cannot go on, for a reason that is no item's fault (exit 4)."""


class DeviceMemoryError(GpupipeError, MemoryError):
    """The device has not enough memory left for what was asked; asking for less may succeed."""


class DeviceLostError(GpupipeError, RuntimeError):
    """The device no longer answers; its worker ends, and others take its items."""

"""Decoding exactly what is wanted: the contract, the packet index, the planner, and one module a backend."""

from __future__ import annotations

import os

from gpupipe.decode.base import MAX_PIXELS, Decoder, IndexMismatch, Stats
from gpupipe.decode.index import FrameIndex, PacketTable
from gpupipe.errors import UsageError

__all__ = ["BACKENDS", "MAX_PIXELS", "Decoder", "FrameIndex", "IndexMismatch", "PacketTable", "Stats", "open"]

BACKENDS = ("auto", "ffmpeg")


def open(
    path: str | os.PathLike[str], backend: str = "auto", stream: int | None = None, max_pixels: int = MAX_PIXELS
) -> Decoder:
    """Open one video stream of a local file.

    Parameters
    ----------
    path : str or path
        A file on this machine; nothing else is ever opened.
    backend : str
        ``"auto"`` chooses; ``"ffmpeg"``.
    stream : int, optional
        Index of the stream in its container; default the one that FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture; more is refused before there is memory for it.

    Returns
    -------
    Decoder
        A context manager.

    Raises
    ------
    MissingInputError
        No such file, or not a regular one.
    NoVideoError
        The file has no video stream, or not that one.
    TruncatedError, UnsupportedError, DecodeError
        The file cannot be read.
    UsageError
        No such backend.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    from gpupipe.decode.ffmpeg import FFmpegDecoder

    return FFmpegDecoder(path, stream, max_pixels)

"""Decoding exactly what is wanted: the contract, the packet index, the planner, and one module a backend."""

from __future__ import annotations

import functools
import importlib
import os
import threading
from typing import TYPE_CHECKING

from gpupipe.decode.base import MAX_PIXELS, Decoder, IndexMismatch, Stats
from gpupipe.decode.index import FrameIndex, PacketTable
from gpupipe.errors import UsageError

if TYPE_CHECKING:
    from gpupipe.decode.pool import DecoderPool

__all__ = ["BACKENDS", "MAX_PIXELS", "Decoder", "FrameIndex", "IndexMismatch", "PacketTable", "Stats", "open"]

BACKENDS = ("auto", "ffmpeg", "nvdec")

_DEFAULT_DEVICE = "gpupipe.cuda.device:default_device"  # stands above: found by name, and only where it is asked for

_lock = threading.Lock()


def open(
    path: str | os.PathLike[str],
    backend: str = "auto",
    stream: int | None = None,
    max_pixels: int = MAX_PIXELS,
    *,
    pool: DecoderPool | None = None,
    on_device: bool = False,
) -> Decoder:
    """Open one video stream of a local file.

    Parameters
    ----------
    path : str or path
        A file on this machine; nothing else is ever opened.
    backend : str
        ``"ffmpeg"``; ``"nvdec"``: the card's decoders, or an error where they cannot; ``"auto"``: the card's where
        `pool` is given and they can, else FFmpeg.
    stream : int, optional
        Index of the stream in its container; default the one that FFmpeg calls best.
    max_pixels : int
        Height x width of the largest picture; more is refused before there is memory for it.
    pool : DecoderPool, optional
        The decoders of a card, shared by all that decode on it; ``"nvdec"`` opens the first card without it.
    on_device : bool
        Pictures that a card decoded stay in its memory: see :class:`gpupipe.decode.nvdec.NvdecDecoder`.

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
        The file cannot be read, or not by the card where only that may.
    UsageError
        No such backend, or it cannot be had; the message says what is missing.
    """
    if backend not in BACKENDS:
        raise UsageError(f"backend {backend!r}; expected one of {', '.join(BACKENDS)}")
    if backend == "nvdec" and pool is None:
        pool = _default_pool()
    if backend == "ffmpeg" or pool is None:
        from gpupipe.decode.ffmpeg import FFmpegDecoder

        return FFmpegDecoder(path, stream, max_pixels)
    from gpupipe.decode.nvdec import NvdecDecoder

    return NvdecDecoder(path, stream, max_pixels, pool=pool, only=backend == "nvdec", on_device=on_device)


def _default_pool() -> DecoderPool:
    """The decoders of the first card, opened once a process."""
    with _lock:
        return _opened()


@functools.cache
def _opened() -> DecoderPool:
    from gpupipe.decode.pool import DecoderPool

    module, _, name = _DEFAULT_DEVICE.partition(":")
    try:
        device = getattr(importlib.import_module(module), name)()
    except UsageError:
        raise
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"backend 'nvdec': no card can be opened: {error}. `gpupipe doctor` lists what is missing; "
            "or use --backend ffmpeg"
        ) from error
    return DecoderPool(device.engine)

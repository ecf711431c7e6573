"""Which pictures to take: by number, by time, at a rate."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gpupipe.decode.index import Bools, FrameIndex, Int64s
from gpupipe.errors import InputError


class EmptyRangeError(InputError):
    """No picture of the stream lies in the range of time that was asked for."""


def uniform(total: int, count: int) -> tuple[Int64s, Bools]:
    """Spread ``count`` samples over ``total`` pictures, both ends included.

    Parameters
    ----------
    total : int
        Pictures there are (T), at least 1.
    count : int
        Samples wanted (N).

    Returns
    -------
    indices : int64 [N]
        ``numpy.linspace(0, T-1, N, dtype=int)`` (truncating); where T < N all pictures, then the last one repeated.
    valid : bool [N]
        False where a picture repeats the last.

    Raises
    ------
    InputError
        No picture, or no sample.
    """
    if total < 1 or count < 1:
        raise InputError(f"{count} samples of {total} pictures; expected at least one of each")
    if total < count:
        valid = np.arange(count) < total
        return np.minimum(np.arange(count, dtype=np.int64), total - 1), valid
    return np.linspace(0, total - 1, count, dtype=int).astype(np.int64), np.ones(count, np.bool_)


def within(index: FrameIndex, begin: float | None = None, end: float | None = None) -> tuple[int, int]:
    """Pictures of a range of time: ``begin <= pts - start < end``.

    Parameters
    ----------
    index : FrameIndex
        The stream's pictures.
    begin, end : float or None
        Seconds since the first picture; None leaves that side open.

    Returns
    -------
    first, stop : int
        Numbers of the first picture in it and of the first one behind it; there is at least one between.

    Raises
    ------
    EmptyRangeError
    """
    times = index.times
    low = 0 if begin is None else int(np.searchsorted(times, begin, side="left"))
    high = len(times) if end is None else int(np.searchsorted(times, end, side="left"))
    if low >= high:
        last = f"the last picture is at {times[-1]:.3f} s" if len(times) else "there is no picture"
        raise EmptyRangeError(f"no picture in [{begin}, {end}) s; {last}. Check begin and end")
    return low, high


def at_seconds(index: FrameIndex, seconds: npt.ArrayLike) -> Int64s:
    """Pictures on show at given times: the last with ``pts - start <= t``, the first before the start.

    Parameters
    ----------
    index : FrameIndex
        The stream's pictures.
    seconds : array_like of float, any shape
        Seconds since the first picture.

    Returns
    -------
    int64, that shape

    Raises
    ------
    EmptyRangeError
        The stream shows nothing.
    """
    if not len(index):
        raise EmptyRangeError("the stream shows no picture")
    # Half a unit of tolerance: 3 * (1 / 30) must find the picture at 0.1 s.
    tolerance = 0.5 * index.time_base.numerator / index.time_base.denominator
    found = np.searchsorted(index.times, np.asarray(seconds, np.float64) + min(tolerance, 1e-6), side="right") - 1
    return np.maximum(found, 0).astype(np.int64)


def at_rate(index: FrameIndex, fps: float, begin: float = 0.0, end: float | None = None) -> Int64s:
    """Pictures on show at ``begin, begin + 1/fps, ...``, up to the last picture or before ``end``.

    Returns
    -------
    int64 [n]
        Not decreasing; a picture that is shown for longer comes more than once.

    Raises
    ------
    InputError
        ``fps`` is not a positive number.
    EmptyRangeError
    """
    if not 0 < fps < float("inf"):
        raise InputError(f"fps={fps}; expected a positive number")
    if not len(index):
        raise EmptyRangeError("the stream shows no picture")
    last = float(index.times[-1])
    stop = last if end is None else min(last, end)
    count = int(np.floor((stop - begin) * fps + 1e-6)) + 1
    times = begin + np.arange(max(count, 0)) / fps
    if end is not None:
        times = times[times < end]
    if not len(times):
        raise EmptyRangeError(f"no picture in [{begin}, {end}) s; the last picture is at {last:.3f} s")
    return at_seconds(index, times)

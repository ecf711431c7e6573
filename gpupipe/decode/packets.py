"""Packets that are made here and not by a demuxer."""

from __future__ import annotations

from typing import Any

import av

Packet = Any  # av.Packet, generic in its stub only


def packet_of(data: bytes | memoryview, pts: int | None = None) -> Packet:
    """Make a packet of some bytes.

    They are copied into memory of FFmpeg's, which has zeros behind its end: decoders read on there
    (``AV_INPUT_BUFFER_PADDING_SIZE``), and `av.Packet(data)` lets them read whatever lies behind an object of Python's,
    so that damage is found in one run and not in the next.

    Parameters
    ----------
    data : bytes or memoryview
        Its bytes.
    pts : int, optional
        Stream units.

    Returns
    -------
    av.Packet
    """
    made: Packet = av.Packet(len(data))
    made.update(data)
    made.pts = pts
    return made

"""Packets that are made here and not by a demuxer."""

from __future__ import annotations

from typing import Any

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
    import av

    made: Packet = av.Packet(len(data))
    made.update(data)
    made.pts = pts
    return made


def like(packet: Packet, data: bytes | memoryview) -> Packet:
    """A packet of other bytes."""
    made = packet_of(data, packet.pts)
    made.dts, made.time_base, made.is_corrupt = packet.dts, packet.time_base, packet.is_corrupt
    return made

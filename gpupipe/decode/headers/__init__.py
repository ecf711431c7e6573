"""Bitstream headers: what each packet shows, its place in output order, and where decoding may start.

Nothing here decodes pictures, and nothing here trusts the container's flags. What the headers do not say for certain
raises :class:`HeaderError`; the frames are then counted by decoding. The reading itself is native, one scanner a codec.
"""

from __future__ import annotations

from gpupipe._native import HeaderError
from gpupipe.decode.headers.picture import Picture, Pictures
from gpupipe.decode.headers.scanner import INTRA, SCANNED, Scanner

__all__ = ["INTRA", "SCANNED", "HeaderError", "Picture", "Pictures", "Scanner", "scanner_for"]


def scanner_for(codec: str, extradata: bytes) -> Scanner:
    """Make the scanner of a codec.

    Parameters
    ----------
    codec : str
        FFmpeg's name (``"h264"``, ``"av1"``).
    extradata : bytes
        The container's codec header, may be empty.

    Raises
    ------
    HeaderError
        No scanner knows the codec, or the extradata is damaged.
    """
    if codec in INTRA:
        return Scanner("intra", b"")
    if codec not in SCANNED:
        raise HeaderError(f"the headers of {codec} are not read")
    return Scanner(codec, extradata)

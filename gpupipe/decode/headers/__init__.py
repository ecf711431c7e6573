"""Bitstream headers: what each packet shows, its place in output order, and where decoding may start.

Nothing here decodes pictures, and nothing here trusts the container's flags. What the headers do not say for certain
raises :class:`HeaderError`; the frames are then counted by decoding.
"""

from __future__ import annotations

from gpupipe.decode.headers.av1 import Av1Scanner
from gpupipe.decode.headers.bits import HeaderError
from gpupipe.decode.headers.h264 import H264Scanner
from gpupipe.decode.headers.hevc import HevcScanner
from gpupipe.decode.headers.intra import INTRA, IntraScanner, MjpegScanner
from gpupipe.decode.headers.mpeg import Mpeg2Scanner, Mpeg4Scanner
from gpupipe.decode.headers.picture import Picture, Scanner
from gpupipe.decode.headers.vpx import Vp8Scanner, Vp9Scanner

__all__ = ["HeaderError", "Picture", "Scanner", "scanner_for"]


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
    if codec == "h264":
        return H264Scanner(extradata)
    if codec == "hevc":
        return HevcScanner(extradata)
    if codec == "av1":
        return Av1Scanner(extradata)
    if codec == "vp8":
        return Vp8Scanner()
    if codec == "vp9":
        return Vp9Scanner()
    if codec in ("mpeg1video", "mpeg2video"):
        return Mpeg2Scanner(extended=codec == "mpeg2video")
    if codec == "mpeg4":
        return Mpeg4Scanner(extradata)
    if codec == "mjpeg":
        return MjpegScanner()
    if codec in INTRA:
        return IntraScanner()
    raise HeaderError(f"the headers of {codec} are not read")

"""Reading the headers of a stream's packets, one after the other."""

from __future__ import annotations

import numpy as np

from gpupipe._native import HeaderScanner
from gpupipe.decode.headers.picture import FACTS, Pictures

SCANNED = frozenset(("av1", "h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9", "vvc"))
"""FFmpeg's names of the codecs whose headers are read."""

INTRA = frozenset(
    ("dnxhd", "dvvideo", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv", "prores", "rawvideo", "utvideo", "v210")
)
"""Those that were measured: one packet, one picture, whatever was decoded before."""


class Scanner(HeaderScanner):
    """Reads packet after packet, in decode order. Not for several threads at a time.

    Parameters
    ----------
    codec : str
        One of :data:`SCANNED`, or ``"intra"``.
    extradata : bytes
        The container's codec header, may be empty.

    Attributes
    ----------
    skips : bool
        True where libavcodec's ``skip_frame`` drops exactly the pictures that are marked droppable. It is then given
        the packets, and keeps its count of them; elsewhere it never sees them.
    restarts : bool
        True where a flushed decoder is as good as a new one.
    reach : int
        How far in output order the next picture may be from the last anchor; 0 where there is no such limit.

    Notes
    -----
    ``scan(data)`` takes the next packet, any buffer. It raises :class:`HeaderError` where the headers do not say for
    certain what the packet shows; ``lose()`` then takes that packet as a broken picture, and raises
    :class:`HeaderError` where without it the others cannot be put in order.
    """

    def pictures(self, delay: int = 0) -> Pictures:
        """All packets taken, when the stream has ended.

        Parameters
        ----------
        delay : int
            Pictures that the decoder holds back from its start, so that it cannot show any too early.

        Raises
        ------
        HeaderError
        """
        facts, needs = self.taken(delay)
        return Pictures(np.frombuffer(facts, FACTS), np.frombuffer(needs, np.int64))

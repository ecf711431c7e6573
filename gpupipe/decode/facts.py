"""FFmpeg's numbers and words made into the package's facts: colour, siting, rotation. Imports no decoder."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gpupipe.types import Colour

_MATRICES = {
    0: "gbr", 1: "bt709", 2: "unknown", 4: "fcc", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "ycgco",
    9: "bt2020nc", 10: "bt2020c", 11: "smpte2085", 12: "chroma-derived-nc", 13: "chroma-derived-c", 14: "ictcp",
    15: "ipt-c2", 16: "ycgco-re", 17: "ycgco-ro",
}  # fmt: skip
_TRANSFERS = {
    1: "bt709", 2: "unknown", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100",
    10: "log316", 11: "iec61966-2-4", 12: "bt1361e", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12",
    16: "smpte2084", 17: "smpte428", 18: "arib-std-b67",
}  # fmt: skip
_SITINGS = ("left", "center", "topleft", "top", "bottomleft", "bottom")
_RGB = re.compile(r"(gbr|rgb|bgr|argb|abgr|0rgb|0bgr|x2rgb|x2bgr|pal8|mono)")
_LIMITED_GRAY = ("h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4")


def transfer_name(code: int) -> str:
    """FFmpeg's name of AVColorTransferCharacteristic ``code``."""
    return _TRANSFERS.get(code, "unknown")


def colour_of(layout: str, matrix: int, colour_range: int, siting: str, codec: str) -> Colour:
    """Make a :class:`~gpupipe.types.Colour` from FFmpeg's numbers.

    Parameters
    ----------
    layout : str
        Pixel format.
    matrix, colour_range : int
        AVColorSpace and AVColorRange (1 limited, 2 full).
    siting : str
        Chroma location of the stream.
    codec : str
        Decides the range of untagged gray: video standards say limited; others store plain gray, as swscale reads it.
    """
    if _RGB.match(layout):
        return Colour("gbr", True, siting)
    gray = layout.startswith(("gray", "ya8", "ya16"))
    full = layout.startswith("yuvj") or colour_range == 2
    if gray and colour_range not in (1, 2):
        full = codec not in _LIMITED_GRAY
    return Colour(_MATRICES.get(matrix, "unknown"), full, siting)


def stream_block(dump: str, stream: int) -> str:
    """Cut what FFmpeg prints of one stream out of what it prints of a file."""
    found = re.search(rf"^  Stream #0:{stream}\b.*?(?=^  Stream #0:|^\S|\Z)", dump, re.MULTILINE | re.DOTALL)
    return found.group(0) if found else ""


def siting_of(block: str, layout: str | None, codec: str) -> str:
    """Chroma location that FFmpeg prints for a stream; where it is not tagged left, but center for yuvj and MPEG-1.

    FFmpeg prints "left" for every H.264 and HEVC stream that says nothing: with yuvj that word is no tag.
    """
    centred = codec in ("mjpeg", "mpeg1video") or (layout or "").startswith("yuvj")
    if layout:
        found = re.search(rf"\b{re.escape(layout)}\(([^)]*)\)", block)
        for word in found.group(1).split(", ") if found else ():
            if word in _SITINGS and not (centred and word == "left"):
                return word
    return "center" if centred else "left"


def orientation(matrix: Sequence[int]) -> tuple[int, bool]:
    """Clockwise degrees and mirroring of a display matrix.

    Parameters
    ----------
    matrix : sequence of int
        Nine numbers a b u c d v x y w of ISO/IEC 14496-12: (x, y) is shown at (a x + c y, b x + d y).

    Returns
    -------
    rotation : int
        0, 90, 180 or 270: clockwise turn that makes the picture upright; the nearest one to the matrix's angle.
    mirrored : bool
        True if the picture is flipped left to right before that turn.
    """
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    across, along = (90 if c < 0 else 270), (180 if d < 0 else 0)
    rotation = across if abs(c) > abs(d) else along
    return rotation, a * d - b * c < 0

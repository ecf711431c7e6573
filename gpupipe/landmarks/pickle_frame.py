"""One frame's dict in a pickle of ours: its bytes, and how they are known again.

The dict is ``{"face": ..., "left_hand": ..., "right_hand": ..., "pose": ..., "image_shape": ...}``: each part float32
[its count, 3] or None, the shape ``(height, width)``. The shape is None where the picture could not be read, and absent
where nobody knows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from gpupipe.landmarks.clip import Clip
from gpupipe.landmarks.packing import PACKED_COUNTS, PACKED_PARTS, PACKED_POINTS, PACKED_SLICES, VALID_COLUMN, packed
from gpupipe.ops.keypoints.points import PARTS, Floats
from gpupipe.sinks.pickles import array_pieces, body

_NONE = body(None)
_SHAPE_KEY = body("image_shape")
_POINT_NBYTES = 3 * 4
_FRAME_NBYTES = PACKED_POINTS * _POINT_NBYTES


def _pieces(part: str) -> tuple[bytes, bytes]:
    """What goes before and after a part's raw bytes, its key included."""
    header, trailer = array_pieces((PACKED_COUNTS[part], 3), "<f4")
    return body(part) + header[2:], trailer[:-1]  # the array alone is no pickle of its own here


_FOUND = {part: _pieces(part) for part in PACKED_PARTS}


def frame_bodies(clip: Clip) -> Iterator[bytes]:
    """The opcodes of each frame's dict, as :func:`gpupipe.sinks.pickles.body` would make them."""
    raw = packed(clip.points).astype("<f4", copy=False).tobytes()
    layout = [
        (
            VALID_COLUMN[part],
            *_FOUND[part],
            body(part) + _NONE,
            PACKED_SLICES[part].start * _POINT_NBYTES,
            PACKED_SLICES[part].stop * _POINT_NBYTES,
        )
        for part in PACKED_PARTS
    ]
    start = 0
    for valid, shape, readable in zip(clip.valid.tolist(), clip.shapes.tolist(), clip.readable.tolist(), strict=True):
        pieces = [b"}("]
        for column, before, after, nothing, begin, end in layout:
            if valid[column]:
                pieces += (before, raw[start + begin : start + end], after)
            else:
                pieces.append(nothing)
        pieces.append(_shape_body(*shape, readable))
        yield b"".join(pieces)
        start += _FRAME_NBYTES


@lru_cache(maxsize=1024)
def _shape_body(height: int, width: int, readable: bool) -> bytes:
    """The end of a frame's dict."""
    if not readable:
        return _SHAPE_KEY + _NONE + b"u"
    return (_SHAPE_KEY + body((height, width)) if height and width else b"") + b"u"


def _pattern() -> re.Pattern[bytes]:
    number = rb"(?:K.|M..|J....)"
    text = rb"\}\("
    for part, (before, after) in _FOUND.items():
        nbytes = PACKED_COUNTS[part] * _POINT_NBYTES
        found = re.escape(before) + rb"(?P<%b>.{%d})" % (part.encode(), nbytes) + re.escape(after)
        text += rb"(?:" + found + rb"|" + re.escape(body(part) + _NONE) + rb")"
    shape = rb"(?P<no_shape>N)|\((?P<height>" + number + rb")(?P<width>" + number + rb")t"
    return re.compile(text + rb"(?:" + re.escape(_SHAPE_KEY) + rb"(?:" + shape + rb"))?u", re.DOTALL)


FRAME = _pattern()
"""Matches the opcodes of one frame's dict as :func:`frame_bodies` makes them, and nothing else."""


def frame_arrays(
    found: Sequence[re.Match[bytes]],
) -> tuple[Floats, npt.NDArray[np.bool_], npt.NDArray[np.int32], npt.NDArray[np.bool_]]:
    """What lies in frames that :data:`FRAME` matched.

    Returns
    -------
    points : ndarray, float32 [T, 143, 3]
    valid : ndarray, bool [T, 4]
    shapes : ndarray, int32 [T, 2]
    readable : ndarray, bool [T]
    """
    zeros = {part: bytes(PACKED_COUNTS[part] * _POINT_NBYTES) for part in PACKED_PARTS}
    raw = b"".join([match[part] or zeros[part] for match in found for part in PACKED_PARTS])
    points = np.frombuffer(bytearray(raw), "<f4").reshape(len(found), PACKED_POINTS, 3)
    valid = np.array([[match[part] is not None for part in PARTS] for match in found], np.bool_)
    shapes = np.array([[_number(match["height"]), _number(match["width"])] for match in found], np.int32)
    readable = np.array([match["no_shape"] is None for match in found], np.bool_) | valid.any(axis=1)
    return points, valid.reshape(-1, len(PARTS)), shapes.reshape(-1, 2), readable


def _number(opcode: bytes | None) -> int:
    return 0 if opcode is None else int.from_bytes(opcode[1:], "little", signed=len(opcode) == 5)

"""Colour, siting and rotation; and whether a file ends early."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from gpupipe.decode.extent import shortfall
from gpupipe.decode.facts import colour_of, orientation, siting_of, stream_block, transfer_name

ONE = 1 << 16
DUMP = """Input #0, mov, from '':
  Duration: 00:00:00.10, start: 0.000000, bitrate: 1235 kb/s
  Stream #0:0[0x1](und): Video: h264 (High), 1 reference frame (avc1 / 0x31637661), yuv420p(tv, bt709, topleft), 8x8
    Metadata:
      left            : no
  Stream #0:1: Video: hevc (Main), yuvj420p(pc, bt709), 1024x768
    Side data:
      Display Matrix: rotation of -90.00 degrees
  Stream #0:10: Video: vp9, yuv420p, 8x8
"""


def test_blocks() -> None:
    assert "Display Matrix" in stream_block(DUMP, 1)
    assert "Display Matrix" not in stream_block(DUMP, 0) + stream_block(DUMP, 10)
    assert stream_block(DUMP, 5) == ""
    assert siting_of(stream_block(DUMP, 0), "yuv420p", "h264") == "topleft"
    assert siting_of(stream_block(DUMP, 1), "yuvj420p", "hevc") == "center"
    assert siting_of(stream_block(DUMP, 10), "yuv420p", "vp9") == "left"
    said = "  Stream #0:0: Video: h264 (High), yuvj420p(pc, bt709, {}), 8x8"
    assert siting_of(said.format("left"), "yuvj420p", "h264") == "center"  # what FFmpeg says of every untagged stream
    assert siting_of(said.format("topleft"), "yuvj420p", "h264") == "topleft"


@pytest.mark.parametrize(
    ("a", "b", "c", "d", "expected"),
    [
        (1, 0, 0, 1, (0, False)),
        (0, 1, -1, 0, (90, False)),
        (-1, 0, 0, -1, (180, False)),
        (0, -1, 1, 0, (270, False)),
        (-1, 0, 0, 1, (0, True)),
        (1, 0, 0, -1, (180, True)),
        (0, 1, 1, 0, (270, True)),
        (0, -1, -1, 0, (90, True)),
    ],
)
def test_orientation(a: int, b: int, c: int, d: int, expected: tuple[int, bool]) -> None:
    """Checked by moving the corners: mirror first, then turn clockwise, then compare with the matrix."""
    assert orientation([a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30]) == expected
    rotation, mirrored = expected
    for x, y in ((1, 0), (0, 1)):
        u, v = (-x if mirrored else x), y
        for _ in range(rotation // 90):
            u, v = -v, u  # clockwise, y down
        assert (u, v) == (a * x + c * y, b * x + d * y)


def test_colour() -> None:
    assert colour_of("yuv420p", 1, 1, "left", "h264").matrix == "bt709"
    assert colour_of("yuvj420p", 2, 0, "center", "mjpeg").full_range
    assert not colour_of("yuv420p", 2, 0, "left", "h264").full_range
    assert colour_of("gbrp", 2, 0, "left", "utvideo") == colour_of("pal8", 0, 0, "left", "rawvideo")
    assert colour_of("gray", 2, 0, "left", "ffv1").full_range
    assert not colour_of("gray", 2, 0, "left", "h264").full_range
    assert transfer_name(16) == "smpte2084"
    assert transfer_name(99) == "unknown"


def box(kind: bytes, size: int, claimed: int | None = None) -> bytes:
    return struct.pack(">I4s", claimed or size, kind) + bytes(size - 8)


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (box(b"ftyp", 16) + box(b"moov", 64) + box(b"mdat", 64), None),
        (box(b"ftyp", 16) + box(b"moov", 64) + box(b"mdat", 64, 640), None),  # the sample table decides
        (box(b"ftyp", 16) + box(b"mdat", 64) + box(b"moov", 64, 100), "moov"),
        (box(b"ftyp", 16) + box(b"mdat", 64, 100), "mdat"),
        (box(b"ftyp", 16) + box(b"mdat", 64), "no moov"),
        (box(b"ftyp", 16) + box(b"moov", 64) + box(b"moof", 32) + box(b"mdat", 64, 65), "mdat"),
        (box(b"ftyp", 16) + box(b"moov", 64) + b"garbage that was appended", None),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x88" + bytes(8), None),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\x88" + bytes(7), "segment"),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff" + bytes(9), None),  # of unknown size
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x1f\x43\xb6\x75\x84" + bytes(4), None),
        (b"\x1a\x45\xdf\xa3\x80\x18\x53\x80\x67\xff\x1f\x43\xb6\x75\x85" + bytes(4), "cluster"),
        (b"RIFF\x40\0\0\0AVI LIST\x10\0\0\0movi" + bytes(12), None),
        (b"RIFF\x40\0\0\0AVI LIST\x10\0\0\0movi" + bytes(11), "frames"),
        ((b"\x47" + bytes(187)) * 6, None),
        ((b"\x47" + bytes(187)) * 6 + b"\x47", "1 of 188"),
        (b"\0", None),
        (b"\x1a\x45\xdf\xa3" + bytes(20), None),
    ],
)
def test_shortfall(tmp_path: Path, data: bytes, found: str | None) -> None:
    path = tmp_path / "file"
    path.write_bytes(data)
    said = shortfall(path)
    assert (said is None) == (found is None), said
    assert found is None or found in str(said)

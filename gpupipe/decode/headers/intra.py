"""Codecs whose every packet is a whole picture that needs no other."""

from __future__ import annotations

from gpupipe.decode.headers.bits import HeaderError
from gpupipe.decode.headers.picture import Picture, PictureList

INTRA = frozenset(
    ("dnxhd", "dvvideo", "ffvhuff", "huffyuv", "jpeg2000", "magicyuv", "prores", "rawvideo", "utvideo", "v210")
)
"""FFmpeg's names of the codecs that were measured: one packet, one picture, whatever was decoded before."""


class IntraScanner(PictureList):
    """Scanner of packets that are a picture each."""

    skips = False
    restarts = True

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        self.found.append(Picture(True, len(self.found), entry=bool(data)))


class MjpegScanner(PictureList):
    """Scanner of Motion JPEG: tables may carry over from one picture to the next."""

    skips = False
    restarts = True

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        if not data.startswith(b"\xff\xd8"):
            raise HeaderError("a packet does not begin as a JPEG picture")
        tables = set()
        at = 2
        while at + 4 <= len(data):
            if data[at] != 0xFF:
                raise HeaderError("a JPEG marker is missing")
            marker = data[at + 1]
            if marker == 0xFF:
                at += 1
                continue
            if marker == 0xDA:
                break
            tables.add(marker)
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if data.find(b"\xff\xd8\xff", 2) >= 0:
            raise HeaderError("a packet holds several pictures or fields")
        self.found.append(Picture(True, len(self.found), entry={0xDB, 0xC4} <= tables))

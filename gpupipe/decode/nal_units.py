"""NAL units of H.264 and H.265: of a container's header, of Annex B, and the messages in one."""

from __future__ import annotations

from collections.abc import Iterator

from gpupipe.decode.bits import Unfit

START = b"\0\0\0\1"
SPS = {"h264": 7, "hevc": 33}
SEI = {"h264": 6, "hevc": 39}
ORIENTATION = 47  # SEI payload type, in both
_SETS = {"h264": (7, 8), "hevc": (32, 33, 34)}


def unit_kind(codec: str, byte: int) -> int:
    """Type of the unit that begins with a byte."""
    return byte & 31 if codec == "h264" else byte >> 1 & 63


def parameter_sets(codec: str, extradata: bytes) -> tuple[int, list[bytes]]:
    """Parameter sets of avcC (ISO/IEC 14496-15, 5.3.3), hvcC (8.3.3) or Annex B.

    Parameters
    ----------
    codec : str
        h264 or hevc.
    extradata : bytes
        The container's codec header.

    Returns
    -------
    length_bytes : int
        Of the sizes before the units of packets; 0 is Annex B.
    sets : list of bytes
        Whole units, in their order.

    Raises
    ------
    Unfit
        The header is damaged.
    """
    if extradata[:1] != b"\1":
        return 0, [unit for unit in annex_b_units(extradata) if unit_kind(codec, unit[0]) in _SETS[codec]]
    try:
        return _avcc(extradata) if codec == "h264" else _hvcc(extradata)
    except IndexError:
        raise Unfit("its header is damaged") from None


def annex_b_units(data: bytes) -> Iterator[bytes]:
    """NAL units of Annex B, without the zeros behind them."""
    at = data.find(b"\0\0\1")
    while at >= 0:
        following = data.find(b"\0\0\1", at + 3)
        unit = data[at + 3 : following if following >= 0 else len(data)].rstrip(b"\0")
        if unit:
            yield unit
        at = following


def messages(codec: str, unit: bytes) -> set[int]:
    """Types of the messages in a SEI unit (H.264, 7.3.2.3.1)."""
    data = unit[1 if codec == "h264" else 2 :].replace(b"\0\0\3", b"\0\0")
    found: set[int] = set()
    at = 0
    while at + 2 < len(data):
        values = [0, 0]
        for place in (0, 1):
            while at < len(data) and data[at] == 255:
                values[place] += 255
                at += 1
            values[place] += data[at] if at < len(data) else 0
            at += 1
        found.add(values[0])
        at += values[1]
    return found


def _avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    sets: list[bytes] = []
    length_bytes, at = (extradata[4] & 3) + 1, 5
    for mask in (31, 255):
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            at = _take(extradata, at, sets)
    return length_bytes, sets


def _hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    sets: list[bytes] = []
    length_bytes, arrays, at = (extradata[21] & 3) + 1, extradata[22], 23
    for _ in range(arrays):
        kind, count = extradata[at] & 63, int.from_bytes(extradata[at + 1 : at + 3])
        at += 3
        units: list[bytes] = []
        for _ in range(count):
            at = _take(extradata, at, units)
        sets += units if kind in _SETS["hevc"] else ()
    return length_bytes, sets


def _take(data: bytes, at: int, into: list[bytes]) -> int:
    size = int.from_bytes(data[at : at + 2])
    if not size or at + 2 + size > len(data):
        raise IndexError
    into.append(data[at + 2 : at + 2 + size])
    return at + 2 + size

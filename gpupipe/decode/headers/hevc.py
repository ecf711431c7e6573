"""H.265 (ITU-T H.265, 7.3): what a packet shows, its place in output order, where decoding may start."""

from __future__ import annotations

from dataclasses import dataclass

from gpupipe.decode.headers.bits import Bits, HeaderError, unescape
from gpupipe.decode.headers.nal import hvcc, units
from gpupipe.decode.headers.picture import ParameterSets, Picture

_IDR = (19, 20)
_CRA = 21
_RASL = (8, 9)
_LEADING = (6, 7, 8, 9)
_IRAP = range(16, 24)
_NONREFERENCE = (0, 2, 4, 6, 8, 10, 12, 14)
_VPS, _SPS, _PPS = 32, 33, 34
_NAMES = {_VPS: "vps", _SPS: "sps", _PPS: "pps"}
_ENDS = (36, 37)
_EPOCH = 1 << 34


@dataclass(frozen=True, slots=True)
class Pps:
    """Fields of a picture parameter set that the start of a slice header needs."""

    sps: int
    output_flag: bool
    extra_bits: int


@dataclass(slots=True)
class _Access:
    picture: Picture
    temporal: int
    nonreference: bool
    sets: bool


class HevcScanner:
    """Scanner of H.265 packets; layers above the base are not looked at, libavcodec does not show them.

    Parameters
    ----------
    extradata : bytes
        The container's hvcC record or Annex B parameter sets.
    """

    skips = True
    restarts = True

    def __init__(self, extradata: bytes) -> None:
        self._sps: dict[int, tuple[bool, int]] = {}
        self._pps: dict[int, Pps] = {}
        self._sets = ParameterSets()
        self._access: list[_Access] = []
        self._epoch = 0
        self._previous = 0  # POC of the last picture of temporal layer 0 that others may refer to
        self._width, sets = hvcc(extradata)
        for unit in sets:
            self._parameters(unit, in_band=False)

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        access: _Access | None = None
        sent: set[tuple[str, int]] = set()
        for unit in units(data, self._width):
            if len(unit) < 3:
                raise HeaderError("a NAL unit is too short")
            kind = unit[0] >> 1 & 0x3F
            if (unit[0] & 1) << 5 | unit[1] >> 3:
                continue
            if kind in _NAMES:
                sent.add(self._parameters(unit, in_band=True))
            elif kind in _ENDS:
                raise HeaderError("an end of sequence in mid-stream")
            elif kind < 32:
                if unit[2] & 0x80:
                    if access is not None:
                        raise HeaderError("a packet holds several pictures")
                    access = self._picture(unit, kind)
                elif access is None:
                    raise HeaderError("a picture does not begin with its first slice")
        if access is None:
            raise HeaderError("a packet holds no picture")
        access.sets = self._sets.complete(sent)
        self._access.append(access)

    def lose(self) -> None:
        """Take a packet that cannot be read."""
        order = self._access[-1].picture.order if self._access else 0
        self._access.append(_Access(Picture(True, order, broken=True), 0, False, False))

    def pictures(self, delay: int = 0) -> list[Picture]:
        """All packets taken."""
        highest = max((access.temporal for access in self._access), default=0)
        for access in self._access:
            # A sub-layer non-reference picture may be referred to from higher sub-layers: only the highest's is unused.
            access.picture.droppable = access.nonreference and access.temporal == highest
            access.picture.entry &= access.sets or not self._sets.moving
        return [access.picture for access in self._access]

    def _parameters(self, unit: bytes, in_band: bool) -> tuple[str, int]:
        kind = unit[0] >> 1 & 0x3F
        if kind == _VPS:
            key = ("vps", unit[2] >> 4)
        elif kind == _SPS:
            number, fields = parse_sps(unit)
            self._sps[number] = fields
            key = ("sps", number)
        elif kind == _PPS:
            number, pps = parse_pps(unit)
            self._pps[number] = pps
            key = ("pps", number)
        else:
            return ("other", kind)
        self._sets.put(key, unit, in_band, fixed=kind != _PPS)
        return key

    def _picture(self, unit: bytes, kind: int) -> _Access:
        bits = Bits(unescape(unit[2:64]))
        temporal = (unit[1] & 7) - 1
        bits.u(1)
        irap = kind in _IRAP
        if irap and bits.flag() and self._access:
            raise HeaderError("pictures may be thrown away before they are shown")
        if irap and kind not in (*_IDR, _CRA):
            raise HeaderError("broken links")
        pps = self._pps.get(bits.ue())
        sps = self._sps.get(pps.sps) if pps else None
        if pps is None or sps is None:
            raise HeaderError("a slice names parameter sets that were not sent")
        bits.u(pps.extra_bits)
        bits.ue()
        if pps.output_flag and not bits.flag():
            raise HeaderError("pictures that are not output")
        separate_planes, lsb_bits = sps
        if separate_planes:
            bits.u(2)
        poc = 0
        if kind not in _IDR:
            poc = self._poc(bits.u(lsb_bits), lsb_bits)
        if kind in _IDR or (irap and not self._access):
            self._epoch += 1
        nonreference = kind in _NONREFERENCE
        if temporal == 0 and not nonreference and kind not in _LEADING:
            self._previous = poc
        picture = Picture(True, self._epoch * _EPOCH + poc, entry=irap, leading=kind in _RASL)
        return _Access(picture, temporal, nonreference, False)

    def _poc(self, lsb: int, lsb_bits: int) -> int:
        """Picture order count (8.3.1)."""
        if not self._access:
            return lsb
        span = 1 << lsb_bits
        previous = self._previous & (span - 1)
        msb = self._previous - previous
        if lsb < previous and previous - lsb >= span // 2:
            msb += span
        elif lsb > previous and lsb - previous > span // 2:
            msb -= span
        return msb + lsb


def parse_sps(unit: bytes) -> tuple[int, tuple[bool, int]]:
    """Return the number of an SPS (7.3.2.2), whether planes are coded apart, the bits of slice_pic_order_cnt_lsb."""
    bits = Bits(unescape(unit[2:]))
    bits.u(4)
    layers = bits.u(3)
    bits.u(1)
    bits.u(88)  # general profile and tier
    bits.u(8)
    present = [(bits.flag(), bits.flag()) for _ in range(layers)]
    if layers:
        bits.u(2 * (8 - layers))
    for profile, level in present:
        bits.u(88 * profile + 8 * level)
    number = bits.ue()
    separate = bits.ue() == 3 and bits.flag()
    bits.ue()
    bits.ue()
    if bits.flag():
        for _ in range(4):
            bits.ue()
    bits.ue()
    bits.ue()
    lsb_bits = bits.ue() + 4
    if lsb_bits > 16 or number > 15:
        raise HeaderError("a sequence parameter set is out of range")
    return number, (separate, lsb_bits)


def parse_pps(unit: bytes) -> tuple[int, Pps]:
    """Return the number and the fields of a picture parameter set NAL unit (7.3.2.3)."""
    bits = Bits(unescape(unit[2:32]))
    number = bits.ue()
    sps = bits.ue()
    bits.u(1)
    output_flag = bits.flag()
    return number, Pps(sps, output_flag, bits.u(3))

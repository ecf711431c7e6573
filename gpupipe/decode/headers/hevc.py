"""H.265 (ITU-T H.265, 7.3): what a packet shows, its place in output order, where decoding may start."""

from __future__ import annotations

from collections.abc import Sequence
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


References = tuple[int, ...]
"""Differences of picture order count: a reference picture set."""


@dataclass(frozen=True, slots=True)
class Sps:
    """Fields of a sequence parameter set that slice headers need."""

    separate_planes: bool
    lsb_bits: int
    sets: tuple[References, ...] | None  # None where long-term pictures may be referred to, or more


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
    references: References | None = None


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
        self._sps: dict[int, Sps] = {}
        self.reach = 0
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
        self._refer()
        highest = max((access.temporal for access in self._access), default=0)
        for access in self._access:
            # A sub-layer non-reference picture may be referred to from higher sub-layers: only the highest's is unused.
            access.picture.droppable = access.nonreference and access.temporal == highest
            access.picture.entry &= access.sets or not self._sets.moving
        return [access.picture for access in self._access]

    def _refer(self) -> None:
        """Find the packets of the pictures that each keeps, whether it refers to them or leaves them for later ones.

        All of them, so that no decoder ever misses one. Parameter sets come with packets that are then skipped.
        """
        if self._sets.moving:
            return
        places: dict[int, int] = {}
        for place, access in enumerate(self._access):
            order = access.picture.order
            if access.references is not None:
                found = [places.get(order + delta) for delta in access.references]
                kept = tuple(at for at in found if at is not None)
                access.picture.needs = kept if len(kept) == len(found) else None
            places[order] = place

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
        if sps.separate_planes:
            bits.u(2)
        poc = 0
        references: References | None = ()
        if kind not in _IDR:
            poc = self._poc(bits.u(sps.lsb_bits), sps.lsb_bits)
            references = None if sps.sets is None else _slice_references(bits, sps.sets)
        self.reach = 1 << (sps.lsb_bits - 1)
        if kind in _IDR or (irap and not self._access):
            self._epoch += 1
        nonreference = kind in _NONREFERENCE
        anchor = temporal == 0 and not nonreference and kind not in _LEADING
        if anchor:
            self._previous = poc
        picture = Picture(True, self._epoch * _EPOCH + poc, entry=irap, leading=kind in _RASL, anchor=anchor)
        return _Access(picture, temporal, nonreference, False, references)

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


def parse_sps(unit: bytes) -> tuple[int, Sps]:
    """Return the number and the fields of a sequence parameter set NAL unit (7.3.2.2)."""
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
    try:
        sets = _sps_references(bits, layers)
    except HeaderError:
        sets = None
    return number, Sps(separate, lsb_bits, sets)


def _sps_references(bits: Bits, layers: int) -> tuple[References, ...] | None:
    """The reference picture sets of an SPS; None where long-term pictures are used."""
    for _ in range(layers + 1 if bits.flag() else 1):
        for _ in range(3):
            bits.ue()
    for _ in range(6):
        bits.ue()
    if bits.flag() and bits.flag():
        _skip_scaling(bits)
    bits.u(2)
    if bits.flag():
        bits.u(8)
        bits.ue()
        bits.ue()
        bits.u(1)
    count = bits.ue()
    if count > 64:
        raise HeaderError("a sequence parameter set is out of range")
    sets: list[References] = []
    for _ in range(count):
        sets.append(_set(bits, sets, in_slice=False))
    return None if bits.flag() else tuple(sets)


def _skip_scaling(bits: Bits) -> None:
    """Step over scaling_list_data (7.3.4)."""
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if bits.flag():
                for _ in range(min(64, 16 << 2 * size) + (size > 1)):
                    bits.se()
            else:
                bits.ue()


def _slice_references(bits: Bits, sets: tuple[References, ...]) -> References | None:
    """The reference picture set of a slice header (7.3.6.1); None where it cannot be read."""
    try:
        if not bits.flag():
            return _set(bits, sets, in_slice=True)
        return sets[bits.u((len(sets) - 1).bit_length())]
    except (HeaderError, IndexError):
        return None


def _set(bits: Bits, known: Sequence[References], in_slice: bool) -> References:
    """One short-term reference picture set (7.3.7, 7.4.8), those before the picture first, each nearest first."""
    if known and bits.flag():
        back = bits.ue() + 1 if in_slice else 1
        if back > len(known):
            raise HeaderError("a reference picture set is out of range")
        sign = bits.u(1)
        delta = (1 - 2 * sign) * (bits.ue() + 1)
        base = (*known[-back], 0)
        # Each is used by the picture, or kept for later ones, or left out.
        kept = [value + delta for value in base if bits.flag() or bits.flag()]
        return (*sorted((v for v in kept if v < 0), reverse=True), *sorted(v for v in kept if v > 0))
    before, after = bits.ue(), bits.ue()
    if before + after > 16:
        raise HeaderError("a reference picture set is out of range")
    found = []
    for count, sign in ((before, -1), (after, 1)):
        value = 0
        for _ in range(count):
            value += sign * (bits.ue() + 1)
            found.append(value)
            bits.u(1)
    return tuple(found)


def parse_pps(unit: bytes) -> tuple[int, Pps]:
    """Return the number and the fields of a picture parameter set NAL unit (7.3.2.3)."""
    bits = Bits(unescape(unit[2:32]))
    number = bits.ue()
    sps = bits.ue()
    bits.u(1)
    output_flag = bits.flag()
    return number, Pps(sps, output_flag, bits.u(3))

"""H.264 (ITU-T H.264, 7.3): what a packet shows, its place in output order, where decoding may start."""

from __future__ import annotations

from dataclasses import dataclass

from gpupipe.decode.headers.bits import Bits, HeaderError, unescape
from gpupipe.decode.headers.nal import avcc, units
from gpupipe.decode.headers.picture import ParameterSets, Picture

_SLICE, _IDR, _SEI, _SPS, _PPS = 1, 5, 6, 7, 8
_PARTITIONS = (2, 3, 4)
_END_OF_SEQUENCE = 10
_HIGH = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
_SLICE_BYTES = 400  # the longest header that is read: two weight tables of 32 references
_MOST_BYTES = 40  # most are no longer, and short numbers are read faster
_EPOCH = 1 << 34


@dataclass(frozen=True, slots=True)
class Sps:
    """Fields of a sequence parameter set that slice headers need, and the reordering it promises."""

    frame_num_bits: int
    poc_type: int
    poc_lsb_bits: int
    frames_only: bool
    separate_planes: bool
    chroma: int
    delta_always_zero: bool
    reorder: int | None  # max_num_reorder_frames; None where the stream does not say


@dataclass(frozen=True, slots=True)
class Pps:
    """Fields of a picture parameter set that slice headers need."""

    sps: int
    bottom_field_order: bool
    references: tuple[int, int]
    weighted: bool
    weighted_b: int
    redundant: bool
    slice_groups: bool


@dataclass(slots=True)
class _Slice:
    first: int
    type: int
    idr: bool
    reference: bool
    frame_num: int
    poc_lsb: int
    bottom: int  # how much earlier the frame's bottom field is, at most 0
    references: tuple[int, int]
    resets: bool


@dataclass(slots=True)
class _Access:
    """One packet."""

    epoch: int
    poc: int
    reference: bool
    idr: bool
    recovery: bool  # all slices I, recovery point at once and exact
    references: tuple[int, int]
    sets: bool
    order: int = 0


class H264Scanner:
    """Scanner of H.264 packets.

    Parameters
    ----------
    extradata : bytes
        The container's avcC record or Annex B parameter sets.
    """

    skips = True
    restarts = True
    reach = 0

    def __init__(self, extradata: bytes) -> None:
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        self._sets = ParameterSets()
        self._access: list[_Access] = []
        self._lost: set[int] = set()
        self._epoch = 0
        self._previous = (0, 0)  # POC msb and lsb of the last reference picture
        self._offset = (0, 0)  # frame_num and its offset of the last picture (POC type 2)
        self._reorder_said = True
        self._width, sets = avcc(extradata)
        for unit in sets:
            self._parameters(unit, in_band=False)

    def scan(self, data: bytes) -> None:
        """Take the next packet."""
        first: _Slice | None = None
        sps: Sps | None = None
        intra = True
        references = (0, 0)
        recovery = False
        sent: set[tuple[str, int]] = set()
        for unit in units(data, self._width):
            kind = unit[0] & 0x1F
            if kind in (_SLICE, _IDR):
                found, sps = self._slice(unit, full=first is None)
                if found.first == 0:
                    if first is not None:
                        raise HeaderError("a packet holds several pictures")
                    first = found
                elif first is None:
                    raise HeaderError("a picture does not begin with its first slice")
                intra &= found.type == 2
                references = (
                    max(references[0], found.references[0]),
                    max(references[1], found.references[1]),
                )
            elif kind in (_SPS, _PPS):
                sent.add(self._parameters(unit, in_band=True))
            elif kind == _SEI:
                recovery |= _exact_recovery(unit)
            elif kind in _PARTITIONS or kind == _END_OF_SEQUENCE:
                raise HeaderError("data partitions or ends of sequence")
        if first is None or sps is None:
            raise HeaderError("a packet holds no picture")
        poc = self._poc(first, sps)
        self._access.append(
            _Access(
                self._epoch, poc, first.reference, first.idr, intra and recovery, references, self._sets.complete(sent)
            )
        )

    def lose(self) -> None:
        """Take a packet that cannot be read; it may be a reference, and ends no sequence."""
        self._lost.add(len(self._access))
        poc = self._access[-1].poc if self._access else 0
        self._access.append(_Access(self._epoch, poc, True, False, False, (0, 0), False))

    def pictures(self, delay: int = 0) -> list[Picture]:
        """All packets taken."""
        found = []
        for access in self._access:
            access.order = access.epoch * _EPOCH + access.poc
        entry_order = -1
        if not self._reorder_said and _reordering([access.order for access in self._access]) > delay:
            # libavcodec then guesses the delay, and drops pictures while it guesses too little.
            raise HeaderError("pictures are reordered and the stream does not say how far")
        for i, access in enumerate(self._access):
            safe = access.sets or not self._sets.moving
            entry = safe and (access.idr or (access.recovery and self._self_contained(i)))
            if entry:
                entry_order = access.order
            leading = access.order < entry_order
            found.append(Picture(True, access.order, entry, leading, not access.reference, i in self._lost))
        return found

    def _self_contained(self, at: int) -> bool:
        """True if the pictures after a recovery point have the references they would have had.

        A decoder that starts there fills the lists of references with stand-ins for the pictures before. They sort
        behind the true ones; so the lists agree if no slice asks for more entries than there are pictures since.
        """
        start = self._access[at]
        since: list[int] = []
        for i, access in enumerate(self._access[at:], at):
            if i in self._lost:
                return False
            if access.epoch != start.epoch:
                break
            if access.order >= start.order and access is not start:
                lists = access.references
                if lists[1]:
                    before = sum(start.order <= order < access.order for order in since)
                    after = sum(order > access.order for order in since)
                    if lists[0] > before or lists[1] > after:
                        return False
                elif lists[0] > len(since):
                    return False
            if access.reference:
                since.append(access.order)
                if len(since) > 16:  # a decoder holds no more: the stand-ins are gone
                    break
        return True

    def _parameters(self, unit: bytes, in_band: bool) -> tuple[str, int]:
        kind = unit[0] & 0x1F
        if kind == _SPS:
            number, sps = parse_sps(unit)
            self._sets.put(("sps", number), unit, in_band, fixed=True)
            self._sps[number] = sps
            return ("sps", number)
        if kind == _PPS:
            number, pps = parse_pps(unit)
            self._sets.put(("pps", number), unit, in_band, fixed=False)
            self._pps[number] = pps
            return ("pps", number)
        return ("other", kind)

    def _slice(self, unit: bytes, full: bool) -> tuple[_Slice, Sps]:
        try:
            return self._slice_header(unit, full, _MOST_BYTES)
        except HeaderError:
            return self._slice_header(unit, full, _SLICE_BYTES)

    def _slice_header(self, unit: bytes, full: bool, nbytes: int) -> tuple[_Slice, Sps]:
        bits = Bits(unescape(unit[1:nbytes]))
        idr = unit[0] & 0x1F == _IDR
        reference = unit[0] & 0x60 != 0
        first = bits.ue()
        kind = bits.ue() % 5
        pps = self._pps.get(bits.ue())
        sps = self._sps.get(pps.sps) if pps else None
        if pps is None or sps is None:
            raise HeaderError("a slice names parameter sets that were not sent")
        if sps.poc_type == 1 or pps.slice_groups:
            raise HeaderError("picture order count type 1 or slice groups")
        self._reorder_said &= sps.reorder is not None
        if sps.separate_planes:
            bits.u(2)
        frame_num = bits.u(sps.frame_num_bits)
        if not sps.frames_only and bits.flag():
            raise HeaderError("field pictures")
        if idr:
            bits.ue()
        poc_lsb = bottom = 0
        if sps.poc_type == 0:
            poc_lsb = bits.u(sps.poc_lsb_bits)
            if pps.bottom_field_order:
                bottom = min(0, bits.se())
        if pps.redundant and bits.ue():
            raise HeaderError("redundant pictures")
        references = (0, 0)
        if kind in (0, 1, 3):
            if kind == 1:
                bits.u(1)
            references = pps.references
            if bits.flag():
                references = (bits.ue() + 1, bits.ue() + 1 if kind == 1 else 0)
            if kind != 1:
                references = (references[0], 0)
        resets = False
        if full and reference:
            self._skip_lists(bits, kind, references, pps, sps)
            resets = _marking_resets(bits, idr)
        return _Slice(first, kind, idr, reference, frame_num, poc_lsb, bottom, references, resets), sps

    @staticmethod
    def _skip_lists(bits: Bits, kind: int, references: tuple[int, int], pps: Pps, sps: Sps) -> None:
        """Step over ref_pic_list_modification and pred_weight_table (7.3.3.1, 7.3.3.2)."""
        lists = {0: 1, 3: 1, 1: 2}.get(kind, 0)
        for _ in range(lists):
            if bits.flag():
                for _ in range(67):
                    if bits.ue() == 3:
                        break
                    bits.ue()
        if (pps.weighted and kind in (0, 3)) or (pps.weighted_b == 1 and kind == 1):
            chroma = sps.chroma != 0 and not sps.separate_planes
            bits.ue()
            if chroma:
                bits.ue()
            for i in range(lists):
                if references[i] > 32:
                    raise HeaderError("more than 32 references")
                for _ in range(references[i]):
                    for components in (1, 2) if chroma else (1,):
                        if bits.flag():
                            for _ in range(2 * components):
                                bits.se()

    def _poc(self, head: _Slice, sps: Sps) -> int:
        """Picture order count of a frame (8.2.1)."""
        if head.resets:
            raise HeaderError("a memory operation resets the picture order")
        if head.idr:
            self._epoch += 1
            self._previous = (0, 0)
            self._offset = (0, 0)
        if sps.poc_type == 2:
            number, offset = self._offset
            if head.frame_num < number:
                offset += 1 << sps.frame_num_bits
            self._offset = (head.frame_num, offset)
            return 2 * (offset + head.frame_num) - (not head.reference)
        msb, lsb = self._previous
        span = 1 << sps.poc_lsb_bits
        if head.poc_lsb < lsb and lsb - head.poc_lsb >= span // 2:
            msb += span
        elif head.poc_lsb > lsb and head.poc_lsb - lsb > span // 2:
            msb -= span
        if head.reference:
            self._previous = (msb, head.poc_lsb)
        return msb + head.poc_lsb + head.bottom


def parse_sps(unit: bytes) -> tuple[int, Sps]:
    """Return the number and the fields of a sequence parameter set NAL unit (7.3.2.1.1)."""
    bits = Bits(unescape(unit[1:]))
    profile = bits.u(8)
    constraints = bits.u(8)
    bits.u(8)
    number = bits.ue()
    chroma, separate = 1, False
    if profile in _HIGH:
        chroma = bits.ue()
        if chroma == 3:
            separate = bits.flag()
        bits.ue()
        bits.ue()
        bits.u(1)
        if bits.flag():
            for i in range(8 if chroma != 3 else 12):
                if bits.flag():
                    _skip_scaling(bits, 16 if i < 6 else 64)
    frame_num_bits = bits.ue() + 4
    poc_type = bits.ue()
    poc_lsb_bits, always_zero = 0, False
    if poc_type == 0:
        poc_lsb_bits = bits.ue() + 4
    elif poc_type == 1:
        always_zero = bits.flag()
        bits.se()
        bits.se()
        for _ in range(_bounded(bits.ue(), 255)):
            bits.se()
    if frame_num_bits > 16 or poc_lsb_bits > 16 or number > 31:
        raise HeaderError("a sequence parameter set is out of range")
    references = bits.ue()
    bits.u(1)
    bits.ue()
    bits.ue()
    frames_only = bits.flag()
    if not frames_only:
        bits.u(1)
    bits.u(1)
    if bits.flag():
        for _ in range(4):
            bits.ue()
    reorder = _vui_reorder(bits) if bits.flag() else None
    if references == 0 or poc_type == 2 or (profile in (44, 86, 100, 110, 122, 244) and constraints & 0x10):
        reorder = 0  # nothing to reorder, or the profile is intra only
    return number, Sps(frame_num_bits, poc_type, poc_lsb_bits, frames_only, separate, chroma, always_zero, reorder)


def parse_pps(unit: bytes) -> tuple[int, Pps]:
    """Return the number and the fields of a picture parameter set NAL unit (7.3.2.2)."""
    bits = Bits(unescape(unit[1:]))
    number = bits.ue()
    sps = bits.ue()
    bits.u(1)
    bottom = bits.flag()
    if bits.ue() > 0:
        return number, Pps(sps, bottom, (1, 1), False, 0, False, True)
    references = (bits.ue() + 1, bits.ue() + 1)
    weighted = bits.flag()
    weighted_b = bits.u(2)
    for _ in range(3):
        bits.se()
    bits.u(2)
    return number, Pps(sps, bottom, references, weighted, weighted_b, bits.flag(), False)


def _skip_scaling(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) & 0xFF
        last = following or last


def _vui_reorder(bits: Bits) -> int | None:
    """max_num_reorder_frames of the VUI (E.1.1)."""
    if bits.flag() and bits.u(8) == 255:
        bits.u(32)
    if bits.flag():
        bits.u(1)
    if bits.flag():
        bits.u(4)
        if bits.flag():
            bits.u(24)
    if bits.flag():
        bits.ue()
        bits.ue()
    if bits.flag():
        bits.u(65)
    hrd = False
    for _ in range(2):
        if bits.flag():
            hrd = True
            count = _bounded(bits.ue(), 31) + 1
            bits.u(8)
            for _ in range(count):
                bits.ue()
                bits.ue()
                bits.u(1)
            bits.u(20)
    if hrd:
        bits.u(1)
    bits.u(1)
    if not bits.flag():
        return None
    bits.u(1)
    for _ in range(4):
        bits.ue()
    return bits.ue()


def _marking_resets(bits: Bits, idr: bool) -> bool:
    """True if dec_ref_pic_marking (7.3.3.3) holds memory operation 5."""
    if idr:
        return False
    if not bits.flag():
        return False
    for _ in range(67):
        operation = bits.ue()
        if operation == 0:
            return False
        if operation == 5:
            return True
        if operation in (1, 2, 3, 4, 6):
            bits.ue()
            if operation == 3:
                bits.ue()
        else:
            raise HeaderError("an unknown memory operation")
    raise HeaderError("too many memory operations")


def _exact_recovery(unit: bytes) -> bool:
    """True if an SEI unit says that decoding is exact from here on (D.1.8: no wait, exact, no broken link)."""
    data = unescape(unit[1:])
    at = 0
    while at + 2 < len(data):
        sizes = []
        for _ in range(2):
            value = 0
            while at < len(data) and data[at] == 255:
                value += 255
                at += 1
            if at >= len(data):
                return False
            sizes.append(value + data[at])
            at += 1
        if sizes[0] == 6:
            bits = Bits(data[at : at + sizes[1]])
            return bits.ue() == 0 and bits.flag() and not bits.flag()
        at += sizes[1]
    return False


def _reordering(orders: list[int]) -> int:
    """Most pictures that come before another in decode order and after it in output order."""
    most = 0
    window: list[int] = []
    for order in orders:
        most = max(most, sum(earlier > order for earlier in window))
        window = [*window[-16:], order]
    return most


def _bounded(value: int, most: int) -> int:
    if value > most:
        raise HeaderError("a header count is out of range")
    return value

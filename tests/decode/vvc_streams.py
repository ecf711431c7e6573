"""H.266 streams written bit by bit: FFmpeg has no encoder. They have headers alone, nobody could decode them."""

from __future__ import annotations

from collections.abc import Sequence

IDR, CRA, TRAIL, RADL, RASL = 7, 9, 0, 2, 3
SPS, PPS, APS, SUFFIX_APS, PICTURE_HEADER, DELIMITER, SEI = 15, 16, 17, 18, 19, 20, 23


def ue(*values: int) -> str:
    """Exp-Golomb codes."""
    return "".join(f"{value + 1:0{2 * (value + 1).bit_length() - 1}b}" for value in values)


def unit(kind: int, text: str, temporal: int = 0) -> bytes:
    """A NAL unit, with emulation prevention, behind its length in four bytes."""
    text += "1"
    text += "0" * (-len(text) % 8)
    payload = int(text, 2).to_bytes(len(text) // 8, "big")
    escaped = bytearray([0, kind << 3 | (temporal + 1)])
    for byte in payload:
        if escaped[-2:] == b"\0\0" and byte <= 3:
            escaped.append(3)
        escaped.append(byte)
    return len(escaped).to_bytes(4, "big") + bytes(escaped)


def ref_list(deltas: Sequence[int], weighted: bool = False) -> str:
    """One of the lists of references, each counted from the one before."""
    text = ue(len(deltas))
    for i, delta in enumerate(deltas):
        distance = abs(delta) - (not weighted or i == 0)
        text += ue(distance) + ("" if weighted and i and not delta else "1" if delta < 0 else "0")
    return text


def sps(lists: Sequence[Sequence[int]] = (), alf: bool = True, subpictures: bool = False, tools: bool = False) -> bytes:
    """4:2:0, 8 bits of picture order count; `lists` for both sides; `tools`: all that a picture header may speak of."""
    on = "1" if tools else "0"
    text = "0000" + "0000" + "000" + "01" + "10" + "1"  # numbers, one sublayer, 4:2:0, blocks of 128, a profile
    text += "0" * 19 + "00000" + "0" * 8
    text += "0" + "0" + ue(320, 192) + "0" + ("1" if subpictures else "0")
    text += ue(0) + "0" + "0" + f"{4:04b}" + "0" + "00" + "00"
    text += ue(4, 2, 0)
    text += ue(0) + on  # partition constraints may be overridden
    text += ue(0) + (ue(1, 0, 0) if tools else ue(0)) + on  # two trees
    text += ue(0, 0) if tools else ""
    text += ue(0, 0)
    text += "1" + (on + (ue(0) + "0" if tools else "")) + "0" + "0"
    text += on + "1" + ue(0, 0, 0, 0)  # chroma residuals together; one table of quantisers
    text += "1" + ("1" if alf else "0") + ("0" if alf else "") + on + "00" + "0" + "0" + "1"
    text += ue(len(lists)) + "".join(map(ref_list, lists))
    said = "11" if tools else "0"  # a tool, and that picture headers speak of it
    text += "0" + on + ("0" if tools else "") + "0" + said + "0" + said + said + ue(0)
    text += "0" + on + (ue(0) + "0" + said if tools else "") + "00" + "0" + ue(0) + "000" + "0" + "00" + "0"
    text += ue(0) if tools else ""
    text += "0" + "0" + on + "00" + on + ("0" if tools else "")
    text += "0000"
    return unit(SPS, text)


def pps(quantiser: int = 0, second: bool = False, slices: bool = False, qp: bool = False, width: int = 320) -> bytes:
    text = "000000" + "0000" + "0" + ue(width, 192) + "0" + "0" + "0" + ("0" if slices else "1") + "0"
    text += (
        "0" + ue(0, 0) + ("1" if second else "0") + "00" + "0" + ue(quantiser) + ("1" if qp else "0") + "0" + "0" + "0"
    )
    text += "00"
    return unit(PPS, text)


def aps(number: int, kind: int = 0, suffix: bool = False) -> bytes:
    return unit(SUFFIX_APS if suffix else APS, f"{kind:03b}{number:05b}0000")


def picture(
    kind: int,
    order: int,
    lists: Sequence[Sequence[int]] | str = ((), ()),
    filters: Sequence[int] | None = None,
    temporal: int = 0,
    header: str = "",
    apart: bool = False,
    alf: bool = True,
) -> bytes:
    """A picture of one slice.

    Parameters
    ----------
    kind : int
        nal_unit_type.
    order : int
        Picture order count; its last 8 bits are sent.
    lists : two sequences of int, or str
        References, each counted from the one before; or the bits that name them.
    filters : sequence of int, optional
        Adaptive loop filters that it uses.
    temporal : int
        TemporalId.
    header : str
        Bits of the picture header behind the order.
    apart : bool
        The picture header is a unit of its own.
    alf : bool
        As in the sequence parameter set.
    """
    irap = kind in (IDR, CRA)
    text = ("1" if irap else "0") + "0" + ("0" if irap else "") + ("0" if irap else "10") + ue(0) + f"{order % 256:08b}"
    text += header or ("" if irap else "1")
    slice_text = ("" if irap else ue(0)) + ("0" if irap else "")
    if alf:
        used = list(filters or ())
        slice_text += "0" if filters is None else "1" + f"{len(used):03b}" + "".join(f"{i:03b}" for i in used) + "00"
    if kind != IDR:
        slice_text += lists if isinstance(lists, str) else "".join(map(ref_list, lists))
    slice_text += "1" * 24
    if apart:
        return unit(PICTURE_HEADER, text, temporal) + unit(kind, "0" + slice_text, temporal)
    return unit(kind, "1" + text + slice_text, temporal)


def vvcc(*units: bytes) -> bytes:
    """A record of parameter sets, without a profile."""
    arrays = b"".join(bytes([0x80 | data[5] >> 3, 0, 1]) + data[2:4] + data[4:] for data in units)
    return b"\xfe" + bytes([len(units)]) + arrays

"""Sequence headers of AV1: where they are, what of them an engine would show otherwise, the colours they name."""

from __future__ import annotations

from collections.abc import Iterator

from gpupipe.decode.bits import Bits, Colours, Unfit


def sequence_headers(data: bytes) -> Iterator[bytes]:
    """Payloads of the sequence header OBUs (AV1, 5.3)."""
    at = 0
    while at < len(data):
        head = data[at]
        at += 2 if head & 4 else 1
        if not head & 2:
            size = len(data) - at
        else:
            size = shift = 0
            while at < len(data):
                byte = data[at]
                at += 1
                size |= (byte & 127) << shift
                shift += 7
                if byte < 128 or shift > 56:
                    break
        if head >> 3 & 15 == 1:
            yield data[at : at + size]
        at += size


def sequence_header_unit(header: bytes) -> bytes:
    """The OBU of a payload."""
    return bytes((0x0A, *_leb128(len(header)))) + header


def check_sequence_header(header: bytes) -> Colours:
    """Matrix and range of a payload (AV1, 5.5).

    Raises
    ------
    Unfit
        The header is damaged, or an engine would not show what FFmpeg shows.
    """
    bits = Bits(header)
    profile = bits.take(3)
    bits.take(1)
    reduced = bits.take(1)
    if reduced:
        bits.take(5)
    else:
        _pass_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits)
    bits.take(height_bits)
    if not reduced and bits.take(1):
        bits.take(7)
    bits.take(3)
    if not reduced:
        bits.take(4)
        hints = bits.take(1)
        if hints:
            bits.take(2)
        tools = 2 if bits.take(1) else bits.take(1)
        if tools and not bits.take(1):
            bits.take(1)
        if hints:
            bits.take(3)
    bits.take(3)
    colours = _av1_colours(bits, profile)
    if bits.take(1):
        raise Unfit("it asks for film grain")
    if bits.over:
        raise Unfit("its header is damaged")
    return colours


def _pass_operating_points(bits: Bits) -> None:
    delay_bits = 0
    model = 0
    if bits.take(1):
        bits.take(64)
        if bits.take(1):
            bits.ue()  # uvlc() is Exp-Golomb
        model = bits.take(1)
        if model:
            delay_bits = bits.take(5) + 1
            bits.take(32 + 5 + 5)
    displayed = bits.take(1)
    for _ in range(bits.take(5) + 1):
        layers = bits.take(12)
        if (layers >> 8).bit_count() > 1:
            raise Unfit("it has spatial layers")
        if bits.take(5) > 7:
            bits.take(1)
        if model and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if displayed and bits.take(1):
            bits.take(4)


def _av1_colours(bits: Bits, profile: int) -> Colours:
    """AV1, 5.5.2."""
    deep = bits.take(1)
    twelve = profile == 2 and deep and bits.take(1)
    gray = profile != 1 and bits.take(1)
    described = tuple(bits.take(8) for _ in range(3)) if bits.take(1) else (2, 2, 2)
    if gray:
        raise Unfit("it is monochrome")
    full = 1
    if described != (1, 13, 0):
        full = bits.take(1)
        across = down = profile == 0
        if profile == 2:
            across = bool(bits.take(1)) if twelve else True
            down = bool(twelve and across and bits.take(1))
        if across and down:
            bits.take(2)
    bits.take(1)
    return described[2], 1 + full


def _leb128(value: int) -> Iterator[int]:
    while value > 127:
        yield value & 127 | 128
        value >>= 7
    yield value

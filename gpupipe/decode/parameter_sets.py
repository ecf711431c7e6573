"""Sequence parameter sets of H.264 and H.265: what of them an engine would show otherwise, the colours they name."""

from __future__ import annotations

from gpupipe.decode.bits import Bits, Colours, Unfit

_HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)


def check_sps(codec: str, unit: bytes) -> Colours:
    """Read a sequence parameter set.

    Parameters
    ----------
    codec : str
        h264 or hevc.
    unit : bytes
        The NAL unit, its header included.

    Returns
    -------
    matrix, colour_range : int or None
        As FFmpeg's decoder takes them; None where it leaves the container's.

    Raises
    ------
    Unfit
        The set is damaged, or an engine would not show what FFmpeg shows.
    """
    bits = Bits(unit.replace(b"\0\0\3", b"\0\0"))
    colours = _check_h264(bits) if codec == "h264" else _check_hevc(bits)
    if bits.over:
        raise Unfit("its header is damaged")
    return colours


def _check_h264(bits: Bits) -> Colours:
    """H.264, 7.3.2.1.1."""
    bits.take(8)
    profile = bits.take(8)
    bits.take(16)
    bits.ue()
    if profile in _HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3 and bits.take(1):
            raise Unfit("its colour planes are coded apart")
        _check_depths(bits.ue(), bits.ue(), chroma)
        bits.take(1)
        if bits.take(1):
            for number in range(8 if chroma != 3 else 12):
                if bits.take(1):
                    _pass_scaling_list(bits, 16 if number < 6 else 64)
    bits.ue()
    order = bits.ue()
    if order == 0:
        bits.ue()
    elif order == 1:
        bits.take(1)
        bits.se()
        bits.se()
        for _ in range(min(bits.ue(), 255)):
            bits.se()
    bits.ue()
    bits.take(1)
    bits.ue()
    bits.ue()
    if not bits.take(1):
        raise Unfit("it may be interlaced")
    bits.take(1)
    _check_window(bits)
    return _colours(bits)


def _pass_scaling_list(bits: Bits, size: int) -> None:
    last = following = 8
    for _ in range(size):
        if following:
            following = (last + bits.se()) % 256
        last = following or last


def _check_hevc(bits: Bits) -> Colours:
    """H.265, 7.3.2.2 and 7.3.3."""
    bits.take(16 + 4)
    layers = bits.take(3)
    bits.take(1 + 8 + 32)
    progressive, interlaced = bits.take(1), bits.take(1)
    if interlaced and not progressive:
        raise Unfit("it is interlaced")
    bits.take(2 + 43 + 1 + 8)
    present = [(bits.take(1), bits.take(1)) for _ in range(layers)]
    if layers:
        bits.take(2 * (8 - layers))
    for profile, level in present:
        bits.take(88 * profile + 8 * level)
    bits.ue()
    chroma = bits.ue()
    if chroma == 3 and bits.take(1):
        raise Unfit("its colour planes are coded apart")
    bits.ue()
    bits.ue()
    _check_window(bits)
    _check_depths(bits.ue(), bits.ue(), chroma)
    order_bits = bits.ue() + 4
    for _ in range(layers + 1 if bits.take(1) else 1):
        for _ in range(3):
            bits.ue()
    for _ in range(6):
        bits.ue()
    if bits.take(1) and bits.take(1):
        _pass_hevc_scaling_lists(bits)
    bits.take(2)
    if bits.take(1):
        bits.take(8)
        bits.ue()
        bits.ue()
        bits.take(1)
    _pass_reference_sets(bits)
    if bits.take(1):
        for _ in range(min(bits.ue(), 32)):
            bits.take(order_bits + 1)
    bits.take(2)
    matrix, colour_range = _colours(bits)
    return 2 if matrix is None else matrix, colour_range or 1


def _pass_hevc_scaling_lists(bits: Bits) -> None:
    """H.265, 7.3.4."""
    for size in range(4):
        for _ in range(2 if size == 3 else 6):
            if not bits.take(1):
                bits.ue()
                continue
            if size > 1:
                bits.se()
            for _ in range(min(64, 16 << 2 * size)):
                bits.se()


def _pass_reference_sets(bits: Bits) -> None:
    """H.265, 7.3.7."""
    pictures = 0
    for number in range(min(bits.ue(), 64)):
        if number and bits.take(1):
            bits.take(1)
            bits.ue()
            pictures = sum(bits.take(1) or bits.take(1) for _ in range(pictures + 1))
        else:
            pictures = min(bits.ue() + bits.ue(), 32)
            for _ in range(pictures):
                bits.ue()
                bits.take(1)


def _check_window(bits: Bits) -> None:
    if bits.take(1):
        left, _, top, _ = (bits.ue() for _ in range(4))
        if left or top:
            raise Unfit("it is cropped at the left or the top")


def _check_depths(luma: int, chroma: int, format: int) -> None:
    if not format:
        raise Unfit("it is monochrome")
    if luma != chroma:
        raise Unfit("luma and chroma differ in depth")


def _colours(bits: Bits) -> Colours:
    """The beginning of the video usability information, which both have alike (H.264, E.1.1; H.265, E.2.1)."""
    matrix = colour_range = None
    if not bits.take(1):
        return None, None
    if bits.take(1) and bits.take(8) == 255:
        bits.take(32)
    if bits.take(1):
        bits.take(1)
    if bits.take(1):
        bits.take(3)
        colour_range = 1 + bits.take(1)
        if bits.take(1):
            bits.take(16)
            matrix = bits.take(8)
    return matrix, colour_range

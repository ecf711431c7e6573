"""Numbers and words as the report shows them."""

from __future__ import annotations

import time
import unicodedata
from typing import Any

from markupsafe import Markup

_JOINERS = "\u200c\u200d"  # part of many scripts' words and of emoji
_LONGEST = 600


def shown(value: Any) -> Any:
    """A text that can be printed and cannot reorder its surroundings; numbers and markup as they are.

    Names come from others: control characters, half surrogate pairs and marks of direction are written out.
    """
    if isinstance(value, (Markup, int, float)):
        return value
    value = str(value)
    cut = value if len(value) <= _LONGEST else f"{value[:_LONGEST]} …"
    if cut.isprintable():
        return cut
    return "".join(_visible(letter) for letter in cut)


def _visible(letter: str) -> str:
    if letter.isprintable() or letter in _JOINERS:
        return letter
    if letter.isspace() or unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode()


def count(value: float) -> str:
    """``1,234,567``."""
    return f"{value:,.0f}"


def number(value: float) -> str:
    """Three significant digits, no exponent: ``0.0123``, ``4.56``, ``1,235``."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-4 else f"{value:.0e}"


def nbytes(value: float) -> str:
    """``1.5 GB``, in powers of 1000 as storage is sold and measured."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(value) < 999.5:
            return f"{number(value) if unit != 'B' else count(value)} {unit}"
        value /= 1000
    return f"{number(value)} PB"


def duration(seconds: float) -> str:
    """``58 µs``, ``1.2 ms``, ``0.12 s``, ``48 s``, ``3 min 05 s``, ``2 h 05 min``, ``3 d 4 h``."""
    if seconds < 9.95:
        scale, unit = (1e6, "µs") if seconds < 0.995e-3 else (1e3, "ms") if seconds < 0.0995 else (1.0, "s")
        value = seconds * scale
        return f"{value:.0f} {unit}" if value >= 10 else f"{value:.2g} {unit}"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 1440:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def tick(seconds: float) -> str:
    """A round time on an axis: ``30 s``, ``5 min``, ``1 h 30``, ``2 d``."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60, 1)
    if minutes < 60:
        return f"{minutes:g} min"
    hours, rest = divmod(round(minutes), 60)
    if hours < 48:
        return f"{hours} h {rest:02d}" if rest else f"{hours} h"
    return f"{hours / 24:.3g} d"


def share(value: float) -> str:
    """``42%``; what is not nothing is not shown as 0%."""
    percent = 100 * value
    if 0 < percent < 0.5:
        return "<1%"
    return "99%" if 99 < percent < 100 else f"{percent:.0f}%"


def when(seconds: float) -> str:
    """``2026-11-21 14:03:22``, the time of day where the report is written."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def zone(seconds: float) -> str:
    """``UTC+01:00``."""
    offset = time.strftime("%z", time.localtime(seconds))
    return f"UTC{offset[:3]}:{offset[3:]}" if offset else "UTC"

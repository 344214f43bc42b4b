"""Numbers for people, the same in every table: missing is an empty cell, units are spelled out."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime

_BYTE_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def format_score(value: float | None) -> str:
    """A metric or objective value with four significant decimals; empty if missing."""
    if value is None:
        return ""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:,.0f}"


def format_value(value: float | None, unit: str = "") -> str:
    """An objective's natural value by its unit (see `autopeft.objectives.COSTS`); empty if missing."""
    if value is None:
        return ""
    if unit == "parameters":
        return format_count(value)
    if unit == "s":
        return format_duration(value)
    if unit == "bytes":
        return format_bytes(value)
    if not unit:
        return format_score(value)
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.4g}"


def format_count(value: float | None) -> str:
    """A whole number with thousands separators; empty if missing."""
    return "" if value is None else f"{value:,.0f}"


def format_share(part: float | None, whole: float | None) -> str:
    """A share as a percentage of two significant digits at least; empty if either is missing or the whole is 0."""
    if part is None or not whole:
        return ""
    percent = 100 * part / whole
    return f"{percent:.2f} %" if percent >= 0.01 or percent == 0 else f"{percent:.2g} %"


def format_short_count(value: float) -> str:
    """A count for an axis: ``950``, ``12k``, ``1.5M``."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"


def format_duration(seconds: float | None) -> str:
    """A duration: ``4.25 ms``, ``8.2 s``, ``3 min 05 s``, ``2 h 10 min``; empty if missing."""
    if seconds is None:
        return ""
    if 0 < seconds < 0.1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def format_bytes(value: float | None) -> str:
    """A number of bytes in binary units; empty if missing."""
    if value is None:
        return ""
    size, power = float(value), 0
    while abs(size) >= 1024 and power < len(_BYTE_UNITS) - 1:
        size, power = size / 1024, power + 1
    return f"{size:.0f} {_BYTE_UNITS[power]}" if power == 0 else f"{size:.1f} {_BYTE_UNITS[power]}"


def format_time(moment: datetime | None) -> str:
    """A point in time in UTC, to the second; empty if missing. A time without zone is UTC, as the store keeps it."""
    if moment is None:
        return ""
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return aware.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def printable(text: str) -> str:
    """Replace control characters but line breaks and tabs: stored texts must not steer a terminal or break XML."""
    return "".join(
        char if char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cs", "Cf") else "\N{REPLACEMENT CHARACTER}"
        for char in text
    )

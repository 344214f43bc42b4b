"""Reading untyped data while collecting every mistake with its key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable
from typing import Any, Final

#: Every count and size of a backbone is far below; floats still tell neighbours apart.
_MAX_INTEGER: Final = 10**15


class Reader:
    """Checks types and keys, and remembers what was wrong instead of stopping at it."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, key: str, message: str) -> None:
        """Remember a mistake."""
        self.problems.append(f"{key}: {message}")

    def mapping(self, key: str, value: Any, *, required: Collection[str], optional: Collection[str]) -> dict[str, Any]:
        """A mapping with known keys only; wrong keys are reported and left out.

        Returns:
            The known keys; empty if the value is no mapping.
        """
        entries = self.entries(key, value)
        known = [*required, *optional]
        for name in entries:
            if name not in known:
                self.problem(join(key, name), f"unknown key.{nearest(name, known)} Known: {', '.join(known)}.")
        if isinstance(value, dict):
            for name in required:
                if name not in entries:
                    self.problem(join(key, name), "is required, but missing.")
        return {name: item for name, item in entries.items() if name in known}

    def entries(self, key: str, value: Any) -> dict[str, Any]:
        """A mapping with text keys; empty if the value is none."""
        if not isinstance(value, dict):
            self.problem(key, f"must be a mapping, but got {describe(value)}.")
            return {}
        for name in value:
            if not isinstance(name, str):
                self.problem(join(key, str(name)), f"a key must be text, but got {describe(name)}.")
        return {name: item for name, item in value.items() if isinstance(name, str)}

    def text(self, key: str, value: Any) -> str | None:
        """A text that is not empty, stripped."""
        if not isinstance(value, str) or not value.strip():
            self.problem(key, f"must be text, but got {describe(value)}.")
            return None
        return value.strip()

    def flag(self, key: str, value: Any) -> bool:
        """True or false."""
        if not isinstance(value, bool):
            self.problem(key, f"must be true or false, but got {describe(value)}.")
            return False
        return value

    def integer(self, key: str, value: Any, *, low: int | None = None) -> int | None:
        """A whole number, at least `low`."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(key, f"must be a whole number, but got {describe(value)}.")
            return None
        if abs(value) > _MAX_INTEGER:
            self.problem(key, f"must be at most {_MAX_INTEGER:,} in size, but got {describe(value)}.")
            return None
        if low is not None and value < low:
            self.problem(key, f"must be at least {low}, but got {value}.")
            return None
        return value

    def number(self, key: str, value: Any) -> float | None:
        """A finite number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(key, f"must be a number, but got {describe(value)}.")
            return None
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            self.problem(key, f"must be finite, but got {describe(value)}.")
            return None
        return number

    def one_of(self, key: str, value: Any, known: Collection[str], kind: str) -> str | None:
        """A name among known ones."""
        if not isinstance(value, str) or value not in known:
            near = nearest(value, known) if isinstance(value, str) else ""
            self.problem(key, f"unknown {kind} {describe(value)}.{near} Known: {', '.join(sorted(known))}.")
            return None
        return value

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        """A list of distinct texts that is not empty."""
        if not isinstance(value, list) or not value:
            self.problem(key, f"must be a list that is not empty, but got {describe(value)}.")
            return ()
        found = [text for index, item in enumerate(value) if (text := self.text(f"{key}[{index}]", item)) is not None]
        if len(set(found)) < len(found):
            self.problem(key, f"must not repeat a name, but got {', '.join(found)}.")
        return tuple(dict.fromkeys(found))


def join(key: str, name: str) -> str:
    """The key of an entry below a key."""
    return f"{key}.{name}" if key else name


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence with the nearest names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def describe(value: Any) -> str:
    """A value and its kind, short, as a message shows it."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "an empty mapping" if not value else "a mapping"
    if isinstance(value, list):
        return "an empty list" if not value else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    try:
        shown = repr(value)
    except ValueError:
        return "a number with thousands of digits"
    return shown if len(shown) <= 60 else f"{shown[:57]}..."

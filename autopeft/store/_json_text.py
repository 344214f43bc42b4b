"""JSON objects that stay text until somebody looks: most of what is stored is looked at rarely."""

from __future__ import annotations

import json
import sys
from collections.abc import ItemsView, Iterator, Mapping, ValuesView
from functools import lru_cache
from typing import Any


class JsonText(Mapping[str, Any]):
    """A JSON object as the mapping that it stands for.

    It is a tenth of the size of the mapping, and costs nothing until it is read; what is read is a copy every time, so
    that one may serve many readers.

    Args:
        text: JSON text of an object.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def __getitem__(self, key: str) -> Any:
        return self._read()[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._read())

    def __len__(self) -> int:
        return len(self._read())

    def __eq__(self, other: object) -> bool:
        if isinstance(other, JsonText):
            return self._text == other._text or self._read() == other._read()
        return isinstance(other, Mapping) and self._read() == other

    def __hash__(self) -> int:
        raise TypeError("a JSON object is not hashable")

    def __repr__(self) -> str:
        return repr(self._read())

    def items(self) -> ItemsView[str, Any]:
        return self._read().items()

    def values(self) -> ValuesView[Any]:
        return self._read().values()

    def _read(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self._text)
        return found


@lru_cache(maxsize=1024)
def shared_text(text: str) -> JsonText:
    """The object of a text that many rows have in common."""
    return JsonText(text)


def read_object(text: str) -> dict[str, Any]:
    """A JSON object whose keys and short texts are shared with all others: there are few, and very many objects."""
    found: dict[str, Any] = json.loads(text, object_pairs_hook=shared_pairs)
    return found


def shared_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A hook for `json.loads`, see `read_object`."""
    return {
        sys.intern(key): sys.intern(value) if type(value) is str and len(value) < _SHORT else value
        for key, value in pairs
    }


_SHORT = 32

"""General text that no task trains on: what a language model is asked about before and after."""

from __future__ import annotations

import ast
import re
import sysconfig
from pathlib import Path

from autopeft.exceptions import UsageError

_MIN_WORDS = 12
_MAX_WORDS = 64
#: Of letters and spaces: below it a paragraph is a table, a grammar or a program.
_MIN_PROSE = 0.9


def general_text(path: str = "") -> tuple[str, ...]:
    """Distinct paragraphs of prose.

    Args:
        path: A text file in UTF-8 with paragraphs between empty lines; empty for the language reference that every
            Python installation has (``pydoc_data/topics.py``, read and not imported): some 34,000 words of technical
            English, which no task of autopeft uses.

    Returns:
        Paragraphs of 12 words and more, cut to 64, in the order of the file.

    Raises:
        UsageError: If the file cannot be read or holds no such paragraph.
    """
    text = _reference() if not path else _read(Path(path).expanduser())
    paragraphs = (" ".join(item.split()[:_MAX_WORDS]) for item in re.split(r"\n\s*\n", text))
    found = tuple(dict.fromkeys(item for item in paragraphs if _is_prose(item)))
    if not found:
        raise UsageError(
            f"general text {path or 'of this Python'}: there is no paragraph of {_MIN_WORDS} words or more; give a "
            "file of prose with --reward-option forgetting.text=FILE."
        )
    return found


def _is_prose(text: str) -> bool:
    return len(text.split()) >= _MIN_WORDS and sum(
        item.isalpha() or item.isspace() for item in text
    ) >= _MIN_PROSE * len(text)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"general text {path}: cannot be read as UTF-8 text: {error}.") from error


def _reference() -> str:
    path = Path(sysconfig.get_path("stdlib")) / "pydoc_data" / "topics.py"
    try:
        body = ast.parse(_read(path)).body
        topics = next(ast.literal_eval(item.value) for item in body if isinstance(item, ast.Assign))
    except (UsageError, SyntaxError, StopIteration, ValueError) as error:
        raise UsageError(
            f"this Python comes without its language reference ({path}); give a file of prose with "
            "--reward-option forgetting.text=FILE."
        ) from error
    return "\n\n".join(str(text) for text in topics.values())

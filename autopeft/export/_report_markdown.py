"""A report as GitHub-flavored Markdown: figures in words, everything else as in the page."""

from __future__ import annotations

import re

from autopeft.export._format import printable
from autopeft.export._report import Block, Code, Paragraph, Picture, Report, Table


def render_markdown(report: Report) -> str:
    """Write a report as Markdown; every text is escaped, so that none of it is taken for markup."""
    parts = [f"# {_text(report.title)}"]
    for section in report.sections:
        parts.append(f"## {_text(section.title)}")
        parts += [_block(item) for item in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Paragraph():
            return f"**{_text(block.text)}**" if block.is_lead else _text(block.text)
        case Table():
            return _table(block)
        case Picture():
            return f"*{_text(block.description)}*"
        case Code():
            text = printable(block.text).rstrip("\n")
            # The fence must be longer than any run of backticks inside.
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
            summary = "" if block.summary is None else f"{_text(block.summary)}:\n\n"
            return f"{summary}{fence}\n{text}\n{fence}"


def _table(table: Table) -> str:
    def line(cells: tuple[str, ...]) -> str:
        return f"| {' | '.join(_text(cell).replace('|', chr(92) + '|') for cell in cells)} |"

    rule = " | ".join("---:" if i in table.numeric else "---" for i in range(len(table.headers)))
    rows = [line(row) for row in table.rows] or [line(("none", *("" for _ in table.headers[1:])))]
    return "\n".join([f"{_text(table.caption)}:", "", line(table.headers), f"| {rule} |", *rows])


def _text(text: str) -> str:
    flat = re.sub(r"\s+", " ", printable(text)).strip()
    flat = flat.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    flat = re.sub(r"([\\`*_\[\]#~])", r"\\\1", flat)
    # A line that starts like a list item would become one.
    return re.sub(r"^(\d*)([-+.)])(?=\s)", r"\1\\\2", flat)

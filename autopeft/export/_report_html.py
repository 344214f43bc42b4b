"""A report as one self-contained HTML page: no script, no request, readable in print and in the dark."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from autopeft.export._format import printable
from autopeft.export._report import Block, Code, Paragraph, Picture, Report, Section, Table

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 76rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; border-bottom: 1px solid #ccc; }
.lead { font-size: 1.15rem; max-width: 60rem; padding: .8rem 1rem; background: #eef4f9;
  border-left: 4px solid #0072b2; }
.scroll { overflow-x: auto; } figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; }
figcaption { color: #555; font-size: .9rem; max-width: 60rem; }
table { border-collapse: collapse; font-size: .88rem; margin: .8rem 0; }
caption { text-align: left; font-weight: 600; padding: .3rem 0; white-space: nowrap; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top; }
th { background: #f4f4f4; } .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.long { min-width: 22rem; }
pre { background: #f6f6f6; padding: .7rem; overflow-x: auto; font-size: .82rem; white-space: pre-wrap; }
nav a { margin-right: 1rem; }
"""

# Even if a stored text escaped its escaping, the page could neither run nor fetch anything.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render_html(report: Report, figures: Mapping[str, str]) -> str:
    """Write a report as a page.

    Args:
        report: What stands in it; every text is escaped.
        figures: ``<svg>`` elements by `Picture.role`.
    """
    links = "".join(f'<a href="#{_anchor(item)}">{_text(item.title)}</a>' for item in report.sections)
    body = "\n".join(_section(item, figures) for item in report.sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(report.title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(report.title)}</h1>\n<nav>{links}</nav>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _section(section: Section, figures: Mapping[str, str]) -> str:
    blocks = "\n".join(_block(item, figures) for item in section.blocks)
    return f'<section id="{_anchor(section)}">\n<h2>{_text(section.title)}</h2>\n{blocks}\n</section>'


def _block(block: Block, figures: Mapping[str, str]) -> str:
    match block:
        case Paragraph():
            start = '<p class="lead">' if block.is_lead else "<p>"
            return f"{start}{_text(block.text)}</p>"
        case Table():
            return _table(block)
        case Picture():
            caption = f"<figcaption>{_text(block.description)}</figcaption>"
            return f'<figure><div class="scroll">{figures[block.role]}</div>{caption}</figure>'
        case Code():
            text = f"<pre>{_text(block.text)}</pre>"
            if block.summary is None:
                return text
            return f"<details><summary>{_text(block.summary)}</summary>{text}</details>"


def _table(table: Table) -> str:
    def line(cells: tuple[str, ...], name: str) -> str:
        scope = ' scope="col"' if name == "th" else ""
        number, long = ' class="number"', ' class="long"'
        return "".join(
            f"<{name}{scope}{number if i in table.numeric else long if len(cell) > 60 else ''}>{_text(cell)}</{name}>"
            for i, cell in enumerate(cells)
        )

    rows = "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in table.rows)
    if not table.rows:
        rows = f'<tr><td colspan="{len(table.headers)}">none</td></tr>'
    return (
        f'<div class="scroll"><table>\n<caption>{_text(table.caption)}</caption>\n'
        f"<thead><tr>{line(table.headers, 'th')}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>"
    )


def _text(text: str) -> str:
    return escape(printable(text))


def _anchor(section: Section) -> str:
    return section.title.lower().replace(" ", "-")

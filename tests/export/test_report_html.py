import pytest

from autopeft.export import render_report
from autopeft.export._report import Code, Paragraph, Picture, Report, Section, Table
from autopeft.export._report_html import render_html
from tests.export.studies import TRACEBACK, full_study, hostile_study
from tests.export.test_report import parse

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></desc></svg><script>alert(1)</script>",
    "&lt;b&gt; & ]]> <!-- --> $x$ \x00\x1b[2J",
)


@pytest.mark.parametrize("text", NASTY)
def test_texts_of_a_study_are_never_markup(text: str) -> None:
    page = parse(render_report(hostile_study(text)))
    names = {tag for tag, _ in page.tags}
    assert names.isdisjoint({"script", "img", "b"})
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_every_block_has_its_form() -> None:
    section = Section(
        title="All of it",
        blocks=(
            Paragraph(text="a < b", is_lead=True),
            Table(caption="c", headers=("n", "t"), rows=(("1", "x & y"),), numeric=frozenset({0})),
            Table(caption="empty", headers=("a", "b"), rows=()),
            Picture(role="front", description="words"),
            Code(text="plain"),
            Code(text="folded", summary="more"),
        ),
    )
    text = render_html(Report(title="t", sections=(section,)), {"front": "<svg></svg>"})
    parse(text)
    for part in (
        '<p class="lead">a &lt; b</p>',
        '<td class="number">1</td><td>x &amp; y</td>',
        '<td colspan="2">none</td>',
        "<svg></svg></div><figcaption>words</figcaption>",
        "<pre>plain</pre>",
        "<details><summary>more</summary><pre>folded</pre></details>",
        '<section id="all-of-it">',
    ):
        assert part in text


def test_traceback_is_there_and_escaped() -> None:
    text = render_report(full_study())
    assert "RuntimeError: &lt;boom&gt; &amp; &quot;quoted&quot;" in text
    assert TRACEBACK not in text

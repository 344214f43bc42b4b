from markdown_it import MarkdownIt

from autopeft.export import render_report
from autopeft.export._report import Code, Paragraph, Report, Section, Table
from autopeft.export._report_markdown import render_markdown
from tests.export.studies import full_study, hostile_study


def parsed(text: str) -> str:
    """The HTML that another implementation, markdown-it, makes of it; raw HTML is let through."""
    return MarkdownIt("commonmark", {"html": True}).enable("table").render(text)


def test_tables_keep_their_columns_whatever_the_cells_hold() -> None:
    table = Table(
        caption="c", headers=("a", "b"), rows=(("x|y", "1"), ("`|`", "<b>"), ("two\nlines", "")), numeric=frozenset({1})
    )
    html = parsed(render_markdown(Report(title="t", sections=(Section(title="s", blocks=(table,)),))))
    assert html.count("<tr>") == 4
    assert html.count("<td") == 6
    assert "<td>x|y</td>" in html
    assert "<td>two lines</td>" in html
    assert "<b>" not in html


def test_texts_are_never_markup() -> None:
    for text in (
        "<script>alert(1)</script>",
        "# heading",
        "- item",
        "1. item",
        "[a](http://x)",
        "**bold** _it_ `code`",
    ):
        html = parsed(
            render_markdown(Report(title="t", sections=(Section(title="s", blocks=(Paragraph(text=text),)),)))
        )
        assert html.count("<h1>") == 1
        assert not any(tag in html for tag in ("<script", "<ul", "<ol", "<a ", "<strong", "<em", "<code")), text
    assert "<script" not in parsed(render_report(hostile_study("<script>alert(1)</script>"), "md"))


def test_code_holding_a_fence_stays_one_block() -> None:
    text = "before\n````\ninside\n````\nafter"
    html = parsed(render_markdown(Report(title="t", sections=(Section(title="s", blocks=(Code(text=text),)),))))
    assert html.count("<pre>") == 1
    assert "after\n</code></pre>" in html


def test_whole_report_is_tables_with_all_trials() -> None:
    study = full_study()
    html = parsed(render_report(study, "md"))
    assert html.count("<td") > 11 * len(study.trials)
    assert "<strong>" in html

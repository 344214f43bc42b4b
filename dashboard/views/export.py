"""What can be taken away from a study."""

from __future__ import annotations

import streamlit as st

from autopeft.export import front_figure, heatmap_figure, render_report
from autopeft.study import Trial

from .. import queries
from . import _links
from ._choice import choice
from ._study import Open


def show(opened: Open) -> None:
    """Draw the page."""
    frame = opened.frame()
    if frame.empty:
        st.info("This study has no trials yet; there is nothing to take away.")
        return
    number = opened.trial
    if number is None:
        result = opened.result
        number = result.recommended if result.recommended is not None else int(frame["number"].iloc[0])
    choice(
        st.container(),
        opened,
        frame,
        label="Trial",
        key="export trial",
        number=number,
        on_pick=_links.choose_trial,
        help="The recommended one, unless you have opened another.",
    )
    trial = opened.reader.trial(opened.name, number)
    left, right = st.columns(2)
    with left:
        _configuration(opened, trial)
        _adapter(opened, trial)
    with right:
        _report(opened)
        _paper(opened, trial)


def _configuration(opened: Open, trial: Trial) -> None:
    with st.container(border=True):
        st.subheader("Configuration", anchor=False)
        st.text(trial.draft.label or trial.configuration.describe())
        stem = f"trial-{trial.number}"
        files = (
            ("YAML", queries.configuration_yaml(trial.configuration), f"{stem}.yaml", "application/yaml"),
            ("JSON", queries.configuration_json(trial.configuration), f"{stem}.json", "application/json"),
        )
        for column, (name, text, file, kind) in zip(st.columns(2), files, strict=True):
            column.download_button(
                f"Download {name}",
                data=text,
                file_name=queries.file_name(opened.name, file),
                mime=kind,
                key=f"export {name}",
                on_click="ignore",
                icon=":material/download:",
                width="stretch",
            )
        with st.expander("Show it"):
            st.code(files[0][1], language="yaml")


def _adapter(opened: Open, trial: Trial) -> None:
    with st.container(border=True):
        st.subheader("Adapter", anchor=False)
        st.text(
            "The database keeps results, not weights. This command trains the trial again as it was, writes it in the "
            "first form that computes exactly the same, and loads it in a fresh process to check its score:"
        )
        st.code(queries.export_command(opened.name, trial.number), language="bash", wrap_lines=True)
        peft, transformers = st.tabs(["Use it with peft", "Use it with transformers"])
        peft.code(queries.code_snippet(opened.spec, "peft"), language="python", wrap_lines=True)
        peft.caption("The folder's README.md has the exact lines for this adapter, and says what has to be installed.")
        transformers.text("For merged weights, which stock transformers loads by itself:")
        transformers.code(queries.export_command(opened.name, trial.number, "merged"), language="bash", wrap_lines=True)
        transformers.code(queries.code_snippet(opened.spec, "transformers"), language="python", wrap_lines=True)


def _report(opened: Open) -> None:
    with st.container(border=True):
        st.subheader("Report", anchor=False)
        st.text("Everything found, and everything needed to doubt or repeat it, in one file.")
        for column, (name, form, kind) in zip(
            st.columns(2), (("HTML", "html", "text/html"), ("Markdown", "md", "text/markdown")), strict=True
        ):
            column.download_button(
                f"Download {name}",
                # Written when somebody wants it: a whole study is read for it.
                data=lambda form=form: render_report(opened.reader.study(opened.name), form).encode(),
                file_name=queries.file_name(opened.name, f"report.{form}"),
                mime=kind,
                key=f"report {form}",
                on_click="ignore",
                icon=":material/download:",
                width="stretch",
            )


def _paper(opened: Open, trial: Trial) -> None:
    with st.container(border=True):
        st.subheader("For a paper", anchor=False)
        rows = opened.frame()
        rows = rows[rows["role"].isin([queries.Role.FRONT.value, queries.Role.BASELINE.value])].head(200)
        table = queries.latex_table(rows, opened.spec, opened.words(rows["number"].tolist()))
        figures = (
            ("Front as SVG", lambda: front_figure(opened.reader.study(opened.name)), "front.svg"),
            (
                f"Trial {trial.number} as SVG",
                lambda: heatmap_figure(opened.reader.study(opened.name), trial),
                f"trial-{trial.number}.svg",
            ),
        )
        for column, (name, draw, file) in zip(st.columns(2), figures, strict=True):
            column.download_button(
                name,
                data=lambda draw=draw: _svg_file(draw()),
                file_name=queries.file_name(opened.name, file),
                mime="image/svg+xml",
                key=f"figure {file}",
                on_click="ignore",
                icon=":material/download:",
                width="stretch",
            )
        st.text("The front and the baselines as a LaTeX table:")
        st.code(table, language="latex", height=260)
        st.download_button(
            "Table as LaTeX",
            data=table,
            file_name=queries.file_name(opened.name, "front.tex"),
            mime="application/x-tex",
            key="table tex",
            on_click="ignore",
            icon=":material/download:",
        )


def _svg_file(element: str) -> bytes:
    """An `<svg>` element as a file of its own."""
    name_space = 'xmlns="http://www.w3.org/2000/svg"'
    whole = element if name_space in element else element.replace("<svg", f"<svg {name_space}", 1)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{whole}\n'.encode()

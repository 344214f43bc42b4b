"""What can be taken away from a study."""

from __future__ import annotations

import os

import streamlit as st

from autopeft.artifacts import open_artifacts
from autopeft.exceptions import AutoPeftError
from autopeft.export import front_figure, heatmap_figure, render_report
from autopeft.study import Trial

from .. import queries
from . import _cache, _links
from ._choice import choice
from ._study import Open

#: Names the place where machines share files, if there is one.
_PLACE = "AUTOPEFT_ARTIFACTS"


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
        is_stored = _stored(opened, trial)
        st.text(
            ("Another one: this" if is_stored else "The database keeps results, not weights. This")
            + " command trains the trial again as it was, writes it in the "
            "first form that computes exactly the same, and loads it in a fresh process to check its score:"
        )
        place = os.environ.get(_PLACE)
        command = queries.export_command(opened.name, trial.number, publish=bool(place))
        st.code(command, language="bash", wrap_lines=True)
        if place and not is_stored:
            st.caption("With --publish it is stored where machines share files, and can be downloaded here.")
        peft, transformers = st.tabs(["Use it with peft", "Use it with transformers"])
        peft.code(queries.code_snippet(opened.spec, "peft"), language="python", wrap_lines=True)
        peft.caption("The folder's README.md has the exact lines for this adapter, and says what has to be installed.")
        transformers.text("For merged weights, which stock transformers loads by itself:")
        transformers.code(queries.export_command(opened.name, trial.number, "merged"), language="bash", wrap_lines=True)
        transformers.code(queries.code_snippet(opened.spec, "transformers"), language="python", wrap_lines=True)


def _stored(opened: Open, trial: Trial) -> bool:
    """Offer the adapters of a trial that were stored; says whether there are any."""
    place = os.environ.get(_PLACE)
    if not place:
        return False
    try:
        found = _cache.stored_adapters(place, opened.name, trial.number)
    except AutoPeftError as error:
        st.warning("Where adapters are stored cannot be read just now.", icon=":material/warning:")
        st.text(str(error))
        return False
    for adapter in found:
        st.download_button(
            f"Download the adapter ({len(adapter.files)} files, zip)",
            data=lambda adapter=adapter: queries.adapter_archive(open_artifacts(place), adapter),
            file_name=queries.file_name(opened.name, f"trial-{trial.number}-{adapter.form}.zip"),
            mime="application/zip",
            key=f"adapter {adapter.name}",
            on_click="ignore",
            type="primary",
            icon=":material/download:",
        )
        checked = "reproduced its score in a fresh process" if adapter.verified else "was not verified"
        st.text(f"Stored as {adapter.folder}, form {adapter.form}; it {checked}.")
    return bool(found)


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

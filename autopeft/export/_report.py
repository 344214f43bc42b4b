"""The report of a study: what was found, and everything needed to doubt or repeat it.

`build_report` says what stands in the report, `autopeft.export._report_html` and `_report_markdown` how it looks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import autopeft
from autopeft.exceptions import UnknownNameError
from autopeft.export._format import (
    format_bytes,
    format_count,
    format_duration,
    format_score,
    format_share,
    format_time,
    format_value,
)
from autopeft.export._grid import configuration_grid, layer_count
from autopeft.export._result import StudyResult, display_name, environment_values, report_value
from autopeft.pruners import PRUNING_ATTRIBUTE, describe_pruning
from autopeft.study import REPORT_SPLIT, SEARCH_SPLIT, Study, Trial, TrialKind, TrialState, unkept_constraints

#: Formats a report can be written in.
REPORT_FORMATS = ("html", "md")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    """A paragraph of plain text."""

    text: str
    is_lead: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of plain texts; columns in `numeric` are aligned to the right."""

    caption: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A figure by its role, ``"front"`` or ``"heatmap"``, and the same in words."""

    role: str
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """Preformatted text; folded behind its summary if there is one."""

    text: str
    summary: str | None = None


Block = Paragraph | Table | Picture | Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A titled part of a report."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A report without its looks."""

    title: str
    sections: tuple[Section, ...]


def render_report(study: Study, format: str = "html", *, generated_at: datetime | None = None) -> str:
    """Write a study's report.

    Args:
        study: Any study, also one without trials or with failures only.
        format: ``"html"`` for one self-contained page, ``"md"`` for Markdown.
        generated_at: Time shown in the report; None for now.

    Returns:
        The whole document.

    Raises:
        UnknownNameError: If the format is neither.
    """
    if format not in REPORT_FORMATS:
        raise UnknownNameError("report format", format, REPORT_FORMATS)
    report = build_report(study, generated_at=generated_at or datetime.now(UTC))
    if format == "md":
        from autopeft.export._report_markdown import render_markdown

        return render_markdown(report)
    from autopeft.export._figures import front_figure, heatmap_figure
    from autopeft.export._report_html import render_html

    return render_html(report, {"front": front_figure(study), "heatmap": heatmap_figure(study)})


def build_report(study: Study, *, generated_at: datetime) -> Report:
    """Collect what stands in a study's report."""
    result = StudyResult.of(study)
    sections = (
        Section(title="Result", blocks=tuple(_result_blocks(study, result))),
        Section(title="Front", blocks=tuple(_front_blocks(study, result))),
        Section(title="Recommended configuration", blocks=tuple(_configuration_blocks(study, result))),
        Section(title="Baselines", blocks=(_trial_table(study, "Baselines", study.of_kind(TrialKind.BASELINE)),)),
        Section(title="All trials", blocks=(_trial_table(study, "All trials, by number", study.trials),)),
        *_pruning_sections(study),
        Section(title="Failures", blocks=tuple(_failure_blocks(study))),
        Section(title="Reproducibility", blocks=tuple(_reproducibility_blocks(study, generated_at))),
    )
    return Report(title=f"autopeft report: {study.spec.name}", sections=sections)


def _result_blocks(study: Study, result: StudyResult) -> Iterator[Block]:
    spec = study.spec
    yield Paragraph(text=result.headline, is_lead=True)
    if not result.is_final:
        yield Paragraph(text="This search is not finished: what stands here is what its trials say so far.")
    share = format_share(spec.budget, spec.backbone.get("parameters"))
    task, backbone = spec.task.get("name", "?"), spec.backbone.get("name", "?")
    yield Paragraph(
        text=f"Task {task}, backbone {backbone}, budget {spec.budget_text}: at most {format_count(spec.budget)} "
        f"trainable parameters without the task head{f' ({share})' if share else ''}. "
        f"Configurations were chosen by {spec.objectives[0].name} on the search split; "
        "only the confirmation runs were scored on the report split."
    )
    if result.difference:
        yield _difference_table(result)
    if result.confirmed:
        yield _confirmed_table(study, result)
        if study.spec.secondary:
            yield _secondary_table(study, result)


def _difference_table(result: StudyResult) -> Table:
    difference = result.difference or {}
    interval = f"[{_signed(difference.get('low'))}, {_signed(difference.get('high'))}]"
    counts = (format_count(difference.get("n_seeds")), format_count(difference.get("n_examples")))
    return Table(
        caption="Recommended minus best baseline within the budget, report split",
        headers=("metric", "difference", "95 % interval", "seeds", "examples"),
        rows=((str(difference.get("metric", "")), _signed(difference.get("mean")), interval, *counts),),
        numeric=frozenset({1, 2, 3, 4}),
    )


def _confirmed_table(study: Study, result: StudyResult) -> Table:
    trials = {item.number: item for item in study.trials}
    rows = []
    for row in result.confirmed:
        trial = trials.get(row.get("trial", -1))
        low, high = row.get("report_low"), row.get("report_high")
        rows.append(
            (
                str(row.get("trial", "")),
                "" if trial is None else display_name(trial),
                "" if trial is None else format_count(trial.draft.trainable_parameters),
                str(len(row.get("seeds", ()))),
                format_score(row.get("search_mean")),
                format_score(row.get("report_mean")),
                "" if low is None or high is None else f"[{format_score(low)}, {format_score(high)}]",
            )
        )
    metric = study.spec.objectives[0].name
    return Table(
        caption=f"Confirmed over seeds: mean {metric}",
        headers=("trial", "configuration", "parameters", "seeds", "search split", "report split", "95 % interval"),
        rows=tuple(rows),
        numeric=frozenset({0, 2, 3, 4, 5, 6}),
    )


def _secondary_table(study: Study, result: StudyResult) -> Table:
    """Further objectives and rewards of the confirmed trials; the interval is over seeds, not over examples."""
    rows = []
    for row in result.confirmed:
        found = row.get("secondary") or {}
        for item in study.spec.secondary:
            cells = [str(row.get("trial", "")), item.name, item.direction.value]
            for split in (SEARCH_SPLIT, REPORT_SPLIT):
                values = (found.get(item.name) or {}).get(split) or {}
                low, high = (format_value(values.get(end), item.unit) for end in ("low", "high"))
                cells += [format_value(values.get("mean"), item.unit), f"[{low}, {high}]" if low and high else ""]
            rows.append(tuple(cells))
    names = ("search split", "95 % interval", "report split", "95 % interval")
    return Table(
        caption="Further objectives and rewards of the confirmed trials, mean over seeds",
        headers=("trial", "objective", "better", *names),
        rows=tuple(rows),
        numeric=frozenset({0, 3, 4, 5, 6}),
    )


def _front_blocks(study: Study, result: StudyResult) -> Iterator[Block]:
    from autopeft.export._figures import front_description

    yield Picture(role="front", description=front_description(study))
    front = result.front
    if front.reference_point is not None:
        point = ", ".join(
            f"{item.name} {format_value(value, item.unit)}"
            for item, value in zip(front.objectives, front.reference_point, strict=True)
        )
        yield Paragraph(text=f"Hypervolume {front.hypervolume:.6g}, measured from the reference point ({point}).")
    members = sorted(front.trials, key=lambda item: item.draft.trainable_parameters)
    yield _trial_table(study, "Front of the search, cheapest first", members)


def _configuration_blocks(study: Study, result: StudyResult) -> Iterator[Block]:
    from autopeft.export._figures import heatmap_description

    trial = result.recommended
    if trial is None:
        why = unkept_constraints(study) or "No search trial within the budget has been measured."
        yield Paragraph(text=f"{why} So nothing is recommended.")
        return
    yield Paragraph(text=f"Trial {trial.number}: {trial.configuration.describe()}.")
    yield Picture(role="heatmap", description=heatmap_description(study, trial))
    grid = configuration_grid(trial.configuration, layer_count(study))
    if grid.rows:
        yield Table(
            caption="Sizes by layer (an empty cell: no module there)",
            headers=("module", *grid.columns),
            rows=tuple((name, *texts) for name, texts in zip(grid.rows, grid.texts, strict=True)),
            numeric=frozenset(range(1, len(grid.columns) + 1)),
        )
    yield Code(summary="As JSON", text=_json(trial.configuration.to_dict()))


def _trial_table(study: Study, caption: str, trials: Sequence[Trial]) -> Table:
    metric = study.spec.objectives[0].name
    whole = study.spec.backbone.get("parameters")
    others = [item for item in study.spec.secondary if item.name not in ("wall_time_s", "peak_memory_bytes")]
    rows = []
    for item in trials:
        costs: Mapping[str, float] = {}
        measurement = item.measurement(SEARCH_SPLIT)
        if measurement is not None:
            costs = measurement.costs
        rows.append(
            (
                str(item.number),
                item.kind.value,
                item.state.value,
                display_name(item),
                format_score(item.value(metric)),
                format_score(report_value(study, item, metric)),
                *(format_value(item.value(other.name), other.unit) for other in others),
                format_count(item.draft.trainable_parameters),
                format_share(item.draft.trainable_parameters, whole),
                format_duration(costs.get("wall_time_s")),
                format_bytes(costs.get("peak_memory_bytes")),
                str(item.draft.seed),
            )
        )
    names = ("trial", "kind", "state", "configuration", f"{metric} (search)", f"{metric} (report)")
    headers = (*names, *(item.name for item in others), "parameters", "share", "wall time", "peak memory", "seed")
    return Table(
        caption=caption, headers=headers, rows=tuple(rows), numeric=frozenset({0, *range(len(names) - 2, len(headers))})
    )


def _pruning_sections(study: Study) -> Iterator[Section]:
    """What stopping trials early saved and cost; nothing for studies that stop none."""
    pruning = study.attributes.get(PRUNING_ATTRIBUTE)
    if pruning:
        blocks = tuple(Paragraph(text=line) for line in describe_pruning(pruning))
        stopped = [item for item in study.trials if item.state is TrialState.PRUNED]
        table = (_trial_table(study, "Stopped early: values at their rungs", stopped),) if stopped else ()
        yield Section(title="Trials stopped early", blocks=(*blocks, *table))


def _failure_blocks(study: Study) -> Iterator[Block]:
    failed = [item for item in study.trials if item.state is TrialState.FAILED]
    if not failed:
        yield Paragraph(text="No trial failed.")
        return
    yield Paragraph(text=f"{len(failed)} of {len(study.trials)} trials failed. They count as not measured, never as 0.")
    yield Table(
        caption="Failed trials",
        headers=("trial", "kind", "reason", "message", "configuration"),
        rows=tuple(
            (
                str(item.number),
                item.kind.value,
                "" if item.failure is None else item.failure.reason,
                "" if item.failure is None else item.failure.message,
                display_name(item),
            )
            for item in failed
        ),
        numeric=frozenset({0}),
    )
    for item in failed:
        if item.failure is not None and item.failure.traceback:
            yield Code(summary=f"Traceback of trial {item.number}", text=item.failure.traceback)


def _reproducibility_blocks(study: Study, generated_at: datetime) -> Iterator[Block]:
    spec = study.spec
    command = study.attributes.get("command")
    if isinstance(command, str):
        yield Paragraph(text="The command of this search; run again on the same database, it resumes:")
        yield Code(text=command)
    facts = [
        ("study", spec.name),
        ("seed", str(spec.seed)),
        ("sampler", spec.sampler),
        ("pruner", spec.pruner),
        ("search space", str(spec.space.get("name", ""))),
        ("objectives", ", ".join(f"{item.name} ({item.direction.value})" for item in spec.objectives)),
        ("training examples per trial", format_count(spec.fidelity.train_examples)),
        ("epochs per trial", str(spec.fidelity.epochs)),
        *((f"task: {key}", _plain(value)) for key, value in spec.task.items()),
        *((f"backbone: {key}", _plain(value)) for key, value in spec.backbone.items()),
        *((f"training: {key}", _plain(value)) for key, value in spec.training.items()),
        *(
            (f"measured with: {key}", "; ".join(_plain(value) for value in values))
            for key, values in environment_values(study).items()
        ),
        ("first trial started", format_time(min((t.started_at for t in study.trials if t.started_at), default=None))),
        ("last trial finished", format_time(max((t.finished_at for t in study.trials if t.finished_at), default=None))),
        ("report written", f"{format_time(generated_at)} by autopeft {autopeft.__version__}"),
    ]
    yield Table(caption="Where the numbers come from", headers=("fact", "value"), rows=tuple(facts))
    yield Code(summary="The study's full settings as JSON", text=_json(spec.to_dict()))


def _plain(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.4f}"

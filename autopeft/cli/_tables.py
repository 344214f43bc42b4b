"""What people see of a study: tables, sentences, the plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from autopeft.cli._output import DataTable, make_table
from autopeft.cli._plot import baseline_marks, front_plot, plot_signs
from autopeft.export import (
    StudyResult,
    configuration_grid,
    display_name,
    format_count,
    format_duration,
    format_score,
    format_share,
    format_time,
    format_value,
    layer_count,
    printable,
    report_value,
    status_counts,
)
from autopeft.pruners import PRUNING_ATTRIBUTE, describe_pruning
from autopeft.study import Study, Trial, TrialKind, TrialState

if TYPE_CHECKING:
    from rich.console import Group
    from rich.text import Text

    from autopeft.store import StudySummary


def trials_table(study: Study, trials: Sequence[Trial], title: str) -> DataTable:
    """One line per trial; empty cells for what was not measured."""
    metric = study.spec.objectives[0].name
    others = [item for item in study.spec.secondary if item.name != "wall_time_s"]
    rows = []
    for item in trials:
        measurement = item.measurement()
        wall_time = None if measurement is None else measurement.costs.get("wall_time_s")
        rows.append(
            (
                str(item.number),
                item.kind.value,
                _state(item),
                format_score(item.value(metric)),
                format_score(report_value(study, item, metric)),
                *(format_value(item.value(other.name), other.unit) for other in others),
                format_count(item.draft.trainable_parameters),
                format_share(item.draft.trainable_parameters, study.spec.backbone.get("parameters")),
                format_duration(wall_time),
                display_name(item) if item.failure is None else f"{item.failure.reason}: {item.failure.message}",
            )
        )
    names = [item.name for item in others]
    headers = ("trial", "kind", "state", metric, "report", *names, "parameters", "share", "time", "configuration")
    n = len(names)
    return make_table(title, headers, rows, numeric=(0, *range(3, 8 + n)), optional=(6 + n, 7 + n, 4))


def front_view(study: Study, *, width: int, is_ascii: bool = False) -> Group:
    """Headline, front as table and plot, baselines with the letters they have in the plot."""
    from rich.console import Group
    from rich.text import Text

    result = StudyResult.of(study)
    members = sorted(result.front.trials, key=lambda item: item.draft.trainable_parameters)
    signs = plot_signs(is_ascii=is_ascii)
    marks = {item.number: signs.recommended if item is result.recommended else signs.front for item in members}
    parts: list[Text | DataTable] = [
        Text(printable(result.headline), style="bold"),
        Text(""),
        _marked_table(study, members, "Front of the search, cheapest first", marks),
        Text(""),
        front_plot(study, width=min(width, 100), is_ascii=is_ascii),
    ]
    baselines = study.of_kind(TrialKind.BASELINE)
    if baselines:
        parts += [Text(""), _marked_table(study, baselines, "Baselines", baseline_marks(study))]
    if result.front.reference_point is not None:
        point = ", ".join(
            f"{item.name} {format_value(value, item.unit)}"
            for item, value in zip(result.front.objectives, result.front.reference_point, strict=True)
        )
        parts += [Text(""), Text(f"Hypervolume {result.front.hypervolume:.6g} from the reference point {point}.")]
    return Group(*parts)


def _state(trial: Trial) -> str:
    """A trial's state; of one that was stopped early also how far it had come."""
    rung = trial.rung
    return trial.state.value if rung is None else f"{trial.state.value} at {100 * rung.share:.0f} %"


def _marked_table(study: Study, trials: Sequence[Trial], title: str, marks: dict[int, str]) -> DataTable:
    metric = study.spec.objectives[0].name
    others = study.spec.secondary
    rows = [
        (
            str(item.number),
            marks.get(item.number, ""),
            format_score(item.value(metric)),
            format_score(report_value(study, item, metric)),
            *(format_value(item.value(other.name), other.unit) for other in others),
            format_count(item.draft.trainable_parameters),
            format_share(item.draft.trainable_parameters, study.spec.backbone.get("parameters")),
            display_name(item) if item.state is TrialState.COMPLETE else f"{display_name(item)} ({_state(item)})",
        )
        for item in trials
    ]
    names = [item.name for item in others]
    headers = ("trial", "plot", metric, "report", *names, "parameters", "share", "configuration")
    n = len(names)
    nothing = (*[""] * (len(headers) - 1), "none yet")
    return make_table(title, headers, rows or [nothing], numeric=(0, *range(2, 6 + n)), optional=(5 + n,))


def status_view(study: Study, summary: StudySummary, url: str) -> Group:
    """Counts by kind and state, best so far, hypervolume, last activity."""
    from rich.console import Group
    from rich.text import Text

    result = StudyResult.of(study)
    spec = study.spec
    states = [state.value for state in TrialState]
    counts = [
        (kind, *(str(row[state]) for state in states), str(sum(row.values())))
        for kind, row in status_counts(study).items()
    ]
    facts = [
        ("study", spec.name),
        ("task", str(spec.task.get("name", ""))),
        ("backbone", str(spec.backbone.get("name", ""))),
        ("budget", f"{spec.budget_text}: {format_count(spec.budget)} trainable parameters without the task head"),
        ("database", url),
        ("last activity", format_time(summary.last_activity_at)),
        ("hypervolume", "" if result.front.hypervolume is None else f"{result.front.hypervolume:.6g}"),
    ]
    parts: list[Text | DataTable] = [
        Text(printable(result.headline), style="bold"),
        Text(""),
        make_table("Study", ("fact", "value"), facts),
        Text(""),
        make_table("Trials", ("kind", *states, "all"), counts, numeric=range(1, len(states) + 2)),
    ]
    pruning = study.attributes.get(PRUNING_ATTRIBUTE)
    if pruning:
        parts += [Text(""), *(Text(line) for line in describe_pruning(pruning))]
    return Group(*parts)


def studies_table(studies: Sequence[StudySummary]) -> DataTable:
    """All studies of a database, the latest activity first."""
    rows = [
        (
            item.name,
            str(item.spec.task.get("name", "")),
            str(item.spec.backbone.get("name", "")),
            format_count(item.spec.budget),
            str(item.n_trials[TrialState.COMPLETE]),
            str(item.n_trials_total),
            format_time(item.last_activity_at),
        )
        for item in sorted(studies, key=lambda item: item.last_activity_at, reverse=True)
    ]
    headers = ("study", "task", "backbone", "budget", "complete", "trials", "last activity")
    return make_table("Studies", headers, rows, numeric=(3, 4, 5))


def trial_view(study: Study, trial: Trial) -> Group:
    """One trial: configuration in words and by layer, results, learning curve, failure, environment."""
    from rich.console import Group
    from rich.text import Text

    draft = trial.draft
    facts = [
        ("state", _state(trial)),
        ("kind", trial.kind.value if draft.parent is None else f"{trial.kind.value} of trial {draft.parent}"),
        ("label", draft.label or ""),
        ("configuration", trial.configuration.describe()),
        ("fingerprint", trial.configuration.fingerprint),
        ("trainable parameters", format_count(draft.trainable_parameters)),
        ("fidelity", f"{format_count(draft.fidelity.train_examples)} examples, {draft.fidelity.epochs} epochs"),
        ("seed", str(draft.seed)),
        ("started", format_time(trial.started_at)),
        ("finished", format_time(trial.finished_at)),
        ("worker", trial.worker or ""),
    ]
    parts: list[Text | DataTable] = [
        make_table(f"Trial {trial.number} of {study.spec.name}", ("fact", "value"), [row for row in facts if row[1]])
    ]
    grid = configuration_grid(trial.configuration, layer_count(study))
    if grid.rows:
        rows = [(name, *texts) for name, texts in zip(grid.rows, grid.texts, strict=True)]
        columns = range(1, len(grid.columns) + 1)
        parts += [Text(""), make_table("Sizes by layer", ("module", *grid.columns), rows, numeric=columns)]
    if draft.params is not None:
        params = [(name, str(value)) for name, value in sorted(draft.params.items())]
        parts += [Text(""), make_table("Point of the search space", ("parameter", "value"), params)]
    for table in (_results_table(trial), _curve_table(trial), _environment_table(trial)):
        if table is not None:
            parts += [Text(""), table]
    n_statistics = len(trial.curve[-1].statistics) if trial.curve else 0
    if n_statistics:
        words = f"Modules counted {n_statistics} further numbers at every point: see --format json."
        parts += [Text(""), Text(words)]
    if trial.failure is not None:
        parts += [Text(""), Text(printable(f"Failed ({trial.failure.reason}): {trial.failure.message}"), style="bold")]
        if trial.failure.traceback:
            parts.append(Text(printable(trial.failure.traceback.rstrip("\n"))))
    return Group(*parts)


def _results_table(trial: Trial) -> DataTable | None:
    rows = []
    for item in trial.measurements:
        rows += [(item.split, name, format_score(value)) for name, value in item.metrics.items()]
        for name, value in item.costs.items():
            unit = "bytes" if name.endswith("_bytes") else "s" if name.endswith("_s") else "-"
            shown = format_value(value, "-" if name.endswith("_per_s") else unit)
            rows.append((item.split, name, shown))
    return make_table("Measured", ("split", "quantity", "value"), rows, numeric=(2,)) if rows else None


def _curve_table(trial: Trial) -> DataTable | None:
    names = list(dict.fromkeys(name for point in trial.curve for name in point.scores))
    rows = [
        (
            str(point.step),
            f"{point.epoch:.2f}",
            *(format_score(point.metrics.get(name)) for name in names),
            format_duration(point.wall_time_s),
        )
        for point in trial.curve
    ]
    headers = ("step", "epoch", *names, "time")
    return make_table("Learning curve, search split", headers, rows, numeric=range(len(headers))) if rows else None


def _environment_table(trial: Trial) -> DataTable | None:
    rows = []
    if trial.measurements:
        for key, value in trial.measurements[0].environment.items():
            if isinstance(value, dict):
                rows += [(f"{key}.{name}", str(item)) for name, item in value.items()]
            else:
                rows.append((key, str(value)))
    return make_table("Measured with", ("fact", "value"), rows) if rows else None

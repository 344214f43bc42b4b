"""What stopping trials has saved, and what it may have cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from autopeft.objectives import Objective, hypervolume, to_maximization
from autopeft.pruners._calibration import rank_correlation
from autopeft.pruners._policy import Caution
from autopeft.pruners._values import RungTable
from autopeft.study import Fidelity, Front, Study, Trial, TrialKind, TrialState, search_front

#: Study attribute that holds the study's `pruning_report`, from its first search trial on.
PRUNING_ATTRIBUTE = "pruning"
#: Trial note in which its decisions stand: ``{"decisions": [Decision.to_dict(), ...]}``.
PRUNING_NOTE = "pruning"


def rung_correlations(
    trials: Sequence[Trial],
    *,
    objectives: Sequence[Objective],
    fidelity: Fidelity,
    rungs: Sequence[int],
    n_steps: int,
    caution: Caution = Caution(),  # noqa: B008 (frozen)
) -> list[dict[str, Any]]:
    """Measure how well each rung ranks the search trials as they end.

    Args:
        trials: Of the study.
        objectives: Of the study; known costs are the same everywhere and left out.
        fidelity: Of its search trials.
        rungs: Steps, ascending.
        n_steps: Of a whole run.
        caution: What decides whether a rung is used.

    Returns:
        JSON-ready, one per rung and measured objective: ``step``, ``share`` of the run, ``objective``, ``n`` completed
        trials, ``tau`` (Kendall's tau-b), ``low`` and ``high`` (95 %), and ``use``: ``"used"``, ``"not yet known"``
        or ``"too low"``.
    """
    rows = []
    for step in rungs:
        table = RungTable.of(trials, step=step, objectives=objectives, fidelity=fidelity)
        done = table.is_complete
        for j in np.flatnonzero(~table.is_exact):
            found = rank_correlation(table.here[done, j], table.end[done, j])
            use = "used"
            if found.n < caution.min_completed or found.tau is None:
                use = "not yet known"
            elif found.high is not None and found.high < caution.min_correlation:
                use = "too low"
            rows.append(
                {
                    "step": step,
                    "share": step / n_steps,
                    "objective": table.objectives[j].name,
                    "n": found.n,
                    "tau": found.tau,
                    "low": found.low,
                    "high": found.high,
                    "use": use,
                }
            )
    return rows


def pruning_report(study: Study, *, rungs: Sequence[int], n_steps: int) -> dict[str, Any]:
    """Everything that is to be said about a study's pruning; stored as its attribute `PRUNING_ATTRIBUTE`.

    The time saved is that of the steps not trained, at the seconds per step that the same trial was measured to take.
    What was lost is estimated by the controls: trials that the rule would have stopped, and that ran to their end all
    the same. The share of them that ended on the front is, within its interval, the share of the stopped ones that
    would have.

    Args:
        study: The study.
        rungs: Steps at which its pruner decides.
        n_steps: Of a whole run.

    Returns:
        JSON-ready: ``pruner``, ``rungs`` (steps), ``n_steps``, ``correlations`` (`rung_correlations`), ``n_pruned``,
        ``n_continued``, ``steps_saved``, ``time_saved_s``, ``share_saved`` of all search training in [0, 1], and
        ``lost`` (`_lost`).
    """
    spec = study.spec
    searched = study.of_kind(TrialKind.SEARCH)
    pruned = [item for item in searched if item.state is TrialState.PRUNED and item.rung is not None]
    steps_saved = sum(n_steps - item.rung.step for item in pruned if item.rung is not None)
    ended = [item for item in searched if item.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    return {
        "pruner": spec.pruner,
        "rungs": list(rungs),
        "n_steps": n_steps,
        "correlations": rung_correlations(
            study.trials, objectives=spec.objectives, fidelity=spec.fidelity, rungs=rungs, n_steps=n_steps
        ),
        "n_pruned": len(pruned),
        "n_continued": sum(item.state is TrialState.COMPLETE and _was_stopped(item) for item in searched),
        "steps_saved": steps_saved,
        "time_saved_s": sum(time for item in pruned if (time := _time_saved_s(item)) is not None),
        "share_saved": steps_saved / (n_steps * len(ended)) if ended else 0.0,
        "lost": _lost(study, len(pruned)),
    }


def _time_saved_s(trial: Trial) -> float | None:
    """Seconds that a stopped trial would have gone on for; None if its time was not measured."""
    rung, measurement = trial.rung, trial.measurement()
    spent = None if measurement is None else measurement.costs.get("wall_time_s")
    return None if rung is None or spent is None else spent / rung.step * (rung.n_steps - rung.step)


def _lost(study: Study, n_pruned: int) -> dict[str, Any]:
    """What stopping may have cost.

    Returns:
        JSON-ready: ``n_controls``, ``n_on_front`` of them, ``share`` with ``low`` and ``high`` (95 %, Jeffreys), all
        None without controls; ``members``, the front members that the stopped trials are expected to have cost; and
        ``hypervolume_share``, the share of the front's hypervolume that the controls alone hold.
    """
    from scipy.special import betaincinv

    completed = study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE)
    controls = [item for item in completed if _rule_stopped(item)]
    front = search_front(study)
    members = {item.number for item in front.trials}
    n, k = len(controls), sum(item.number in members for item in controls)
    if not n:
        return dict.fromkeys(("share", "low", "high", "members", "hypervolume_share")) | {
            "n_controls": 0,
            "n_on_front": 0,
        }
    return {
        "n_controls": n,
        "n_on_front": k,
        "share": k / n,
        "low": float(betaincinv(k + 0.5, n - k + 0.5, 0.025)) if k else 0.0,
        "high": float(betaincinv(k + 0.5, n - k + 0.5, 0.975)) if k < n else 1.0,
        "members": k / n * n_pruned,
        "hypervolume_share": _held_alone(front, {item.number for item in controls}),
    }


def _held_alone(front: Front, numbers: set[int]) -> float | None:
    """Share of a front's hypervolume that some of its members alone hold."""
    if not front.hypervolume or front.reference_point is None:
        return None
    left = [item for item in front.trials if item.number not in numbers]
    values = [[item.value(objective.name) or 0.0 for objective in front.objectives] for item in left]
    reference = to_maximization([front.reference_point], front.objectives)[0]
    rest = hypervolume(to_maximization(values, front.objectives), reference) if left else 0.0
    return 1 - rest / front.hypervolume


def _decisions(trial: Trial) -> Sequence[Mapping[str, Any]]:
    note = trial.notes.get(PRUNING_NOTE)
    return note.get("decisions", ()) if isinstance(note, Mapping) else ()


def _rule_stopped(trial: Trial) -> bool:
    """Whether a rule spoke against a trial that runs to its end for measurement's sake."""
    return any(item.get("reason") == "control" for item in _decisions(trial))


def _was_stopped(trial: Trial) -> bool:
    return any(item.rung is not None for item in trial.measurements)


def describe_pruning(report: Mapping[str, Any]) -> list[str]:
    """A `pruning_report` in sentences, for people."""
    lines = ["How rungs rank completed trials as their end does (Kendall's tau, 95 % interval):"]
    for row in report["correlations"]:
        interval = "" if row["low"] is None else f" [{row['low']:.2f}, {row['high']:.2f}]"
        tau = "unknown" if row["tau"] is None else f"{row['tau']:.2f}{interval}"
        lines.append(
            f"  after {row['step']} of {report['n_steps']} steps, {row['objective']}: {tau} over {row['n']} trials, "
            f"{_USE[row['use']]}"
        )
    n_pruned = report["n_pruned"]
    if not n_pruned:
        return [*lines, f"Pruner {report['pruner']} stopped no trial."]
    lines.append(
        f"Pruner {report['pruner']} stopped {n_pruned} trials early ({report['n_continued']} more were stopped and "
        f"continued), which saved {100 * report['share_saved']:.0f} % of the search's training, "
        f"{report['time_saved_s']:.0f} s."
    )
    lost = report["lost"]
    if not lost["n_controls"]:
        return [*lines, "What that may have cost is not known: no trial that the rule would have stopped ran on."]
    lines.append(
        f"Of {lost['n_controls']} trials that it would have stopped, and that ran on to measure this, "
        f"{lost['n_on_front']} ended on the front: {100 * lost['share']:.0f} % "
        f"[{100 * lost['low']:.0f}, {100 * lost['high']:.0f}], so about {lost['members']:.1f} members of the front "
        "were lost."
    )
    return lines


_USE = {
    "used": "used",
    "not yet known": "not used before enough trials have come to their end",
    "too low": "too low, not used",
}

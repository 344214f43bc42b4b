"""Whole studies for tests of reports, figures and commands, without training."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.objectives import Direction, Objective
from autopeft.study import (
    REPORT_SPLIT,
    SEARCH_SPLIT,
    CurvePoint,
    Failure,
    Measurement,
    Study,
    Trial,
    TrialDraft,
    TrialKind,
    TrialState,
)
from tests.study.builders import ACCURACY, FIDELITY, make_spec

START = datetime(2026, 11, 21, 10, 0, 0, tzinfo=UTC)
N_LAYERS = 6
TRACEBACK = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\nRuntimeError: <boom> & "quoted"'


def mixed_configuration(rank: int = 4, first: int = 0, learning_rate: float = 1e-3) -> Configuration:
    """LoRA on q and v of the layers from `first` on, an adapter in the top layer, (IA)3 without a size below."""
    pairs = [
        (Site(layer=layer, part=part), ModuleSpec.make("lora", rank + layer))
        for layer in range(first, N_LAYERS)
        for part in ("q", "v")
    ]
    pairs += [
        (Site(layer=N_LAYERS - 1, part="ffn"), ModuleSpec.make("serial_adapter", 16)),
        (Site(layer=1, part="k"), ModuleSpec.make("ia3")),
    ]
    return Configuration.make(pairs, learning_rate=learning_rate)


def head_only(learning_rate: float = 1e-3) -> Configuration:
    return Configuration.make([], learning_rate=learning_rate)


def draft(
    configuration: Configuration,
    cost: int,
    *,
    kind: TrialKind = TrialKind.SEARCH,
    label: str | None = None,
    seed: int = 0,
    parent: int | None = None,
) -> TrialDraft:
    return TrialDraft(
        kind=kind,
        configuration=configuration,
        trainable_parameters=cost,
        fidelity=FIDELITY,
        seed=seed,
        params={"lora": True, "rank": 4} if kind is TrialKind.SEARCH else None,
        label=label,
        parent=parent,
    )


def measurement(accuracy: float, *, split: str = SEARCH_SPLIT, seed: int = 0) -> Measurement:
    return Measurement(
        split=split,
        fidelity=FIDELITY,
        seed=seed,
        metrics={"accuracy": accuracy, "macro_f1": accuracy - 0.02},
        costs={"wall_time_s": 12.5, "peak_memory_bytes": 3 * 2**30, "examples_per_s": 240.0},
        environment={"device": "cpu", "versions": {"torch": "2.13.0", "autopeft": "0.1.0"}},
        curve=points(accuracy),
        predictions=(0.0, 1.0, 1.0),
    )


def points(accuracy: float) -> tuple[CurvePoint, ...]:
    return tuple(
        CurvePoint(
            step=10 * (i + 1),
            epoch=0.5 * (i + 1),
            metrics={"accuracy": accuracy - 0.1 / (i + 1), "train_loss": 1.0 / (i + 1)},
            wall_time_s=3.0 * (i + 1),
        )
        for i in range(4)
    )


def complete(number: int, content: TrialDraft, accuracy: float, *, report: float | None = None) -> Trial:
    rows = [measurement(accuracy, seed=content.seed)]
    if report is not None:
        rows.append(measurement(report, split=REPORT_SPLIT, seed=content.seed))
    started = START + timedelta(seconds=20 * number)
    return Trial(
        number=number,
        draft=content,
        state=TrialState.COMPLETE,
        measurements=tuple(rows),
        curve=points(accuracy),
        attempts=1,
        worker="host:1:2",
        created_at=started,
        started_at=started,
        finished_at=started + timedelta(seconds=12),
    )


def failed(number: int, content: TrialDraft, *, message: str = "the loss became nan") -> Trial:
    failure = Failure(reason="divergence", message=message, traceback=TRACEBACK)
    return Trial(number=number, draft=content, state=TrialState.FAILED, failure=failure, attempts=1, created_at=START)


BASELINES = (
    ("head only, lr 0.001", 0, 0.50),
    ("head only, lr 0.01", 0, 0.51),
    ("LoRA r=8 on q,v, lr 0.001", 3000, 0.60),
    ("LoRA r=8 on q,v, lr 0.005", 3000, 0.61),
    ("BitFit, lr 0.001", 900, 0.57),
    ("full fine-tuning, lr 5e-05", 90_000, 0.67),
)


def full_study(n_search: int = 12) -> Study:
    """Baselines, search trials of every state, confirmations of the best and of a baseline, and a summary."""
    rng = random.Random(7)
    trials: list[Trial] = []
    for i, (label, cost, accuracy) in enumerate(BASELINES):
        configuration = head_only(1e-3 + i * 1e-4) if cost == 0 else mixed_configuration(i + 1, learning_rate=2e-3)
        trials.append(complete(i, draft(configuration, cost, kind=TrialKind.BASELINE, label=label), accuracy))
    for i in range(n_search):
        cost = int(200 * 1.35**i)
        content = draft(mixed_configuration(i + 1, first=i % N_LAYERS), cost)
        number = len(trials)
        if i == 3:
            trials.append(failed(number, content))
        else:
            trials.append(complete(number, content, round(0.52 + 0.012 * i + 0.02 * rng.random(), 4)))
    best = max(
        (item for item in trials if item.kind is TrialKind.SEARCH and item.draft.trainable_parameters <= 5000),
        key=lambda item: item.value("accuracy") or 0.0,
    )
    for parent, report in ((best, 0.655), (trials[3], 0.605)):
        for seed in (1, 2):
            content = draft(
                parent.configuration,
                parent.draft.trainable_parameters,
                kind=TrialKind.CONFIRMATION,
                label=parent.draft.label,
                seed=seed,
                parent=parent.number,
            )
            trials.append(complete(len(trials), content, report + 0.01, report=report + 0.002 * seed))
    summary = {
        "metric": "accuracy",
        "recommended": best.number,
        "best_baseline": 3,
        "headline": f"Trial {best.number} scores accuracy 0.6580: 5.0 points better [2.0, 8.0] than LoRA r=8 on q,v.",
        "difference": {
            "metric": "accuracy",
            "mean": 0.05,
            "low": 0.02,
            "high": 0.08,
            "n_seeds": 2,
            "n_examples": 500,
        },
        "confirmed": [
            {
                "trial": number,
                "seeds": [1, 2],
                "search_mean": mean + 0.01,
                "report_mean": mean,
                "report_low": mean - 0.02,
                "report_high": mean + 0.02,
            }
            for number, mean in ((best.number, 0.658), (3, 0.608))
        ],
    }
    attributes = {"summary": summary, "command": "autopeft search --task toy --budget 5%"}
    return Study(spec=make_spec(), trials=tuple(trials), attributes=attributes)


def rewarded_study() -> Study:
    """The full study with memorization as second objective and latency recorded beside it."""
    full = full_study()

    def rewarded(item: Measurement) -> Measurement:
        memorization = round(item.metrics["accuracy"] / 2, 4)
        return replace(
            item,
            metrics={**item.metrics, "memorization": memorization, "memorization.auc": 0.5 + memorization / 2},
            costs={**item.costs, "latency_s": 0.00425, "reward_time_s": 0.5},
        )

    trials = tuple(replace(item, measurements=tuple(map(rewarded, item.measurements))) for item in full.trials)
    minimize = Direction.MINIMIZE
    entry = {"direction": "minimize", "settings": {}}
    spec = make_spec(
        objectives=(ACCURACY, Objective(name="memorization", direction=minimize)),
        rewards={
            "memorization": {**entry, "reference": "memorization", "unit": ""},
            "latency_s": {**entry, "reference": "latency_s", "unit": "s"},
        },
    )
    over_seeds = {
        "memorization": {"search": {"mean": 0.33, "low": 0.31, "high": 0.35}, "report": {"mean": 0.32}},
        "latency_s": {"search": {"mean": 0.00425, "low": 0.004, "high": 0.0045}, "report": None},
    }
    summary = full.attributes["summary"]
    confirmed = [{**row, "secondary": over_seeds} for row in summary["confirmed"]]
    attributes = {**full.attributes, "summary": {**summary, "confirmed": confirmed}}
    return Study(spec=spec, trials=trials, attributes=attributes)


def empty_study() -> Study:
    return Study(spec=make_spec(), trials=())


def single_study() -> Study:
    return Study(spec=make_spec(), trials=(complete(0, draft(mixed_configuration(), 1200), 0.55),))


def failures_only() -> Study:
    return Study(
        spec=make_spec(),
        trials=tuple(failed(i, draft(mixed_configuration(i + 1), 1000 + i)) for i in range(3)),
    )


def waiting_study() -> Study:
    """A search that has just begun: nothing finished."""
    waiting = Trial(
        number=0, draft=draft(head_only(), 0, kind=TrialKind.BASELINE, label="head only"), state=TrialState.WAITING
    )
    running = Trial(number=1, draft=draft(mixed_configuration(), 900), state=TrialState.RUNNING, curve=points(0.5))
    return Study(spec=make_spec(), trials=(waiting, running))


def hostile_study(text: str) -> Study:
    """A study whose every free text is the same nasty one."""
    spec = make_spec(
        name=text,
        task={"name": text, "content_hash": text},
        backbone={"name": text, "parameters": 100_000},
        budget_text=text,
    )
    baseline = complete(0, draft(mixed_configuration(), 3000, kind=TrialKind.BASELINE, label=text), 0.6)
    broken = failed(1, draft(mixed_configuration(2), 1000), message=text)
    found = complete(2, draft(mixed_configuration(3), 900), 0.62)
    summary = {"recommended": 2, "best_baseline": 0, "headline": text, "difference": None, "confirmed": []}
    return Study(spec=spec, trials=(baseline, broken, found), attributes={"summary": summary, "command": text})


STUDIES = {
    "full": full_study,
    "rewarded": rewarded_study,
    "empty": empty_study,
    "single": single_study,
    "failures": failures_only,
    "waiting": waiting_study,
}

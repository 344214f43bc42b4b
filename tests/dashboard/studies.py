"""Whole studies in a database for tests of the dashboard, without training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.store import SqlStore, open_store
from autopeft.study import (
    REPORT_SPLIT,
    CurvePoint,
    Failure,
    Measurement,
    Rung,
    TrialDraft,
    TrialKind,
    TrialState,
)
from tests.export.studies import head_only, mixed_configuration
from tests.study.builders import FIDELITY, make_spec

WORKER = "host:1:1"
HOSTILE = "<b>bold</b> <script>alert(1)</script> **stars** $x$ :red[red] [link](javascript:alert(1))"
N_LAYERS = 6
SPACE = {
    "name": "default",
    "parameters": {
        "rank": {"type": "int", "low": 1, "high": 32, "log": True},
        "gate": {"type": "bool"},
        "profile": {"type": "categorical", "choices": ["flat", "increasing"]},
        "learning_rate": {"type": "float", "low": 0.0003, "high": 0.02, "log": True},
    },
}


def spec(name: str = "study", **changes: object):  # type: ignore[no-untyped-def]
    backbone = {"name": "tiny", "parameters": 100_000, "n_layers": N_LAYERS}
    return make_spec(name, budget=4000, **{"backbone": backbone, "space": SPACE, **changes})


def draft(
    configuration: Configuration,
    cost: int,
    *,
    kind: TrialKind = TrialKind.SEARCH,
    params: dict[str, object] | None = None,
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
        params=params,  # type: ignore[arg-type]
        label=label,
        parent=parent,
    )


def measurement(accuracy: float, *, split: str = "search", seed: int = 0, rung: Rung | None = None) -> Measurement:
    return Measurement(
        split=split,
        fidelity=FIDELITY,
        seed=seed,
        metrics={"accuracy": accuracy, "macro_f1": accuracy - 0.02, "layers.0.q.moe_lora.entropy": 1.0},
        costs={"wall_time_s": 10 + accuracy, "peak_memory_bytes": 3 * 2**30},
        rung=rung,
    )


def run(
    store: SqlStore,
    content: TrialDraft,
    accuracy: float | None,
    *,
    study: str = "study",
    report: float | None = None,
    rung: Rung | None = None,
    failure: Failure | None = None,
) -> int:
    """Add a trial, report two points of its curve and bring it to its end; returns its number."""
    trial = store.add_trial(study, content)
    store.claim_trial(study, WORKER, lease_s=60, numbers=[trial.number])
    for step in (10, 20):
        metrics = {"accuracy": (accuracy or 0.1) * step / 20, "train_loss": 1.0 / step}
        store.add_point(
            study, trial.number, WORKER, CurvePoint(step=step, epoch=step / 10, metrics=metrics, wall_time_s=step)
        )
    if accuracy is None:
        found = failure or Failure(reason="divergence", message=HOSTILE, traceback="Traceback ...\n<b>boom</b>")
        store.fail_trial(study, trial.number, WORKER, found)
        return trial.number
    rows = [measurement(accuracy, seed=content.seed, rung=rung)]
    if report is not None:
        rows.append(measurement(report, split=REPORT_SPLIT, seed=content.seed))
    state = TrialState.COMPLETE if rung is None else TrialState.PRUNED
    store.complete_trial(study, trial.number, WORKER, rows, state=state)
    return trial.number


def lora(rank: int, learning_rate: float = 1e-3) -> Configuration:
    site = Site(layer=rank % N_LAYERS, part="q")
    return Configuration.make([(site, ModuleSpec.make("lora", rank))], learning_rate=learning_rate)


def params(rank: int, gate: bool = True) -> dict[str, object]:
    return {"rank": rank, "gate": gate, "profile": "flat" if rank % 2 else "increasing", "learning_rate": 0.001 * rank}


#: Cost and accuracy of the search trials of `full`: trials 2 to 7. On the front: 2, 3, 5; equal to 3 and later: 6.
SEARCHED = ((100, 0.50), (1000, 0.70), (1500, 0.65), (2000, 0.75), (1000, 0.70), (9000, 0.74))


def left_out(searched: Sequence[tuple[int, float]]) -> dict[str, object]:
    """As a search keeps it: the measured value, predicted 0.03 too low with a deviation of 0.04; one stopped early."""
    observed = [accuracy for _, accuracy in searched] + [0.5]
    columns = {"observed": 0.0, "mean": -0.03, "low": -0.07, "high": 0.01}
    return {
        "n_search": len(observed),
        "numbers": list(range(2, 2 + len(observed))),
        "objectives": {"accuracy": {key: [item + by for item in observed] for key, by in columns.items()}},
    }


def full(url: str, name: str = "study", searched: Sequence[tuple[int, float]] = SEARCHED, **changes: object) -> None:
    """A study with every kind of trial in every state, confirmed, with texts that want to be markup.

    0-1 baselines; 2-7 search trials as given, the last over the budget; then one pruned, one failed, three
    confirmations of trial 5, one running, one waiting.
    """
    with open_store(url) as store:
        store.create_study(spec(name, **changes))
        run(store, draft(head_only(), 0, kind=TrialKind.BASELINE, label="head only, lr 0.001"), 0.40, study=name)
        content = draft(mixed_configuration(2), 2500, kind=TrialKind.BASELINE, label=f"LoRA {HOSTILE}")
        run(store, content, 0.60, study=name)
        numbers = []
        for i, (cost, accuracy) in enumerate(searched):
            point = params(i + 1, gate=bool(i % 2))
            numbers.append(run(store, draft(lora(i + 1), cost, params=point), accuracy, study=name))
            predicted = {"accuracy": {"mean": accuracy - 0.02, "low": accuracy - 0.05, "high": accuracy + 0.05}}
            quality = {"accuracy": {"n": i, "rank_correlation": 0.6, "held_out_rank_correlation": 0.4}}
            note = {"source": "model", "why": "improves", "predicted": predicted, "leave_one_out": quality}
            store.set_note(name, numbers[-1], "suggestion", note)
            store.set_note(name, numbers[-1], "placement_parameters", [cost])
        run(
            store,
            draft(mixed_configuration(5), 1800, params=params(9)),
            0.3,
            study=name,
            rung=Rung(step=10, n_steps=40),
        )
        run(store, draft(lora(20), 1900, params=params(10)), None, study=name)
        parent = store.load_study(name).trials[numbers[3]]
        for seed, accuracy in ((1, 0.74), (2, 0.70), (3, 0.72)):
            repeat = replace(parent.draft, kind=TrialKind.CONFIRMATION, seed=seed, parent=parent.number, params=None)
            run(store, repeat, accuracy, study=name, report=accuracy + 0.01)
        running = store.add_trial(name, draft(lora(25), 2600, params=params(11)))
        store.claim_trial(name, WORKER, lease_s=600, numbers=[running.number])
        store.add_trial(name, draft(lora(26), 2700, params=params(12)))
        store.set_attribute(name, "command", "autopeft search --task toy --budget 5%")
        store.set_attribute(name, "leave_one_out", left_out(searched))

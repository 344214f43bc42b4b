"""Does restricting where to tune lower memorization at equal quality? MemControl (arXiv 2405.19458) asked it of images.

The task has duplicated training examples and label noise, so that there is something to memorize: docstrings of the
standard library by topic, of which a quarter stands in the training data four times, and of whose labels a fifth is
wrong. Non-members are drawn from the same docstrings, with the same noise, and never trained on.

For each of several seeds (of data, training and search) four ways to choose a configuration are compared:

- full fine-tuning and LoRA on attention in all layers, at two learning rates each;
- as many masks and learning rates as the search gets, drawn at random from the space `memcontrol`;
- the Bayesian search of that space for quality and little memorization.

All choose by one rule on the search split: of the trials whose accuracy is at most `TOLERANCE` below the best of full
fine-tuning, the one with the least memorization; without such a trial, the most accurate. What was chosen is trained
again with another seed and measured on the report split, with other members and non-members.

    python benchmarks/memorization.py --out memorization.json     # twelve minutes of one core

The database next to the output keeps every trial: an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from autopeft.backbones import Backbone, load_backbone
from autopeft.configuration import LINEAR_PARTS, BoundSpace, Configuration, ModuleSpec, Site, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import Objective, hypervolume, to_maximization
from autopeft.orchestrate import LocalExecutor, SilentProgress
from autopeft.rewards import RewardPanel, objective_of
from autopeft.rewards._memorization import Memorization
from autopeft.samplers import make_sampler
from autopeft.store import TrialStore, open_store
from autopeft.study import Fidelity, Study, StudySpec, Trial, TrialDraft, TrialKind, TrialState
from autopeft.tasks import Split, Task, load_task
from autopeft.training import TrainingSettings, TrialRunner, select_precision

FULL, ALL, RANDOM, SEARCH = "full fine-tuning", "LoRA on all layers", "random masks", "searched masks"
METHODS = (FULL, ALL, RANDOM, SEARCH)
#: Accuracy that may be lost against full fine-tuning and still counts as equal.
TOLERANCE = 0.02
FULL_RATES, LORA_RATES = (1e-4, 3e-4), (3e-3, 1e-2)
CONFIRMATION_SEEDS = (101,)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large the study is.

    Args:
        members: Distinct docstrings trained on; as many are held out.
        duplicated: Of them, those that stand in the training data `copies` times.
        copies: See above.
        noise: Share of wrong labels, among members and non-members alike.
        search: Examples of the search split.
        report: Examples of the report split.
        epochs: Passes over the training data.
        trials: Points of the space per search.
    """

    members: int = 240
    duplicated: int = 60
    copies: int = 4
    noise: float = 0.2
    search: int = 300
    report: int = 600
    epochs: int = 3
    trials: int = 10

    @property
    def train_examples(self) -> int:
        return self.members + self.duplicated * (self.copies - 1)

    @property
    def fidelity(self) -> Fidelity:
        return Fidelity(train_examples=self.train_examples, epochs=self.epochs)


def make_task(scale: Scale, seed: int) -> Task:
    """The task: first the training data with their duplicates in random order, then the non-members."""
    topics = load_task("stdlib/topics", seed=seed)
    rng = np.random.default_rng([seed, 7])
    n = scale.members
    train = topics.train.head(2 * n)
    targets = np.array(train.targets)
    wrong = rng.random(2 * n) < scale.noise
    targets[wrong] = (targets[wrong] + rng.integers(1, topics.n_labels, wrong.sum())) % topics.n_labels
    order = rng.permutation(2 * n)
    members, others = order[:n], order[n:]
    rows = np.concatenate([members, *[members[: scale.duplicated]] * (scale.copies - 1)])
    rows = np.concatenate([rng.permutation(rows), others])
    made = Split(texts=tuple(train.texts[row] for row in rows), pairs=None, targets=targets[rows])
    search, report = topics.search.head(scale.search), topics.report.head(scale.report)
    return replace(topics, name=f"duplicated docstrings {seed}", train=made, search=search, report=report)


def reward_of(scale: Scale) -> Memorization:
    """Holds out exactly the non-members."""
    n_train = scale.train_examples + scale.members
    return Memorization(share=(scale.members + 0.5) / n_train)


def everywhere(backbone: Backbone, parts: Iterable[str], module: ModuleSpec, rate: float) -> Configuration:
    """A module at the same parts of every layer."""
    pairs = [
        (Site(layer=layer, part=part), module)
        for layer, shape in enumerate(backbone.shapes.layers)
        for part in parts
        if part in shape.linears or part == "norm"
    ]
    if module.type == "full":
        pairs.append((Site(layer=None, part="embedding"), module))
    return Configuration.make(pairs, learning_rate=rate)


class Experiment:
    """One seed: its data, its trials, its choices.

    Args:
        backbone: Frozen MiniLM with a head for the topics.
        store: Where the trials are.
        scale: How large it is.
        seed: Of data, training and search.
    """

    def __init__(self, backbone: Backbone, store: TrialStore, scale: Scale, seed: int) -> None:
        self._scale = scale
        self._store = store
        self._seed = seed
        self._space = BoundSpace(
            space=load_search_space("memcontrol", MODULES), shapes=backbone.shapes, module_types=MODULES, budget=None
        )
        self._backbone = backbone
        self.task = make_task(scale, seed)
        reward = reward_of(scale)
        if reward.reserve(len(self.task.train)) != scale.members:
            raise ValueError("the reward must hold out the non-members and nothing else.")
        self.objectives = (
            Objective(name="accuracy", direction=self.task.metrics["accuracy"]),
            objective_of(reward, self.task),
        )
        runner = TrialRunner(backbone, self.task, TrainingSettings(max_tokens=32), rewards=RewardPanel([reward]))
        self._executor = LocalExecutor(store, runner, SilentProgress())

    def run(self) -> dict[str, Any]:
        """All trials, the choices, and what they give on the report split."""
        fixed = self._study("fixed", "random")
        for label, configurations in self._fixed().items():
            for item in configurations:
                self._add(fixed, self._draft(item, TrialKind.BASELINE, label=f"{label}, lr {item.learning_rate:g}"))
        self._drain(fixed)
        studies = {RANDOM: self._search("random"), SEARCH: self._search("bayesian")}
        offered = {name: self._measured(study) for name, study in studies.items()}
        for label in (FULL, ALL):
            offered[label] = [item for item in self._measured(fixed) if str(item.draft.label).startswith(label)]
        floor = max(_value(item, "accuracy") for item in offered[FULL]) - TOLERANCE
        chosen = {name: choose(items, floor) for name, items in offered.items()}
        found = {name: self._confirm(fixed, trial) for name, trial in chosen.items()}
        reference = [0.0, -1.0]
        for name in METHODS:
            values = [[_value(item, objective.name) for objective in self.objectives] for item in offered[name]]
            found[name]["hypervolume"] = hypervolume(to_maximization(values, self.objectives), reference)
            found[name]["configuration"] = chosen[name].configuration.describe()
            found[name]["parameters"] = chosen[name].draft.trainable_parameters
            found[name]["is_equal"] = _value(chosen[name], "accuracy") >= floor
            found[name]["search_accuracy"] = _value(chosen[name], "accuracy")
            found[name]["search_memorization"] = _value(chosen[name], "memorization")
        return found

    def _fixed(self) -> dict[str, list[Configuration]]:
        full, lora = ModuleSpec.make("full"), ModuleSpec.make("lora", 8)
        return {
            FULL: [everywhere(self._backbone, (*LINEAR_PARTS, "norm"), full, rate) for rate in FULL_RATES],
            ALL: [everywhere(self._backbone, ("q", "k", "v", "o"), lora, rate) for rate in LORA_RATES],
        }

    def _search(self, sampler_name: str) -> str:
        name = self._study(sampler_name, sampler_name)
        sampler = make_sampler(
            sampler_name, space=self._space, objectives=self.objectives, seed=self._seed, fidelity=self._scale.fidelity
        )
        self._drain(name)
        while len(self._store.load_study(name).trials) < self._scale.trials:
            suggestions = sampler.ask(self._store.load_study(name).trials, 1)
            if not suggestions:
                break
            params = suggestions[0].params
            self._add(name, self._draft(self._space.compile(params), TrialKind.SEARCH, params=params))
            self._drain(name)
        return name

    def _confirm(self, study: str, trial: Trial) -> dict[str, Any]:
        """Means over fresh training seeds, on the report split."""
        runs = []
        for seed in CONFIRMATION_SEEDS:
            draft = replace(self._draft(trial.configuration, TrialKind.CONFIRMATION), seed=seed + self._seed)
            self._add(study, draft)
            self._drain(study)
            known = self._store.load_study(study).trials
            runs.append(next(item for item in known if item.draft.identity == draft.identity))
        names = ("accuracy", "memorization", "memorization.tpr_at_1_percent_fpr", "memorization.tpr_at_10_percent_fpr")
        return {name: float(np.mean([_value(run, name, "report") for run in runs])) for name in names}

    def _study(self, kind: str, sampler: str) -> str:
        spec = StudySpec(
            name=f"{kind}-{self._seed}",
            task={"name": self.task.name, "content_hash": self.task.content_hash},
            backbone={"name": "minilm", "parameters": self._backbone.shapes.parameters},
            space=self._space.space.to_dict(),
            budget=self._backbone.shapes.parameters,
            budget_text="100%",
            sampler=sampler,
            objectives=self.objectives,
            fidelity=self._scale.fidelity,
            training=TrainingSettings(max_tokens=32).to_dict(),
            seed=self._seed,
        )
        return self._store.ensure_study(spec).spec.name

    def _draft(
        self, configuration: Configuration, kind: TrialKind, *, label: str | None = None, params: Any = None
    ) -> TrialDraft:
        return TrialDraft(
            kind=kind,
            configuration=configuration,
            trainable_parameters=self._space.parameter_count(configuration),
            fidelity=self._scale.fidelity,
            seed=self._seed,
            params=params,
            label=label,
        )

    def _add(self, study: str, draft: TrialDraft) -> None:
        if draft.identity not in {item.draft.identity for item in self._store.load_study(study).trials}:
            self._store.add_trial(study, draft)

    def _drain(self, study: str) -> None:
        self._store.release_expired(study, max_attempts=99, dead_workers=_others(self._store.load_study(study)))
        while self._executor.advance(study, list(TrialKind)):
            pass

    def _measured(self, study: str) -> list[Trial]:
        kinds = (TrialKind.SEARCH, TrialKind.BASELINE)
        return list(self._store.load_study(study).of_kind(*kinds, state=TrialState.COMPLETE))


def _others(study: Study) -> set[str]:
    """Workers of interrupted runs: this benchmark is run by one process at a time."""
    return {item.worker for item in study.trials if item.state is TrialState.RUNNING and item.worker}


def _value(trial: Trial, name: str, split: str = "search") -> float:
    found = trial.value(name, split)
    if found is None:
        raise ValueError(f"trial {trial.number} ({trial.state}) has no {name} on the {split} split: {trial.failure}")
    return found


def choose(trials: Sequence[Trial], floor: float) -> Trial:
    """The least memorization among trials of at least this accuracy; without one, the highest accuracy."""
    able = [item for item in trials if _value(item, "accuracy") >= floor]
    if able:
        return min(able, key=lambda item: (_value(item, "memorization"), item.number))
    return max(trials, key=lambda item: (_value(item, "accuracy"), -item.number))


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over seeds and its 95 % interval by Student's t."""
    mean = float(np.mean(values))
    half = float(stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return mean, mean - half, mean + half


def shown(values: Sequence[float]) -> str:
    """``mean [low, high]``."""
    return "{:.3f} [{:.3f}, {:.3f}]".format(*interval(values))


def tables(found: Sequence[Mapping[str, Any]]) -> str:
    """The results over seeds as Markdown."""
    lines = [
        "| chosen by | parameters | accuracy | memorization | TPR at 1 % FPR | hypervolume (search split) |",
        "|---|---|---|---|---|---|",
    ]
    for name in METHODS:
        rows = [item[name] for item in found]
        count = sorted(f"{row['parameters']:,}" for row in rows)
        cells = [shown([row[key] for row in rows]) for key in ("accuracy", "memorization")]
        cells.append(shown([row["memorization.tpr_at_1_percent_fpr"] for row in rows]))
        cells.append(shown([row["hypervolume"] for row in rows]))
        lines.append(f"| {name} | {' / '.join(dict.fromkeys(count))} | {' | '.join(cells)} |")
    lines += ["", "| difference, paired by seed | accuracy | memorization |", "|---|---|---|"]
    for name, other in ((SEARCH, FULL), (SEARCH, ALL), (SEARCH, RANDOM), (RANDOM, FULL)):
        cells = [shown([item[name][key] - item[other][key] for item in found]) for key in ("accuracy", "memorization")]
        lines.append(f"| {name} minus {other} | {' | '.join(cells)} |")
    return "\n".join(lines)


def effects(store: TrialStore, n_seeds: int) -> str:
    """How memorization changes with accuracy and with the number of tuned layers, among all masks of all seeds.

    Ordinary least squares with an intercept per seed, of memorization on accuracy (in points) and tuned layers. If
    restricting where to tune helped at equal quality, fewer layers would mean less memorization at the same accuracy: a
    positive slope.
    """
    rows, values = [], []
    for seed in range(n_seeds):
        for kind in ("random", "bayesian"):
            study = store.load_study(f"{kind}-{seed}")
            for trial in study.of_kind(TrialKind.SEARCH, state=TrialState.COMPLETE):
                layers = {item.site.layer for item in trial.configuration.placements}
                intercepts = [float(seed == other) for other in range(n_seeds)]
                rows.append([100 * _value(trial, "accuracy"), len(layers), *intercepts])
                values.append(_value(trial, "memorization"))
    x, y = np.array(rows), np.array(values)
    slopes, *_ = np.linalg.lstsq(x, y, rcond=None)
    degrees = len(y) - x.shape[1]
    variance = float(((y - x @ slopes) ** 2).sum()) / degrees
    errors = np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x)))
    half = float(stats.t.ppf(0.975, degrees)) * errors
    words = [
        f"{name} {slope:+.3f} [{slope - width:+.3f}, {slope + width:+.3f}]"
        for name, slope, width in zip(("per point of accuracy", "per tuned layer"), slopes[:2], half[:2], strict=True)
    ]
    return f"Memorization among {len(y)} masks, least squares with an intercept per seed: {'; '.join(words)}"


def main() -> None:
    """Run the study and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("memorization.json"), help="Results; the database is beside it."
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=Scale.trials, help="Points of the space per search.")
    arguments = parser.parse_args()
    scale = Scale(trials=arguments.trials)
    n_labels = load_task("stdlib/topics").n_labels
    backbone = load_backbone("minilm", n_labels=n_labels, dtype=select_precision("auto", "cpu"))
    found = []
    with open_store(f"sqlite:///{arguments.out.with_suffix('.db').resolve()}") as store:
        for seed in range(arguments.seeds):
            start = time.process_time()
            found.append(Experiment(backbone, store, scale, seed).run())
            print(f"seed {seed}: {time.process_time() - start:.0f} s of processor time", flush=True)
            for name in METHODS:
                print(f"  {name}: {json.dumps(found[-1][name])}", flush=True)
        regression = effects(store, arguments.seeds)
    facts = {"threads": torch.get_num_threads(), "precision": str(backbone.dtype), "scale": vars_of(scale)}
    arguments.out.write_text(json.dumps({"facts": facts, "seeds": found}, indent=1) + "\n")
    if len(found) > 1:
        print(tables(found), regression, sep="\n\n")


def vars_of(scale: Scale) -> dict[str, Any]:
    """The fields of a scale."""
    return {name: getattr(scale, name) for name in Scale.__dataclass_fields__}


if __name__ == "__main__":
    main()

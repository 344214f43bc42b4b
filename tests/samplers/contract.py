"""What every sampler must do; `test_contract.py` runs it over all of them."""

from __future__ import annotations

import itertools
import json
import random

import numpy as np
import pytest
import torch

from autopeft.configuration import BoundSpace
from autopeft.exceptions import InfeasibleError
from autopeft.objectives import Objective
from autopeft.samplers import Sampler, Source, Suggestion, make_sampler
from autopeft.study import Fidelity, Trial, TrialKind, TrialState
from tests.samplers.problem import (
    ACCURACY,
    FIDELITY,
    PARAMETERS,
    Problem,
    default_space,
    make_trial,
    options_space,
    run,
    small_space,
    tiny_space,
)

SMALL = small_space()
TINY = tiny_space()


def everything(space: BoundSpace) -> set[str]:
    """Fingerprints of every feasible configuration of a discrete space, by brute force over all value tuples."""
    found = set()
    for values in itertools.product(*(item.values for item in space.parameters)):
        try:
            full = dict(zip((item.name for item in space.parameters), values, strict=True))
            active = {name: full[name] for name in space.active(full)}
            found.add(space.compile(active).fingerprint)
        except InfeasibleError:
            continue
    return found


def fingerprints(space: BoundSpace, proposals: list[Suggestion]) -> list[str]:
    return [space.compile(item.params).fingerprint for item in proposals]


def past(problem: Problem, n: int) -> list[Trial]:
    """Trials of uniformly drawn points: any sampler must be able to go on from there."""
    anyone = make_sampler("random", space=problem.space, objectives=(ACCURACY, PARAMETERS), seed=0, fidelity=FIDELITY)
    return run(anyone, problem, n, batch=n)


class SamplerContract:
    """Parametrize with ``name``."""

    name: str

    def make(
        self,
        space: BoundSpace,
        *,
        objectives: tuple[Objective, ...] = (ACCURACY, PARAMETERS),
        seed: int = 0,
        fidelity: Fidelity = FIDELITY,
    ) -> Sampler:
        return make_sampler(self.name, space=space, objectives=objectives, seed=seed, fidelity=fidelity)

    @pytest.fixture(autouse=True)
    def _take_name(self, name: str) -> None:
        self.name = name

    def test_a_fresh_sampler_continues_a_study_as_the_old_one_would(self) -> None:
        trials = run(self.make(SMALL), Problem(SMALL, seed=0), 16)
        for n_done in (0, 1, 5, 10, 11, 15):
            proposal = self.make(SMALL).ask(trials[:n_done], 1)
            assert [item.params for item in proposal] == [trials[n_done].draft.params]

    def test_the_order_in_which_trials_are_given_does_not_matter(self) -> None:
        trials = past(Problem(SMALL, seed=1), 14)
        shuffled = random.Random(0).sample(trials, len(trials))
        assert self.make(SMALL).ask(shuffled, 2) == self.make(SMALL).ask(trials, 2)

    def test_confirmations_are_ignored(self) -> None:
        problem = Problem(SMALL, seed=2)
        trials = past(problem, 14)
        rng = np.random.default_rng(0)
        others = [SMALL.compile(SMALL.sample(rng)) for _ in range(5)]
        confirmations = [
            make_trial(14 + i, item, SMALL, values=(0.9, 1.0), kind=TrialKind.CONFIRMATION)
            for i, item in enumerate([*others, trials[0].configuration])
        ]
        assert self.make(SMALL).ask([*trials, *confirmations], 2) == self.make(SMALL).ask(trials, 2)

    def test_asking_for_more_does_not_change_the_first(self) -> None:
        trials = past(Problem(SMALL, seed=3), 12)
        assert self.make(SMALL).ask(trials, 4)[:1] == self.make(SMALL).ask(trials, 1)

    def test_every_suggestion_says_where_it_comes_from_in_words_that_can_be_stored(self) -> None:
        for trials in ([], past(Problem(SMALL, seed=3), 12)):
            for item in self.make(SMALL).ask(trials, 3):
                assert item.notes["source"] in {source.value for source in Source}
                assert json.loads(json.dumps(item.notes, allow_nan=False)) == item.notes

    def test_global_generators_neither_matter_nor_move(self) -> None:
        trials = past(Problem(SMALL, seed=4), 12)
        answers = []
        for seed in (1, 2):
            random.seed(seed)
            np.random.seed(seed)  # noqa: NPY002 - the global generator is what is tested
            torch.manual_seed(seed)
            before = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
            answers.append(self.make(SMALL).ask(trials, 2))
            after = (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())  # noqa: NPY002
            assert before == after
        assert answers[0] == answers[1]

    def test_the_seed_of_the_study_matters(self) -> None:
        assert self.make(SMALL, seed=0).ask([], 6) != self.make(SMALL, seed=1).ask([], 6)

    def test_sixty_trials_without_a_repeat_all_within_the_budget(self) -> None:
        trials = run(self.make(SMALL), Problem(SMALL, seed=5), 60, batch=12)
        assert len(trials) == 60
        assert len({item.configuration.fingerprint for item in trials}) == 60
        assert max(item.draft.trainable_parameters for item in trials) <= SMALL.budget
        for item in trials:
            assert SMALL.canonical(item.draft.params) == item.draft.params

    def test_a_discrete_space_is_exhausted_exactly(self) -> None:
        reachable = everything(TINY)
        assert len(reachable) == 25  # of 9 modules on one or both of two layers, two exceed the budget
        trials = run(self.make(TINY), Problem(TINY, seed=0), 1000, batch=4)
        assert len(trials) == len(reachable)
        assert {item.configuration.fingerprint for item in trials} == reachable
        assert self.make(TINY).ask(trials, 3) == []

    def test_what_is_left_of_a_space_is_returned_even_if_more_is_asked_for(self) -> None:
        reachable = everything(TINY)
        trials = run(self.make(TINY), Problem(TINY, seed=1), len(reachable) - 2, batch=6)
        left = fingerprints(TINY, self.make(TINY).ask(trials, 5))
        assert set(left) == reachable - {item.configuration.fingerprint for item in trials}
        assert len(left) == 2

    @pytest.mark.parametrize("state", [TrialState.WAITING, TrialState.RUNNING, TrialState.FAILED, TrialState.PRUNED])
    @pytest.mark.parametrize("kind", [TrialKind.SEARCH, TrialKind.BASELINE])
    def test_configurations_in_any_state_are_taken(self, state: TrialState, kind: TrialKind) -> None:
        trials = self.taken(TINY, 12, state=state, kind=kind)
        proposed = fingerprints(TINY, self.make(TINY).ask(trials, 8))
        assert len(set(proposed)) == 8
        assert not set(proposed) & {item.configuration.fingerprint for item in trials}

    @pytest.mark.parametrize(
        "changes", [{"seed": 1}, {"fidelity": Fidelity(train_examples=100, epochs=2)}, {"kind": TrialKind.CONFIRMATION}]
    )
    def test_other_seeds_fidelities_and_confirmations_take_nothing(self, changes: dict) -> None:
        trials = self.taken(TINY, 14, **changes)
        n = len(everything(TINY))
        assert set(fingerprints(TINY, self.make(TINY).ask(trials, n))) == everything(TINY)

    @pytest.mark.parametrize("reason", ["divergence", "out_of_memory", "lost_worker", "error"])
    def test_failures_among_successes_do_not_stop_it(self, reason: str) -> None:
        problem = Problem(SMALL, seed=6)
        trials = past(problem, 12)
        for i in (2, 5, 11):
            trials[i] = make_trial(
                i,
                trials[i].configuration,
                SMALL,
                params=trials[i].draft.params,
                state=TrialState.FAILED,
                failure=reason,
            )
        proposed = fingerprints(SMALL, self.make(SMALL).ask(trials, 2))
        assert len(set(proposed)) == 2
        assert not set(proposed) & {item.configuration.fingerprint for item in trials}

    def test_nothing_but_failures_does_not_stop_it(self) -> None:
        trials = self.taken(SMALL, 15, state=TrialState.FAILED)
        assert len(set(fingerprints(SMALL, self.make(SMALL).ask(trials, 3)))) == 3

    def test_a_batch_of_four_is_four_configurations(self) -> None:
        for trials in ([], past(Problem(SMALL, seed=7), 13)):
            assert len(set(fingerprints(SMALL, self.make(SMALL).ask(trials, 4)))) == 4

    def test_unfinished_trials_are_not_proposed_again(self) -> None:
        trials = past(Problem(SMALL, seed=8), 13)
        seen = set()
        for i in range(4):
            params = self.make(SMALL).ask(trials, 1)[0].params
            configuration = SMALL.compile(params)
            state = TrialState.RUNNING if i % 2 else TrialState.WAITING
            trials.append(make_trial(len(trials), configuration, SMALL, params=params, state=state))
            seen.add(configuration.fingerprint)
        assert len(seen) == 4

    @pytest.mark.parametrize("objectives", [(ACCURACY,), (PARAMETERS,), (PARAMETERS, ACCURACY)])
    def test_one_objective_or_another_order_will_do(self, objectives: tuple[Objective, ...]) -> None:
        trials = run(self.make(SMALL, objectives=objectives), Problem(SMALL, seed=9), 14, batch=7)
        assert len({item.configuration.fingerprint for item in trials}) == 14

    def test_the_default_space_with_baselines_around_it(self) -> None:
        """Baselines have no params; one exceeds the budget, one tunes nothing, one is a point of the space."""
        space = default_space()
        problem = Problem(space, seed=0)
        trials = self.baselines(space, problem)
        proposed = fingerprints(space, self.make(space).ask(trials, 2))
        assert len(set(proposed)) == 2
        assert not set(proposed) & {item.configuration.fingerprint for item in trials}

    def test_a_space_of_options_and_dynamics(self) -> None:
        """Points of every kind are proposed once, feasible, and in their canonical form; a restart goes on the same."""
        space = options_space()
        trials = run(self.make(space), Problem(space, seed=0), 20, batch=4)
        assert len({item.configuration.fingerprint for item in trials}) == 20
        for item in trials:
            assert space.canonical(item.draft.params) == item.draft.params
            assert space.parameter_count(item.configuration) <= space.budget
        assert {item.draft.params["moving"] for item in trials} == {"static", "lisa", "hft"}
        again = self.make(space).ask(trials[:16], 4)
        assert [item.params for item in again] == [item.draft.params for item in trials[16:]]

    def baselines(self, space: BoundSpace, problem: Problem) -> list[Trial]:
        from autopeft.configuration import Configuration, ModuleSpec, Site

        def lora(rank: int, parts: tuple[str, ...]) -> Configuration:
            spec = ModuleSpec.make("lora", rank)
            pairs = [(Site(layer=layer, part=part), spec) for layer in range(6) for part in parts]
            return Configuration.make(pairs, learning_rate=5e-3)

        configurations = [
            Configuration.make([], learning_rate=1e-3),
            lora(8, ("q", "v")),
            lora(4, ("q", "k", "v", "o", "up", "down")),
            lora(64, ("q", "k", "v", "o", "up", "down")),
        ]
        return [
            make_trial(i, item, space, values=(0.55 + 0.02 * i, 10.0), kind=TrialKind.BASELINE)
            for i, item in enumerate(configurations)
        ]

    def taken(self, space: BoundSpace, n: int, **changes) -> list[Trial]:
        """Trials of n different random points."""
        rng = np.random.default_rng(17)
        trials: dict[str, Trial] = {}
        values = (
            (0.6, 10.0)
            if changes.get("state", TrialState.COMPLETE) in (TrialState.COMPLETE, TrialState.PRUNED)
            else None
        )
        while len(trials) < n:
            params = space.sample(rng)
            configuration = space.compile(params)
            is_baseline = changes.get("kind") is TrialKind.BASELINE
            trials.setdefault(
                configuration.fingerprint,
                make_trial(
                    len(trials), configuration, space, params=None if is_baseline else params, values=values, **changes
                ),
            )
        return list(trials.values())

import pytest

from autopeft.configuration import BoundSpace, load_search_space
from autopeft.exceptions import UnknownNameError, UsageError
from autopeft.modules import MODULES
from autopeft.objectives import Constraint
from autopeft.orchestrate import LocalExecutor, SearchLoop, SilentProgress
from autopeft.orchestrate._constraints import resolve_constraints
from autopeft.store import MemoryStore
from autopeft.study import TrialKind, keeps_constraints, search_front
from tests.configuration.examples import bert_shapes
from tests.orchestrate.toys import ToyRunner, ToyTask, prepared_search


class Task(ToyTask):
    primary_metric = "accuracy"


SPACE = BoundSpace(
    space=load_search_space("default", MODULES), shapes=bert_shapes(), module_types=MODULES, budget=227_132
)


def resolve(*texts: str, rewards: tuple[str, ...] = ()) -> tuple[Constraint, ...]:
    return resolve_constraints(texts, Task(), SPACE, rewards)  # type: ignore[arg-type]


def test_metrics_costs_rewards_and_the_export_class_can_be_bounded() -> None:
    found = resolve(
        "quality>=0.6", "wall_time_s<=30", "memorization<=0.1", "export_class=lora", rewards=("memorization",)
    )
    assert [str(item) for item in found] == [
        "accuracy>=0.6",
        "export_class=lora",
        "memorization<=0.1",
        "wall_time_s<=30",
    ]


def test_what_is_not_measured_cannot_be_bounded() -> None:
    with pytest.raises(UnknownNameError, match="unknown constraint 'memorization'"):
        resolve("memorization<=0.1")


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("wall_time_s<=3", "wall_time_s>=4"), "wall_time_s<=3 and wall_time_s>=4 contradict each other"),
        (("quality>=0.9", "accuracy<=0.8"), "accuracy>=0.9 and accuracy<=0.8 contradict each other"),
        (("trainable_parameters<=10",), "the smallest configuration of search space default has 768 parameters"),
        (("trainable_parameters>=1M",), "the budget of 227,132 parameters contradict each other"),
        (("stored_bytes<=1",), r"no configuration .* was found that keeps stored_bytes<=1: loosen it"),
        (
            ("stored_bytes<=4k", "wall_time_s<=9", "trainable_parameters>=100k"),
            "keeps stored_bytes<=4000 and trainable_parameters>=100000: they contradict each other",
        ),
        (("accuracy>=1.5",), "nothing keeps accuracy>=1.5: accuracy lies between 0 and 1"),
        (("accuracy<=-0.1",), "accuracy lies between 0 and 1"),
        (("wall_time_s<=-1",), "wall_time_s is never negative"),
        (("export_class=nothing",), "no module family of search space default keeps export_class=nothing"),
    ],
)
def test_what_nothing_can_keep_is_refused_with_both_sides(texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolve(*texts)


@pytest.mark.parametrize("sampler", ["random", "tpe", "bayesian"])
def test_a_search_keeps_constraints_on_known_costs_and_on_the_export_class(sampler: str) -> None:
    from dataclasses import replace

    constraints = resolve("trainable_parameters<=50k", "export_class=lora,merge")
    prepared = prepared_search(sampler=sampler, trials=10, confirm_top=0)
    prepared = replace(prepared, spec=replace(prepared.spec, constraints=constraints))
    store, progress = MemoryStore(), SilentProgress()
    store.ensure_study(prepared.spec)
    executor = LocalExecutor(store, ToyRunner(), progress, cohort=1)  # type: ignore[arg-type]
    study = SearchLoop(prepared, store, executor, progress).run().study
    searched = study.of_kind(TrialKind.SEARCH)
    assert len(searched) == 10
    for item in searched:
        assert item.draft.trainable_parameters <= 50_000
        assert {MODULES[name].export_class for name in item.configuration.module_types} <= {"lora", "merge"}
        assert keeps_constraints(study, item)
    assert len(search_front(study).trials) >= 1

"""Oracle: sizes of configurations written out by hand."""

from __future__ import annotations

import pytest

from autopeft.configuration import BoundSpace, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import Constraint
from autopeft.samplers import contradiction
from tests.configuration.examples import bert_shapes


def bind(name: str) -> BoundSpace:
    return BoundSpace(
        space=load_search_space(name, MODULES), shapes=bert_shapes(), module_types=MODULES, budget=227_132
    )


DEFAULT = bind("default")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([], []),
        (["accuracy>=2", "wall_time_s<=0"], []),  # only trials can tell
        (["export_class=lora,merge", "trainable_parameters<=50k"], []),
        # LoRA of rank 1 on q and v of one layer has 1,536 parameters, and merges, so that it costs no operation.
        (["export_class=lora", "trainable_parameters<=1536"], []),
        (["export_class=lora", "trainable_parameters<=1535"], ["export_class=lora", "trainable_parameters<=1535"]),
        (["export_class=lora", "inference_flops_per_token>=1"], ["export_class=lora", "inference_flops_per_token>=1"]),
        (["export_class=lora", "stored_bytes<=1", "accuracy>=0.5"], ["stored_bytes<=1"]),
        # Four bytes a parameter.
        (
            ["export_class=lora", "stored_bytes<=80k", "trainable_parameters>=30k"],
            ["stored_bytes<=80000", "trainable_parameters>=30000"],
        ),
    ],
)
def test_the_fewest_constraints_that_nothing_keeps(texts: list[str], expected: list[str]) -> None:
    found = contradiction(DEFAULT, [Constraint.parse(item) for item in texts])
    assert [str(item) for item in found] == expected


def test_scores_that_are_not_known_yet_do_not_matter() -> None:
    space = bind("spt")
    least = space.parameter_count(space.smallest())
    assert contradiction(space, [Constraint(name="trainable_parameters", upper=float(least + 50_000))]) == ()
    assert contradiction(space, [Constraint(name="trainable_parameters", upper=float(least - 1))])

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autopeft.backbones import describe_backbone
from autopeft.configuration import BoundSpace, load_search_space
from autopeft.modules import MODULES
from autopeft.objectives import hypervolume
from benchmarks.replay.world import make_world, read_world
from tests.benchmarks.tables import ABOUT, SPACE, records, world
from tests.samplers.problem import FIDELITY

WORLD = world(30)


def test_truth_is_the_mean_over_seeds() -> None:
    found = records(30)
    for i, row in enumerate(WORLD.rows):
        values = [item["accuracy"][-1] for item in found if item["fingerprint"] == row.point.fingerprint]
        assert WORLD.truth[i] == pytest.approx(np.mean(values))


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_the_running_hypervolume_is_that_of_the_library(margin: float) -> None:
    """Oracle: `autopeft.objectives.hypervolume`, from scratch for every prefix of random orders."""
    here = replace(WORLD, margin=margin)
    values = np.column_stack([here.truth, -here.log_costs])
    reference = (here.worst, -here.log_budget - margin)
    whole = hypervolume(values, reference)
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(30).tolist()
        wanted = [hypervolume(values[order[: k + 1]], reference) / whole for k in range(30)]
        assert here.hypervolumes(order) == pytest.approx(wanted)
        assert here.hypervolumes(order)[-1] == pytest.approx(1.0)


def test_what_was_stopped_does_not_count() -> None:
    order = list(range(30))
    rest = [row for i, row in enumerate(order) if i not in (3, 7, 29)]
    curve = WORLD.hypervolumes(order, (3, 7, 29))
    assert curve[-1] == pytest.approx(WORLD.hypervolumes(rest)[-1])
    assert curve[3] == curve[2]
    assert WORLD.chosen_quality(order, 0, (3, 7, 29))[-1] == WORLD.chosen_quality(rest, 0)[-1]


def test_costs_count_no_lower_than_the_floor() -> None:
    counts = np.array([row.point.trainable_parameters for row in WORLD.rows])
    low = WORLD.log_budget - WORLD.decades
    assert WORLD.log_costs == pytest.approx(np.maximum(np.log10(1 + counts), low))
    assert (replace(WORLD, decades=0.5).log_costs == WORLD.log_budget - 0.5).any()


def test_what_looked_best_is_judged_by_its_truth() -> None:
    order = list(range(30))
    chosen = WORLD.chosen_quality(order, 1)
    for k in range(1, 31):
        seen = [WORLD.rows[row].runs[1].value for row in order[:k]]
        assert chosen[k - 1] == WORLD.truth[int(np.argmax(seen))]


def test_failures_have_no_truth_and_no_volume() -> None:
    found = records(10)
    spoiled = found[0]["fingerprint"]
    found[0] |= {"failure": "divergence", "accuracy": [0.5, None, None], "wall_time_s": None}
    here = make_world("made", found, ABOUT, SPACE, FIDELITY)
    row = here.index[spoiled]
    assert math.isnan(here.truth[row])
    assert here.rows[row].runs[0].value is None
    assert here.rows[row].runs[0].failure == "divergence"
    assert here.rows[row].runs[0].wall_time_s == found[0]["curve_time_s"][-1]
    assert here.hypervolumes([row]) == pytest.approx([0.0])
    assert math.isfinite(here.worst)


def test_configurations_without_all_seeds_are_left_out() -> None:
    assert len(make_world("made", records(10)[:-1], ABOUT, SPACE, FIDELITY)) == 9
    with pytest.raises(ValueError, match="no configuration that was run with every seed"):
        make_world("made", records(1)[:1], ABOUT, SPACE, FIDELITY)


def test_params_that_compile_to_something_else_are_refused() -> None:
    found = records(3)
    for item in found[:2]:
        item["fingerprint"] = "0" * 16
    with pytest.raises(ValueError, match="no longer compile to configuration 0000"):
        make_world("made", found, ABOUT, SPACE, FIDELITY)


def test_the_nearest_row_is_the_one_at_least_distance() -> None:
    """Oracle: brute force over codes; a row that is in the table is nearest to itself."""
    left = list(range(0, 30, 2))
    for params in [json.loads(item["params"]) for item in records(12, seed=5)]:
        code = WORLD.encode([WORLD._points.make(params)])[0]
        distances = [np.linalg.norm(WORLD.codes[row] - code) for row in left]
        assert WORLD.nearest(params, left) == left[int(np.argmin(distances))]
    for row in left:
        assert WORLD.nearest(WORLD.rows[row].point.params, left) == row
    assert WORLD.nearest({"lora": False, "adapter": False, "rate": 0.001, **_bits()}, left) is None


def _bits() -> dict[str, bool]:
    return {f"layer_{i}": False for i in range(3)}


def test_the_digest_changes_with_any_value() -> None:
    assert world(5).digest == world(5).digest
    found = records(5)
    found[3]["accuracy"][0] += 1e-6
    assert make_world("made", found, ABOUT, SPACE, FIDELITY).digest != world(5).digest


def test_a_restricted_table_has_its_own_front() -> None:
    few = WORLD.restricted(lambda row: "lora" in row.point.configuration.module_types)
    assert 0 < len(few) < len(WORLD)
    assert few.hypervolumes(range(len(few)))[-1] == pytest.approx(1.0)


def test_a_table_file_is_read_back(tmp_path: Path) -> None:
    """In the form that `benchmarks/table.py` writes, on the embedded backbone."""
    search_space = load_search_space("default", MODULES)
    shapes = describe_backbone("minilm").shapes
    space = BoundSpace(space=search_space, shapes=shapes, module_types=MODULES, budget=400_000)
    rng = np.random.default_rng(0)
    template = records(1)[0]
    rows = []
    for _ in range(3):
        params = space.sample(rng)
        configuration = space.compile(params)
        for seed in (0, 1):
            rows.append(
                template
                | {"fingerprint": configuration.fingerprint, "params": json.dumps(dict(params)), "seed": seed}
                | {"configuration": configuration.describe()}
            )
    about = {
        **ABOUT,
        "budget": space.budget,
        "backbone": "minilm",
        "world": {"train_examples": 100, "epochs": 1},
        "space": search_space.to_dict(),
    }
    path = tmp_path / "some.parquet"
    pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata({"autopeft": json.dumps(about)}), path)
    found = read_world(path)
    assert found.name == "some"
    assert len(found) == 3
    assert found.space.budget == space.budget
    assert {row.point.fingerprint for row in found.rows} == {item["fingerprint"] for item in rows}

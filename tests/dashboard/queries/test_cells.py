from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.configuration import PARTS, Configuration, ModuleSpec, Site
from dashboard.queries import EMBEDDING, average_cells, cells_frame, compared_cells, difference_table
from tests.export.studies import head_only, mixed_configuration

_sites = st.one_of(
    st.builds(Site, part=st.sampled_from([part for part in PARTS if part != "embedding"]), layer=st.integers(0, 7)),
    st.just(Site(part="embedding", layer=None)),
)
_modules = st.builds(
    ModuleSpec.make, st.sampled_from(["lora", "ia3", "serial_adapter"]), st.one_of(st.none(), st.integers(1, 64))
)
configurations = st.builds(
    lambda pairs: Configuration.make([(site, module) for (site, _), module in pairs.items()], learning_rate=1e-3),
    st.dictionaries(st.tuples(_sites, st.just(0)), _modules, max_size=12),
)


def cell(frame: pd.DataFrame, part: str, layer: str) -> dict[str, object]:
    found = frame[(frame["part"] == part) & (frame["layer"] == layer)]
    assert len(found) == 1
    return found.iloc[0].to_dict()


def test_a_cell_says_module_size_and_parameters() -> None:
    configuration = mixed_configuration(rank=4, first=2)
    counts = list(range(100, 100 + len(configuration.placements)))
    frame = cells_frame(configuration, 6, counts)
    assert frame["part"].unique().tolist() == ["q", "k", "v", "ffn"], "the canonical order of parts"
    assert frame["layer"].unique().tolist() == ["0", "1", "2", "3", "4", "5"]
    found = cell(frame, "q", "3")
    index = next(i for i, p in enumerate(configuration.placements) if (p.site.part, p.site.layer) == ("q", 3))
    assert (found["label"], found["size"], found["parameters"]) == ("lora 7", 7, counts[index])
    assert cell(frame, "k", "1")["label"] == "ia3"
    assert pd.isna(cell(frame, "k", "1")["size"])
    assert cell(frame, "q", "0")["n_modules"] == 0
    assert frame["parameters"].sum() == sum(counts)


def test_unknown_counts_are_missing_not_zero() -> None:
    for counts in (None, [1, 2]):
        assert cells_frame(mixed_configuration(), 6, counts)["parameters"].isna().all()


def test_two_modules_at_one_place_share_its_cell() -> None:
    site = Site(layer=0, part="q")
    configuration = Configuration.make(
        [(site, ModuleSpec.make("lora", 4)), (site, ModuleSpec.make("ia3"))], learning_rate=1e-3
    )
    found = cell(cells_frame(configuration, 1, [5, 7]), "q", "0")
    assert (found["label"], found["parameters"], found["n_modules"]) == ("ia3\nlora 4", 12, 2)


@settings(deadline=None, max_examples=50)
@given(configurations, st.integers(0, 8))
def test_no_module_is_lost(configuration: Configuration, n_layers: int) -> None:
    frame = cells_frame(configuration, n_layers)
    assert frame["n_modules"].sum() == len(configuration.placements)
    assert (EMBEDDING in set(frame["layer"])) == any(item.site.layer is None for item in configuration.placements)


@settings(deadline=None, max_examples=50)
@given(configurations, configurations)
def test_differences_are_where_modules_differ(left: Configuration, right: Configuration) -> None:
    """Oracle: the sets of placements."""
    first, second = compared_cells(left, right, 4)
    assert first["differs"].tolist() == second["differs"].tolist()
    places = {
        (item.site.part, EMBEDDING if item.site.layer is None else str(item.site.layer))
        for item in set(left.placements) ^ set(right.placements)
    }
    marked = first[first["differs"]]
    assert set(zip(marked["part"], marked["layer"], strict=True)) == places
    assert len(difference_table(left, right)) == len(places)
    assert not compared_cells(left, left, 4)[0]["differs"].any()


def test_the_table_of_differences_is_in_words() -> None:
    left = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", 4, scale=2.0))], learning_rate=1e-3)
    right = Configuration.make([(Site(layer=1, part="v"), ModuleSpec.make("lora", 8))], learning_rate=2e-3)
    assert difference_table(left, right).to_numpy().tolist() == [
        ["layer 0, q", "lora 4 (scale 2.0)", "nothing"],
        ["layer 1, v", "nothing", "lora 8"],
        ["learning rate", "0.001", "0.002"],
    ]
    assert difference_table(left, left).empty


def test_the_average_counts_configurations_not_modules() -> None:
    one = Configuration.make([(Site(layer=0, part="q"), ModuleSpec.make("lora", 4))], learning_rate=1e-3)
    two = Configuration.make(
        [(Site(layer=0, part="q"), ModuleSpec.make("lora", 8)), (Site(layer=0, part="q"), ModuleSpec.make("ia3"))],
        learning_rate=1e-3,
    )
    found = cell(average_cells([one, two, head_only(), head_only()], 1, {0: [10], 1: [20, 4]}), "q", "0")
    assert (found["share"], found["size"], found["parameters"], found["types"]) == (0.5, 6.0, 17.0, "lora, ia3")
    assert average_cells([], 6).empty
    assert average_cells([head_only()], 6).empty

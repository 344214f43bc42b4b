from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from autopeft.configuration import Configuration, ModuleSpec, Site
from autopeft.export import configuration_grid, layer_count
from tests.export.studies import N_LAYERS, empty_study, full_study, head_only, mixed_configuration
from tests.study.builders import make_spec


def test_grid_has_each_module_at_its_layer() -> None:
    grid = configuration_grid(mixed_configuration(rank=4, first=4), N_LAYERS)
    assert grid.columns == ("0", "1", "2", "3", "4", "5")
    assert dict(zip(grid.rows, grid.texts, strict=True)) == {
        "ia3 k": ("", "on", "", "", "", ""),
        "lora q": ("", "", "", "", "8", "9"),
        "lora v": ("", "", "", "", "8", "9"),
        "serial_adapter ffn": ("", "", "", "", "", "16"),
    }


def test_embedding_has_its_own_column_and_head_only_has_no_rows() -> None:
    full = ModuleSpec.make("full")
    pairs = [(Site(layer=None, part="embedding"), full), (Site(layer=0, part="norm"), full)]
    grid = configuration_grid(Configuration.make(pairs, learning_rate=1e-3), 2)
    assert grid.columns == ("embedding", "0", "1")
    assert grid.texts == (("", "on", ""), ("on", "", ""))
    assert configuration_grid(head_only(), 3).rows == ()


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 7), st.sampled_from(["q", "v", "up"])), st.integers(1, 64), min_size=1, max_size=12
    )
)
def test_every_placement_is_in_the_grid_once(cells: dict[tuple[int, str], int]) -> None:
    pairs = [(Site(layer=layer, part=part), ModuleSpec.make("lora", size)) for (layer, part), size in cells.items()]
    grid = configuration_grid(Configuration.make(pairs, learning_rate=1e-3), 4)
    found = {
        (int(grid.columns[j]), grid.rows[i].removeprefix("lora ")): size
        for i, row in enumerate(grid.sizes)
        for j, size in enumerate(row)
        if size is not None
    }
    assert found == cells


def test_layers_come_from_the_settings_else_from_the_trials() -> None:
    study = full_study()
    assert layer_count(study) == N_LAYERS
    assert layer_count(empty_study()) == 0
    stated = make_spec(backbone={"name": "tiny", "parameters": 1, "n_layers": 12})
    assert layer_count(replace(study, spec=stated)) == 12

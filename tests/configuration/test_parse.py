import copy
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopeft.configuration import BoundSpace, load_search_space, parse_search_space
from autopeft.configuration._parse import check_search_space
from autopeft.exceptions import SearchSpaceError
from tests.configuration.examples import FAMILIES_FILE, TYPES, bert_shapes, patient
from tests.configuration.test_compile import DEFINITION
from tests.configuration.test_smallest import FAMILIES, HALVINGS


@pytest.mark.parametrize("name", [FAMILIES_FILE, "autopeft"])
def test_shipped_spaces_round_trip_through_json(name: str) -> None:
    space = load_search_space(name, TYPES)
    assert parse_search_space(json.loads(json.dumps(space.to_dict())), TYPES) == space


@pytest.mark.parametrize("definition", [DEFINITION, FAMILIES, HALVINGS], ids=["small", "families", "halvings"])
def test_definitions_round_trip_and_mean_the_same(definition: dict[str, Any]) -> None:
    space = parse_search_space(definition, TYPES)
    again = parse_search_space(space.to_dict(), TYPES)
    assert again == space
    one, other = (BoundSpace(space=item, shapes=bert_shapes(), module_types=TYPES) for item in (space, again))
    point = one.sample(np.random.default_rng(0))
    assert other.sample(np.random.default_rng(0)) == point
    assert other.compile(point) == one.compile(point)


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    definition = copy.deepcopy(DEFINITION)
    change(definition)
    return definition


def setting(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(definition: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            definition = definition[name]
        definition[last] = value

    return change


def removing(path: str) -> Callable[[dict[str, Any]], None]:
    def change(definition: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        for name in parents:
            definition = definition[name]
        del definition[last]

    return change


LISTS = "modules.lora.parts.lists"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("name", "My Space"), "name: must consist of lower-case letters, digits, - and _, but got 'My Space'."),
        (setting("description", None), "description: must be text, but got nothing."),
        (removing("budget"), "budget: is required, but missing."),
        (setting("budget", "shrink"), "budget: unknown rule 'shrink'. Known: reject, scale."),
        (setting("laysers", "all"), "laysers: unknown key. Did you mean layers?"),
        (setting("learning_rate", 0), "learning_rate: must be positive, but got 0."),
        (setting("learning_rate", "rat"), "learning_rate: unknown parameter 'rat'. Did you mean rate or"),
        (setting("learning_rate", "rank"), "learning_rate: parameter rank must be float, but is int."),
        (setting("learning_rate", "share"), "learning_rate: parameter share is not active everywhere"),
        (setting("parameters.flat", {"type": "bool"}), "parameters.flat: has the name of a depth profile"),
        (setting("parameters.spare", {"type": "bool"}), "parameters.spare: is used nowhere; remove it or refer to it."),
        (setting("modules", {}), "modules: must name at least one module."),
        (setting("modules", []), "modules: must be a mapping, but got an empty list."),
        (setting("modules.lorra", {"parts": ["q"]}), "modules.lorra: unknown module type 'lorra'. Did you mean lora?"),
        (setting("modules.lora.type", "lorra"), "modules.lora.type: unknown module type 'lorra'. Did you mean lora?"),
        (setting("modules.Lora", {"type": "ia3", "parts": ["k"]}), "modules.Lora: must consist of lower-case letters"),
        (setting("modules.lora.sise", 4), "modules.lora.sise: unknown key. Did you mean size or sites?"),
        (removing("modules.lora.size"), "modules.lora.size: is required: lora has size."),
        (setting("modules.bitfit.size", 3), "modules.bitfit.size: must be left out: bitfit has no size."),
        (setting("modules.lora.size", 0), "modules.lora.size: must be at least 1, but got 0."),
        (setting("modules.lora.size", 10**6), "modules.lora.size: sizes end at 65,536, but got 1000000."),
        (setting("modules.lora.size", "rnak"), "modules.lora.size: unknown parameter 'rnak'. Did you mean rank or"),
        (setting("modules.lora.size", "share"), "modules.lora.size: parameter share must be int, but is float."),
        (setting("modules.prefix.size", "k"), "modules.prefix.size: sizes start at 1 (absent is a switch)"),
        (setting("modules.prefix.size", "rank"), "modules.prefix.size: parameter rank is not active everywhere"),
        (setting("modules.prefix.size", {"halvings": "k"}), "modules.prefix.size.halvings: unknown key."),
        (
            setting("modules.lora.when", {"lorra": True}),
            "modules.lora.when.lorra: unknown parameter. Did you mean lora?",
        ),
        (removing("modules.lora.when"), "modules.lora.size: parameter rank is not active everywhere it is needed here"),
        (removing("modules.lora.parts"), "modules.lora.parts: is required, but missing."),
        (setting("modules.lora.parts", "q"), "modules.lora.parts: must be a list of parts or a mapping"),
        (setting("modules.lora.parts", ["q", "head"]), "modules.lora.parts: unknown part 'head'."),
        (setting("modules.lora.parts", ["embedding"]), "modules.lora.parts: lora cannot stand at embedding; it can at"),
        (
            setting("modules.lora.parts", ["q", "embedding"]),
            "modules.lora.parts: embedding is no part of a layer; give",
        ),
        (
            setting("modules.prefix.parts", ["ffn"]),
            "modules.prefix.parts: prefix cannot stand at ffn; it can at attention.",
        ),
        (removing(f"{LISTS}.ffn"), f"{LISTS}: has no entry for 'ffn', a choice of parameter parts."),
        (setting(f"{LISTS}.qvo", ["q"]), f"{LISTS}.qvo: is not a choice of parameter parts. Did you mean qv?"),
        (setting(f"{LISTS}.qv", []), f"{LISTS}.qv: must be a list that is not empty"),
        (
            setting("modules.lora.parts.parameter", "lora"),
            "modules.lora.parts.parameter: parameter lora must be categorical, but is bool.",
        ),
        (
            setting("modules.lora.profile", "flatt"),
            "modules.lora.profile: must be a profile or a parameter that picks one, but got 'flatt'. Did you mean",
        ),
        (setting("modules.lora.profile", "parts"), "parameters.parts.choices: unknown profile 'qv'."),
        (
            setting("modules.bitfit.profile", "increasing"),
            "modules.bitfit.profile: must be flat, because it has no size.",
        ),
        (
            setting("modules.lora.options", {"scale": [1]}),
            "modules.lora.options.scale: must be a single value or a mapping with parameter, but got a list.",
        ),
        (setting("modules.lora.options", {"scale": float("nan")}), "modules.lora.options.scale: must be finite"),
        (
            setting("modules.lora.options", {"scal": 1}),
            "modules.lora.options.scal: unknown option. Did you mean scale?",
        ),
        (setting("modules.lora.options", {"scale": -1}), "modules.lora.options.scale: must be positive, but got -1."),
        (setting("modules.bitfit.options", {"scale": 1}), "modules.bitfit.options.scale: unknown option. Known: none."),
        (
            setting("modules.second", {"type": "lora", "size": 1, "parts": ["v", "o"]}),
            "modules.second.parts: a site holds one lora, but lora can stand at v as well.",
        ),
        (setting("layers", "some"), "layers: must be all, or a mapping"),
        (setting("layers", {}), "layers: must have exactly one of top_share, top_score with score, bits, or"),
        (setting("layers", {"bits": "lora"}), "layers.bits: parameter lora needs per_layer: true or layer_groups."),
        (setting("layers", {"bits": "bit"}), "layers.bits: parameter bit is not active everywhere"),
        (setting("layers", {"top_share": "bit"}), "layers.top_share: parameter bit must be float, but is bool."),
        (setting("layers.rules.top", {"top_share": "rate"}), "parameters.share: is used nowhere"),
        (
            setting("parameters.share.low", 0),
            "layers.rules.top.top_share: parameter share must lie in (0, 1], but spans 0",
        ),
        (setting("layers.rules.all", {"bits": "bit"}), "layers.rules.all.bits: parameter bit is not active everywhere"),
        (removing("layers.rules.all"), "layers.rules: has no entry for 'all', a choice of parameter gate."),
        (removing("layers.rules"), "layers.rules: is required, but missing."),
        (
            setting("parameters.gate.choices", ["all", "top", "bits", 4]),
            "parameters.gate.choices: must be texts to name the entries of layers.rules.",
        ),
    ],
)
def test_mistakes_are_named_with_their_key(change: Callable[[dict[str, Any]], None], message: str) -> None:
    with pytest.raises(SearchSpaceError) as caught:
        parse_search_space(changed(change), TYPES, source="mine.yaml")
    assert any(problem.startswith(message) for problem in caught.value.problems), str(caught.value)
    assert "search space mine.yaml has" in str(caught.value)


def test_every_mistake_is_reported_at_once() -> None:
    changes = [
        setting("name", ""),
        setting("parameters.rank.low", 99),
        setting("modules.prefix.parts", ["ffn"]),
        setting("layers.rules.top", {"top_share": "shar"}),
        setting("learning_rate", -1),
        setting("budget", None),
    ]

    def all_of_them(definition: dict[str, Any]) -> None:
        for change in changes:
            change(definition)

    with pytest.raises(SearchSpaceError) as caught:
        parse_search_space(changed(all_of_them), TYPES)
    keys = {problem.split(":")[0] for problem in caught.value.problems}
    assert keys == {
        "name",
        "parameters.rank.low",
        "modules.prefix.parts",
        "layers.rules.top.top_share",
        "learning_rate",
        "budget",
        # No longer referred to, and a mistake of their own for that reason.
        "parameters.share",
        "parameters.rate",
    }


@pytest.mark.parametrize("data", [None, [], "default", 3])
def test_not_a_mapping(data: Any) -> None:
    with pytest.raises(SearchSpaceError, match="must be a mapping with name, description"):
        parse_search_space(data, TYPES)


def test_without_module_types_they_are_taken_on_trust() -> None:
    definition = changed(setting("modules.lora.type", "something_new"))
    assert parse_search_space(definition).modules[0].type == "something_new"


def test_description_is_one_line() -> None:
    assert parse_search_space(changed(setting("description", "two\n  lines\n")), TYPES).description == "two lines"


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["lora", "rank", "all", "", "flat", "q"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["lora", "k"]), inner, max_size=2),
    max_leaves=4,
)


def nodes(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything inside a definition."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, item in items for found in ((*path, key), *nodes(item, (*path, key)))]


@settings(patient, max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(nodes(DEFINITION)), anything), min_size=1, max_size=3))
def test_no_damage_is_worse_than_a_list_of_mistakes(damages: list[tuple[tuple[Any, ...], Any]]) -> None:
    """Any part of a definition replaced by anything: a valid space, or mistakes that name keys."""
    definition = copy.deepcopy(DEFINITION)
    for path, value in damages:
        parent = definition
        try:
            for key in path[:-1]:
                parent = parent[key]
            parent[path[-1]] = value
        except (KeyError, TypeError, IndexError):
            continue  # an earlier damage removed the place
    space, problems = check_search_space(definition, TYPES)
    assert (space is None) == bool(problems)
    assert all(": " in problem for problem in problems)
    if space is not None:
        bound = BoundSpace(space=space, shapes=bert_shapes(n_layers=2, hidden=48), module_types=TYPES)
        assert bound.compile(bound.sample(np.random.default_rng(0))).placements


def test_objectives_are_names_that_need_not_be_known_here() -> None:
    space = parse_search_space({**DEFINITION, "objectives": ["quality", "mine.py:shine"]})
    assert space.objectives == ("quality", "mine.py:shine")
    assert parse_search_space(space.to_dict()) == space
    assert "Objectives: quality, mine.py:shine" in space.describe()
    assert parse_search_space(DEFINITION).objectives == ()
    assert "objectives" not in parse_search_space(DEFINITION).to_dict()


@pytest.mark.parametrize("value", [[], "quality", ["quality", "quality"], [3]])
def test_objectives_must_be_a_list_of_distinct_names(value: object) -> None:
    with pytest.raises(SearchSpaceError, match="objectives"):
        parse_search_space({**DEFINITION, "objectives": value})

from autopeft.configuration import Condition, Parameter
from autopeft.configuration._activity import always_active, condition_requirements, parameter_requirements


def when(**terms: object) -> Condition:
    values = {name: value if isinstance(value, tuple) else (value,) for name, value in terms.items()}
    return Condition(terms=tuple(sorted(values.items())))


PARAMETERS = {
    item.name: item
    for item in (
        Parameter(name="gate", type="categorical", choices=("a", "b", "c")),
        Parameter(name="on", type="bool", condition=when(gate=("a", "b"))),
        Parameter(name="size", type="int", low=1, high=4, condition=when(on=True)),
        Parameter(name="free", type="int", low=1, high=4),
    )
}


def test_requirements_include_the_parents() -> None:
    assert parameter_requirements(PARAMETERS["size"], PARAMETERS) == {"gate": ("a", "b"), "on": (True,)}
    assert parameter_requirements(PARAMETERS["free"], PARAMETERS) == {}
    both = condition_requirements(when(on=True, gate=("b", "c")), PARAMETERS)
    assert both == {"gate": ("b",), "on": (True,)}


def test_always_active() -> None:
    size = PARAMETERS["size"]
    assert always_active(PARAMETERS["free"], {}, PARAMETERS)
    assert always_active(size, condition_requirements(when(on=True), PARAMETERS), PARAMETERS)
    assert not always_active(size, {}, PARAMETERS)
    assert not always_active(size, condition_requirements(when(gate="a"), PARAMETERS), PARAMETERS)
    assert not always_active(size, {"on": (True, False), "gate": ("a",)}, PARAMETERS)
    assert always_active(PARAMETERS["on"], {"gate": ("b",)}, PARAMETERS)
    assert not always_active(PARAMETERS["on"], {"gate": ("b", "c")}, PARAMETERS)

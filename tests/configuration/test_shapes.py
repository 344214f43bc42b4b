import pytest

from autopeft.configuration import Configuration, ModuleSpec, Site, parameter_count
from autopeft.exceptions import ConfigurationError
from tests.configuration.examples import TYPES, bert_shapes, llama_shapes


def configuration(*items: tuple[str, int | None, str, int | None]) -> Configuration:
    pairs = [(Site(part=part, layer=layer), ModuleSpec.make(kind, size)) for kind, size, part, layer in items]
    return Configuration.make(pairs, learning_rate=1e-3)


def test_counts_by_hand() -> None:
    """MiniLM: hidden 384, feed-forward 1536."""
    shapes = bert_shapes()
    expected = {
        ("lora", 8, "q", 0): 8 * (384 + 384),
        ("lora", 8, "down", 5): 8 * (1536 + 384),
        ("serial_adapter", 16, "ffn", 1): 2 * 384 * 16 + 16 + 384,
        ("prefix", 10, "attention", 2): 2 * 10 * 384,
        ("ia3", None, "k", 3): 384,
        ("ia3", None, "down", 3): 1536,
        ("bitfit", None, "bias", 4): 4 * 384 + 1536 + 384 + 2 * 384,
    }
    for item, count in expected.items():
        assert parameter_count(configuration(item), shapes, TYPES) == count
    assert parameter_count(configuration(*expected), shapes, TYPES) == sum(expected.values())
    assert parameter_count(configuration(), shapes, TYPES) == 0


def test_grouped_queries_and_missing_sites() -> None:
    shapes = llama_shapes()
    assert parameter_count(configuration(("prefix", 5, "attention", 0)), shapes, TYPES) == 2 * 5 * 2 * 16
    assert parameter_count(configuration(("bitfit", None, "bias", 0)), shapes, TYPES) == 0
    assert parameter_count(configuration(("lora", 2, "gate", 0)), bert_shapes(), TYPES) == 0
    assert shapes.n_layers == 4


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (("loar", 8, "q", 0), "unknown module type 'loar'. Known: bitfit, ia3, lora"),
        (("prefix", 8, "q", 0), "prefix cannot stand at q; it can at attention"),
        (("lora", None, "q", 0), "lora needs a size, but got size=None"),
        (("ia3", 3, "k", 0), "ia3 takes no size, but got size=3"),
        (("lora", 8, "q", 6), "layer 6 does not exist: the backbone has layers 0 to 5"),
    ],
)
def test_refused(item: tuple[str, int | None, str, int], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parameter_count(configuration(item), bert_shapes(), TYPES)
    assert message in str(caught.value)

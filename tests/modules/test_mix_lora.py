"""MixLoRA. Oracles: whole feed-forwards per token and expert, summed in float64; candidates alone; dense LoRA."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from autopeft.configuration import BoundSpace, Site, parameter_count, parse_search_space
from autopeft.exceptions import ConfigurationError
from autopeft.modules import MODULES, inject
from tests.modules.cases import configuration, disturb, each, spec
from tests.modules.expert_twin import Float64Model, TwinRouter, check_alone
from tests.modules.peft_twin import TARGETS
from tests.tiny import ARCHITECTURES, tiny_batch

KIND = MODULES["mix_lora"]
DEFAULTS = {name: option.default for name, option in KIND.options.items()}
#: Large coefficients: a wrong loss must show.
WAYS = {
    "topk": {"router": "topk", "experts": 4, "top_k": 2, "balance": 0.5},
    "all": {"router": "topk", "experts": 3, "top_k": 3, "balance": 0.1},
    "topp": {"router": "topp", "experts": 3, "top_p": 0.4, "balance": 0.3},
    "switch": {"router": "switch", "experts": 3, "capacity": 1.2, "balance": 0.4, "z_loss": 0.2},
}
KEY = "layers.1.ffn.mix_lora"
CASES = [("bert", way) for way in WAYS] + [("llama", way) for way in WAYS]
CASES += [(architecture, "topk") for architecture in ("gpt2", "distilbert", "gemma3_text")]
ACTIVATIONS = {
    "bert": "intermediate.intermediate_act_fn",
    "llama": "mlp.act_fn",
    "gpt2": "mlp.act",
    "distilbert": "ffn.activation",
    "gemma3_text": "mlp.act_fn",
}


@pytest.mark.parametrize(("architecture", "way"), CASES)
def test_three_steps_equal_whole_feed_forwards_in_float64(backbone_of, architecture, way):
    backbone, batch = backbone_of(architecture), tiny_batch()
    options = {**WAYS[way], "scale": 0.9}
    with inject(backbone, [configuration((1, "ffn", spec("mix_lora", 2, **options)))], seeds=[4]) as injection:
        disturb(injection, scale=0.3)
        initial = injection.state_dict(0)
        optimizer = torch.optim.SGD([item.tensor for item in injection.parameters], lr=0.1)
        losses = []
        for step in range(3):
            optimizer.zero_grad()
            injection.begin_batch(step, training=True)
            loss = F.cross_entropy(backbone.forward(**batch), TARGETS) + injection.penalties().sum()
            loss.backward()
            losses.append(float(loss.detach()))
            optimizer.step()
        ours = injection.state_dict(0)
        logits = backbone.forward(**batch)
        statistics = injection.statistics(0)
    twin = Float64Model(backbone, initial, KEY)
    router = TwinRouter(way=str(options["router"]), options={**DEFAULTS, **options})
    ExplicitExperts(twin, router, backbone, ACTIVATIONS[architecture]).install()
    optimizer = torch.optim.SGD([*twin.values.values(), *twin.head(backbone.head_paths, initial)], lr=0.1)
    for step in range(3):
        optimizer.zero_grad()
        loss = F.cross_entropy(twin.logits(batch), TARGETS) + router.penalty
        loss.backward()
        assert losses[step] == pytest.approx(float(loss.detach()), rel=1e-5)
        optimizer.step()
    assert router.dropped > 0 or way != "switch"
    assert set(statistics) >= {f"{KEY}.load_{e}" for e in range(int(options["experts"]))} | {f"{KEY}.entropy"}
    for name, value in twin.values.items():
        assert (value - initial[f"{KEY}.{name}"]).abs().max() > 1e-4, name
        torch.testing.assert_close(ours[f"{KEY}.{name}"], value.detach().float(), rtol=1e-3, atol=2e-5, msg=name)
    torch.testing.assert_close(logits, twin.logits(batch).float(), rtol=1e-3, atol=1e-5)


class ExplicitExperts:
    """Layer 1's feed-forward of a twin, computed token by token, expert by expert, each expert to its very end."""

    def __init__(self, twin, router, backbone, activation):
        self.twin, self.router = twin, router
        self.sites = {part: backbone.linear(1, part) for part in ("gate", "up", "down")}
        layer = backbone.linear(1, "up").path.split(".")
        self.activation = twin.module(".".join([*layer[: layer.index("1") + 1], activation]))

    def install(self):
        paths = {part: site.path for part, site in self.sites.items() if site is not None}
        self.modules = {part: self.twin.module(path) for part, path in paths.items()}
        self.modules["up"].register_forward_pre_hook(self.note)
        self.modules["down"].register_forward_hook(self.compute)

    def note(self, module, args):
        self.x = args[0]

    def compute(self, module, args, out):
        routes = self.router(self.x, self.twin.mask, self.twin.values["router"])
        rows = []
        for i, row in enumerate(routes):
            outputs = []
            for j, route in enumerate(row):
                token = self.x[i, j]
                y = (1 - sum(route.values())) * self.feed_forward(token, None)
                outputs.append(y + sum(w * self.feed_forward(token, e) for e, w in route.items()))
            rows.append(torch.stack(outputs))
        return torch.stack(rows)

    def feed_forward(self, x, expert):
        inner = self.linear("up", x, expert)
        if "gate" in self.modules:
            inner = inner * self.activation(self.linear("gate", x, expert))
        else:
            inner = self.activation(inner)
        return self.linear("down", inner, expert)

    def linear(self, part, x, expert):
        module = self.modules[part]
        weight = module.weight.T if self.sites[part].is_transposed else module.weight
        if expert is not None:
            values = self.twin.values
            weight = weight + 0.9 * values[f"{part}.B"][expert].T @ values[f"{part}.A"][expert]
        y = weight @ x
        return y if getattr(module, "bias", None) is None else y + module.bias


#: Other numbers of experts, ranks, ways and neighbours; one expert; and none.
COHORT = (
    configuration(
        *each((0, 1, 2), ("ffn",), lambda i: spec("mix_lora", 2, experts=3 + i)),
        *each((1,), ("q", "up", "down"), lambda i: spec("lora", 2)),
        (1, "down", spec("ia3")),
        (1, "ffn", spec("parallel_adapter", 2)),
    ),
    configuration(*each((0, 1), ("ffn",), lambda i: spec("mix_lora", 3, experts=4, router="topp", dropout=0.2))),
    configuration((1, "bias", spec("bitfit")), (1, "ffn", spec("serial_adapter", 2)), (1, "down", spec("ia3"))),
    configuration(*each((1, 2), ("ffn",), lambda i: spec("mix_lora", 1, experts=3, router="switch", scale=0.5))),
    configuration(*each((0, 1), ("ffn",), lambda i: spec("mix_lora", 4, experts=1, dropout=0.3))),
    configuration(*each((1, 2), ("ffn",), lambda i: spec("mix_lora", 2, experts=5, top_k=2, dropout=0.4))),
)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_cohort_of_mixtures_is_each_alone(backbone_of, architecture):
    backbone = backbone_of(architecture)
    actives = (tuple(range(len(COHORT))), (5, 0), (2, 4), (1, 3)) if architecture == "bert" else (range(len(COHORT)),)
    for active in actives:
        check_alone(backbone, COHORT, tuple(active))


def test_identity_at_initialization_is_close_for_every_router(bert):
    """Oracle: the plain backbone; weights that sum to one, or the frozen block in place of what they lack."""
    batch = tiny_batch()
    plain = bert.forward(**batch)
    for options in WAYS.values():
        chosen = configuration(*each((0, 1, 2), ("ffn",), lambda i, o=options: spec("mix_lora", 2, **o)))
        with inject(bert, [chosen], seeds=[0]), torch.no_grad():
            torch.testing.assert_close(bert.forward(**batch), plain, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_one_expert_is_dense_lora_on_all_maps(backbone_of, architecture):
    """Oracle: the type lora at up, gate and down with the same values."""
    backbone, batch = backbone_of(architecture), tiny_batch()
    module = spec("mix_lora", 3, experts=1, scale=0.7)
    assert KIND.canonical(spec("mix_lora", 3, experts=1, scale=0.7, router="switch", top_k=5, balance=0.1)) == module
    parts = [part for part in ("up", "gate", "down") if backbone.linear(1, part)]
    dense = configuration(*each((1,), parts, lambda i: spec("lora", 3, scale=0.7)))
    with inject(backbone, [configuration((1, "ffn", module))], seeds=[0]) as injection:
        disturb(injection)
        state = injection.state_dict(0)
        count = injection.candidate_parameter_count(0)
        found = backbone.forward(**batch).detach()
    assert count == parameter_count(dense, backbone.shapes, MODULES)
    assert count == KIND.parameter_count(module, Site(layer=1, part="ffn"), backbone.shapes)
    with inject(backbone, [dense], seeds=[0]) as injection:
        names = {name: name.replace(".lora.", ".") for name in injection.state_dict(0)}
        renamed = {f"layers.1.{part}.": f"layers.1.ffn.mix_lora.{part}." for part in parts}
        for name, target in names.items():
            for old, new in renamed.items():
                if target.startswith(old):
                    names[name] = target.replace(old, new)
        injection.load_state_dict(0, {name: state[target] for name, target in names.items()})
        torch.testing.assert_close(backbone.forward(**batch), found)


def test_closed_form_count(bert, llama):
    site = Site(layer=0, part="ffn")
    module = spec("mix_lora", 3, experts=5)
    assert KIND.parameter_count(module, site, bert.shapes) == 5 * (3 * 2 * (32 + 64) + 32)
    assert KIND.parameter_count(module, site, llama.shapes) == 5 * (3 * 3 * (32 + 64) + 32)


def test_more_chosen_than_there_are_is_refused(bert):
    wrong = configuration((0, "ffn", spec("mix_lora", 2, experts=2, top_k=3)))
    for refuse in (lambda: parameter_count(wrong, bert.shapes, MODULES), lambda: inject(bert, [wrong], seeds=[0])):
        with pytest.raises(ConfigurationError, match="mix_lora: top_k must be at most experts"):
            refuse()


@pytest.mark.parametrize(("architecture", "parts"), [("bert", ("up", "down")), ("llama", ("up", "gate", "down"))])
def test_one_expert_compiles_to_dense_lora(backbone_of, architecture, parts):
    """Oracle: the configuration written out; mixtures stay mixtures, and a profile makes both."""
    shapes = backbone_of(architecture).shapes
    number = {"parameter": "n", "profile": "profile"}
    definition = {
        "name": "mixtures",
        "description": "Mixtures down to one expert.",
        "parameters": {
            "n": {"type": "int", "low": 1, "high": 4},
            "profile": {"type": "categorical", "choices": ["flat", "increasing"]},
        },
        "modules": {"mix_lora": {"size": 3, "parts": ["ffn"], "options": {"experts": number, "scale": 0.7}}},
        "layers": "all",
        "learning_rate": 0.01,
        "budget": "reject",
    }
    space = BoundSpace(space=parse_search_space(definition, MODULES), shapes=shapes, module_types=MODULES)
    assert space.type_names == {"mix_lora", "lora"}
    dense = configuration(*each((0, 1, 2), parts, lambda i: spec("lora", 3, scale=0.7)))
    assert space.compile({"n": 1, "profile": "flat"}) == dense
    mixed = configuration(*each((0, 1, 2), ("ffn",), lambda i: spec("mix_lora", 3, experts=2, scale=0.7)))
    assert space.compile({"n": 2, "profile": "flat"}) == mixed
    found = space.compile({"n": 2, "profile": "increasing"})
    assert found == configuration(
        *each((0,), parts, lambda i: spec("lora", 3, scale=0.7)),
        *each((1, 2), ("ffn",), lambda i: spec("mix_lora", 3, experts=1 + i, scale=0.7)),
    )
    with inject(backbone_of(architecture), [found], seeds=[0]) as injection:
        assert injection.candidate_parameter_count(0) == space.parameter_count(found)

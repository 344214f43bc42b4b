from types import SimpleNamespace

import pytest
from torch import nn

from autopeft.backbones import ARCHITECTURES
from autopeft.backbones._architectures import architecture_of
from autopeft.exceptions import BackboneError
from tests import tiny


def test_every_architecture_of_the_table_has_a_tiny_model() -> None:
    assert set(ARCHITECTURES) == set(tiny.ARCHITECTURES)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_no_linear_and_no_norm_of_a_layer_is_left_out(architecture: str) -> None:
    """Brute force: whatever owns parameters in a layer is a site, and nothing is one twice unless it is sliced."""
    backbone = tiny.tiny_backbone(architecture)
    for index, layer in enumerate(backbone.layers):
        owners = {module for module in layer.modules() if list(module.parameters(recurse=False))}
        sites = [backbone.linear(index, part) for part in ARCHITECTURES[architecture].linears]
        linears = {site.module for site in sites if site is not None}
        norms = [module for _, module in backbone.norms(index)]
        assert linears | set(norms) == owners
        assert len(set(norms)) == len(norms)
        width = sum(site.stop - site.start for site in sites if site is not None)
        assert width == sum(_n_out(module) for module in linears)


def _n_out(module: nn.Module) -> int:
    return module.out_features if isinstance(module, nn.Linear) else module.nf


def test_an_unknown_architecture_says_what_is_missing_and_what_there_is() -> None:
    with pytest.raises(BackboneError, match=r"mamba-x.*'mamba' is not supported.*Supported: bert, .*roberta"):
        architecture_of(SimpleNamespace(model_type="mamba"), "mamba-x")

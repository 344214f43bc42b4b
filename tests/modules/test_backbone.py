"""The backbones package provides what modules need. Oracle: the protocol's own members."""

import pytest

from autopeft.modules._backbone import LinearSite, TunableBackbone
from tests.tiny import ARCHITECTURES


def _members(protocol):
    return [name for name in vars(protocol) if not name.startswith("_")]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_backbones_have_every_member(backbone_of, architecture):
    backbone = backbone_of(architecture)
    assert len(_members(TunableBackbone)) >= 10
    for name in _members(TunableBackbone):
        assert hasattr(backbone, name), name
    site = backbone.linear(0, "q")
    for name in _members(LinearSite):
        assert hasattr(site, name), name
    assert set(backbone.head_state()) == {
        f"{path}.{name}"
        for path in backbone.head_paths
        for name, _ in backbone.model.get_submodule(path).named_parameters()
    }

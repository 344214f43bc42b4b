"""Tiny backbones, built once per architecture: every test must leave them as it found them."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from autopeft.backbones import Backbone
from tests.tiny import tiny_backbone


@pytest.fixture(scope="session")
def backbone_of() -> Callable[[str], Backbone]:
    """Backbones by architecture."""
    return functools.cache(lambda architecture: tiny_backbone(architecture, n_labels=3))


@pytest.fixture
def bert(backbone_of: Callable[[str], Backbone]) -> Backbone:
    return backbone_of("bert")


@pytest.fixture
def llama(backbone_of: Callable[[str], Backbone]) -> Backbone:
    return backbone_of("llama")

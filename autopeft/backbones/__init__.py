"""Pretrained transformers: their sites, their shapes without loading weights, and loading them safely."""

from autopeft.backbones._architectures import ARCHITECTURES, Architecture
from autopeft.backbones._backbone import Backbone, wrap_model
from autopeft.backbones._language_model import (
    LanguageHead,
    load_language_head,
    missing_language_head,
    no_language_head,
)
from autopeft.backbones._load import BackboneDescription, describe_backbone, load_backbone
from autopeft.backbones._sites import LinearSite
from autopeft.backbones._source import BACKBONES, EmbeddedBackbone

__all__ = [
    "ARCHITECTURES",
    "BACKBONES",
    "Architecture",
    "Backbone",
    "BackboneDescription",
    "EmbeddedBackbone",
    "LanguageHead",
    "LinearSite",
    "describe_backbone",
    "load_backbone",
    "load_language_head",
    "missing_language_head",
    "no_language_head",
    "wrap_model",
]

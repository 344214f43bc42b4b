"""Pretrained transformers: their sites, their shapes without loading weights, and loading them safely."""

from autopeft.backbones._architectures import ARCHITECTURES, Architecture
from autopeft.backbones._backbone import Backbone, wrap_model
from autopeft.backbones._sites import LinearSite

__all__ = ["ARCHITECTURES", "Architecture", "Backbone", "LinearSite", "wrap_model"]

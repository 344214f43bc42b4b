"""PEFT modules: low-rank updates, adapters, prefixes and trained copies, injected into a frozen backbone by hooks."""

from autopeft.configuration import Option
from autopeft.modules._delegated import DELEGATED
from autopeft.modules._inject import Injection, inject, site_key, uniform_prefix_length, virtual_tokens
from autopeft.modules._kind import ExportClass, ModuleKind, RankedKind
from autopeft.modules._listener import ADAM_BETAS
from autopeft.modules._lora import low_rank_update
from autopeft.modules._merge import is_mergeable, merge_obstacle, merged_state
from autopeft.modules._registry import MODULES
from autopeft.modules._stack import OwnedParameter

__all__ = [
    "ADAM_BETAS",
    "DELEGATED",
    "MODULES",
    "ExportClass",
    "Injection",
    "ModuleKind",
    "Option",
    "OwnedParameter",
    "RankedKind",
    "inject",
    "is_mergeable",
    "merge_obstacle",
    "low_rank_update",
    "merged_state",
    "site_key",
    "uniform_prefix_length",
    "virtual_tokens",
]

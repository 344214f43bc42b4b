"""Every module type by name."""

from __future__ import annotations

from collections.abc import Mapping

from autopeft.modules._kind import ModuleKind
from autopeft.modules.lora import Lora

#: A new module type is one file and one line here.
MODULES: Mapping[str, ModuleKind] = {kind.name: kind for kind in (Lora(),)}

"""Importing the code that a user named."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

from autopeft.exceptions import UsageError


def load_object(reference: str) -> Any:
    """Import what a reference names. This runs the module's code: the user named it.

    Args:
        reference: ``package.module:attribute``, importable from where Python looks or from the current folder, or
            ``path/to/file.py:attribute``.

    Raises:
        UsageError: If the module cannot be imported or has no such attribute; the message says which.
    """
    place, _, attribute = reference.rpartition(":")
    if not place or not attribute.isidentifier():
        raise UsageError(
            f"a reward of your own is named package.module:function or file.py:function, but got {reference!r}."
        )
    try:
        module = _from_file(Path(place).expanduser()) if place.endswith(".py") else _from_name(place)
    except UsageError:
        raise
    except Exception as error:
        # The user's module may raise anything while it is imported.
        raise UsageError(f"reward {reference}: importing {place} failed: {type(error).__name__}: {error}.") from error
    if not hasattr(module, attribute):
        raise UsageError(f"reward {reference}: {place} has no {attribute}.")
    return getattr(module, attribute)


def _from_file(path: Path) -> Any:
    if not path.is_file():
        raise UsageError(f"reward file {path}: there is no such file (looked in {path.resolve().parent}).")
    spec = importlib.util.spec_from_file_location(f"_autopeft_user_{path.stem}", path.resolve())
    if spec is None or spec.loader is None:
        raise UsageError(f"reward file {path}: Python cannot import it.")
    module = importlib.util.module_from_spec(spec)
    # Known by its name, so that inspect and pickle find it.
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _from_name(name: str) -> Any:
    top = name.partition(".")[0]
    here = str(Path.cwd())
    if importlib.util.find_spec(top) is None and here not in sys.path:
        # At the end, so that nothing that is installed changes its meaning.
        sys.path.append(here)
        importlib.invalidate_caches()
    if importlib.util.find_spec(top) is None:
        raise UsageError(
            f"reward module {name}: there is no package {top} where Python looks, nor in {here}; install it, change "
            "into its folder, or give the file as path/to/file.py:function."
        )
    return importlib.import_module(name)

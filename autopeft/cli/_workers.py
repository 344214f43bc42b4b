"""Finding the package of the workers, which has two names."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from autopeft.exceptions import MachineError


def workers_module(name: str) -> ModuleType:
    """A module of the workers: below this package in the wheel, beside it in a checkout.

    Args:
        name: Of the module, for example ``"supervisor"``.

    Raises:
        MachineError: If the package is in neither place.
    """
    if find_spec("autopeft._workers") is not None:
        return import_module(f"autopeft._workers.{name}")
    folder = Path(__file__).parents[2] / "workers"
    spec = find_spec("workers") if folder.is_dir() else None
    # Another distribution may have a package of so general a name.
    if spec is None or spec.origin is None or Path(spec.origin).parent.resolve() != folder.resolve():
        raise MachineError("the workers' files are missing from this installation; reinstall autopeft.")
    return import_module(f"workers.{name}")

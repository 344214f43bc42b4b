from __future__ import annotations

import pytest

from autopeft.exceptions import UnknownNameError
from autopeft.pruners import PRUNERS, make_pruner
from tests.pruners.simulated import FIDELITY, OBJECTIVES, RUNGS, pruner


def test_every_pruner_is_made_by_its_name() -> None:
    assert list(PRUNERS) == ["none", "pareto", "median", "mo_asha"]
    for name in PRUNERS:
        made = pruner(name)
        assert made.name == name
        assert made.rungs == (() if name == "none" else RUNGS)


def test_unknown_name_is_named() -> None:
    with pytest.raises(UnknownNameError, match="parto"):
        make_pruner("parto", objectives=OBJECTIVES, fidelity=FIDELITY, rungs=RUNGS)

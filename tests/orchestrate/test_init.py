"""What the package's name gives, and what it does not load for it."""

from __future__ import annotations

import subprocess
import sys

from autopeft import orchestrate


def test_what_a_supervisor_needs_is_there_without_torch() -> None:
    code = (
        "import sys; from autopeft.orchestrate import SearchSettings; from autopeft.orchestrate import _points, "
        "_worker_id; print([name for name in ('torch', 'transformers', 'botorch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_exists_and_has_one_place() -> None:
    assert set(orchestrate._MODULE_OF) == set(orchestrate.__all__)
    for name in orchestrate.__all__:
        assert getattr(orchestrate, name) is not None

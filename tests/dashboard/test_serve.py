"""How the server is started; that it answers is tested with the command, and in the browser."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dashboard import serve

ROOT = Path(__file__).parents[2]


def test_everything_is_loaded_before_the_first_visitor_and_nothing_heavy() -> None:
    code = (
        "import sys; from dashboard.warm import warm_up; warm_up(); "
        "wanted, heavy = ('streamlit', 'sklearn.ensemble', 'dashboard.views.main'), ('torch', 'transformers'); "
        "print([name for name in wanted if name not in sys.modules], [name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[] []"


def test_the_package_has_the_name_of_its_folder(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    assert serve.package_name() == "dashboard"
    monkeypatch.setattr(serve, "_FOLDER", Path("/site-packages/autopeft/_dashboard"))
    assert serve.package_name() == "autopeft._dashboard"

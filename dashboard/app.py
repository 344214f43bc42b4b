"""The script that Streamlit runs; the application is the package around it. Started by ``autopeft dashboard``.

The database is named by the environment variable ``AUTOPEFT_DB``.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent
if _FOLDER.name == "_dashboard":  # in an installed wheel
    _PACKAGE = "autopeft._dashboard"
else:
    _PACKAGE = "dashboard"
    if str(_FOLDER.parent) not in sys.path:
        sys.path.insert(0, str(_FOLDER.parent))

import_module(f"{_PACKAGE}.views.main").main(os.environ["AUTOPEFT_DB"])

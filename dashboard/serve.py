"""Starts Streamlit with everything loaded, so that the first visitor waits for nothing but the database.

Run by ``autopeft dashboard`` with the arguments of ``streamlit run``, the script left out.
"""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from pathlib import Path

_FOLDER = Path(__file__).resolve().parent


#: Seconds for which the start waits for what is looked up ahead; a database may be slow, or away.
_PATIENCE_S = 3.0


def package_name() -> str:
    """This folder as a package: ``autopeft._dashboard`` in an installed wheel, ``dashboard`` in a checkout."""
    if _FOLDER.name == "_dashboard":
        return "autopeft._dashboard"
    if str(_FOLDER.parent) not in sys.path:
        sys.path.insert(0, str(_FOLDER.parent))
    return "dashboard"


def main(arguments: list[str]) -> None:
    """Load the application, then serve it until the process is ended."""
    from streamlit.web import cli

    import_module(f"{package_name()}.warm").warm_up()
    # Streamlit looks for garbage after every drawing of a page; what is loaded by now never becomes any.
    gc.collect()
    gc.freeze()
    import_module(f"{package_name()}.views._ahead").start_looking_ahead(os.environ["AUTOPEFT_DB"]).join(_PATIENCE_S)
    sys.argv = ["streamlit", "run", str(_FOLDER / "app.py"), *arguments]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1:])

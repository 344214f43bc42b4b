"""Lets ``python -m autopeft.cli`` run the command line."""

import sys

from autopeft.cli import main

sys.exit(main())

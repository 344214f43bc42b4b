"""Commands that list what there is: tasks, backbones, rewards, search spaces."""

from __future__ import annotations

from typing import Annotated

import typer

from autopeft.cli._options import FormatOption
from autopeft.cli._output import OutputFormat, emit, make_table


def tasks(format: FormatOption = OutputFormat.HUMAN) -> None:
    """List the tasks that have a name; your own CSV, TSV, JSON-lines or Parquet file is one as well."""
    from autopeft.tasks import list_tasks

    found = list_tasks()
    emit(
        format,
        lambda: {
            "tasks": [
                {
                    "name": item.name,
                    "kind": item.kind,
                    "metrics": {name: direction.value for name, direction in item.metrics.items()},
                    "description": item.description,
                    "origin": item.origin,
                    "needs_network": item.needs_network,
                }
                for item in found
            ]
        },
        lambda: make_table(
            "Tasks (a file of your own: --task reviews.csv --text-column text --label-column label)",
            ("task", "kind", "metrics", "description", "data from"),
            [(item.name, item.kind, ", ".join(item.metrics), item.description, item.origin) for item in found],
        ),
    )


def backbones(format: FormatOption = OutputFormat.HUMAN) -> None:
    """List the backbones that have a name, and the architectures that any other one may have."""
    from importlib.util import find_spec

    from rich.console import Group
    from rich.text import Text

    from autopeft.backbones import ARCHITECTURES, BACKBONES

    installed = {name: find_spec(item.package) is not None for name, item in BACKBONES.items()}
    architectures = sorted(ARCHITECTURES)
    emit(
        format,
        lambda: {
            "backbones": [
                {
                    "name": name,
                    "description": item.description,
                    "distribution": item.distribution,
                    "is_installed": installed[name],
                    "hub_id": item.hub_id,
                }
                for name, item in BACKBONES.items()
            ],
            "architectures": architectures,
        },
        lambda: Group(
            make_table(
                "Backbones",
                ("backbone", "description", "package", "installed"),
                [
                    (name, item.description, item.distribution, "yes" if installed[name] else "no")
                    for name, item in BACKBONES.items()
                ],
            ),
            Text(""),
            Text(
                "Any local folder or hub id with safetensors weights of one of these architectures works as well: "
                + ", ".join(architectures)
                + "."
            ),
        ),
    )


def rewards(format: FormatOption = OutputFormat.HUMAN) -> None:
    """List what can be optimised or recorded beside a task's metrics; functions of your own are rewards as well."""
    from rich.console import Group
    from rich.text import Text

    from autopeft.objectives import COSTS, Direction
    from autopeft.rewards import REWARDS, installed_rewards

    installed = installed_rewards()
    emit(
        format,
        lambda: {
            "rewards": [
                {
                    "name": name,
                    "direction": item.way.value,
                    "unit": item.unit,
                    "kinds": sorted(item.kinds),
                    "summary": item.summary,
                    "source": item.source,
                    "cost": item.cost,
                    "options": item.settings(),
                }
                for name, item in REWARDS.items()
            ],
            "costs": [
                {"name": name, "direction": item.direction.value, "unit": item.unit} for name, item in COSTS.items()
            ],
            "installed": {name: entry.value for name, entry in installed.items()},
        },
        lambda: Group(
            make_table(
                "Rewards (--objective NAME, --record NAME; your own: --objective my_rewards.py:function)",
                ("reward", "better", "unit", "what it is"),
                [
                    (name, "higher" if item.way is Direction.MAXIMIZE else "lower", item.unit, item.summary)
                    for name, item in REWARDS.items()
                ],
            ),
            Text(""),
            make_table(
                "What measuring them costs, and where they come from",
                ("reward", "cost", "source"),
                [(name, item.cost, item.source) for name, item in REWARDS.items()],
            ),
            Text(""),
            Text("Costs that every trial has: " + ", ".join(COSTS) + "."),
            Text("From other installed packages: " + (", ".join(sorted(installed)) or "none") + "."),
        ),
    )


def list_spaces(format: FormatOption = OutputFormat.HUMAN) -> None:
    """List the search spaces that come with autopeft."""
    from autopeft.configuration import list_search_spaces

    found = list_search_spaces()
    emit(
        format,
        lambda: {
            "spaces": [{"name": item.name, "description": item.description, "path": str(item.path)} for item in found]
        },
        lambda: make_table(
            "Search spaces (a file of your own: --space my_space.yaml)",
            ("space", "description", "file"),
            [(item.name, item.description, str(item.path)) for item in found],
        ),
    )


SpaceArgument = Annotated[str, typer.Argument(metavar="SPACE", help="Name, or path of a YAML file.")]


def show_space(space: SpaceArgument, format: FormatOption = OutputFormat.HUMAN) -> None:
    """Show a search space: its parameters, conditions and modules."""
    from rich.text import Text

    from autopeft.configuration import load_search_space

    found = load_search_space(space)
    emit(format, lambda: {"space": found.to_dict()}, lambda: Text(found.describe()))


def validate_space(space: SpaceArgument, format: FormatOption = OutputFormat.HUMAN) -> None:
    """Check a search-space file: every mistake at once, with its key; exit code 2 if there is one."""
    from rich.text import Text

    from autopeft.configuration import load_search_space
    from autopeft.modules import MODULES

    found = load_search_space(space, MODULES)
    counts = {"n_parameters": len(found.parameters), "n_modules": len(found.modules)}
    emit(
        format,
        lambda: {"name": found.name, "is_valid": True, **counts},
        lambda: Text(f"{found.name} is valid: {counts['n_parameters']} parameters, {counts['n_modules']} modules."),
    )

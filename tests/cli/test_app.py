from __future__ import annotations

import subprocess
import sys

import pytest
import typer

from autopeft.cli import main
from autopeft.cli._app import app
from autopeft.exceptions import (
    AutoPeftError,
    InfeasibleError,
    NotFoundError,
    StoreError,
    UnknownNameError,
    UsageError,
)
from tests.cli.conftest import Cli

HEAVY = (
    "torch",
    "transformers",
    "botorch",
    "gpytorch",
    "optuna",
    "pandas",
    "scipy",
    "sklearn",
    "sqlalchemy",
    "alembic",
    "matplotlib",
    "peft",
    "datasets",
    "pyarrow",
)


def commands() -> list[tuple[str, ...]]:
    """Every command, groups and their members included, as words."""

    def walk(command: object, words: tuple[str, ...]) -> list[tuple[str, ...]]:
        found = [words]
        for name, child in getattr(command, "commands", {}).items():
            found += walk(child, (*words, name))
        return found

    return walk(typer.main.get_command(app), ())


def test_the_promised_commands_are_there() -> None:
    promised = [
        "search",
        "plan",
        "status",
        "trials",
        "front",
        "show",
        "report",
        "tasks",
        "backbones",
        "spaces",
        "doctor",
        "db",
    ]
    assert set(promised) <= {words[0] for words in commands() if words}
    assert {("spaces", "list"), ("spaces", "show"), ("spaces", "validate"), ("db", "upgrade")} <= set(commands())


@pytest.mark.parametrize("words", commands(), ids=lambda words: " ".join(words) or "autopeft")
def test_every_help_has_examples_of_its_own_command(cli: Cli, words: tuple[str, ...]) -> None:
    ran = cli(*words, "--help")
    assert ran.code == 0
    after = ran.out.split("Examples:")[1]
    assert f"autopeft {' '.join(words)}".strip() in after
    assert ran.err == ""


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom autopeft.cli import main\ncodes = [main(['--help']), main(['search', '--help']), "
        "main(['--version'])]\n"
        f"print(codes, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[0, 0, 0] []"


def test_root_help_documents_exit_codes_and_variables(cli: Cli) -> None:
    text = cli("--help").out
    for code in ("0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "130 "):
        assert f"\n   {code}" in text
    for name in ("AUTOPEFT_DB", "AUTOPEFT_HOME", "AUTOPEFT_DATA_DIR", "AUTOPEFT_DEBUG"):
        assert name in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("fron",), "No such command 'fron'. Did you mean 'front'?"),
        (("front", "--bogus"), "No such option: --bogus"),
        (("search", "--trials", "many"), "Invalid value for '--trials': Input should be a valid integer"),
        (("search", "--trials", "many"), "but got 'many'."),
        (("search", "--trials=2.5"), "but got '2.5'."),
        (("front", "--format", "xml"), "'xml' is not one of 'human', 'json'"),
        (("spaces", "show"), "Missing argument 'SPACE'"),
        (("front", "a", "b"), "unexpected extra argument"),
    ],
)
def test_wrong_usage_is_one_message_and_exit_code_2(cli: Cli, words: tuple[str, ...], message: str) -> None:
    ran = cli(*words)
    assert ran.code == 2
    assert ran.out == ""
    assert ran.err.startswith("error: ")
    assert message in ran.err
    assert "--help" in ran.err
    assert "Traceback" not in ran.err


def test_no_command_shows_the_help_with_exit_code_2(cli: Cli) -> None:
    ran = cli()
    assert ran.code == 2
    assert "Usage: autopeft" in ran.out + ran.err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("bad flag"), 2),
        (UnknownNameError("task", "glu/sst2", ["glue/sst2"]), 2),
        (InfeasibleError("nothing fits"), 3),
        (StoreError("database is locked"), 4),
        (NotFoundError("no such study"), 5),
        (AutoPeftError("anything"), 1),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_errors_become_one_line_and_their_exit_code(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("autopeft.tasks.list_tasks", fail)
    ran = cli("tasks")
    assert ran.code == code
    assert ran.out == ""
    assert "Traceback" not in ran.err
    if code not in (1, 130):
        assert ran.err == f"error: {error}\n"
    if isinstance(error, RuntimeError):
        assert ran.err.startswith("error: internal error: RuntimeError: a bug\n")
        assert "--debug" in ran.err


@pytest.mark.parametrize("where", [("--debug", "tasks"), ("tasks", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, where: tuple[str, ...]
) -> None:
    def fail() -> None:
        raise UsageError("bad flag")

    monkeypatch.setattr("autopeft.tasks.list_tasks", fail)
    ran = cli(*where)
    assert ran.code == 2
    assert "Traceback (most recent call last)" in ran.err
    assert ran.err.endswith("error: bad flag\n")
    monkeypatch.setenv("AUTOPEFT_DEBUG", "1")
    assert "Traceback" in cli("tasks").err


def test_version_is_the_packages(cli: Cli) -> None:
    import autopeft

    assert cli("--version").out == f"autopeft {autopeft.__version__}\n"


def test_completion_script_is_made_for_a_shell() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "autopeft.cli"],
        env={"_AUTOPEFT_COMPLETE": "source_bash", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert "complete " in done.stdout
    assert "autopeft" in done.stdout


def test_main_is_the_installed_entry_point() -> None:
    from importlib.metadata import entry_points

    found = [item for item in entry_points(group="console_scripts") if item.name == "autopeft"]
    assert [item.value for item in found] == ["autopeft.cli:main"]
    assert found[0].load() is main

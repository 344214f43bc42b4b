"""The command line's root: which commands there are, and what happens to errors."""

from __future__ import annotations

import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from autopeft.cli import (
    _catalog,
    _cluster,
    _control,
    _dashboard,
    _database,
    _deliver,
    _doctor,
    _export,
    _inspect,
    _search,
    _serve,
    _worker,
)
from autopeft.cli._environment import is_debug
from autopeft.cli._log import wanted_format, warnings_shown
from autopeft.cli._output import tell
from autopeft.exceptions import AutoPeftError

EXIT_OK, EXIT_INTERNAL, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130

_ROOT_HELP = "Find the PEFT configuration for your model, data and parameter budget, and prove it."

_ROOT_EPILOG = """Examples:
  autopeft search --task stdlib/topics --budget 1%
  autopeft front
  autopeft report -o report.html

Data go to stdout, progress and errors to stderr. Exit codes:
  0    done
  1    internal error
  2    wrong usage: a flag, a name, a file, a budget
  3    no feasible configuration
  4    the machine: database, disk, installation
  5    no such study or trial
  130  interrupted; the same command resumes

Environment: AUTOPEFT_DB (database), AUTOPEFT_HOME (folder of the default database and caches),
AUTOPEFT_DATA_DIR (task files), AUTOPEFT_SERVER and AUTOPEFT_API_TOKEN (a service and its token),
AUTOPEFT_LOG_FORMAT=json, AUTOPEFT_DEBUG=1 (tracebacks), NO_COLOR."""

app = typer.Typer(
    name="autopeft",
    help=_ROOT_HELP,
    epilog=_ROOT_EPILOG,
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def examples(*lines: str) -> str:
    """The examples below a command's help."""
    return "Examples:\n" + "\n".join(f"  {line}" for line in lines)


def _print_version(value: bool) -> None:
    if value:
        from autopeft import __version__

        sys.stdout.write(f"autopeft {__version__}\n")
        raise typer.Exit


@app.callback()
def root(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; works behind any command as well.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Hold the options of all commands; `run` looks at --debug itself."""


_SEARCH = "Search"
_STUDIES = "Studies"
_LISTS = "What there is"
_MACHINE = "This machine"

app.command(
    "search",
    rich_help_panel=_SEARCH,
    epilog=examples(
        "autopeft search --task stdlib/topics --budget 1%",
        "autopeft search --task glue/sst2 --budget 1% --data-dir glue --train-fraction 2%",
        "autopeft search --task reviews.csv --text-column text --label-column label --backbone ./my-model",
        "autopeft search --config search.yaml --trials 60",
        "autopeft search --task reviews.csv --server https://host:8500",
    ),
)(_search.search)
app.command(
    "plan",
    rich_help_panel=_SEARCH,
    epilog=examples(
        "autopeft plan --task stdlib/topics --budget 1%", "autopeft plan --config search.yaml --format json"
    ),
)(_search.plan)
app.command(
    "worker",
    rich_help_panel=_SEARCH,
    epilog=examples(
        "autopeft worker --db postgresql://user@host/autopeft",
        "autopeft worker --study STUDY --device cuda:1 --gpu-share 0.5",
        "srun autopeft worker --idle-timeout 10m",
    ),
)(_worker.worker)
app.command(
    "serve",
    rich_help_panel=_SEARCH,
    epilog=examples(
        "autopeft serve --token-file tokens",
        "autopeft serve --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem --executor workers --max-active 4",
        "autopeft serve --no-token   # on this machine alone",
    ),
)(_serve.serve)
app.command(
    "status",
    rich_help_panel=_STUDIES,
    epilog=examples(
        "autopeft status",
        "autopeft status --all",
        "autopeft status STUDY --watch",
        "autopeft status stdlib-topics --format json",
    ),
)(_inspect.status)
app.command(
    "stop", rich_help_panel=_STUDIES, epilog=examples("autopeft stop STUDY", "autopeft stop STUDY --server URL")
)(_control.stop)
app.command(
    "resume", rich_help_panel=_STUDIES, epilog=examples("autopeft resume STUDY", "autopeft resume STUDY --server URL")
)(_control.resume)
app.command(
    "trials",
    rich_help_panel=_STUDIES,
    epilog=examples(
        "autopeft trials",
        "autopeft trials STUDY --kind baseline",
        "autopeft trials --format json | jq '.trials[].values'",
    ),
)(_inspect.trials)
app.command(
    "front",
    rich_help_panel=_STUDIES,
    epilog=examples("autopeft front", "autopeft front STUDY --format json > front.json"),
)(_inspect.front)
app.command(
    "show",
    rich_help_panel=_STUDIES,
    epilog=examples("autopeft show", "autopeft show 17", "autopeft show STUDY knee --format json"),
)(_inspect.show)
app.command(
    "report",
    rich_help_panel=_STUDIES,
    epilog=examples(
        "autopeft report -o report.html",
        "autopeft report STUDY --format md > report.md",
        "autopeft report --format json",
    ),
)(_deliver.report)
app.command(
    "export",
    rich_help_panel=_STUDIES,
    epilog=examples(
        "autopeft export -o adapter",
        "autopeft export STUDY knee -o adapter",
        "autopeft export STUDY 17 -o model --as merged",
    ),
)(_export.export)
app.command(
    "dashboard",
    rich_help_panel=_STUDIES,
    epilog=examples("autopeft dashboard", "autopeft dashboard --port 8600 --db postgresql://user@host/autopeft"),
)(_dashboard.dashboard)
app.command("tasks", rich_help_panel=_LISTS, epilog=examples("autopeft tasks", "autopeft tasks --format json"))(
    _catalog.tasks
)
app.command(
    "backbones", rich_help_panel=_LISTS, epilog=examples("autopeft backbones", "autopeft backbones --format json")
)(_catalog.backbones)
app.command("rewards", rich_help_panel=_LISTS, epilog=examples("autopeft rewards", "autopeft rewards --format json"))(
    _catalog.rewards
)

spaces = typer.Typer(
    name="spaces",
    help="List, show and check search spaces.",
    no_args_is_help=True,
    epilog=examples("autopeft spaces list", "autopeft spaces show default", "autopeft spaces validate my_space.yaml"),
)
spaces.command("list", epilog=examples("autopeft spaces list --format json"))(_catalog.list_spaces)
spaces.command("show", epilog=examples("autopeft spaces show default", "autopeft spaces show my_space.yaml"))(
    _catalog.show_space
)
spaces.command("validate", epilog=examples("autopeft spaces validate my_space.yaml"))(_catalog.validate_space)
app.add_typer(spaces, rich_help_panel=_LISTS)

app.command("doctor", rich_help_panel=_MACHINE, epilog=examples("autopeft doctor", "autopeft doctor --format json"))(
    _doctor.doctor
)

database = typer.Typer(
    name="db",
    help="Look after the database.",
    no_args_is_help=True,
    epilog=examples("autopeft db upgrade", "autopeft db upgrade --db postgresql://user@host/autopeft"),
)
database.command(
    "upgrade", epilog=examples("autopeft db upgrade", "autopeft db upgrade --db postgresql://user@host/autopeft")
)(_database.upgrade)
database.command(
    "export",
    epilog=examples(
        "autopeft db export STUDY -o study.json",
        "autopeft search --task reviews.csv --warm-start study.json",
        "autopeft db export STUDY --optuna study.db   # then: optuna-dashboard sqlite:///study.db",
    ),
)(_database.export)
app.add_typer(database, rich_help_panel=_MACHINE)

cluster = typer.Typer(
    name="cluster",
    help="Prepare a cluster by docker compose.",
    no_args_is_help=True,
    epilog=examples("autopeft cluster init", "docker compose up --build -d"),
)
cluster.command("init", epilog=examples("autopeft cluster init", "autopeft cluster init --force"))(_cluster.init)
cluster.command("check", epilog=examples("autopeft cluster check", "autopeft cluster check --format json"))(
    _cluster.check
)
cluster.command("token", epilog=examples("export AUTOPEFT_API_TOKEN=$(autopeft cluster token)"))(_cluster.print_token)
app.add_typer(cluster, rich_help_panel=_MACHINE)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: Words after the program's name; None for those of this process.

    Returns:
        The exit code, as the root help lists them.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or is_debug()
    words = [word for word in words if word != "--debug"]
    with warnings_shown(wanted_format(words)):
        return _run(words, debug)


def _run(words: list[str], debug: bool) -> int:
    try:
        # Without standalone mode, errors come here instead of ending the process.
        code = app(words, prog_name="autopeft", standalone_mode=False)
    except AutoPeftError as error:
        return _fail(str(error), error.exit_code, error if debug else None)
    except typer.TyperException as error:
        return _fail_usage(error, words)
    except (KeyboardInterrupt, typer.Abort):
        tell("Interrupted.")
        return EXIT_INTERRUPTED
    except Exception as error:
        text = f"internal error: {type(error).__name__}: {error}"
        hint = "" if debug else "\nRun it again with --debug for the traceback, and please report it."
        return _fail(text + hint, EXIT_INTERNAL, error if debug else None)
    return code if isinstance(code, int) else EXIT_OK


def _fail(text: str, code: int, error: BaseException | None) -> int:
    if error is not None:
        tell("".join(traceback.format_exception(error)).rstrip("\n"))
    tell(f"error: {text}")
    return code


def _fail_usage(error: typer.TyperException, words: Sequence[str]) -> int:
    """A wrong flag or argument, found by Typer: what is wrong, and where the help is."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # The help is already on the screen: a command without arguments is a question, not a mistake.
        return EXIT_USAGE
    message = error.format_message().rstrip(".")
    value = _rejected_value(message, words)
    tell(f"error: {message}{'' if value is None else f', but got {value!r}'}.")
    context = getattr(error, "ctx", None)
    if context is not None:
        tell(f"See `{context.command_path} --help`.")
    return EXIT_USAGE


def _rejected_value(message: str, words: Sequence[str]) -> str | None:
    """What was given for the option that a message calls invalid; None if the message shows it or it is not found."""
    match = re.search(r"Invalid value for '(?:-\w' / ')?(--[\w-]+)'", message)
    if match is None:
        return None
    for word, following in zip(words, [*words[1:], ""], strict=True):
        value = following if word == match[1] else word.removeprefix(f"{match[1]}=")
        if (word == match[1] or word.startswith(f"{match[1]}=")) and f"'{value}'" not in message:
            return value
    return None

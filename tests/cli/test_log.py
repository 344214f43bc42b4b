from __future__ import annotations

import io
import json
import logging
import subprocess
import sys

import pytest

from autopeft.cli._log import LogFormat, is_json, json_line, records_shown, wanted_format, warnings_shown
from autopeft.cli._output import tell
from autopeft.cli._progress import SearchProgress
from tests.cli.conftest import Cli
from tests.cli.test_search import make_plan

LOGGER = logging.getLogger("autopeft.samplers")


def test_a_warning_is_one_line_on_stderr_once(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def warn() -> list[object]:
        LOGGER.info("not shown")
        for text in ("two\n  lines \x1b[2J", "two\n  lines \x1b[2J", "another"):
            LOGGER.warning("%s", text)
        return []

    monkeypatch.setattr("autopeft.tasks.list_tasks", warn)
    other = logging.StreamHandler(sys.stderr)
    monkeypatch.setattr(logging.getLogger(), "handlers", [other])
    for _ in range(2):  # once per command, however often commands run in a process
        ran = cli("tasks", "--format", "json")
        assert ran.code == 0
        assert ran.err == "warning: two lines \ufffd[2J\nwarning: another\n"
        assert "warning" not in ran.out


def test_afterwards_the_loggers_are_as_before() -> None:
    logger = logging.getLogger("autopeft")
    before = (list(logger.handlers), logger.propagate, logger.level)
    with pytest.raises(RuntimeError), warnings_shown():
        raise RuntimeError
    assert (logger.handlers, logger.propagate, logger.level) == before


def test_importing_configures_nothing() -> None:
    code = (
        "import logging, autopeft, autopeft.cli, autopeft.cli._app; logger = logging.getLogger('autopeft'); "
        "print(logger.handlers, logger.level, logger.propagate, logging.getLogger().handlers)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[] 0 True []"


@pytest.mark.parametrize(
    ("words", "variable", "expected"),
    [
        ([], "", "text"),
        ([], "json", "json"),
        (["search", "--log-format", "json"], "", "json"),
        (["search", "--log-format=json"], "", "json"),
        (["search", "--log-format=text"], "json", "text"),
        (["search", "--log-format"], "json", "text"),
    ],
)
def test_the_format_is_known_before_anything_is_told(words: list[str], variable: str, expected: str) -> None:
    assert wanted_format(words, {"AUTOPEFT_LOG_FORMAT": variable}).value == expected


def read(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_as_json_every_message_record_and_mistake_is_one_object_a_line(cli: Cli) -> None:
    ran = cli("status", "--log-format", "json")
    assert ran.code == 2
    lines = read(ran.err)
    assert lines[0]["level"] == "error"
    assert "No such option" in str(lines[0]["message"])
    ran = cli("search", "--log-format", "json")
    (line,) = read(ran.err)
    assert set(line) == {"time", "level", "logger", "message"}
    assert str(line["message"]).startswith("error: no task given")
    assert not is_json()


def test_a_record_keeps_what_it_was_given(capsys: pytest.CaptureFixture[str]) -> None:
    with warnings_shown(LogFormat.JSON):
        assert is_json()
        LOGGER.info("trial %d\nends \udcff", 3, extra={"study": "<s>", "trial": 3, "path": LOGGER})
        try:
            raise ValueError("inside")
        except ValueError:
            LOGGER.exception("failed", extra={"level": "kept out"})
        tell("\nwarning: careful")
        logging.getLogger("uvicorn.error").info("started")
        logging.getLogger("other").warning("not ours")
    first, second, third, fourth = read(capsys.readouterr().err)
    assert (first["message"], first["study"], first["trial"]) == ("trial 3\nends \udcff", "<s>", 3)
    assert first["level"] == "info"
    assert second["level"] == "error"
    assert "ValueError: inside" in str(second["exception"])
    assert (third["logger"], third["message"]) == ("autopeft.cli", "warning: careful")
    assert fourth["logger"] == "uvicorn.error"


def test_a_line_of_json_has_no_break_whatever_is_in_it() -> None:
    record = logging.makeLogRecord({"msg": "a\nb\r\u2028\x1b[2J", "study": "\n"})
    line = json_line(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["message"] == "a\nb\r\u2028\x1b[2J"


def test_commands_that_run_for_days_show_records_with_study_once(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("autopeft.worker")
    with warnings_shown(), records_shown("autopeft.worker"):
        logger.info("trial %d begins", 1, extra={"study": "s"})
        logger.info("ends")
    first, second = capsys.readouterr().err.splitlines()
    assert first.endswith("INFO [s] trial 1 begins")
    assert second.endswith("INFO ends")
    with warnings_shown(LogFormat.JSON), records_shown("autopeft.worker"):
        logger.info("trial 2 begins")
    assert len(read(capsys.readouterr().err)) == 1
    assert (logger.handlers, logger.propagate, logger.level) == ([], True, logging.NOTSET)


class Terminal(io.StringIO):
    """A screen that remembers what was written to it."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_warning_stands_on_a_line_of_its_own_above_the_live_bar(
    monkeypatch: pytest.MonkeyPatch, is_quiet: bool
) -> None:
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with warnings_shown(), SearchProgress(is_quiet=is_quiet, is_live=True) as progress:
        progress.plan(make_plan())
        LOGGER.warning("Proposing space-filling points: %s", "no surrogate")
    # What ends a line, or clears the bar's, starts a new one.
    lines = screen.getvalue().replace("\x1b[2K", "\n").replace("\r", "\n").splitlines()
    assert lines.count("warning: Proposing space-filling points: no surrogate") == 1
    assert ("search" in screen.getvalue()) is not is_quiet

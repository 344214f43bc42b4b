from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections import Counter

import pytest
from rich.console import Console

from autopeft.cli._output import OutputFormat, emit, json_text, make_table, tell
from autopeft.export import SCHEMA_VERSION

HEADERS = ("trial", "accuracy", "share", "configuration")
ROWS = [("0", "0.5000", "1.00 %", "lora 8 on q,v of 0-5"), ("1", "", "0.10 %", "[bold]not markup[/bold] \x1b[31mred")]


def shown(width: int) -> str:
    stream = io.StringIO()
    Console(file=stream, width=width).print(make_table("Title", HEADERS, ROWS, numeric=(0, 1, 2), optional=(2,)))
    return stream.getvalue()


def test_half_a_surrogate_pair_is_escaped() -> None:
    text = json_text({"study": "x\udcff\U0001f600"})
    assert "\\udcff\U0001f600" in text
    assert json.loads(text)["study"] == "x\udcff\U0001f600"
    text.encode()


def test_cells_are_text_never_markup_or_terminal_codes() -> None:
    text = shown(100)
    assert "[bold]not markup[/bold]" in text
    assert "\x1b" not in text


def test_columns_go_then_rows_become_blocks_as_room_shrinks() -> None:
    assert "share" in shown(80)
    assert "share" not in shown(44)
    assert "configuration" in shown(44)
    blocks = shown(24)
    assert "share: 1.00 %" in blocks  # a block has room for everything
    assert "accuracy: \n" not in blocks  # what is missing has no line


@pytest.mark.parametrize("width", [20, 30, 44, 60, 80, 200])
def test_no_cell_is_cut_off_at_any_width(width: int) -> None:
    kept = [cell for row in ROWS for i, cell in enumerate(row) if i != 2]  # the third column is optional
    wanted = Counter("".join(kept).replace("\x1b", "\ufffd").replace(" ", ""))
    assert wanted - Counter(shown(width)) == Counter()


def test_json_has_a_schema_version_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    emit(OutputFormat.JSON, lambda: {"a": "é"}, lambda: "unused")
    assert json.loads(capsys.readouterr().out) == {"schema_version": SCHEMA_VERSION, "a": "é"}
    with pytest.raises(ValueError, match="Out of range float"):
        emit(OutputFormat.JSON, lambda: {"a": float("nan")}, lambda: "unused")


def test_messages_go_to_stderr_without_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    tell("a\x1b[2Jb")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "a\ufffd[2Jb\n"


def test_a_reader_that_has_gone_is_no_error() -> None:
    code = "from autopeft.cli._output import write\nfor _ in range(2000): write('x' * 1000 + chr(10))"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    os.read(process.stdout.fileno(), 10)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 0
    process.stderr.close()

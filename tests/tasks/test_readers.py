"""Oracles: what was written; pandas and pyarrow write what is read here."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autopeft.exceptions import TaskError
from autopeft.tasks._readers import READERS, is_blank, read_table

ROWS = [("plain", "a"), ('says "no", then\nleaves', "b"), ("caf\u00e9 \u2028 \U0001f600", "c"), (" spaces ", "a")]


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    table = read_table(path)
    return list(zip(*(table.column(name) for name in table.names), strict=True))


@pytest.mark.parametrize("suffix", READERS)
def test_what_pandas_writes_is_read_back(suffix: str, tmp_path: Path) -> None:
    frame, path = pd.DataFrame(ROWS, columns=["text", "label"]), tmp_path / f"data{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix in (".csv", ".tsv"):
        frame.to_csv(path, index=False, sep="," if suffix == ".csv" else "\t")
    else:
        frame.to_json(path, orient="records", lines=True)
    assert rows_of(path) == ROWS
    assert read_table(path).names == ("text", "label")


text = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\r\0"), min_size=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(text, text), min_size=1, max_size=8), mark=st.sampled_from(",;\t"))
def test_csv_round_trip(rows: list[tuple[str, str]], mark: str, tmp_path: Path) -> None:
    with (tmp_path / "data.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=mark).writerows([("first", "second"), *rows])
    assert rows_of(tmp_path / "data.csv") == rows


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.text("ab\" '", min_size=1).filter(str.strip), st.sampled_from("01")), min_size=1))
def test_tsv_with_literal_quotes_keeps_every_row(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    write(tmp_path / "data.tsv", "text\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows))
    table = read_table(tmp_path / "data.tsv")
    assert table.column("label") == [b for _, b in rows]
    # A file whose every quote is doubled or pairs around a field reads as a quoted file just as well.
    assert [value.replace('"', "") for value in table.column("text")] == [a.replace('"', "") for a, _ in rows]


def test_stray_quotes_of_a_literal_tsv_do_not_swallow_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a b\t0\nc d "\t1\n')
    assert rows_of(path) == [('"a b', "0"), ('c d "', "1")]
    path = write(tmp_path / "b.tsv", 'text\tlabel\n"a\tb"\t0\n"two\nlines"\t1\n')
    assert rows_of(path) == [("a\tb", "0"), ("two\nlines", "1")]


def test_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "\ufefftext,label\r\n\r\nx,1\r\n\r\n\r\ny,2\r\n")
    table = read_table(path)
    assert table.names == ("text", "label")
    assert table.numbers == [3, 6]
    path = write(tmp_path / "a.jsonl", '\ufeff{"text": "x"}\n\n{"text": "y", "label": 1}\n')
    table = read_table(path)
    assert table.column("label") == [None, 1]
    assert table.numbers == [1, 3]


def test_rows_are_numbered_by_their_first_line(tmp_path: Path) -> None:
    table = read_table(write(tmp_path / "a.csv", 'text,label\n"one\ntwo\nthree",1\nx,2\n'))
    assert table.numbers == [2, 5]
    assert table.where([0]) == "line 2"
    assert table.where([0, 1]) == "lines 2, 5"
    assert table.where([0] * 9, limit=2) == "lines 2, 2, ..."


def test_long_fields_are_read(tmp_path: Path) -> None:
    long = "word " * 100_000
    limit = csv.field_size_limit()
    assert rows_of(write(tmp_path / "a.csv", f"text,label\n{long},1\n")) == [(long, "1")]
    assert csv.field_size_limit() == limit


BAD: list[tuple[str, str | bytes, str]] = [
    ("a.csv", "", r"a\.csv is empty"),
    ("a.csv", " \n\n", r"a\.csv is empty"),
    ("a.jsonl", "\n", r"a\.jsonl is empty"),
    ("a.csv", "text,label\n", r"holds column names \(text, label\), but no examples"),
    ("a.csv", "text,label\na,b\nc,d,e\n", r"line 3: found 3 fields, but the header names 2 .*',' must be"),
    ("a.csv", 'text,label\na,b\n"c" d,e\n', r"line 3: ',' expected after '\"'"),
    ("a.csv", 'text,label\na,b\n"c,d\ne,f\n', r"line 3: unexpected end of data"),
    ("a.csv", b"text,label\ncaf\xe9,b\n", r"not UTF-8: byte 14 \(line 2\) is 0xe9"),
    ("a.csv", b"\xef\xbb\xbftext,label\ncaf\xe9,b\n", r"byte 17 \(line 2\) is 0xe9"),
    ("a.csv", b"\xff\xfet\x00", r"byte 0 \(line 1\) is 0xff"),
    ("a.tsv", "text\tlabel\na\n", r"line 2: found 1 fields"),
    ("a.jsonl", '{"text": "a"}\n{"text": \n', r"line 2: not valid JSON: Expecting value at column 10"),
    ("a.jsonl", '[1, 2]\n', r"line 1: every line must be one JSON object.*is a list"),
    ("a.json", "[\n", r"line 1: not valid JSON"),
    ("a.jsonl", "[" * 100_000, r"line 1: not valid JSON"),
    ("a.parquet", "text,label\n", r"not a Parquet file"),
    ("a.xlsx", "x", r"must end in one of \.csv, \.tsv"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), BAD)
def test_malformed_files(name: str, content: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=message):
        read_table(write(tmp_path / name, content))


def test_truncated_parquet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pd.DataFrame({"text": [str(row) for row in range(10_000)]}).to_parquet(path)
    content = path.read_bytes()
    for broken in (content[:-9], content[:1000] + b"\0" * 5000 + content[6000:]):
        with pytest.raises(TaskError, match=r"a\.parquet"):
            read_table(write(path, broken)).column("text")


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"gone\.csv does not exist \(looked in"):
        read_table(tmp_path / "gone.csv")
    with pytest.raises(TaskError, match="is a folder, but a task is one file; it holds no file"):
        read_table(tmp_path)
    write(tmp_path / "b.csv", "x")
    with pytest.raises(TaskError, match=r"name a file in it, such as .*b\.csv"):
        read_table(tmp_path)


def test_blank_cells() -> None:
    assert all(is_blank(value) for value in (None, "", " \t\n", float("nan")))
    assert not any(is_blank(value) for value in ("x", 0, 0.0, False, "nan"))


def test_json_values_keep_their_types(tmp_path: Path) -> None:
    rows: list[Any] = [{"v": value} for value in (1, 1.5, True, None, "x")]
    path = write(tmp_path / "a.jsonl", "\n".join(map(json.dumps, rows)))
    assert read_table(path).column("v") == [1, 1.5, True, None, "x"]

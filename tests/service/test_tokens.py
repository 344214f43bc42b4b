from __future__ import annotations

from pathlib import Path

import pytest

from autopeft.exceptions import UsageError
from autopeft.service._tokens import Caller, Role, TokenBook, find_tokens

TOKEN = "0123456789abcdef"


def test_a_token_alone_is_the_operators() -> None:
    book = TokenBook.parse(f"\n# the only one\n{TOKEN}\n", "tokens")
    assert book.find(TOKEN) == Caller(name="default", role=Role.ADMIN)
    assert len(book) == 1


def test_named_tokens_have_roles() -> None:
    book = TokenBook.parse(f"ada {TOKEN}a\nbob {TOKEN}b read\nroot {TOKEN}c ADMIN\n", "tokens")
    found = [book.find(TOKEN + letter) for letter in "abc"]
    assert found == [
        Caller(name="ada", role=Role.WRITE),
        Caller(name="bob", role=Role.READ),
        Caller(name="root", role=Role.ADMIN),
    ]
    assert book.names == ("ada", "bob", "root")


@pytest.mark.parametrize("given", ["", TOKEN[:-1], TOKEN + "0", TOKEN.upper(), f" {TOKEN}", "ü" * 16, "\udcff"])
def test_anything_else_is_nobodys(given: str) -> None:
    assert TokenBook.parse(TOKEN, "tokens").find(given) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no token"),
        ("# nothing", "holds no token"),
        ("short", "5 characters, but at least 16"),
        (f"ada {TOKEN} write more", "line 1"),
        (f"ada {TOKEN} owner", "read, write or admin"),
        (f"../ada {TOKEN}", "a name has letters"),
        (f"ada {TOKEN}\nada {TOKEN}b", "two tokens have the name 'ada'"),
        (f"ada {TOKEN}\nbob {TOKEN}", "'bob' has another name"),
        ("ada " + "ü" * 20, "no header carries"),
    ],
)
def test_a_bad_file_is_refused_without_showing_a_token(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        TokenBook.parse(text, "tokens")
    assert TOKEN not in str(caught.value)


def test_neither_the_book_nor_its_parts_show_a_token() -> None:
    book = TokenBook.parse(f"ada {TOKEN}", "tokens")
    assert TOKEN not in repr(book) + repr(vars(book))


def test_a_named_file_comes_before_the_environment(tmp_path: Path) -> None:
    named, other = tmp_path / "named", tmp_path / "other"
    named.write_text(f"{TOKEN}-named")
    other.write_text(f"{TOKEN}-other\n")
    environment = {"AUTOPEFT_API_TOKEN_FILE": str(other), "AUTOPEFT_API_TOKEN": f"{TOKEN}-own"}
    for file, variables, suffix in [
        (named, environment, "named"),
        (None, environment, "other"),
        (None, {"AUTOPEFT_API_TOKEN": f"{TOKEN}-own"}, "own"),
    ]:
        book = find_tokens(file, variables)
        assert book is not None
        assert book.find(f"{TOKEN}-{suffix}") is not None
    assert find_tokens(None, {}) is None
    assert find_tokens(None, {"AUTOPEFT_API_TOKEN": ""}) is None
    with pytest.raises(UsageError, match=r"missing.*cannot be read"):
        find_tokens(tmp_path / "missing", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="is not text"):
        find_tokens(tmp_path / "binary", {})

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autopeft.artifacts import check_name
from autopeft.artifacts._names import safe_part, study_folder
from autopeft.exceptions import UsageError


@pytest.mark.parametrize(
    "name", ["report.html", "studies/rte-minilm-1pct-ab12cd/adapters/17/adapter_config.json", "ä/ö"]
)
def test_ordinary_names_pass(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("~/x", "absolute"),
        ("../x", "'..'"),
        ("a/../../x", "'..'"),
        ("a//b", "''"),
        ("a/./b", "'.'"),
        ("a\\..\\b", "\\\\"),
        ("C:x", ":"),
        ("a\x00b", "x00"),
        ("a\nb", "\\n"),
        (".ssh/authorized_keys", "dot"),
        ("a/b.", "dot"),
        ("a/ b", "space"),
        ("nul", "device"),
        ("a/COM1.txt", "device"),
        ("x" * 201, "more than 200 bytes"),
        ("a/" * 300 + "a", "bytes"),
        ("a\u202eb", "invisible"),
        ("a\ud800b", "Unicode"),
        ("a<b>", "<"),
    ],
)
def test_names_that_could_mean_another_place_are_refused_with_the_reason(name: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_name(name)
    assert why in str(caught.value)
    assert str(caught.value).isascii()


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(["..", ".", "", "a", "C:", "\\", "~", "con"]), max_size=6).map("/".join)
)
def test_what_passes_stays_below_the_root_on_every_system(name: str) -> None:
    """Oracle: the standard library's own view of paths, of both kinds."""
    try:
        check_name(name)
    except UsageError:
        return
    for kind in (PurePosixPath, PureWindowsPath):
        path = kind(name)
        assert not path.is_absolute()
        assert not path.anchor
        assert ".." not in path.parts
        assert "/".join(path.parts) == name


@given(st.text(max_size=300))
def test_any_text_makes_one_part_of_a_name(text: str) -> None:
    part = safe_part(text)
    assert "/" not in part
    assert check_name(part) == part


def test_studies_whose_names_look_alike_have_folders_of_their_own() -> None:
    names = ["a_b", "a/b", "a b", "../a_b", "x" * 300, "x" * 301, "\u4e00", "\u4e8c", "con", "_con", "", "_"]
    folders = [study_folder(name) for name in names]
    assert folders[0] == "studies/a_b"
    assert len(set(folders)) == len(names)
    for folder in folders:
        check_name(folder)

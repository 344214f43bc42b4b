from pathlib import Path

import pytest

from autopeft.artifacts import parse_address
from autopeft.artifacts._address import open_file_system
from autopeft.exceptions import UsageError


def test_a_plain_path_is_a_folder_wherever_the_process_goes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = parse_address("store")
    assert str(address) == str(tmp_path / "store")
    assert parse_address(f"file://{tmp_path}/store") == address
    assert parse_address(str(address)) == address
    assert not address.is_shared


@pytest.mark.parametrize(
    ("text", "scheme", "root"),
    [
        ("s3://bucket/a/b/", "s3", "bucket/a/b"),
        ("s3a://bucket", "s3", "bucket"),
        ("gcs://bucket/x", "gs", "bucket/x"),
        ("memory://here/x", "memory", "here/x"),
    ],
)
def test_urls_are_read(text: str, scheme: str, root: str) -> None:
    address = parse_address(text)
    assert (address.scheme, address.root) == (scheme, root)
    assert address.is_shared == (scheme != "memory")
    assert parse_address(str(address)) == address


def test_the_options_of_an_object_store_stay_with_it() -> None:
    address = parse_address("s3://bucket/x?endpoint_override=localhost:9000&scheme=http")
    assert address.query == {"endpoint_override": "localhost:9000", "scheme": "http"}
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "empty"),
        ("http://host/x", "'http' is not supported"),
        ("simplecache::s3://bucket/x", "not supported"),
        ("s3://", "no bucket"),
        ("s3://bucket/../other", "'..'"),
        ("file://host/x", "three slashes"),
        ("s3://bucket/x?access_key=abc&secret_key=hunter2", "access_key, secret_key"),
    ],
)
def test_other_places_are_refused(text: str, word: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_address(text)
    assert word in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError, match="credentials do not belong in the URL") as caught:
        parse_address("s3://AKIA123:hunter2@bucket/x")
    assert "hunter2" not in str(caught.value)


def test_the_endpoint_that_other_clients_of_s3_use_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert "127.0.0.1:9000" in str(open_file_system(parse_address("s3://bucket/x")).fs.__reduce__())

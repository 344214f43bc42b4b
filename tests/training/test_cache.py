from __future__ import annotations

import errno

import pytest

from autopeft.exceptions import CacheError
from autopeft.training._cache import atomic_file, content_key


def test_key_depends_on_every_part_and_on_their_boundaries():
    keys = {
        content_key("ab", "c"),
        content_key("a", "bc"),
        content_key("abc"),
        content_key("ab", "c", ""),
        content_key(),
    }
    assert len(keys) == 5
    assert content_key("ab", 1) == content_key("ab", 1)


def test_file_appears_whole(tmp_path):
    path = tmp_path / "folder" / "file"
    with atomic_file(path) as temporary:
        temporary.write_bytes(b"content")
        assert not path.exists()
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_left_when_the_block_fails(tmp_path):
    def write_half() -> None:
        with atomic_file(tmp_path / "file") as temporary:
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_named(tmp_path):
    with pytest.raises(CacheError, match=r"the disk is full.*AUTOPEFT_HOME"), atomic_file(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(CacheError, match="cannot be written"), atomic_file(tmp_path / "blocked" / "file"):
        pass

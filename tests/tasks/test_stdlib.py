"""Oracles: a library written here; on the real one, the definitions (one file, one split) checked by brute force."""

from __future__ import annotations

import re
import sys
import sysconfig
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from autopeft.exceptions import TaskError
from autopeft.tasks import load_task
from autopeft.tasks._splits import normalize
from autopeft.tasks._stdlib import (
    TOPICS,
    _docstrings,
    _equal_quota,
    _read_topics,
    _ShingleIndex,
    _source_files,
    _take_turns,
)

SOURCE = '''"""Module text of three words."""
import not_a_module
raise RuntimeError("never executed")
if True:
    def inside_if():
        """Text inside an if statement."""
try:
    pass
except ValueError:
    class Late:
        """Text inside an except clause.

            Indented line.
        """
        async def method(self):
            """Text of an async method."""
            def inner():
                """Text of an inner function."""
else:
    def last():
        "Two words"
'''


def test_docstrings_are_those_of_the_source_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    assert list(_docstrings(tmp_path / "a.py")) == [
        "Module text of three words.",
        "Text inside an if statement.",
        "Text inside an except clause.\n\nIndented line.",
        "Text of an async method.",
        "Text of an inner function.",
    ]


def test_unparsable_sources_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "bad.py").write_text("def (:")
    (tmp_path / "nul.py").write_bytes(b"x = 1\0")
    (tmp_path / "latin.py").write_bytes(b'"""caf\xe9 au lait noir"""')
    assert [list(_docstrings(tmp_path / f"{name}.py")) for name in ("bad", "nul", "latin", "missing")] == [[]] * 4


def test_tests_and_installed_packages_are_not_read(tmp_path: Path) -> None:
    for name in ("email/a.py", "email/test/b.py", "email/tests/c.py", "email/site-packages/d.py", "email.py", "x.py"):
        target = tmp_path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("")
    found = [file.relative_to(tmp_path).as_posix() for file in _source_files(tmp_path, ["email", "absent"])]
    assert found == ["email.py", "email/a.py"]


def test_ambiguous_texts_are_left_out_and_repeated_ones_count_once(tmp_path: Path) -> None:
    (tmp_path / "string.py").write_text('"""Only about text, this."""\ndef f():\n    """Return the next item."""\n')
    (tmp_path / "re.py").write_text('"""Only about  TEXT, this."""\n')
    (tmp_path / "random.py").write_text('"""Return the next item."""\ndef g():\n    """Only about numbers, this."""\n')
    files, texts, topics = _read_topics(tmp_path)
    assert set(zip(files, texts, topics, strict=True)) == {
        ("re.py", "Only about  TEXT, this.", "text"),
        ("random.py", "Only about numbers, this.", "numbers"),
    }


def test_a_python_without_sources_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(TaskError, match="needs the standard library's sources"):
        load_task("stdlib/topics")


def test_a_topic_that_is_not_installed_is_no_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["open", "close", "read", "lock", "send", "parse", "count"]
    for topic in ("text", "files", "mail"):
        for number, module in enumerate(TOPICS[topic].split()):
            lines = [
                f'def f{row}():\n    """{topic} {module} {words[row % 7]} {row} {number}."""\n' for row in range(25)
            ]
            (tmp_path / f"{module}.py").write_text("".join(lines))
    # One file, as large as it may be, cannot stand in three splits.
    lines = [f'def f{row}():\n    """draw {row} {words[row % 7]} things"""\n' for row in range(200)]
    (tmp_path / "turtle.py").write_text("".join(lines))
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    task = load_task("stdlib/topics")
    assert task.label_names == ("text", "files", "mail")
    for split in task.splits.values():
        truth = [text.split()[0] for text in split.texts]
        assert [task.label_names[index] for index in split.targets] == truth


def test_no_module_is_under_two_topics() -> None:
    modules = Counter(module for names in TOPICS.values() for module in names.split())
    assert modules.most_common(1)[0][1] == 1


def test_known_modules_are_all_sorted() -> None:
    known = {module for names in TOPICS.values() for module in names.split()}
    # Implementation details, jokes, tables and accelerators; everything public has a topic.
    without = {"__future__", "antigravity", "this", "keyword", "pydoc_data", "nt", "posix", "encodings", "turtledemo"}
    folder = Path(sysconfig.get_path("stdlib"))
    public = {
        name
        for name in sys.stdlib_module_names
        if not name.startswith("_") and ((folder / f"{name}.py").exists() or (folder / name).is_dir())
    }
    assert public - known - without == set()


def test_queues_take_turns() -> None:
    assert _take_turns([[1, 2, 3], [4], [5, 6]]) == [1, 4, 5, 2, 6, 3]


def test_quota_is_equal_as_far_as_it_lasts() -> None:
    assert _equal_quota([10, 10, 10], 9) == [3, 3, 3]
    assert _equal_quota([1, 10, 10], 9) == [1, 4, 4]
    assert _equal_quota([1, 2], 9) == [1, 2]
    assert sum(_equal_quota([100] * 11, 1200)) == 1100
    assert max(_equal_quota([200] * 11, 1200)) - min(_equal_quota([200] * 11, 1200)) <= 1


def shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.casefold())
    return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))}


def test_near_copies_are_those_of_a_brute_force_jaccard_index() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["read", "write", "the", "file"], size=rng.integers(1, 7))) for _ in range(150)]
    index = _ShingleIndex(texts[:50])
    for text in texts[50:]:
        best = max(
            len(shingles(text) & shingles(other)) / len(shingles(text) | shingles(other)) for other in texts[:50]
        )
        assert index.has_near_copy(text) == (best >= 0.5)


def test_real_library_gives_sized_balanced_disjoint_splits() -> None:
    before = set(sys.modules)
    _read_topics.cache_clear()
    start = time.process_time()
    task = load_task("stdlib/topics")
    seconds = time.process_time() - start
    assert seconds < 6, "measured at about 2 s on an idle core"
    assert not {"turtle", "antigravity", "idlelib", "this"} & (set(sys.modules) - before)

    assert task.label_names is not None
    assert len(task.label_names) >= 9
    assert (len(task.train), len(task.search), len(task.report)) == (700, 400, 1000)
    assert set(task.train.targets) == set(range(task.n_labels))
    assert np.bincount(task.train.targets).max() <= 1.3 * 700 / task.n_labels
    assert np.bincount(task.report.targets).max() <= 1.3 * 1000 / task.n_labels

    files, texts, topics = _read_topics(Path(sysconfig.get_path("stdlib")))
    assert len(texts) == len({normalize(text) for text in texts}) >= 5000
    facts = {text: (file, topic) for file, text, topic in zip(files, texts, topics, strict=True)}
    seen = {name: {facts[text][0] for text in split.texts} for name, split in task.splits.items()}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))
    for split in task.splits.values():
        assert [task.label_names[index] for index in split.targets] == [facts[text][1] for text in split.texts]
        # Any prefix is balanced, so that a lower fidelity is no other task.
        counts = np.bincount(split.targets[:200], minlength=task.n_labels)
        assert counts.max() - counts.min() <= 0.2 * 200


def test_held_out_texts_have_no_near_copy_in_training() -> None:
    task = load_task("stdlib/topics")
    train = [shingles(text) for text in task.train.texts]
    for text in task.report.texts[::15]:
        own = shingles(text)
        assert max(len(own & other) / len(own | other) for other in train) < 0.5


def test_splits_are_seeded_and_fractions_nest() -> None:
    first, again, other = (load_task("stdlib/topics", seed=seed) for seed in (0, 0, 1))
    assert first.content_hash == again.content_hash
    assert set(first.report.texts) != set(other.report.texts)
    half = load_task("stdlib/topics", train_fraction=0.5)
    assert half.train.texts == first.train.texts[:350]
    assert half.report.texts == first.report.texts

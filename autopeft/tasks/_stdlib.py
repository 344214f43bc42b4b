"""``stdlib/topics``: which part of the standard library does this docstring belong to?

Real English text that every Python installation has. The sources are read with `ast`; nothing is imported.
"""

from __future__ import annotations

import ast
import functools
import os
import platform
import re
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from inspect import cleandoc
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autopeft.exceptions import TaskError
from autopeft.tasks._metrics import directions
from autopeft.tasks._splits import Examples, normalize, stratified_order
from autopeft.tasks._task import CLASSIFICATION, Task

#: Modules and packages by subject, after the chapters of the library's own manual. Names that a Python version or an
#: operating system's package lacks are no harm.
TOPICS: dict[str, str] = {
    "text": """
        string re sre_compile sre_constants sre_parse difflib textwrap stringprep struct codecs locale gettext html
        xml _markupbase csv configparser tomllib plistlib netrc json shlex pprint reprlib rlcompleter""",
    "data types": """
        datetime _pydatetime zoneinfo calendar _strptime collections _collections_abc heapq bisect weakref _weakrefset
        types copy enum graphlib operator functools dataclasses contextlib abc _py_abc typing annotationlib""",
    "numbers": "numbers _pydecimal decimal fractions random statistics colorsys",
    "files": """
        pathlib posixpath ntpath genericpath nturl2path stat filecmp tempfile glob fnmatch linecache shutil fileinput
        pickle copyreg shelve dbm sqlite3 gzip bz2 lzma zipfile tarfile _compression compression _pyio io wave aifc
        sunau chunk sndhdr imghdr zipapp""",
    "operating system": """
        os logging argparse optparse getopt getpass platform curses ctypes cmd time sysconfig _osx_support
        _aix_support pty tty pipes crypt uuid hashlib hmac secrets""",
    "concurrency": """
        threading _threading_local multiprocessing concurrent subprocess sched queue asyncio selectors signal
        contextvars asyncore asynchat""",
    "networking": """
        socket ssl socketserver http urllib ftplib poplib imaplib smtplib smtpd nntplib telnetlib xmlrpc ipaddress
        xdrlib wsgiref webbrowser cgi cgitb""",
    "mail": "email mailbox mailcap mimetypes base64 quopri uu",
    "graphical interfaces": "tkinter turtle turtledemo idlelib",
    "testing and debugging": """
        unittest doctest pdb bdb trace traceback tracemalloc timeit profile cProfile profiling pstats warnings
        pydoc faulthandler""",
    "language and imports": """
        ast dis symtable token tokenize lib2to3 inspect pyclbr py_compile compileall tabnanny opcode _opcode_metadata
        code codeop _pyrepl pickletools importlib imp pkgutil zipimport modulefinder runpy distutils ensurepip venv
        site""",
}

METRICS = ("accuracy", "macro_f1")

_SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
_MIN_WORDS = 3
#: The beginning says what a docstring is about; the rest would only make training slower.
_MAX_WORDS = 24
#: A topic that cannot give every split as many is left out: some systems package tkinter apart, for example.
_MIN_PER_SPLIT = 20
#: Examples in (train, search, report).
_SIZES = (700, 400, 1000)


def load_topics(*, train_fraction: float, seed: int) -> Task:
    """Build the task from the running interpreter's standard library.

    A source file's docstrings all stand in one split, so that near-copies (the methods of `decimal`, say) do not
    straddle two; what a held-out split shares with another file of an earlier split (`gzip` and `bz2`, say) is left
    out. Topics are represented about equally, and within a topic the files take turns.

    Args:
        train_fraction: Share of the training split used, in (0, 1].
        seed: Seed of the splits.

    Raises:
        TaskError: If this Python comes without the sources of its library.
    """
    folder = Path(sysconfig.get_path("stdlib"))
    files, texts, labels = _read_topics(folder)
    rng = np.random.default_rng([seed, 2])
    rows_of: dict[str, dict[str, list[int]]] = {topic: {} for topic in TOPICS}
    for row, (file, topic) in enumerate(zip(files, labels, strict=True)):
        rows_of[topic].setdefault(file, []).append(row)
    dealt = {topic: _split_files(rows_of[topic], rng) for topic in TOPICS}
    names = tuple(
        topic for topic, parts in dealt.items() if min(sum(map(len, part)) for part in parts) >= _MIN_PER_SPLIT
    )
    if len(names) < 2:
        raise TaskError(
            f"stdlib/topics needs the standard library's sources, but {folder} holds too few of them "
            f"({len(texts)} docstrings). Use a Python that ships its .py files."
        )
    parts = _assign([dealt[topic] for topic in names], texts)
    examples = Examples(
        texts=texts,
        pairs=None,
        targets=np.array([names.index(topic) if topic in names else -1 for topic in labels], dtype=np.int64),
    )
    ordered = [rows[stratified_order(examples.targets[rows], rng)] for rows in parts]
    n_train = max(1, round(train_fraction * len(ordered[0])))
    train, search, report = (examples.take(rows) for rows in (ordered[0][:n_train], ordered[1], ordered[2]))
    return Task(
        name="stdlib/topics",
        source=f"standard library of Python {platform.python_version()}",
        description="which part of the standard library does this docstring belong to?",
        kind=CLASSIFICATION,
        label_names=names,
        metrics=directions(METRICS),
        train=train,
        search=search,
        report=report,
        options={"train_fraction": train_fraction, "split_seed": seed},
    )


@functools.cache
def _read_topics(folder: Path) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Distinct docstrings with their file and topic, in the order of paths and lines.

    A text that occurs under two topics has no right answer and is left out; one that is repeated under the same topic
    counts once.
    """
    topics_of_key: dict[str, set[str]] = {}
    found: dict[str, tuple[str, str, str]] = {}
    for topic, modules in TOPICS.items():
        for file in _source_files(folder, modules.split()):
            for text in _docstrings(file):
                key = normalize(text)
                topics_of_key.setdefault(key, set()).add(topic)
                found.setdefault(key, (file.relative_to(folder).as_posix(), text, topic))
    rows = sorted((item for key, item in found.items() if len(topics_of_key[key]) == 1), key=lambda item: item[0])
    files, texts, labels = zip(*rows, strict=True) if rows else ((), (), ())
    return files, texts, labels


def _source_files(folder: Path, modules: list[str]) -> Iterator[Path]:
    for module in sorted(modules):
        if (folder / f"{module}.py").is_file():
            yield folder / f"{module}.py"
        for parent, folders, names in os.walk(folder / module):
            folders[:] = sorted(set(folders) - _SKIPPED_FOLDERS)
            yield from (Path(parent) / name for name in sorted(names) if name.endswith(".py"))


def _docstrings(file: Path) -> Iterator[str]:
    """Docstrings of a file's module, classes and functions, by line; nothing where it cannot be parsed."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        body = getattr(node, "body", ())
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and body:
            first = body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                text = cleandoc(first.value.value) if isinstance(first.value.value, str) else ""
                words = text.split()
                if len(words) >= _MIN_WORDS:
                    yield text if len(words) <= _MAX_WORDS else " ".join(words[:_MAX_WORDS])
        # Definitions hide in statements only, so expressions, the bulk of a tree, need no visit.
        for name in ("finalbody", "orelse", "handlers", "body"):
            children = getattr(node, name, ())
            if isinstance(children, list):
                pending.extend(child for child in reversed(children) if isinstance(child, ast.stmt | ast.ExceptHandler))


def _split_files(rows_of_file: dict[str, list[int]], rng: np.random.Generator) -> list[list[list[int]]]:
    """Deal a topic's files out to the three splits, each file to the split that lacks most of its share.

    Files come in random order, but large ones first (by size times a random factor), because late large ones could
    not be balanced any more.

    Returns:
        For each split its files, each as the list of its rows in random order.
    """
    files = sorted(rows_of_file)
    sizes = np.array([len(rows_of_file[file]) for file in files], dtype=np.float64)
    # A giant counts as no more than half of what train takes of a topic, or it would stand for the topic alone.
    weights = np.minimum(sizes, _SIZES[0] / len(TOPICS) / 2)
    order = np.argsort(-sizes * rng.uniform(0.5, 1.5, size=len(files)), kind="stable")
    # Train gets the greatest share, so that the one huge file of a topic is learned from, not scored on.
    shares = np.array([0.45, 0.22, 0.33])
    lacking = shares * weights.sum()
    parts: list[list[list[int]]] = [[], [], []]
    for index in order:
        part = int(np.argmax(lacking / shares**0.5))
        parts[part].append([int(row) for row in rng.permutation(rows_of_file[files[index]])])
        lacking[part] -= weights[index]
    return parts


def _assign(topics: list[list[list[list[int]]]], texts: Sequence[str]) -> list[npt.NDArray[np.int64]]:
    """Fill each split to its size, all topics equally as far as they last; a topic's files take turns."""
    chosen: list[npt.NDArray[np.int64]] = []
    for part, size in enumerate(_SIZES):
        earlier = _ShingleIndex(texts[row] for rows in chosen for row in rows)
        queues = [
            [row for row in _take_turns(topic[part]) if not earlier.has_near_copy(texts[row])] for topic in topics
        ]
        quota = _equal_quota([len(queue) for queue in queues], size)
        rows = [row for queue, n in zip(queues, quota, strict=True) for row in queue[:n]]
        chosen.append(np.array(rows, dtype=np.int64))
    return chosen


class _ShingleIndex:
    """Finds near-copies: texts of which at least half the runs of three words, of both together, are shared."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._sizes: list[int] = []
        self._owners: dict[tuple[str, ...], list[int]] = {}
        for number, text in enumerate(texts):
            shingles = self._shingles(text)
            self._sizes.append(len(shingles))
            for shingle in shingles:
                self._owners.setdefault(shingle, []).append(number)

    @staticmethod
    def _shingles(text: str) -> set[tuple[str, ...]]:
        words = re.findall(r"\w+", text.casefold())
        return {tuple(words[start : start + 3]) for start in range(max(1, len(words) - 2))}

    def has_near_copy(self, text: str) -> bool:
        shingles = self._shingles(text)
        shared = Counter(owner for shingle in shingles for owner in self._owners.get(shingle, ()))
        return any(2 * n >= len(shingles) + self._sizes[owner] - n for owner, n in shared.items())


def _take_turns(files: list[list[int]]) -> list[int]:
    longest = max((len(rows) for rows in files), default=0)
    return [rows[turn] for turn in range(longest) for rows in files if turn < len(rows)]


def _equal_quota(available: list[int], total: int) -> list[int]:
    """Share ``total`` out equally; what one cannot give, the others do."""
    quota = [0] * len(available)
    while total > 0 and any(given < limit for given, limit in zip(quota, available, strict=True)):
        open_ = [index for index, limit in enumerate(available) if quota[index] < limit]
        each = max(1, total // len(open_))
        for index in open_:
            grant = min(each, available[index] - quota[index], total)
            quota[index] += grant
            total -= grant
    return quota

"""Finding search spaces and reading them from YAML."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from autopeft.configuration._parse import check_search_space
from autopeft.configuration._shapes import ModuleTypes
from autopeft.configuration._space import SearchSpace
from autopeft.exceptions import SearchSpaceError, UnknownNameError

_SUFFIXES: Final = (".yaml", ".yml")
_MAX_BYTES: Final = 1_000_000
_MAX_DEPTH: Final = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchSpaceInfo:
    """One line of `list_search_spaces`.

    Args:
        name: What to pass as ``--space``.
        description: Its description; the first problem if the file has mistakes.
        path: The file.
    """

    name: str
    description: str
    path: Path


def search_space_files() -> dict[str, Path]:
    """Files of the search spaces that come with autopeft, by name."""
    package = Path(__file__).resolve().parent.parent
    # The wheel carries the files inside the package; a checkout has them at its root.
    for folder in (package / "search_spaces", package.parent / "search_spaces"):
        if (folder / "default.yaml").is_file():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    return {}


def list_search_spaces() -> tuple[SearchSpaceInfo, ...]:
    """The search spaces that come with autopeft, by name."""
    found = []
    for name, path in search_space_files().items():
        try:
            description = _load(path, None).description
        except SearchSpaceError as error:
            description = f"(invalid) {error.problems[0]}"
        found.append(SearchSpaceInfo(name=name, description=description, path=path))
    return tuple(found)


def load_search_space(name_or_path: str | Path, module_types: ModuleTypes | None = None) -> SearchSpace:
    """Load a search space by name, or from a YAML file.

    Args:
        name_or_path: ``"default"``, ``"autopeft"``, or the path of a ``.yaml`` file.
        module_types: `autopeft.modules.MODULES`; None takes module types and parts on trust.

    Raises:
        UnknownNameError: If there is no such space and no such file.
        SearchSpaceError: If the file has mistakes; the message lists all of them.
    """
    files = search_space_files()
    text = str(name_or_path)
    path = files.get(text) or Path(name_or_path).expanduser()
    if text not in files and not path.exists():
        looks_like_path = path.suffix in _SUFFIXES or len(path.parts) > 1
        hint = (
            "There is no such file." if looks_like_path else "A file is given by its path, for example my_space.yaml."
        )
        raise UnknownNameError("search space", text, files, hint)
    return _load(path, module_types)


def _load(path: Path, module_types: ModuleTypes | None) -> SearchSpace:
    data, duplicates = read_yaml(path)
    space, problems = check_search_space(data, module_types)
    if space is None or duplicates:
        raise SearchSpaceError(str(path), [*duplicates, *problems])
    return space


def read_yaml(path: Path) -> tuple[Any, list[str]]:
    """Read one YAML document of plain data: no tags, no aliases.

    Returns:
        The data, and one sentence for every key that stands twice in a mapping.

    Raises:
        SearchSpaceError: If the file cannot be read or is not such a document.
    """
    source = str(path)
    try:
        # A pipe or device has no size, and may never end.
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise SearchSpaceError(source, [f"(file): is larger than {_MAX_BYTES:,} bytes."])
        text = content.decode("utf-8-sig")
    except OSError as error:
        raise SearchSpaceError(source, [f"(file): cannot be read: {error.strerror or error}."]) from error
    except UnicodeDecodeError as error:
        raise SearchSpaceError(source, [f"(file): is not UTF-8 at byte {error.start}."]) from error
    return read_yaml_text(text, source)


def read_yaml_text(text: str, source: str) -> tuple[Any, list[str]]:
    """As `read_yaml`, from text that errors call `source`."""
    try:
        loader = _Loader(text)
        try:
            data = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark is not None else "(file)"
        raise SearchSpaceError(source, [f"{where}: {error.problem or error.context}."]) from error
    except yaml.YAMLError as error:
        raise SearchSpaceError(source, [f"(file): {' '.join(str(error).split())}."]) from error
    except ValueError as error:
        raise SearchSpaceError(source, [f"(file): has a value that cannot be read: {error}."]) from error
    return data, loader.duplicates


class _Loader(yaml.SafeLoader):
    """The safe loader with the scalars of YAML 1.2 (``on`` is text, ``5e-4`` a number) and without surprises."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.duplicates: list[str] = []
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not supported", problem_mark=self._mark())
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_DEPTH} levels deep", problem_mark=self._mark())
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def _mark(self) -> Any:
        """Where the next event stands."""
        return self.peek_event().start_mark  # type: ignore[no-untyped-call]

    def get_single_data(self) -> Any:
        node = self.get_single_node()
        if node is None:
            return None
        self.duplicates += _duplicates(node, "")
        return self.construct_document(node)


def _duplicates(node: yaml.Node, key: str) -> Iterator[str]:
    """Keys that stand twice in one mapping; the safe loader would keep the last and say nothing."""
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _duplicates(item, f"{key}[{index}]")
    if not isinstance(node, yaml.MappingNode):
        return
    first: dict[str, int] = {}
    for name, value in node.value:
        inner = f"{key}.{name.value}" if key else str(name.value)
        if isinstance(name, yaml.ScalarNode):
            line = name.start_mark.line + 1
            if name.value in first:
                yield f"{inner}: stands twice, in lines {first[name.value]} and {line}."
            first.setdefault(name.value, line)
        yield from _duplicates(value, inner)


_SCALARS: Final = (
    ("bool", r"true|false", "tf"),
    ("null", r"~|null|", ["~", "n", ""]),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan", "-+.0123456789"),
)
for _tag, _pattern, _first in _SCALARS:
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))

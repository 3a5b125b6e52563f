"""YAML files of settings: what YAML would silently make of a name, or of a key that stands twice, is refused."""

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from contracts.config.regular_file import read_regular

TEXT, MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
NUMBERS = frozenset({"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"})
LARGEST = 1 << 20  # characters of a file
LARGEST_BYTES = 4 * LARGEST  # UTF-8 takes at most four a character
MOST_VALUES = 100_000
LONGEST_NUMBER = 100  # characters


class SettingsError(Exception):
    """Settings that cannot be used; one sentence says why."""


class _Loader(yaml.SafeLoader):
    """YAML, but a key that stands twice in a mapping is an error: the second would silently replace the first."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        met: set[Hashable] = set()
        for key in (key for key, _ in node.value if key.tag != MERGE):  # `<<` may stand there, and no value is its own
            name = self.construct_object(key, deep=True)
            if not isinstance(name, Hashable):  # the base class says so
                break
            if name in met:
                problem = f"'{name}' stands twice in one mapping"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            met.add(name)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        value = super().construct_scalar(node)
        if node.tag in NUMBERS and len(value) > LONGEST_NUMBER:  # to read it takes time by the square of its length
            problem = f"a number has more than {LONGEST_NUMBER} characters"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return value

    def get_single_node(self) -> yaml.Node | None:
        node: yaml.Node | None = super().get_single_node()
        _require_bounded(node, (), {})
        _require_text_keys(node, "", set())
        return node


class _KeyError(Exception):
    """A key that YAML does not read as text."""


def _require_text_keys(node: yaml.Node | None, path: str, met: set[int]) -> None:
    """Every key is text: `on` would be true, `1` a number, `2026-03-01` a date, and none the name that was written."""
    if node is None or id(node) in met:  # an alias may be met again, and within itself
        return
    met.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for place, each in enumerate(node.value):
            _require_text_keys(each, f"{path}.{place}" if path else str(place), met)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag not in {TEXT, MERGE}:
                kind = key.tag.rpartition(":")[2]
                what = {"bool": "true or false", "int": "a number", "float": "a number", "null": "nothing"}
                read = what.get(kind, f"a {kind}")
                at = f"{path}: " if path else ""
                raise _KeyError(f"{at}YAML reads the name {key.value} as {read}; put it in quotes, '{key.value}'")
            name = key.value if isinstance(key, yaml.ScalarNode) else "?"
            _require_text_keys(value, f"{path}.{name}" if path else name, met)


def _require_bounded(node: yaml.Node | None, within: tuple[int, ...], sizes: dict[int, int]) -> int:
    """How many values a node stands for, its aliases written out."""
    if node is None:
        return 0
    if id(node) in within:
        raise _KeyError("an alias stands within what it stands for")
    if id(node) not in sizes:
        below = (*within, id(node))
        if isinstance(node, yaml.SequenceNode):
            parts = list(node.value)
        else:
            parts = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else []
        sizes[id(node)] = 1 + sum(_require_bounded(part, below, sizes) for part in parts)
        if sizes[id(node)] > MOST_VALUES:
            raise _KeyError(f"its aliases stand for more than {MOST_VALUES:,} values")
    return sizes[id(node)]


def _require_plain_characters(text: str) -> None:
    if len(text) > LARGEST:
        raise _KeyError(f"it is larger than {LARGEST:,} characters")


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong and in which line. Not the line itself, which PyYAML shows: it may hold a secret."""
    if isinstance(error, yaml.composer.ComposerError):
        what = "an alias that nothing was named for; a value that begins with * takes quotes"
    else:
        what = str(getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read")
    mark = getattr(error, "problem_mark", None)
    return f"{' '.join(what.split())}{f', in line {mark.line + 1}' if mark else ''}"


def parse_yaml(text: str, where: Path) -> Any:
    """What the text of a YAML file holds.

    Raises:
        SettingsError: it is not YAML, has a name that YAML does not read as text, or is far too large.

    """
    try:
        _require_plain_characters(text)
        return yaml.load(text, _Loader)  # noqa: S506 a safe loader
    except _KeyError as error:
        raise SettingsError(f"{where}: {error}.") from error
    except yaml.YAMLError as error:
        raise SettingsError(f"{where} is not valid YAML: {_problem(error)}.") from None
    except RecursionError as error:
        raise SettingsError(f"{where}: its values stand too deep within each other.") from error
    except (ValueError, OverflowError) as error:  # a date or a number that there is none of
        raise SettingsError(f"{where} is not valid YAML: {' '.join(str(error).split())}.") from error


def read_yaml(path: Path, what: str = "settings") -> Any:
    """What a YAML file holds.

    Raises:
        SettingsError: the file is absent, or as of `parse_yaml`.

    """
    try:
        content = read_regular(path, LARGEST_BYTES + 1)
        if len(content) > LARGEST_BYTES:
            raise SettingsError(f"{path}: it is larger than {LARGEST:,} characters.")
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"Cannot read the {what} file {path}: {error.strerror}.") from error
    except ValueError as error:
        raise SettingsError(f"{path} is not valid YAML: it is not UTF-8.") from error
    return parse_yaml(text, path)

"""Reading a YAML file strictly, remembering the line of every key for error messages."""

from __future__ import annotations

import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rareal.errors import ConfigError

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True)
class YamlFile:
    """The content of a YAML file whose top level is a mapping.

    Attributes
    ----------
    path : the file, as the user named it.
    data : its content.
    lines : the line, counted from 1, of every key path.
    """

    path: Path
    data: dict[str, Any]
    lines: dict[KeyPath, int] = field(default_factory=dict)

    def where(self, key_path: KeyPath) -> str:
        """``file.yaml:12``, with the line of the nearest enclosing key that is in the file."""
        for length in range(len(key_path), 0, -1):
            if line := self.lines.get(key_path[:length]):
                return f"{self.path}:{line}"
        return str(self.path)


class _Loader(yaml.SafeLoader):
    """YAML with `1e-3` as a number (YAML 1.2) and without silently overwritten keys.

    Keys are words; below the top level whole numbers as well, for atoms.
    """

    top: yaml.Node | None = None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str) and (type(key) is not int or node is self.top):
                raise _Refused(line, f"the key {key!r} is no word; put it in quotes or correct it")
            if key in seen:
                raise _Refused(line, f"the key '{key}' is given twice (first in line {seen[key]}); remove one of them")
            seen[key] = line
        return super().construct_mapping(node, deep=deep)


class _Refused(Exception):
    """Valid YAML that is refused all the same."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.line = line


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def read_yaml(path: Path) -> YamlFile:
    """Read ``path``.

    Raises
    ------
    ConfigError
        If there is no such file, it is no YAML, its top level is no mapping, or a key is given twice.
    """
    loader = None
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        node = loader.top = loader.get_single_node()
        data = loader.construct_document(node) if node is not None else None
    except FileNotFoundError as error:
        raise ConfigError(
            f"{path}: there is no such file; name a YAML file, e.g. examples/hexane/hexane.yaml"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read as a text file: {error}") from error
    except _Refused as refused:
        raise ConfigError(f"{path}:{refused.line}: {refused}") from refused
    except yaml.YAMLError as error:
        raise ConfigError(_describe(path, error)) from error
    finally:
        if loader is not None:
            loader.dispose()
    if node is None or not isinstance(data, dict):
        raise ConfigError(f"{path}: the file holds {_kind(data)}, no keys such as 'structure: hexane.xyz'")
    lines: dict[KeyPath, int] = {}
    _mark(node, (), lines)
    return YamlFile(path, data, lines)


def _mark(node: yaml.Node, prefix: KeyPath, lines: dict[KeyPath, int]) -> None:
    children: list[tuple[str | int, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        children = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        children = [(index, value, value) for index, value in enumerate(node.value)]
    for name, marked, value in children:
        lines[*prefix, name] = marked.start_mark.line + 1
        _mark(value, (*prefix, name), lines)


def _describe(path: Path, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    where = f"{path}:{mark.line + 1}" if mark is not None else str(path)
    return (
        f"{where}: this is not YAML: {getattr(error, 'problem', None) or error}; check indentation, colons and quotes"
    )


def _kind(value: Any) -> str:
    return "nothing" if value is None else f"a {type(value).__name__}"

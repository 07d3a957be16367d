"""YAML that remembers where each value stands, with `${env.NAME}` substitution."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from llamastack.api.schema import Schema
from llamastack.provider.redaction import Redactor, shown_value, without_userinfo
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of
from llamastack.stack.environment import SubstitutionError, refers_to_environment, substituted

Path = tuple[str | int, ...]
_Model = TypeVar("_Model", bound=BaseModel)

_QUOTED = re.compile(r"'[^'<][^']*'")


@dataclass(frozen=True)
class ConfigIssue:
    """Something wrong in a file: 1-based line (None when unknown), key path, what is wrong."""

    line: int | None
    path: Path
    message: str


class ConfigError(Exception):
    """The run config is wrong. One line per fault: `file:line: key.path: what`.

    source: name of the run config, such as its path. faults: what is wrong, and where.
    """

    def __init__(self, source: str, faults: list[ConfigIssue]) -> None:
        self.source = source
        self.faults = faults
        super().__init__("\n".join(self._line(fault) for fault in faults))

    def _line(self, fault: ConfigIssue) -> str:
        where = self.source if fault.line is None else f"{self.source}:{fault.line}"
        return ": ".join(part for part in (where, path_of(fault.path), fault.message) if part)


@dataclass(frozen=True)
class YamlDocument:
    """A YAML text that was read, and the line of each key in it.

    value: the plain Python value. source: what errors call the text. lines: key path -> line. from_environment: paths
    whose text was substituted.
    """

    value: Any = None
    source: str = "config"
    lines: dict[Path, int] = field(default_factory=dict)
    from_environment: dict[Path, str] = field(default_factory=dict)

    def line_of(self, path: Path) -> int | None:
        """The line of `path`, or of the nearest key above it."""
        found = (self.lines.get(path[:length]) for length in range(len(path), -1, -1))
        return next((line for line in found if line is not None), None)

    def fault(self, path: Path, message: str) -> ConfigIssue:
        return ConfigIssue(self.line_of(path), path, message)

    def error(self, path: Path, message: str) -> ConfigError:
        return ConfigError(self.source, [self.fault(path, message)])

    def validated(self, model: type[_Model], path: Path, value: object) -> _Model:
        """`value`, which stands at `path`, as a `model`. Raises ConfigError."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            raise ConfigError(self.source, self._faults(error, model, path, value)) from None

    def _faults(self, error: ValidationError, model: type[BaseModel], base: Path, value: object) -> list[ConfigIssue]:
        """Faults with key paths, lines and the bad value, secrets left out."""
        secret = [path.rpartition(".")[2] for path, field in Schema.of(model).nested_fields() if field.is_secret]
        redact = Redactor(value)  # a provider's own validator may repeat the value
        found: list[ConfigIssue] = []
        for fault in explain_validation_error(error, model):
            path = (*base, *fault["loc"])
            message = redact(fault["msg"])
            if fault["type"] not in ("missing", "extra_forbidden"):
                shown = shown_value(path, functools.reduce(_inside, fault["loc"], value), secret)
                if shown != "***" and path in self.from_environment:
                    shown = without_userinfo(self.from_environment[path])
                message += f" (is {shown})"
            found.append(self.fault(path, message))
        return list(dict.fromkeys(found))


def _inside(value: Any, part: str | int) -> object:
    try:
        return value[part]
    except (LookupError, TypeError):
        return None  # a provider's own validator may name a path that is not there


def read_yaml(text: str, environment: Mapping[str, str] | None = None, source: str = "config") -> YamlDocument:
    """Read one YAML document.

    environment: the variables for `${env.NAME}`; the process's own by default. source: what errors call the text.
    Raises ConfigError: malformed YAML, duplicate keys, malformed references, variables that are not set.
    """
    line = None
    try:
        reader = _Reader(text, source, os.environ if environment is None else environment)
        document = reader.read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        problem = _without_names(" ".join(part for part in (error.context, error.problem) if part))
        what = f"malformed YAML: {problem}"
    except yaml.YAMLError as error:
        what = f"malformed YAML: {' '.join(str(error).split())}"
    except RecursionError:
        what = "nested too deeply"
    else:
        if reader.faults:
            raise ConfigError(source, reader.faults)
        return document
    raise ConfigError(source, [ConfigIssue(line, (), what)])


def _without_names(problem: str) -> str:
    """What PyYAML says of malformed text, without the words of the text, such as the name of an unknown alias."""
    return _QUOTED.sub(lambda word: word.group() if len(word.group()) <= len("'x'") else "'...'", problem)


class _Reader:
    """Reads one text. faults: what is wrong in it."""

    def __init__(self, text: str, source: str, environment: Mapping[str, str]) -> None:
        self.faults: list[ConfigIssue] = []
        self._lines: dict[Path, int] = {}
        self._from_environment: dict[Path, str] = {}
        self._source = source
        self._environment = environment
        self._open_nodes: list[yaml.Node] = []
        self._loader = yaml.SafeLoader(text)

    def read(self) -> YamlDocument:
        try:
            node = self._loader.get_single_node()
            value = None if node is None else self._read(node, ())
        finally:
            self._loader.dispose()
        return YamlDocument(value, self._source, self._lines, self._from_environment)

    def _read(self, node: yaml.Node, path: Path) -> object:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if any(node is open_node for open_node in self._open_nodes):
            self._fault(node, path, "an alias inside the thing that it names")
            return None
        self._open_nodes.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self._read(item, (*path, place)) for place, item in enumerate(node.value)]
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, path)
        finally:
            self._open_nodes.pop()
        raise yaml.YAMLError(f"unknown node {node!r}")

    def _fault(self, node: yaml.Node, path: Path, message: str) -> None:
        self.faults.append(ConfigIssue(node.start_mark.line + 1, path, message))

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        own = [key_node for key_node, _ in node.value]
        self._loader.flatten_mapping(node)  # puts merged keys before the node's own keys
        found: dict[str, object] = {}
        written: set[str] = set()
        for key_node, value_node in node.value:
            key = self._loader.construct_object(key_node, deep=True) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._fault(key_node, path, "keys must be plain text")
                continue
            if refers_to_environment(key):
                self._fault(key_node, path, "keys are not substituted: ${env...} is allowed in values only")
                continue
            if any(key_node is own_key for own_key in own):
                if key in written:
                    self._fault(key_node, (*path, key), "this key is there twice")
                written.add(key)
            self._lines[(*path, key)] = key_node.start_mark.line + 1
            found[key] = self._read(value_node, (*path, key))
        return found

    def _scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        text = node.value
        if not refers_to_environment(text):
            return self._constructed(node, node, path)
        try:
            value = substituted(text, self._environment)
        except SubstitutionError as error:
            self._fault(node, path, str(error))
            return None
        self._from_environment[path] = text
        if node.style is not None:  # quoted: stays text
            return value
        tag = self._loader.resolve(  # type: ignore[no-untyped-call]
            yaml.ScalarNode, value, (True, False)
        )
        return self._constructed(yaml.ScalarNode(tag, value, node.start_mark, node.end_mark), node, path)

    def _constructed(self, made: yaml.ScalarNode, node: yaml.ScalarNode, path: Path) -> object:
        try:
            return self._loader.construct_object(made, deep=True)
        except (ValueError, LookupError, AttributeError):
            # PyYAML's constructors let these through, e.g. for 2024-99-99, which looks like a date.
            kind = made.tag.rpartition(":")[2]
            self._fault(node, path, f"{shown_value(path, node.value)} looks like a {kind} but is none; quote it")
            return None

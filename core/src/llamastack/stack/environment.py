"""Substitutes `${env.NAME}` in the values of a run config. A reference that is malformed is an error."""

from __future__ import annotations

import re
from collections.abc import Mapping

_BEGIN = "${env"
_OPENING = re.compile(r"\$\{env(?![A-Za-z0-9_])|[{}]")
_REFERENCE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)(\}|:[=+?]?|)")
_NUMBER = re.compile(r"\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?\Z")
_DEEPEST = 16
_FORMS = "${env.NAME}, ${env.NAME:=default} and ${env.NAME:+value}"


class SubstitutionError(Exception):
    """The text cannot be read. The message repeats nothing of it but names of variables: the rest may be a secret."""


def refers_to_environment(text: str) -> bool:
    """Whether there is something to substitute, or something that looks like it."""
    return _BEGIN in text and any(match.group() == _BEGIN for match in _OPENING.finditer(text))


def substituted(text: str, environment: Mapping[str, str]) -> str:
    """`text` with the values of its variables. A value is not substituted again.

    `${env.NAME}` is the value. `${env.NAME:=default}`, or `${env.NAME:default}`, is the default where the variable is
    not set; as in a shell, one that is set to nothing counts as not set. `${env.NAME:+value}` is `value` where it is
    set, else nothing. Defaults and values may hold references, and braces in pairs.

    Raises SubstitutionError: a malformed reference, a variable that is needed and not set.
    """
    reader = _Reader(text, environment)
    made = reader.read()
    if reader.unset:
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(reader.unset))
        raise SubstitutionError(
            f"environment variable {names} is not set (a default is written ${{env.{reader.unset[0]}:=default}})"
        )
    return made


class _Reader:
    """Reads one text from left to right, and replaces the references by their values.

    unset: variables that are needed and not set.
    """

    def __init__(self, text: str, environment: Mapping[str, str]) -> None:
        self.unset: list[str] = []
        self._text = text
        self._environment = environment
        self._at = 0

    def read(self, inside: str = "", depth: int = 0, *, needed: bool = True) -> str:
        """The text up to the brace that closes the reference of `inside`, or to the end.

        needed: False for a default or value that does not count, so that no variable in it has to be set.
        """
        text, found = self._text, list[str]()
        open_braces, had_default, kept = 0, False, self._at
        while (match := _OPENING.search(text, self._at)) is not None:
            self._at = match.end()
            start, mark = match.start(), match.group()
            if mark == "{":
                open_braces += 1
            elif mark == "}" and open_braces:
                open_braces -= 1
            elif mark == "}" and inside:
                return "".join([*found, text[kept:start]])
            elif mark == "}" and had_default:
                raise SubstitutionError("a '}' too many: braces in the default of a variable must be in pairs")
            elif mark == _BEGIN:
                value, has_default = self._reference(start, depth, needed=needed)
                had_default = had_default or has_default
                found += (text[kept:start], value)
                kept = self._at
        if inside:
            raise SubstitutionError(
                f"${{env.{inside} is not closed: a '}}' is missing, or braces in it are not in pairs"
            )
        return "".join([*found, text[kept:]])

    def _reference(self, start: int, depth: int, *, needed: bool) -> tuple[str, bool]:
        """(its value, whether it has a default)."""
        text = self._text
        named = _REFERENCE.match(text, start)
        if named is None:
            raise SubstitutionError(f"'{_BEGIN}' must be followed by '.' and the name of a variable; allowed: {_FORMS}")
        if depth >= _DEEPEST:
            raise SubstitutionError(f"more than {_DEEPEST} variables inside each other")
        name, operator = named.groups()
        value = self._environment.get(name, "")
        self._at = begin = named.end()
        if operator == "}":
            if needed and not value:
                self.unset.append(name)
            return value, False
        if operator in ("", ":?"):
            closed = "is not closed" if begin == len(text) else "must be closed, or go on with ':', after the name"
            raise SubstitutionError(
                f"${{env.{name}{operator} {'is not understood' if operator else closed}; allowed: {_FORMS}"
            )
        only_if_set = operator == ":+"
        operand = self.read(name, depth + 1, needed=needed and bool(value) == only_if_set)
        if operator == ":" and text[begin] == "-" and not _NUMBER.match(text[begin + 1 : self._at - 1]):
            # A shell writes defaults so; here the default would begin with the minus sign.
            raise SubstitutionError(f"${{env.{name}:- is not understood; write ${{env.{name}:=default}}")
        if only_if_set:
            return (operand if value else ""), True
        return value or operand, True

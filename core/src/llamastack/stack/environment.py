"""Substitutes `${env.NAME}` in the values of a run config. A reference that is malformed is an error."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

_BEGIN = "${env"
_OPENING = re.compile(r"\$\{env(?![A-Za-z0-9_])|[{}]")
_REFERENCE = re.compile(r"\$\{env\.([A-Za-z_][A-Za-z0-9_]*)")
_NUMBER = re.compile(r"\d[\d_]*(?:\.\d*)?(?:[eE][+-]?\d+)?\Z")
_DEEPEST = 16
_FORMS = "${env.NAME}, ${env.NAME:=default} and ${env.NAME:+value}"


class SubstitutionError(Exception):
    """The text cannot be read. The message repeats nothing of it but names of variables: the rest may be a secret."""


@dataclass(frozen=True, slots=True)
class _Reference:
    """operator: "" without a default, "=" with one, "+" for what stands there only if the variable is set."""

    name: str
    operator: str
    operand: Sequence[str | _Reference] = ()


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
    parts = _Parser(text).parts()
    unset: list[str] = []
    made = _evaluated(parts, environment, unset)
    if unset:
        names = ", ".join(f"'{name}'" for name in dict.fromkeys(unset))
        raise SubstitutionError(
            f"environment variable {names} is not set (a default is written ${{env.{unset[0]}:=default}})"
        )
    return made


def _evaluated(parts: Sequence[str | _Reference], environment: Mapping[str, str], unset: list[str]) -> str:
    made: list[str] = []
    for part in parts:
        if isinstance(part, str):
            made.append(part)
            continue
        value = environment.get(part.name, "")
        if part.operator == "+":
            made.append(_evaluated(part.operand, environment, unset) if value else "")
        elif value:
            made.append(value)
        elif part.operator:
            made.append(_evaluated(part.operand, environment, unset))
        else:
            unset.append(part.name)
    return "".join(made)


class _Parser:
    """Reads one text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def parts(self, inside: str = "", depth: int = 0) -> list[str | _Reference]:
        """The literal pieces and the references, up to the brace that closes the reference of `inside`, or the end."""
        text, found = self._text, list[str | _Reference]()
        open_braces, had_default, kept = 0, False, self._at
        for match in self._marks():
            start, mark = match.start(), match.group()
            if mark == "{":
                open_braces += 1
            elif mark == "}" and open_braces:
                open_braces -= 1
            elif mark == "}" and inside:
                found.append(text[kept:start])
                self._at = match.end()
                return found
            elif mark == "}" and had_default:
                raise SubstitutionError("a '}' too many: braces in the default of a variable must be in pairs")
            elif mark == _BEGIN:
                found.append(text[kept:start])
                reference = self._reference(start, depth)
                had_default = had_default or bool(reference.operator)
                found.append(reference)
                kept = self._at
        if inside:
            raise SubstitutionError(
                f"${{env.{inside} is not closed: a '}}' is missing, or braces in it are not in pairs"
            )
        found.append(text[kept:])
        return found

    def _marks(self) -> Iterator[re.Match[str]]:
        while (match := _OPENING.search(self._text, self._at)) is not None:
            self._at = match.end()
            yield match

    def _reference(self, start: int, depth: int) -> _Reference:
        text = self._text
        named = _REFERENCE.match(text, start)
        if named is None:
            raise SubstitutionError(f"'{_BEGIN}' must be followed by '.' and the name of a variable; allowed: {_FORMS}")
        if depth >= _DEEPEST:
            raise SubstitutionError(f"more than {_DEEPEST} variables inside each other")
        name = named.group(1)
        self._at = named.end() + 1
        after = text[named.end() : self._at]
        if after == "}":
            return _Reference(name, "")
        if after != ":":
            what = "is not closed" if not after else "must be closed, or go on with ':', after the name"
            raise SubstitutionError(f"${{env.{name} {what}; allowed: {_FORMS}")
        operator = text[self._at : self._at + 1]
        if operator == "?":
            raise SubstitutionError(f"${{env.{name}:? is not understood; allowed: {_FORMS}")
        if operator in ("=", "+"):
            self._at += 1
        operand = self.parts(name, depth + 1)
        if operator == "-" and not (isinstance(operand[0], str) and _NUMBER.match("".join(map(str, operand))[1:])):
            # A shell's way to write a default; taken as it stands it would begin with the sign.
            raise SubstitutionError(f"${{env.{name}:- is not understood; write ${{env.{name}:=default}}")
        return _Reference(name, "+" if operator == "+" else "=", operand)

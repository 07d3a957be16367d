"""What a backend reads in a request that the tap has recorded: the values of its JSON body, by their paths.

Requests follow RFC 9112; a body that is no JSON is one text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from llamastack_conformance.backend_tap import Request
from llamastack_conformance.replaying import body_of

Leaf = str | int | float | bool | None


class Received:
    """A request of the provider, as its backend reads it."""

    def __init__(self, request: Request) -> None:
        self.request = request

    @cached_property
    def target(self) -> str:
        """Method and path: `POST /v1/chat/completions`."""
        return unquote(self.request.head.partition(b" HTTP/")[0].decode("latin-1"))

    @cached_property
    def body(self) -> Any:
        """The parsed JSON; a text if it is none."""
        content = body_of(self.request.head, self.request.body)
        try:
            return json.loads(content)
        except ValueError:
            return content.decode(errors="replace")

    @cached_property
    def leaves(self) -> list[tuple[str, Leaf]]:
        """(path, value) of every value that holds no others: `("messages.0.content", "Hello")`.

        An empty list or object counts as None.
        """
        return list(_leaves(self.body, ""))

    @cached_property
    def texts(self) -> list[str]:
        """The texts among the values, in their order. JSON in a text, such as arguments of a tool, is read, too."""
        return [text for _, value in self.leaves if isinstance(value, str) for text in _read_twice(value)]

    @cached_property
    def words(self) -> str:
        """All names and values, for a search."""
        return "\n".join([*self.texts, *(path for path, _ in self.leaves)])

    def times(self, marker: str) -> int:
        """How often a text occurs in the values."""
        return sum(text.count(marker) for text in self.texts)

    def place(self, marker: str) -> tuple[int, int]:
        """Where a text occurs first: number of the value, and place in it. Raises LookupError."""
        for number, text in enumerate(self.texts):
            if marker in text:
                return number, text.index(marker)
        raise LookupError(marker)

    def paths_of(self, wanted: Leaf) -> list[str]:
        """The paths of the values that equal `wanted`; a number that was rounded to 32 bits equals itself."""
        return [path for path, value in self.leaves if _same(value, wanted)]


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Leaf]]:
    if value in ({}, []):
        yield path, None
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _leaves(inner, f"{path}.{number}" if path else str(number))
    else:
        yield path, value


def _read_twice(text: str) -> Iterator[str]:
    """The text; or the names and texts of the JSON in it."""
    if text[:1] in "{[":
        try:
            inner = json.loads(text)
        except ValueError:
            inner = None
        if isinstance(inner, dict | list):
            for path, value in _leaves(inner, ""):
                yield path
                yield str(value)
            return
    yield text


def _same(value: Leaf, wanted: Leaf) -> bool:
    if isinstance(value, bool) or isinstance(wanted, bool) or not isinstance(wanted, int | float):
        return type(value) is type(wanted) and value == wanted
    return isinstance(value, int | float) and abs(value - wanted) <= 1e-6 * max(1.0, abs(wanted))

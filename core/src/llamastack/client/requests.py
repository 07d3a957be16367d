"""Turns the arguments of a call into a request: path, query and body."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pydantic_core

from llamastack.api.definition import BodyKind, MethodDefinition
from llamastack.api.files import OCTETS
from llamastack.client.multipart import Form
from llamastack.provider.errors import InvalidRequestError


@dataclass(frozen=True, slots=True)
class WireRequest:
    """One request, without the server's address."""

    verb: str
    path: str
    query: Mapping[str, Any]
    content: bytes | Form = b""
    headers: Mapping[str, str] = field(default_factory=dict)


def wire_request(method: MethodDefinition, arguments: Mapping[str, Any]) -> WireRequest:
    """The request of a call. Raises InvalidRequestError for an argument that cannot stand in a path."""
    verb = method.web.methods[0]
    given = {name: value for name, value in arguments.items() if value is not None}
    path = method.web.route
    for name in method.path_parameters:
        path = path.replace(f"{{{name}}}", _segment(name, _text(given[name])))
    query = {name: _texts(given[name]) for name in method.query_parameters(verb) if name in given}
    body = {name: given[name] for name in method.body_parameters(verb) if name in given}
    kind = method.body_kind(verb)
    if kind is BodyKind.NONE:
        return WireRequest(verb, path, query)
    if kind is BodyKind.FORM:
        form = _form(method, body)
        return WireRequest(verb, path, query, form, form.headers)
    if kind is BodyKind.BYTES:
        return WireRequest(verb, path, query, next(iter(body.values()), b""), {"Content-Type": OCTETS})
    content = pydantic_core.to_json(body, exclude_none=True)
    return WireRequest(verb, path, query, content, {"Content-Type": "application/json"})


def _form(method: MethodDefinition, body: Mapping[str, object]) -> Form:
    fields: list[tuple[str, Any]] = []
    for name, value in body.items():
        if name in method.file_parameters:
            fields += [(name, file) for file in (value if isinstance(value, list) else [value])]
        elif name in method.json_parameters:
            fields.append((name, pydantic_core.to_json(value, exclude_none=True)))
        else:
            texts = _texts(value)
            fields += [(name, text) for text in (texts if isinstance(texts, list) else [texts])]
    return Form(fields)


def _texts(value: object) -> str | list[str]:
    return [_text(item) for item in value] if isinstance(value, list) else _text(value)


def _text(value: object) -> str:
    plain = pydantic_core.to_jsonable_python(value)
    return plain if isinstance(plain, str) else pydantic_core.to_json(plain).decode()


def _segment(name: str, text: str) -> str:
    """A value as one segment of a path. A segment that would change the path is refused, percent-encoded or not.

    Source: https://url.spec.whatwg.org/#double-dot-path-segment.
    """
    if text in ("", ".", ".."):
        raise InvalidRequestError(f"{name}: '{text}' cannot stand in a path", param=name)
    return quote(text, safe="", errors="replace")

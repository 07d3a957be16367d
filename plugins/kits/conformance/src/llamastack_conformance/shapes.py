"""Checks that a result has the shape that the API's Protocol defines, field by field."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator, Mapping
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from llamastack.api.definition import MethodDefinition, ReplyKind
from llamastack.api.files import File
from llamastack.provider.streams import closing
from llamastack.provider.validation import explain_validation_error
from llamastack.provider.validation_paths import path_of
from llamastack_conformance.checks import CheckFailure


def well_formed(method: MethodDefinition, result: Any) -> None:
    """Raise CheckFailure unless `result` has the type that `method` returns, and JSON keeps it unchanged."""
    _same_over_wire(method.result, result, f"{method.name} returned", method.result_types[0])


def well_formed_piece(method: MethodDefinition, piece: Any) -> None:
    """Raise CheckFailure unless a piece of a stream has its type, and JSON keeps it unchanged."""
    if method.piece is None:
        raise CheckFailure(f"{method.name} returned a stream, but it never streams")
    _same_over_wire(method.piece, piece, f"a piece of {method.name} is", method.result_types[1])


async def well_formed_reply(method: MethodDefinition, result: Any) -> None:
    """The same for whatever a method gives: an object, a stream, bytes or a file. A stream is read to its end."""
    kind = method.reply_kind
    if kind is ReplyKind.BYTES:
        _is_a(result, bytes, method)
    elif kind is ReplyKind.JSON:
        if not isinstance(result, AsyncIterator):
            well_formed(method, result)
            return
        async with closing(result):
            async for piece in result:
                well_formed_piece(method, piece)
    else:
        _is_a(result, File if kind is ReplyKind.FILE else AsyncIterator, method)
        size = 0
        async for block in result:
            if not isinstance(block, bytes):
                raise CheckFailure(f"a block of {method.name} is a {type(block).__name__}", wanted="bytes")
            size += len(block)
        stated = getattr(result, "size", None)
        if stated not in (None, size):
            raise CheckFailure(
                f"{method.name} returned {size} bytes in a File of size {stated}", wanted="its size, or None"
            )


def _is_a(result: Any, kind: type, method: MethodDefinition) -> None:
    if not isinstance(result, kind):
        raise CheckFailure(f"{method.name} returned a {type(result).__name__}", wanted=f"a {kind.__name__}")


def _same_over_wire(adapter: TypeAdapter[Any], value: Any, what: str, wanted: Any) -> None:
    name = getattr(wanted, "__name__", str(wanted))
    if isinstance(wanted, type) and issubclass(wanted, BaseModel):
        generic: type | None = wanted.__pydantic_generic_metadata__["origin"]  # Page is as good as Page[X]
        wanted = generic or wanted
    if isinstance(wanted, type) and issubclass(wanted, BaseModel) and not isinstance(value, wanted):
        raise CheckFailure(f"{what} a {type(value).__name__}: {str(value)[:200]}", wanted=f"a {name}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sent = adapter.dump_json(value)
        read = adapter.validate_json(sent)
    except ValidationError as error:
        fault = explain_validation_error(error, adapter)[0]
        where = path_of(fault["loc"])
        raise CheckFailure(f"{what} a {name} with `{where}`: {fault['msg']}", wanted=f"a {name} that fits") from None
    except Exception as error:
        raise CheckFailure(f"{what} a {name} that cannot be written as JSON: {error}") from None
    if read != value:
        changed = _difference(value, read)
        raise CheckFailure(f"{what} a {name} that the wire changes{changed}", wanted=f"a {name} of plain values")


def _difference(value: Any, read: Any) -> str:
    left, right = (v if isinstance(v, Mapping) else getattr(v, "__dict__", {}) for v in (value, read))
    names = [name for name in left if left.get(name) != right.get(name)]
    return f" in `{names[0]}`" if names else ""

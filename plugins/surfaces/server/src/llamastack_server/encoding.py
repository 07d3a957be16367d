"""Replies as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pydantic_core
from pydantic import TypeAdapter

from llamastack.http.lone_surrogates import encode_json
from llamastack.provider.errors import InternalError


def json_of(value: Mapping[str, object]) -> bytes:
    """Numbers that JSON has none of (NaN, infinity) are null, lone surrogates are U+FFFD.

    Raises InternalError for what cannot be written.
    """
    try:
        return encode_json(value, inf_nan_mode="null")
    except ValueError as error:
        raise InternalError("the provider's reply cannot be written as JSON") from error


def json_by(adapter: TypeAdapter[Any], value: Any) -> bytes:
    """A value as its type says that it is written; lone surrogates are U+FFFD. Raises what pydantic raises for a value
    that is not of its type.
    """
    try:
        # perf: llamastack-native. `dump_json` adds its fourteen other options, which takes a fifth of the time.
        return adapter.serializer.to_json(value, warnings="error")
    except pydantic_core.PydanticSerializationError as error:
        if "surrogates not allowed" not in str(error):
            raise
    return json_of(adapter.dump_python(value, warnings="error"))

"""Bodies of requests and replies in OpenAI's dialect."""

from __future__ import annotations

import json
from typing import Any

from llamastack_adapters.chat_request import ChatRequest, CompletionRequest
from llamastack_adapters.openai_dialect import Dialect, chat_body, chat_form, completion_body, completion_form


def chat_request(dialect: Dialect, **arguments: Any) -> dict[str, Any]:
    """The body that a native chat with these arguments becomes."""
    request = ChatRequest(**arguments)
    return chat_body(dialect, chat_form(request, dialect.provider_id), request.model)


def completion_request(dialect: Dialect, **arguments: Any) -> dict[str, Any]:
    """The body that a native text completion with these arguments becomes."""
    request = CompletionRequest(**arguments)
    return completion_body(dialect, completion_form(request, dialect.provider_id), request.model)


def data_of(text: str) -> list[Any]:
    """The decoded data of each event in a stream; `[DONE]` as it is."""
    found = [line.removeprefix("data:").strip() for line in text.split("\n") if line.startswith("data:")]
    assert all(found), f"an event without data in {text!r}"
    return [data if data == "[DONE]" else json.loads(data) for data in found]

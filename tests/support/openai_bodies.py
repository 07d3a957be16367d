"""The bodies that native calls become for a backend that speaks OpenAI's dialect."""

from __future__ import annotations

from typing import Any

from llamastack_adapters.chat_request import ChatRequest, CompletionRequest
from llamastack_adapters.openai_dialect import Dialect, chat_body, chat_form, completion_body, completion_form


def chat_request(dialect: Dialect, **arguments: Any) -> dict[str, Any]:
    """The body of a chat with these native arguments."""
    request = ChatRequest(**arguments)
    return chat_body(dialect, chat_form(request, dialect.provider_id), request.model)


def completion_request(dialect: Dialect, **arguments: Any) -> dict[str, Any]:
    """The body of a text completion with these native arguments."""
    request = CompletionRequest(**arguments)
    return completion_body(dialect, completion_form(request, dialect.provider_id), request.model)

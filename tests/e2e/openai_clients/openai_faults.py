"""What the openai package makes of a backend that fails. Its answers are scripted, in this order; see the test."""

from __future__ import annotations

from typing import Any

import openai
from checks import SETTINGS, check, equal, raised, user
from openai import DefaultHttpxClient, OpenAI

sent: list[Any] = []
client = OpenAI(
    base_url=SETTINGS.url,
    api_key="unused",
    timeout=60,
    max_retries=0,
    http_client=DefaultHttpxClient(event_hooks={"request": [sent.append]}),
)
ASKED: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_tokens": 1, "messages": user()}


def create(**asked: Any) -> Any:
    return client.chat.completions.create(**(ASKED | asked))


@check
def a_rate_limit() -> None:
    """The client tries again, as often as it wants, and nobody else."""
    reply = client.with_options(max_retries=1).chat.completions.create(**ASKED)
    equal(reply.choices[0].finish_reason, "length")
    equal(len(sent), 2)
    error = raised(openai.RateLimitError, create)
    equal((error.code, error.response.headers["retry-after"]), ("rate_limit_exceeded", "7"))


@check
def its_own_words() -> None:
    """Which clients act on."""
    equal(raised(openai.RateLimitError, create).code, "insufficient_quota")
    error = raised(openai.BadRequestError, create)
    equal((error.code, error.type), ("content_policy_violation", "invalid_request_error"))
    assert "not that" in error.message, error.message


@check
def no_answer() -> None:
    for expected in ("out of memory", "JSON"):
        error = raised(openai.InternalServerError, create)
        equal((error.status_code, error.type), (502, "server_error"))
        assert expected in error.message, error.message
        assert error.request_id


@check
def half_a_stream() -> None:
    """It does not look like a whole one: what came is there, then an error."""
    for expected in ("", "out of memory"):
        pieces: list[str] = []

        def read(pieces: list[str] = pieces) -> None:
            for chunk in create(stream=True):
                pieces.extend(choice.delta.content or "" for choice in chunk.choices)

        error = raised(openai.APIError, read)
        equal("".join(pieces), "ab")
        assert expected in error.message, error.message
        assert error.type == "server_error", error

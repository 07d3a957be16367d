"""Replies in the OpenAI dialect -> native types."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from heapq import nlargest
from operator import itemgetter
from typing import Any

from llamastack.api.common import CompletionMessage, StopReason, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    CompletionResponse,
    EmbeddingsResponse,
    LogProbConfig,
    TokenLogProbs,
    TokenUsage,
)
from llamastack.provider.errors import BackendError

_STOP_REASONS = {
    "stop": StopReason.end_of_turn,
    "length": StopReason.out_of_tokens,
    "tool_calls": StopReason.end_of_message,
    "function_call": StopReason.end_of_message,
    "content_filter": StopReason.end_of_turn,
    "eos": StopReason.end_of_turn,  # Together
    "eos_token": StopReason.end_of_turn,  # Text Generation Inference
    "stop_sequence": StopReason.end_of_turn,  # the same
}


def text_of_content(content: Any) -> str:
    """The text of a message or delta: plain, or in parts, of which those that are text count. Raises ValueError."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ValueError(f"content {content!r}")  # noqa: TRY004 - of a value that came over the wire
    return "".join(str(part["text"]) for part in content if part.get("type") == "text")


def stop_reason(finish_reason: object, provider_id: str, *, called: bool = False) -> StopReason:
    """The native word for a `finish_reason`. called: whether there are tool calls; not every backend says so in it."""
    found = _STOP_REASONS.get(str(finish_reason))
    if found is None:
        raise malformed(provider_id, f"finish_reason {finish_reason!r}")
    return StopReason.end_of_message if called and found is StopReason.end_of_turn else found


def malformed(provider_id: str, what: str) -> BackendError:
    return BackendError(
        f"the backend of provider '{provider_id}' answered something that cannot be understood: {what}",
        provider_id=provider_id,
    )


MALFORMED = (KeyError, TypeError, AttributeError, ValueError, IndexError)
"""How it shows that a reply has not the form that it should have."""


def not_understood(provider_id: str, error: Exception) -> BackendError:
    """The error for one of `MALFORMED`."""
    return malformed(provider_id, f"{type(error).__name__} {' '.join(str(error).split())}")


@contextmanager
def understood(provider_id: str) -> Iterator[None]:
    """What does not have the form that it should have is a BackendError, whatever way it shows."""
    try:
        yield
    except MALFORMED as error:
        raise not_understood(provider_id, error) from error


def first_choice(reply: Mapping[str, Any], provider_id: str) -> Mapping[str, Any]:
    choices = reply.get("choices") if isinstance(reply, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise malformed(provider_id, "no 'choices'")
    return choices[0]


def chat_response(
    reply: Mapping[str, Any], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> ChatCompletionResponse:
    """A whole chat completion. Raises BackendError when it is malformed.

    logprobs: as the request has it; more than it asks for is left out.
    """
    choice = first_choice(reply, provider_id)
    message = choice.get("message")
    if not isinstance(message, dict):
        raise malformed(provider_id, "a choice without a 'message'")
    with understood(provider_id):
        calls = [_tool_call(call, provider_id) for call in message.get("tool_calls") or ()]
        return ChatCompletionResponse(
            completion_message=CompletionMessage(
                content=text_of_content(message.get("content")),
                stop_reason=stop_reason(choice.get("finish_reason"), provider_id, called=bool(calls)),
                tool_calls=calls,
            ),
            logprobs=logprobs_of(choice, logprobs),
            usage=usage_of(reply),
        )


def completion_response(
    reply: Mapping[str, Any], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> CompletionResponse:
    """A whole text completion. Raises BackendError when it is malformed."""
    choice = first_choice(reply, provider_id)
    text = choice.get("text")
    if not isinstance(text, str):
        raise malformed(provider_id, "a choice without a 'text'")
    with understood(provider_id):
        return CompletionResponse(
            completion_message=CompletionMessage(
                content=text, stop_reason=stop_reason(choice.get("finish_reason"), provider_id)
            ),
            logprobs=logprobs_of(choice, logprobs),
            usage=usage_of(reply),
        )


def embeddings_response(reply: Mapping[str, Any], provider_id: str, count: int) -> EmbeddingsResponse:
    """`count` vectors in the order of the request. Raises BackendError when they are not all there."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or len(data) != count:
        raise malformed(provider_id, f"{len(data) if isinstance(data, list) else 'no'} embeddings for {count} contents")
    with understood(provider_id):
        ordered = sorted(data, key=lambda entry: entry.get("index", 0))
        return EmbeddingsResponse(embeddings=[entry["embedding"] for entry in ordered], usage=usage_of(reply))


def usage_of(reply: Mapping[str, Any]) -> TokenUsage | None:
    """The tokens that a reply, or the chunk of one, says that it took; None where it does not say, or not sensibly."""
    usage = reply.get("usage")
    if not isinstance(usage, dict):
        return None
    try:
        return TokenUsage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage.get("completion_tokens") or 0)
    except (KeyError, ValueError):
        return None


def parse_arguments(text: str) -> dict[str, Any] | None:
    """A tool call's arguments; None when the text is not a JSON object."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        return None
    return arguments if isinstance(arguments, dict) else None


def _tool_call(call: Mapping[str, Any], provider_id: str) -> ToolCall:
    function = call.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise malformed(provider_id, "a tool call without a function name")
    arguments = parse_arguments(function.get("arguments") or "")
    if arguments is None:
        raise malformed(provider_id, f"arguments of tool '{function['name']}' that are not a JSON object")
    return ToolCall(call_id=str(call.get("id") or ""), tool_name=function["name"], arguments=arguments)


def logprobs_of(choice: Mapping[str, Any], wanted: LogProbConfig | None) -> list[TokenLogProbs] | None:
    """Log probabilities of a choice or of one of its pieces: the chosen token's, then the `wanted.top_k` likeliest.

    Three forms: `content` of OpenAI's chats, the lists `tokens` and `token_logprobs` of its text completions, and
    Together's single number beside the delta of a piece.
    """
    holder = choice.get("logprobs")
    places: list[tuple[str, float | None, dict[str, float]]]
    if isinstance(holder, int | float):
        text = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        places = [(text, holder, choice.get("top_logprobs") or {})]
    elif not isinstance(holder, dict):
        return None
    elif "tokens" in holder:
        tops = holder.get("top_logprobs") or [{}] * len(holder["tokens"])
        # The first token of a prompt that is echoed has none.
        places = [
            (token, value, top or {})
            for token, value, top in zip(holder["tokens"], holder["token_logprobs"], tops, strict=False)
        ]
    else:
        places = [
            (entry["token"], entry["logprob"], {t["token"]: t["logprob"] for t in entry.get("top_logprobs") or ()})
            for entry in holder.get("content") or ()
        ]
    most = None if wanted is None else wanted.top_k
    return [
        TokenLogProbs(logprobs_by_token={token: value, **_likeliest(tops, most)})
        for token, value, tops in places
        if value is not None
    ] or None


def _likeliest(tops: Mapping[str, float], most: int | None) -> dict[str, float]:
    if most is None or len(tops) <= most:
        return dict(tops)
    return dict(nlargest(most, tops.items(), key=itemgetter(1)))

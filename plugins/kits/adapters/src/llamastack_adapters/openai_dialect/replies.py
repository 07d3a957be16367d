"""Replies in the OpenAI dialect -> native types."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from heapq import nlargest
from operator import itemgetter
from typing import Any

from llamastack.api.common import CompletionMessage, StopReason
from llamastack.api.inference import (
    ChatCompletionResponse,
    CompletionResponse,
    EmbeddingsResponse,
    LogProbConfig,
    TokenLogProbs,
    TokenUsage,
)
from llamastack.http.lone_surrogates import whole_text
from llamastack.provider.errors import BackendError
from llamastack_adapters.openai_dialect.finish_reasons import END_OF_TURN, Finish, finish_of
from llamastack_adapters.openai_dialect.tool_calls import whole_calls


def text_of_content(content: Any) -> str:
    """The text of a message or delta: plain, or the text parts together. Raises ValueError."""
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise ValueError(f"content {content!r}")  # noqa: TRY004 - of a value that came over the wire
    return "".join(str(part["text"]) for part in content if part.get("type") == "text")


def refusal_of(holder: Mapping[str, Any]) -> str:
    """The refusal in a message or delta; empty without one."""
    refusal, content = holder.get("refusal"), holder.get("content")
    if isinstance(refusal, str) and refusal:
        return refusal
    if not isinstance(content, list):
        return ""
    return "".join(str(part["refusal"]) for part in content if part.get("type") == "refusal")


def said_in_choice(choice: Mapping[str, Any]) -> Any:
    """The message of a chat's choice. A stream may have a whole message; a chat may have a text completion's form."""
    for name in ("delta", "message"):
        if choice.get(name) is not None:
            return choice[name]
    text = choice.get("text")
    return {"content": text} if isinstance(text, str) else None


def text_in_choice(choice: Mapping[str, Any]) -> str | None:
    """The text of a text completion's choice, also in a chat's form. Raises ValueError."""
    if "text" in choice:
        return choice["text"] or ""
    part = said_in_choice(choice)
    return None if part is None else text_of_content(part.get("content"))


def finish_of_choice(choice: Mapping[str, Any], provider_id: str) -> Finish | None:
    """Why the reply ended; None if the choice does not tell. Raises the error of a reply that the backend gave up."""
    return finish_of(choice.get("finish_reason"), provider_id, error=choice.get("error"))


def stop_reason(finish: Finish, *, called: bool) -> StopReason:
    """The native stop reason. called: whether there are tool calls, because not every finish reason tells."""
    return StopReason.end_of_message if called and finish.reason is StopReason.end_of_turn else finish.reason


def malformed(provider_id: str, what: str) -> BackendError:
    return BackendError(
        f"the backend of provider '{provider_id}' answered something that cannot be understood: {what}",
        provider_id=provider_id,
    )


MALFORMED = (KeyError, TypeError, AttributeError, ValueError, IndexError, RecursionError)
"""The exceptions that reading a malformed reply raises."""


def not_understood(provider_id: str, error: Exception) -> BackendError:
    """The error for one of `MALFORMED`."""
    return malformed(provider_id, f"{type(error).__name__} {' '.join(str(error).split())}")


@contextmanager
def understood(provider_id: str) -> Iterator[None]:
    """Turns the exceptions of a malformed reply into BackendError."""
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
    """A whole chat completion. Raises BackendError if it is malformed.

    logprobs: the request's; further log probabilities are left out.
    """
    choice = first_choice(reply, provider_id)
    word = finish_of_choice(choice, provider_id)
    finish = word or END_OF_TURN  # it arrived whole
    message = said_in_choice(choice)
    if message is None and finish.detail is not None:
        message = {}  # all of it was filtered out
    if not isinstance(message, dict):
        raise malformed(provider_id, "a choice without a 'message'")
    try:  # perf: llamastack-native. `understood` would make a generator for each reply.
        made = whole_calls(message, regular=finish.regular)
        refusal = whole_text(refusal_of(message))
        text = whole_text(text_of_content(message.get("content"))) + refusal
        if word is None and not text and not made.deltas:
            raise malformed(provider_id, "a choice with neither a 'finish_reason' nor anything else in it")
        return ChatCompletionResponse(
            completion_message=CompletionMessage(
                content=text,
                stop_reason=stop_reason(finish, called=bool(made.deltas)),
                tool_calls=made.calls,
            ),
            logprobs=logprobs_of(choice, logprobs),
            usage=usage_of(reply),
            stop_detail=finish.detail,
            refusal=refusal or None,
            failed_tool_calls=made.failures or None,
        )
    except MALFORMED as error:
        raise not_understood(provider_id, error) from error


def completion_response(
    reply: Mapping[str, Any], provider_id: str, *, logprobs: LogProbConfig | None = None
) -> CompletionResponse:
    """A whole text completion. Raises BackendError if it is malformed."""
    choice = first_choice(reply, provider_id)
    word = finish_of_choice(choice, provider_id)
    finish = word or END_OF_TURN  # it arrived whole
    with understood(provider_id):
        text = text_in_choice(choice)
    if text is None and finish.detail is not None:
        text = ""  # all of it was filtered out
    if not isinstance(text, str) or not (word or text):
        raise malformed(provider_id, "a choice without a 'text'")
    with understood(provider_id):
        return CompletionResponse(
            completion_message=CompletionMessage(
                content=whole_text(text), stop_reason=stop_reason(finish, called=False)
            ),
            logprobs=logprobs_of(choice, logprobs),
            usage=usage_of(reply),
            stop_detail=finish.detail,
        )


def embeddings_response(reply: Mapping[str, Any], provider_id: str, count: int) -> EmbeddingsResponse:
    """`count` vectors in the order of the request. Raises BackendError if any is missing."""
    data = reply.get("data") if isinstance(reply, dict) else None
    if not isinstance(data, list) or len(data) != count:
        raise malformed(provider_id, f"{len(data) if isinstance(data, list) else 'no'} embeddings for {count} contents")
    with understood(provider_id):
        ordered = sorted(data, key=lambda entry: entry.get("index", 0))
        return EmbeddingsResponse(embeddings=[entry["embedding"] for entry in ordered], usage=usage_of(reply))


def usage_of(reply: Mapping[str, Any]) -> TokenUsage | None:
    """The usage in a reply or chunk; None if it has none or an invalid one."""
    usage = reply.get("usage") if isinstance(reply, dict) else None
    if not isinstance(usage, dict):
        return None
    try:
        return TokenUsage(prompt_tokens=usage["prompt_tokens"], completion_tokens=usage.get("completion_tokens") or 0)
    except (KeyError, ValueError):
        return None


def logprobs_of(choice: Mapping[str, Any], wanted: LogProbConfig | None) -> list[TokenLogProbs] | None:
    """Log probabilities of a choice or of a piece: the chosen token's, then the `wanted.top_k` likeliest.

    There are three forms: `content` of OpenAI's chats, the lists `tokens` and `token_logprobs` of its text completions,
    and Together's single number beside the delta of a piece. Those of a refusal count like those of a text.
    """
    if choice.get("logprobs") is None:
        return None
    if wanted is None:
        with suppress(*MALFORMED):  # the request does not want them
            return _logprobs_of(choice, None)
        return None
    return _logprobs_of(choice, wanted)


def _logprobs_of(choice: Mapping[str, Any], wanted: LogProbConfig | None) -> list[TokenLogProbs] | None:
    holder = choice.get("logprobs")
    places: list[tuple[str, float | None, dict[str, float]]]
    if isinstance(holder, int | float):
        text = (choice.get("delta") or {}).get("content") or choice.get("text") or ""
        places = [(text, holder, choice.get("top_logprobs") or {})]
    elif not isinstance(holder, dict):
        return None
    elif "tokens" in holder:
        tops = holder.get("top_logprobs") or [{}] * len(holder["tokens"])
        # The first token of an echoed prompt has none.
        places = [
            (token, value, top or {})
            for token, value, top in zip(holder["tokens"], holder["token_logprobs"], tops, strict=False)
        ]
    else:
        places = [
            (entry["token"], entry["logprob"], {t["token"]: t["logprob"] for t in entry.get("top_logprobs") or ()})
            for entry in (*(holder.get("content") or ()), *(holder.get("refusal") or ()))
        ]
    most = None if wanted is None else wanted.top_k
    return [
        TokenLogProbs(logprobs_by_token=_whole_tokens({token: value, **_likeliest(tops, most)}))
        for token, value, tops in places
        if value is not None
    ] or None


def _whole_tokens(values: Mapping[str, float]) -> dict[str, float]:
    """A token may be half of a surrogate pair."""
    whole: dict[str, float] = {}
    for token, value in values.items():
        whole.setdefault(whole_text(token), value)
    return whole


def _likeliest(tops: Mapping[str, float], most: int | None) -> dict[str, float]:
    if most is None or len(tops) <= most:
        return dict(tops)
    return dict(nlargest(most, tops.items(), key=itemgetter(1)))

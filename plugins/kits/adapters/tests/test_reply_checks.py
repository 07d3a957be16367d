"""A backend that passes over what was asked for is found out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from llamastack.api import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionMessage,
    CompletionResponse,
    CompletionResponseStreamChunk,
    JsonSchemaResponseFormat,
    LogProbConfig,
    SamplingParams,
    StopDetail,
    StopReason,
    TokenLogProbs,
    ToolCall,
    ToolCallDelta,
    ToolCallParseStatus,
    ToolChoice,
)
from llamastack.provider.errors import BackendError, LlamaStackError, NotSupportedError
from llamastack_adapters.reply_checks import ReplyChecks

pytestmark = pytest.mark.anyio
ANY_JSON = JsonSchemaResponseFormat(json_schema={})
CALL = ToolCall(call_id="c", tool_name="f", arguments={})
PLACE = [TokenLogProbs(logprobs_by_token={"a": -1.0})]
END, FULL = StopReason.end_of_turn, StopReason.out_of_tokens


def asked(**arguments: Any) -> ReplyChecks:
    return ReplyChecks.of("p", **arguments)


CASES = [
    # asked for, text, tool calls, log probabilities, stop reason -> the parameter that was passed over
    ({}, "hi", [], None, END, None),
    ({"logprobs": LogProbConfig()}, "hi", [], PLACE, END, None),
    ({"logprobs": LogProbConfig()}, "hi", [], None, END, "logprobs"),
    ({"logprobs": LogProbConfig()}, "", [CALL], None, END, None),
    ({"response_format": ANY_JSON}, '{"a": 1}', [], None, END, None),
    ({"response_format": ANY_JSON}, "certainly!", [], None, END, "JSON"),
    ({"response_format": ANY_JSON}, '{"a": ', [], None, FULL, None),
    ({"response_format": ANY_JSON, "sampling_params": SamplingParams(stop=["}"])}, '{"a": 1', [], None, END, None),
    ({"response_format": ANY_JSON}, "", [CALL], None, END, None),
    ({"response_format": ANY_JSON}, "", [], None, END, "JSON"),
    ({"tool_choice": ToolChoice.required}, "", [CALL], None, END, None),
    ({"tool_choice": ToolChoice.required}, "no", [], None, END, "tool_choice"),
    ({"tool_choice": ToolChoice.required}, "wel", [], None, FULL, None),
    ({"tool_choice": ToolChoice.auto}, "no", [], None, END, None),
]


def words_of(error: LlamaStackError) -> str | None:
    assert error.provider_id == "p"
    if isinstance(error, NotSupportedError):
        return error.param
    assert type(error) is BackendError
    return "JSON"


@pytest.mark.parametrize(("arguments", "text", "calls", "logprobs", "reason", "missing"), CASES)
async def test_chats(
    arguments: dict[str, Any], text: str, calls: list[ToolCall], logprobs: Any, reason: StopReason, missing: str | None
) -> None:
    message = CompletionMessage(content=text, stop_reason=reason, tool_calls=calls)
    reply = ChatCompletionResponse(completion_message=message, logprobs=logprobs)

    async def events() -> AsyncIterator[ChatCompletionResponseStreamChunk]:
        made = [{"event_type": "start", "delta": ""}]
        made += [{"event_type": "progress", "delta": letter, "logprobs": logprobs} for letter in text]
        success = ToolCallParseStatus.success
        made += [{"event_type": "progress", "delta": ToolCallDelta(content=c, parse_status=success)} for c in calls]
        for fields in [*made, {"event_type": "complete", "delta": "", "stop_reason": reason}]:
            yield ChatCompletionResponseStreamChunk(event=ChatCompletionResponseEvent.model_validate(fields))

    checks = asked(**arguments)
    if missing is None:
        assert checks.chat(reply) is reply
        assert len([e async for e in checks.chat_events(events())]) == 2 + len(text) + len(calls)
        return
    with pytest.raises(LlamaStackError) as caught:
        checks.chat(reply)
    assert words_of(caught.value) == missing
    with pytest.raises(LlamaStackError) as caught:
        async for _ in checks.chat_events(events()):
            pass
    assert words_of(caught.value) == missing


@pytest.mark.parametrize(
    ("arguments", "text", "calls", "logprobs", "reason", "missing"),
    [case for case in CASES if not case[2] and "tool_choice" not in case[0]],  # type: ignore[operator]
)
async def test_text_completions(
    arguments: dict[str, Any], text: str, calls: list[ToolCall], logprobs: Any, reason: StopReason, missing: str | None
) -> None:
    message = CompletionMessage(content=text, stop_reason=reason)

    async def pieces() -> AsyncIterator[CompletionResponseStreamChunk]:
        for letter in text:
            yield CompletionResponseStreamChunk(delta=letter, logprobs=logprobs)
        yield CompletionResponseStreamChunk(delta="", stop_reason=reason)

    async def whole() -> None:
        asked(**arguments).completion(CompletionResponse(completion_message=message, logprobs=logprobs))

    async def streamed() -> None:
        assert len([p async for p in asked(**arguments).completion_pieces(pieces())]) == len(text) + 1

    for attempt in (whole, streamed):
        if missing is None or (missing == "JSON" and not text):
            continue
        with pytest.raises(LlamaStackError) as caught:
            await attempt()
        assert words_of(caught.value) == missing
    if missing is None:
        await whole()
        await streamed()


async def test_a_refusal_and_a_filtered_reply_are_no_answer_to_check() -> None:
    kinds = ChatCompletionResponseEventType
    checks = asked(response_format=ANY_JSON, tool_choice=ToolChoice.required, logprobs=LogProbConfig())
    message = CompletionMessage(content="No.", stop_reason=END)
    for about in ({"refusal": "No."}, {"stop_detail": StopDetail.content_filter}):
        reply = ChatCompletionResponse(completion_message=message, **about)  # type: ignore[arg-type]
        assert checks.chat(reply) is reply

    async def events(refusal: bool | None, detail: StopDetail | None) -> AsyncIterator[Any]:
        delta = "No." if refusal else ""
        piece = ChatCompletionResponseEvent(event_type=kinds.progress, delta=delta, refusal=refusal)
        last = ChatCompletionResponseEvent(event_type=kinds.complete, delta="", stop_reason=END, stop_detail=detail)
        for event in (piece, last):
            yield ChatCompletionResponseStreamChunk(event=event)

    assert len([e async for e in checks.chat_events(events(True, None))]) == 2
    assert len([e async for e in checks.chat_events(events(None, StopDetail.content_filter))]) == 2
    with pytest.raises(NotSupportedError):
        _ = [e async for e in checks.chat_events(events(None, None))]
    failed = ToolCallDelta(content="{", parse_status=ToolCallParseStatus.failure)
    broken = ChatCompletionResponse(completion_message=message, failed_tool_calls=[failed])
    assert asked(tool_choice=ToolChoice.required).chat(broken) is broken


async def test_a_stream_that_has_nothing_to_check_is_handed_on_as_it_is() -> None:
    async def events() -> AsyncIterator[Any]:
        yield 1

    stream = events()
    assert asked().chat_events(stream) is stream
    assert asked().completion_pieces(stream) is stream
    await stream.aclose()  # type: ignore[attr-defined]

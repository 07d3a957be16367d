"""Native replies and streams in OpenAI's form."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from llamastack.api.common import CompletionMessage, StopReason, ToolCall
from llamastack.api.inference import (
    ChatCompletionResponse,
    ChatCompletionResponseEvent,
    ChatCompletionResponseEventType,
    ChatCompletionResponseStreamChunk,
    CompletionResponse,
    CompletionResponseStreamChunk,
    EmbeddingsResponse,
    LogProbConfig,
    StopDetail,
    TokenLogProbs,
    TokenUsage,
    ToolCallDelta,
    ToolCallParseStatus,
)
from llamastack.api.safety import RunShieldResponse, SafetyViolation, ViolationLevel
from llamastack.provider.errors import BackendError, InternalError
from llamastack_adapters.openai_dialect import OpenAIForm, chat_chunks, chat_reply, completion_chunks, completion_reply
from llamastack_openai_api import replies
from llamastack_openai_api.replies import StreamOptions
from llamastack_server.encoding import json_of

CALL = ToolCall(call_id="c1", tool_name="weather", arguments={"place": "Rome"})
USAGE = TokenUsage(prompt_tokens=5, completion_tokens=2)
LOGPROBS = [TokenLogProbs(logprobs_by_token={"a": -0.5, "b": -0.1, "c": -3.0})]


def reply(text: str = "Hi", *, calls: list[ToolCall] | None = None, **fields: Any) -> ChatCompletionResponse:
    reason = StopReason.end_of_message if calls else StopReason.end_of_turn
    message = CompletionMessage(content=text, stop_reason=fields.pop("reason", reason), tool_calls=calls or [])
    return ChatCompletionResponse(completion_message=message, **fields)


def event(delta: str | ToolCallDelta = "", **fields: Any) -> ChatCompletionResponseStreamChunk:
    kind = ChatCompletionResponseEventType
    chosen = kind.complete if "stop_reason" in fields else kind.progress
    return ChatCompletionResponseStreamChunk(
        event=ChatCompletionResponseEvent(event_type=chosen, delta=delta, **fields)
    )


START = ChatCompletionResponseStreamChunk(
    event=ChatCompletionResponseEvent(event_type=ChatCompletionResponseEventType.start, delta="")
)
END = event(stop_reason=StopReason.end_of_turn, usage=USAGE)


async def several(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


def form(logprobs: LogProbConfig | None = None, *, text: bool = False, most: int | None = None) -> OpenAIForm:
    fields: dict[str, Any] = {}
    if logprobs is not None:
        fields = {"logprobs": logprobs.top_k} if text else {"logprobs": True, "top_logprobs": logprobs.top_k}
    if most == 1:
        fields["parallel_tool_calls"] = False
    return OpenAIForm("m", fields)


def chunks(
    *streams: AsyncIterator[Any],
    logprobs: LogProbConfig | None = None,
    usage: bool = False,
    most: int | None = None,
    prompts: int = 1,
    text: bool = False,
) -> list[dict[str, Any]]:
    """The chunks before `[DONE]`, which must be the last event."""
    asked = form(logprobs, text=text, most=most)

    async def native(stream: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for chunk in stream:
            yield chunk.event

    async def collect() -> list[bytes]:
        kind = "text_completion" if text else "chat.completion.chunk"
        made = [completion_chunks(one, asked) if text else chat_chunks(native(one), asked) for one in streams]
        return [block async for block in replies.events(made, StreamOptions(kind, "m", usage, prompts))]

    *blocks, last = anyio.run(collect)
    assert last == b"data: [DONE]\n\n"
    return [json.loads(block.removeprefix(b"data: ")) for block in blocks]


def chat(*given: ChatCompletionResponse, logprobs: LogProbConfig | None = None, most: int | None = None) -> Any:
    asked = form(logprobs, most=most)
    return json.loads(replies.whole("chat.completion", [chat_reply(one, asked) for one in given], "m"))


def completion(given: list[CompletionResponse], logprobs: LogProbConfig | None = None, *, prompts: int = 1) -> Any:
    asked = form(logprobs, text=True)
    made = [completion_reply(one, asked) for one in given]
    return json.loads(replies.whole("text_completion", made, "m", prompts))


def test_a_chat_completion() -> None:
    made = chat(reply("Hi", usage=USAGE))
    assert made["id"].startswith("chatcmpl-")
    assert (made["object"], made["model"]) == ("chat.completion", "m")
    assert made["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert made["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_several_choices_count_the_prompt_once() -> None:
    made = chat(reply("a", usage=USAGE), reply("b", usage=USAGE))
    assert [choice["message"]["content"] for choice in made["choices"]] == ["a", "b"]
    assert made["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


def test_usage_that_is_not_known_is_left_out() -> None:
    assert "usage" not in chat(reply("a", usage=USAGE), reply("b"))


def test_finish_reasons() -> None:
    assert chat(reply(reason=StopReason.out_of_tokens))["choices"][0]["finish_reason"] == "length"
    assert chat(reply("", calls=[CALL]))["choices"][0]["finish_reason"] == "tool_calls"
    # A message that is handed over without a call is no call.
    assert chat(reply(reason=StopReason.end_of_message))["choices"][0]["finish_reason"] == "stop"


def test_tool_calls() -> None:
    message = chat(reply("", calls=[CALL, CALL]))["choices"][0]["message"]
    assert message["content"] is None
    assert len(message["tool_calls"]) == 2
    function = {"name": "weather", "arguments": '{"place":"Rome"}'}
    assert message["tool_calls"][0] == {"id": "c1", "type": "function", "function": function}
    assert len(chat(reply("", calls=[CALL, CALL]), most=1)["choices"][0]["message"]["tool_calls"]) == 1
    nameless = chat(reply("", calls=[CALL.model_copy(update={"call_id": ""})]))
    assert nameless["choices"][0]["message"]["tool_calls"][0]["id"].startswith("call_")


def test_log_probabilities_of_a_chat() -> None:
    content = chat(reply(logprobs=LOGPROBS), logprobs=LogProbConfig(top_k=2))["choices"][0]["logprobs"]["content"]
    assert [content[0][name] for name in ("token", "logprob", "bytes")] == ["a", -0.5, [97]]
    assert [top["token"] for top in content[0]["top_logprobs"]] == ["b", "a"]
    assert chat(reply(logprobs=LOGPROBS))["choices"][0]["logprobs"] is None


def test_a_stream() -> None:
    made = chunks(several(START, event("He"), event("llo"), END))
    assert {chunk["object"] for chunk in made} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in made}) == 1
    assert made[0]["choices"][0]["delta"] == {"role": "assistant", "content": "", "refusal": None}
    assert [chunk["choices"][0]["delta"].get("content") for chunk in made[1:]] == ["He", "llo", None]
    assert [chunk["choices"][0]["finish_reason"] for chunk in made] == [None, None, None, "stop"]
    assert not any("usage" in chunk for chunk in made)


def test_usage_of_a_stream_is_its_last_chunk() -> None:
    made = chunks(several(START, event("Hi"), END), usage=True)
    assert all(chunk["usage"] is None for chunk in made[:-1])
    assert made[-1]["choices"] == []
    assert made[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def test_several_streams_take_turns() -> None:
    made = chunks(several(START, event("a"), END), several(START, event("b"), event("c"), END))
    assert [chunk["choices"][0]["index"] for chunk in made] == [0, 1, 0, 1, 0, 1, 1]
    assert [c["choices"][0]["index"] for c in made if c["choices"][0]["finish_reason"]] == [0, 1]


def test_a_tool_call_in_a_stream_comes_whole() -> None:
    status = ToolCallParseStatus
    made = chunks(
        several(
            START,
            event(ToolCallDelta(content="", parse_status=status.started)),
            event(ToolCallDelta(content='{"pl', parse_status=status.in_progress)),
            event(ToolCallDelta(content=CALL, parse_status=status.success)),
            event(ToolCallDelta(content=CALL, parse_status=status.success)),
            event(stop_reason=StopReason.end_of_message),
        ),
        most=1,
    )
    deltas = [chunk["choices"][0]["delta"] for chunk in made]
    function = {"name": "weather", "arguments": '{"place":"Rome"}'}
    assert deltas[1] == {"tool_calls": [{"index": 0, "id": "c1", "type": "function", "function": function}]}
    assert len(deltas) == 3
    assert made[-1]["choices"][0]["finish_reason"] == "tool_calls"


BROKEN = ToolCallDelta(content="{", parse_status=ToolCallParseStatus.failure, call_id="c2", tool_name="news")


def test_arguments_that_cannot_be_read_are_told_as_they_are() -> None:
    failed = {"id": "c2", "type": "function", "function": {"name": "news", "arguments": "{"}}
    end = event(stop_reason=StopReason.end_of_message)
    streamed = chunks(several(START, event(BROKEN), end))
    assert streamed[1]["choices"][0]["delta"] == {"tool_calls": [{"index": 0, **failed}]}
    assert streamed[-1]["choices"][0]["finish_reason"] == "tool_calls"
    given = reply("", reason=StopReason.end_of_message, failed_tool_calls=[BROKEN])
    choice = chat(given)["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [failed]}
    assert choice["finish_reason"] == "tool_calls"


@pytest.mark.parametrize(
    ("end", "finish"),
    [
        ({"reason": StopReason.out_of_tokens}, "length"),
        ({"reason": StopReason.end_of_message, "stop_detail": StopDetail.content_filter}, "content_filter"),
    ],
)
def test_a_call_that_was_cut_is_left_out(end: dict[str, Any], finish: str) -> None:
    choice = chat(reply("", calls=[CALL], failed_tool_calls=[BROKEN], **end))["choices"][0]
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["c1"]
    assert choice["finish_reason"] == finish
    whole = event(ToolCallDelta(content=CALL, parse_status=ToolCallParseStatus.success))
    last = event(**{"stop_reason" if name == "reason" else name: value for name, value in end.items()})
    made = chunks(several(START, whole, event(BROKEN), last))
    assert [call["id"] for chunk in made for call in chunk["choices"][0]["delta"].get("tool_calls", ())] == ["c1"]
    assert made[-1]["choices"][0]["finish_reason"] == finish


def test_arguments_of_nobody_for_certain_are_no_ones() -> None:
    unsure = BROKEN.model_copy(update={"content": '{"x":1}'})
    with pytest.raises(BackendError, match="cannot be told apart"):
        chunks(several(START, event(unsure), event(stop_reason=StopReason.end_of_message)))
    with pytest.raises(BackendError, match="cannot be told apart"):
        chat(reply("", failed_tool_calls=[unsure]))


def test_a_refusal() -> None:
    choice = chat(reply("No.", refusal="No."))["choices"][0]
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": "No."}
    both = chat(reply("Well. No.", refusal="No."))["choices"][0]
    assert (both["message"]["content"], both["message"]["refusal"]) == ("Well. ", "No.")
    logged = chat(reply("No.", refusal="No.", logprobs=LOGPROBS), logprobs=LogProbConfig())["choices"][0]["logprobs"]
    assert (logged["content"], logged["refusal"][0]["token"]) == (None, "a")
    made = chunks(several(START, event("No", refusal=True), event(".", refusal=True), END))
    assert [chunk["choices"][0]["delta"] for chunk in made[1:3]] == [{"refusal": "No"}, {"refusal": "."}]
    assert made[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_filter_of_contents() -> None:
    filtered = StopDetail.content_filter
    assert chat(reply("Hi", stop_detail=filtered))["choices"][0]["finish_reason"] == "content_filter"
    end = event(stop_reason=StopReason.end_of_turn, stop_detail=filtered)
    assert chunks(several(START, end))[-1]["choices"][0]["finish_reason"] == "content_filter"
    made = completion([text_reply("a", stop_detail=filtered)])
    assert made["choices"][0]["finish_reason"] == "content_filter"
    piece = CompletionResponseStreamChunk(delta="", stop_reason=StopReason.end_of_turn, stop_detail=filtered)
    assert chunks(several(piece), text=True)[-1]["choices"][0]["finish_reason"] == "content_filter"


def test_a_stream_without_an_end_fails() -> None:
    with pytest.raises(BackendError, match="without a stop reason"):
        chunks(several(START, event("Hi")))


def text_reply(text: str, **fields: Any) -> CompletionResponse:
    message = CompletionMessage(content=text, stop_reason=StopReason.end_of_turn)
    return CompletionResponse(completion_message=message, **fields)


def test_a_text_completion_of_several_prompts() -> None:
    given = [text_reply(text, usage=USAGE) for text in ("a", "b", "c", "d")]
    made = completion(given, prompts=2)
    assert (made["object"], made["id"][:5]) == ("text_completion", "cmpl-")
    assert [(c["index"], c["text"], c["finish_reason"]) for c in made["choices"]] == [
        (0, "a", "stop"),
        (1, "b", "stop"),
        (2, "c", "stop"),
        (3, "d", "stop"),
    ]
    assert made["usage"] == {"prompt_tokens": 10, "completion_tokens": 8, "total_tokens": 18}


def test_what_json_has_no_word_for() -> None:
    impossible = [TokenLogProbs(logprobs_by_token={"a": float("-inf")})]
    content = chat(reply(logprobs=impossible), logprobs=LogProbConfig())["choices"][0]["logprobs"]["content"]
    assert content[0]["logprob"] is None
    [role, _, _] = chunks(several(START, event("a\u2028b"), END))
    assert role["choices"][0]["delta"]["role"] == "assistant"

    async def lines() -> list[bytes]:
        chunk = {"choices": [{"delta": {"content": "a\u2028b"}, "finish_reason": "stop"}]}
        return [block async for block in replies.events([several(chunk)], StreamOptions("chat.completion.chunk", "m"))]

    assert b"a\\u2028b" in b"".join(anyio.run(lines))
    assert chat(reply("a\ud800"))["choices"][0]["message"]["content"] == "a\ufffd"
    with pytest.raises(InternalError, match="cannot be written"):
        json_of({"a": object()})


def test_log_probabilities_of_a_text() -> None:
    entries = [*LOGPROBS, TokenLogProbs(logprobs_by_token={"xy": -1.0})]
    made = completion([text_reply("axy", logprobs=entries)], LogProbConfig(top_k=1))
    assert made["choices"][0]["logprobs"] == {
        "tokens": ["a", "xy"],
        "token_logprobs": [-0.5, -1.0],
        "top_logprobs": [{"a": -0.5, "b": -0.1}, {"xy": -1.0}],
        "text_offset": [0, 1],
    }


def test_a_streamed_text() -> None:
    pieces = [
        CompletionResponseStreamChunk(delta="ab", logprobs=LOGPROBS),
        CompletionResponseStreamChunk(delta="c", logprobs=LOGPROBS),
        CompletionResponseStreamChunk(delta="", stop_reason=StopReason.out_of_tokens, usage=USAGE),
    ]
    made = chunks(several(*pieces), logprobs=LogProbConfig(), usage=True, text=True)
    assert [chunk["choices"][0]["text"] for chunk in made[:-1]] == ["ab", "c", ""]
    assert [
        chunk["choices"][0]["logprobs"] and chunk["choices"][0]["logprobs"]["text_offset"] for chunk in made[:-1]
    ] == [
        [0],
        [2],
        None,
    ]
    assert made[-2]["choices"][0]["finish_reason"] == "length"
    assert made[-1]["usage"]["total_tokens"] == 7


def test_embeddings_as_numbers_and_as_bytes() -> None:
    given = EmbeddingsResponse(embeddings=[[0.5, -1.25], [1.0, 2.0]], usage=TokenUsage(prompt_tokens=4))
    plain = json.loads(replies.embeddings(given, "m", "float"))
    assert [(entry["index"], entry["embedding"]) for entry in plain["data"]] == [(0, [0.5, -1.25]), (1, [1.0, 2.0])]
    assert plain["usage"] == {"prompt_tokens": 4, "total_tokens": 4}
    packed = json.loads(replies.embeddings(given, "m", "base64"))["data"][0]["embedding"]
    assert struct.unpack("<2f", base64.b64decode(packed)) == (0.5, -1.25)


def test_moderation() -> None:
    verdicts = [
        RunShieldResponse(),
        RunShieldResponse(violation=SafetyViolation(violation_level=ViolationLevel.warn)),
        RunShieldResponse(
            violation=SafetyViolation(
                violation_level=ViolationLevel.error, user_message="No.", metadata={"violation_type": "S1"}
            )
        ),
    ]
    made = json.loads(replies.moderation(verdicts, "guard"))
    assert [result["flagged"] for result in made["results"]] == [False, False, True]
    assert made["results"][2]["categories"] == {"S1": True}
    assert made["results"][2]["category_scores"] == {"S1": 1.0}
    assert made["results"][2]["violation"]["user_message"] == "No."
    assert made["results"][0]["categories"] == {"guard": False}

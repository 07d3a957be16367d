"""The OpenAI dialect, both ways, where it is translated."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_bodies import chat_request, completion_request

from llamastack.api import (
    CompletionMessage,
    ImageMedia,
    JsonSchemaResponseFormat,
    LogProbConfig,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolPromptFormat,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.provider.errors import BackendError, InvalidRequestError, LlamaStackError, NotSupportedError
from llamastack_adapters.openai_dialect import (
    Dialect,
    chat_response,
    chat_stream,
    completion_response,
    completion_stream,
    embeddings_body,
    embeddings_response,
)

pytestmark = pytest.mark.anyio
PLAIN = Dialect("p")
TOOL = ToolDefinition(tool_name="f")
HELLO = [UserMessage(content="Hello")]


def test_every_kind_of_message() -> None:
    call = ToolCall(call_id="c", tool_name="f", arguments={"a": None})
    body = chat_request(
        PLAIN,
        model="m",
        messages=[
            SystemMessage(content="Be brief"),
            UserMessage(content=["Look:", ImageMedia(image="data:image/png;base64,AA==")], context="ctx"),
            CompletionMessage(content="", stop_reason=StopReason.end_of_message, tool_calls=[call]),
            ToolResponseMessage(call_id="c", tool_name="f", content="42"),
        ],
    )
    assert body["messages"] == [
        {"role": "system", "content": "Be brief"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Look:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                {"type": "text", "text": "ctx"},
            ],
        },
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": null}'}}],
        },
        {"role": "tool", "tool_call_id": "c", "content": "42"},
    ]


@pytest.mark.parametrize(
    ("params", "sent"),
    [
        (None, {"temperature": 0.0}),
        (SamplingParams(temperature=0.9), {"temperature": 0.0}),
        (SamplingParams(strategy=SamplingStrategy.top_p, top_p=0.5), {"top_p": 0.5}),
        (
            SamplingParams(strategy=SamplingStrategy.top_k, top_k=5, temperature=0.7, max_tokens=3),
            {"topk": 5, "temperature": 0.7, "max_tokens": 3},
        ),
        (
            SamplingParams(stop=["\n"], seed=1, repetition_penalty=1.1),
            {"temperature": 0.0, "stop": ["\n"], "seed": 1, "penalty": 1.1},
        ),
    ],
)
def test_sampling(params: SamplingParams | None, sent: dict[str, Any]) -> None:
    body = chat_request(
        Dialect("p", top_k="topk", repetition_penalty="penalty"), model="m", messages=HELLO, sampling_params=params
    )
    assert {key: value for key, value in body.items() if key not in ("model", "messages")} == sent


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"sampling_params": SamplingParams(strategy=SamplingStrategy.top_k, top_k=5)}, "sampling_params.top_k"),
        ({"sampling_params": SamplingParams(repetition_penalty=2)}, "sampling_params.repetition_penalty"),
        ({"sampling_params": SamplingParams(seed=2)}, "sampling_params.seed"),
        ({"tool_prompt_format": ToolPromptFormat.python_list, "tools": [TOOL]}, "tool_prompt_format"),
        ({"messages": [UserMessage(content=ImageMedia(image="http://x/y.png"))]}, "messages"),
    ],
)
def test_what_a_backend_cannot_do_is_refused_by_name(arguments: dict[str, Any], param: str) -> None:
    with pytest.raises(NotSupportedError) as caught:
        chat_request(Dialect("p", seed=None, images=False), **({"model": "m", "messages": HELLO} | arguments))
    assert (caught.value.param, caught.value.provider_id) == (param, "p")


def test_tools_logprobs_and_schema() -> None:
    tool = ToolDefinition(
        tool_name="f",
        description="d",
        parameters={
            "a": ToolParamDefinition(param_type="str", description="x"),
            "b": ToolParamDefinition(param_type="integer", required=False, default=3),
        },
    )
    body = chat_request(
        PLAIN,
        model="m",
        messages=HELLO,
        tools=[tool],
        tool_choice=ToolChoice.required,
        stream=True,
        logprobs=LogProbConfig(top_k=2),
        response_format=JsonSchemaResponseFormat(json_schema={"type": "object"}),
    )
    assert body["tools"][0]["function"] == {
        "name": "f",
        "description": "d",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "string", "description": "x"}, "b": {"type": "integer", "default": 3}},
            "required": ["a"],
        },
    }
    assert (body["tool_choice"], body["stream"], body["logprobs"], body["top_logprobs"]) == ("required", True, True, 2)
    assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
    with pytest.raises(InvalidRequestError, match="needs at least one tool"):
        chat_request(PLAIN, model="m", messages=HELLO, tool_choice=ToolChoice.required)


def test_completions_and_embeddings_take_text() -> None:
    assert completion_request(PLAIN, model="m", content=["a", "b"])["prompt"] == "a\nb"
    assert embeddings_body(PLAIN, model="m", contents=["a", ["b", "c"]])["input"] == ["a", "b\nc"]
    with pytest.raises(NotSupportedError) as caught:
        embeddings_body(PLAIN, model="m", contents=["a", ImageMedia(image="http://x/y.png")])
    assert caught.value.param == "contents[1]"


def reply(**message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": "Hi", **message}, "finish_reason": "stop"}]}


def test_a_whole_reply() -> None:
    found = chat_response(reply(), "p")
    assert found.completion_message == CompletionMessage(content="Hi", stop_reason=StopReason.end_of_turn)
    calls = [{"id": "c", "function": {"name": "f", "arguments": '{"a": 1}'}}]
    called = chat_response(reply(content=None, tool_calls=calls), "p")
    assert called.completion_message.tool_calls == [ToolCall(call_id="c", tool_name="f", arguments={"a": 1})]
    text = completion_response({"choices": [{"text": "x", "finish_reason": "length"}]}, "p")
    assert text.completion_message.stop_reason is StopReason.out_of_tokens


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"choices": []},
        {"choices": ["x"]},
        {"choices": [{"finish_reason": "stop"}]},
        reply(content=5),
        reply(tool_calls="f"),
    ],
)
def test_a_malformed_reply_is_a_backend_error(broken: dict[str, Any]) -> None:
    with pytest.raises(BackendError, match="backend of provider 'p' answered something") as caught:
        chat_response(broken, "p")
    assert caught.value.provider_id == "p"


def test_embeddings_come_in_order_and_all() -> None:
    data = [{"index": 1, "embedding": [2.0]}, {"index": 0, "embedding": [1.0]}]
    assert embeddings_response({"data": data}, "p", 2).embeddings == [[1.0], [2.0]]
    with pytest.raises(BackendError, match="2 embeddings for 3 contents"):
        embeddings_response({"data": data}, "p", 3)


def test_both_forms_of_logprobs() -> None:
    content = [{"token": "a", "logprob": -1.0, "top_logprobs": [{"token": "b", "logprob": -2.0}]}]
    choice = reply()["choices"][0] | {"logprobs": {"content": content}}
    found = chat_response({"choices": [choice]}, "p").logprobs
    assert found is not None
    assert found[0].logprobs_by_token == {"a": -1.0, "b": -2.0}
    older = {"tokens": ["a"], "token_logprobs": [-1.0], "top_logprobs": [{"b": -2.0}]}
    text = completion_response({"choices": [{"text": "a", "finish_reason": "stop", "logprobs": older}]}, "p").logprobs
    assert text == found


async def chunks(*deltas: dict[str, Any], finish: str | None = "stop") -> AsyncIterator[dict[str, Any]]:
    for delta in deltas:
        yield {"choices": [{"delta": delta, "finish_reason": None}]}
    if finish is not None:
        yield {"choices": [{"delta": {}, "finish_reason": finish}]}
    yield {"choices": [], "usage": {}}


async def test_a_stream() -> None:
    events = [c.event async for c in chat_stream(chunks({"content": None}, {"content": "Hel"}, {"content": "lo"}), "p")]
    assert [(e.event_type, e.delta, e.stop_reason) for e in events] == [
        ("start", "", None),
        ("progress", "Hel", None),
        ("progress", "lo", None),
        ("complete", "", "end_of_turn"),
    ]


async def test_a_stream_that_is_cut_short() -> None:
    with pytest.raises(BackendError, match="ended the stream before the reply was complete"):
        _ = [c async for c in chat_stream(chunks({"content": "Hel"}, finish=None), "p")]

    async def text() -> AsyncIterator[dict[str, Any]]:
        yield {"choices": [{"text": "x"}]}

    with pytest.raises(BackendError, match="ended the stream"):
        _ = [c async for c in completion_stream(text(), "p")]


async def test_arguments_that_are_no_json_are_a_failure_in_the_stream() -> None:
    call = {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": "{oops"}}]}
    deltas = [c.event.delta async for c in chat_stream(chunks(call, finish="tool_calls"), "p")]
    last = deltas[-2]
    assert isinstance(last, ToolCallDelta)
    assert (last.parse_status, last.content) == ("failure", "{oops")
    assert (last.call_id, last.tool_name) == ("c", "f")


@given(
    arguments=st.lists(st.dictionaries(st.text(), st.none() | st.integers() | st.text()), min_size=1, max_size=3),
    size=st.integers(1, 7),
)
def test_tool_calls_are_put_together_whatever_the_pieces(arguments: list[dict[str, Any]], size: int) -> None:
    """Any cut of the arguments into pieces gives the same calls, each announced before its pieces."""

    async def collect() -> list[Any]:
        deltas: list[dict[str, Any]] = []
        for index, given_arguments in enumerate(arguments):
            text = json.dumps(given_arguments)
            head = {"index": index, "id": f"c{index}", "function": {"name": f"f{index}", "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            deltas += [
                {"tool_calls": [{"index": index, "function": {"arguments": text[at : at + size]}}]}
                for at in range(0, len(text), size)
            ]
        return [c.event.delta async for c in chat_stream(chunks(*deltas, finish="tool_calls"), "p")]

    found = [d for d in anyio.run(collect) if isinstance(d, ToolCallDelta)]
    assert [d.content for d in found if d.parse_status == "success"] == [
        ToolCall(call_id=f"c{index}", tool_name=f"f{index}", arguments=given) for index, given in enumerate(arguments)
    ]
    assert sum(d.parse_status == "started" for d in found) == len(arguments)
    raw = "".join(str(d.content) for d in found if d.parse_status == "in_progress")
    assert raw == "".join(json.dumps(given) for given in arguments)


async def test_calls_of_backends_that_give_no_index() -> None:
    def called(name: str | None, arguments: str, **more: Any) -> dict[str, Any]:
        return {"tool_calls": [{**more, "function": {"name": name, "arguments": arguments}}]}

    pieces = (called("f", '{"a": 1}', id="1"), called("g", '{"b"', id="2"), called(None, ": 2}"))
    events = [c.event async for c in chat_stream(chunks(*pieces, finish="stop"), "p")]
    made = [e.delta.content for e in events if isinstance(e.delta, ToolCallDelta) and e.delta.parse_status == "success"]
    assert [(c.tool_name, c.arguments) for c in made] == [("f", {"a": 1}), ("g", {"b": 2})]  # type: ignore[union-attr]


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
async def test_a_reply_with_calls_ends_with_a_message(finish: str) -> None:
    call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
    reply = {"choices": [{"message": {"content": None, "tool_calls": [call]}, "finish_reason": finish}]}
    assert chat_response(reply, "p").completion_message.stop_reason is StopReason.end_of_message
    events = [c.event async for c in chat_stream(chunks({"tool_calls": [call]}, finish=finish), "p")]
    assert events[-1].stop_reason is StopReason.end_of_message
    reply["choices"][0]["finish_reason"] = "length"
    assert chat_response(reply, "p").completion_message.stop_reason is StopReason.out_of_tokens


async def test_content_in_parts() -> None:
    parts = [{"type": "reasoning", "summary": []}, {"type": "text", "text": "Hi"}]
    events = [c.event async for c in chat_stream(chunks({"content": parts}), "p")]
    assert [e.delta for e in events] == ["", "Hi", ""]
    for odd in (5, {"text": "x"}, [5]):
        with pytest.raises(BackendError, match="cannot be understood"):
            _ = [c async for c in chat_stream(chunks({"content": odd}), "p")]


async def test_calls_that_share_an_index_and_names_that_are_repeated() -> None:
    def called(call_id: str, arguments: str) -> dict[str, Any]:
        function = {"name": "f", "arguments": arguments}
        return {"tool_calls": [{"index": 0, "id": call_id, "function": function}]}

    pieces = (called("1", '{"a"'), called("1", ": 1}"), called("2", '{"a": 2}'))
    events = [c.event async for c in chat_stream(chunks(*pieces, finish="tool_calls"), "p")]
    made = [e.delta.content for e in events if isinstance(e.delta, ToolCallDelta) and e.delta.parse_status == "success"]
    assert [(c.tool_name, c.arguments) for c in made] == [("f", {"a": 1}), ("f", {"a": 2})]  # type: ignore[union-attr]


async def test_errors_in_mid_stream_in_other_forms() -> None:
    for error in ({"object": "error", "message": "boom", "code": 400}, {"message": "boom"}):

        async def broken(error: dict[str, Any] = error) -> AsyncIterator[dict[str, Any]]:
            yield error

        with pytest.raises(LlamaStackError, match="broke off: boom"):
            _ = [c async for c in chat_stream(broken(), "p")]

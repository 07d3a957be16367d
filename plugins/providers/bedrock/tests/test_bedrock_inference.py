"""The provider over a real engine: what it serves, what Bedrock is sent, what comes back."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from backends.bedrock import (
    EU_SONNET,
    HAIKU,
    LLAMA,
    OWN_PROFILE,
    foundation_model,
    foundation_models,
)
from backends.bedrock_wire import event, stream_of
from starlette.responses import JSONResponse

from llamastack.api import (
    ChatCompletionResponseEventType,
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
    ToolCallParseStatus,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolPromptFormat,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.provider import (
    BackendError,
    ContextLengthExceededError,
    Deps,
    InvalidRequestError,
    NotSupportedError,
)
from llamastack_provider_bedrock.config import BedrockConfig
from llamastack_provider_bedrock.inference import get_adapter_impl
from llamastack_provider_bedrock.requests import converse_request

pytestmark = pytest.mark.anyio

CAPITAL = UserMessage(content="What is the capital of France?")
WEATHER = ToolDefinition(
    tool_name="weather",
    description="Tells the weather",
    parameters={"sunny": ToolParamDefinition(param_type="bool", description="Whether to say only that")},
)
CALL = ToolCall(call_id="tooluse_1", tool_name="weather", arguments={"sunny": True})
SUNNY = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_URL = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


def assistant(call: ToolCall | None = None, text: str = "") -> CompletionMessage:
    calls = [] if call is None else [call]
    return CompletionMessage(content=text, stop_reason=StopReason.end_of_turn, tool_calls=calls)


def converse(reason: str, *blocks: dict[str, Any]) -> JSONResponse:
    """A reply of Converse."""
    message = {"role": "assistant", "content": list(blocks)}
    usage = {"inputTokens": 1, "outputTokens": 1, "totalTokens": 2}
    body = {"output": {"message": message}, "stopReason": reason, "usage": usage, "metrics": {"latencyMs": 1}}
    return JSONResponse(body)


# ---- chat ------------------------------------------------------------------------------------------------------------


async def test_a_chat_and_how_it_ends(running: Any) -> None:
    reply = await running.chat(sampling_params=SamplingParams(max_tokens=24))
    assert reply.completion_message.content == "The capital of France is Paris."
    assert reply.completion_message.stop_reason is StopReason.end_of_turn
    short = await running.chat(sampling_params=SamplingParams(max_tokens=3))
    assert short.completion_message.content == "The capital of"
    assert short.completion_message.stop_reason is StopReason.out_of_tokens
    stopped = await running.chat(sampling_params=SamplingParams(stop=["France"]))
    assert stopped.completion_message.content == "The capital of "
    assert stopped.completion_message.stop_reason is StopReason.end_of_turn


async def test_a_stream_comes_in_pieces(running: Any) -> None:
    kinds = ChatCompletionResponseEventType
    events = await running.events(sampling_params=SamplingParams(max_tokens=24))
    assert [e.event_type for e in events] == [kinds.start, *[kinds.progress] * (len(events) - 2), kinds.complete]
    assert len(events) > 5
    assert "".join(e.delta for e in events) == "The capital of France is Paris."
    assert events[-1].stop_reason is StopReason.end_of_turn
    short = await running.events(sampling_params=SamplingParams(max_tokens=3))
    assert short[-1].stop_reason is StopReason.out_of_tokens


async def test_sampling(running: Any) -> None:
    body = await running.body_of(sampling_params=None)
    assert body["inferenceConfig"] == {"temperature": 0.0}
    params = SamplingParams(strategy=SamplingStrategy.top_p, top_p=0.5, temperature=0.7, max_tokens=4, stop=["x", "yy"])
    body = await running.body_of(sampling_params=params)
    assert body["inferenceConfig"] == {"temperature": 0.7, "topP": 0.5, "maxTokens": 4, "stopSequences": ["x", "yy"]}
    assert "additionalModelRequestFields" not in body
    with pytest.raises(InvalidRequestError, match=r"'inferenceConfig\.temperature' failed to satisfy"):
        await running.chat(sampling_params=SamplingParams(strategy=SamplingStrategy.top_p, temperature=1.5))


async def test_fields_that_only_converse_has_reach_it() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    body = {"model": "m", "messages": messages, "top_k": 5, "request_metadata": {"a": "b"}}
    own = {"additionalModelRequestFields": {"thinking": {"type": "enabled"}}}
    request = converse_request(body | own, "anthropic.claude")
    assert request["requestMetadata"] == {"a": "b"}
    assert request["additionalModelRequestFields"] == {"top_k": 5, "thinking": {"type": "enabled"}}
    with pytest.raises(InvalidRequestError) as refused:
        converse_request({**body, "request_metadata": "x"}, "anthropic.claude")
    assert refused.value.param == "request_metadata"


async def test_top_k_where_the_family_has_it(started: Callable[..., Any]) -> None:
    nova = "amazon.nova-lite-v1:0"
    async with started(front={"models": [*foundation_models(), foundation_model(nova)]}) as running:
        params = SamplingParams(strategy=SamplingStrategy.top_k, top_k=7, temperature=0.1, max_tokens=2)
        for model in (HAIKU, EU_SONNET, OWN_PROFILE):
            body = await running.body_of(model=model, sampling_params=params)
            assert body["additionalModelRequestFields"] == {"top_k": 7}
            assert body["inferenceConfig"] == {"temperature": 0.1, "maxTokens": 2}
        body = await running.body_of(model=nova, sampling_params=params)
        assert body["additionalModelRequestFields"] == {"inferenceConfig": {"topK": 7}}


async def test_what_bedrock_cannot_do_is_refused(running: Any) -> None:
    top_k = SamplingParams(strategy=SamplingStrategy.top_k, top_k=7)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"model": LLAMA, "sampling_params": top_k}, "sampling_params.top_k"),
        ({"sampling_params": SamplingParams(repetition_penalty=1.1)}, "sampling_params.repetition_penalty"),
        ({"sampling_params": SamplingParams(seed=7)}, "sampling_params.seed"),
        ({"tools": [WEATHER], "tool_prompt_format": ToolPromptFormat.function_tag}, "tool_prompt_format"),
        ({"logprobs": LogProbConfig()}, "logprobs"),
    ]
    for arguments, param in cases:
        for stream in (False, True):
            with pytest.raises(NotSupportedError, match="'p'") as caught:
                await running.chat(stream=stream, **arguments)
            assert caught.value.param == param
    assert not running.front.count("Converse") + running.front.count("ConverseStream")


async def test_log_probabilities_are_refused_by_the_provider_itself() -> None:
    provider = await get_adapter_impl(BedrockConfig(), Deps(provider_id="p"))
    with pytest.raises(NotSupportedError) as caught:
        await provider.chat_completion(HAIKU, [CAPITAL], logprobs=LogProbConfig())
    assert caught.value.param == "logprobs"


async def test_there_is_no_text_completion(running: Any) -> None:
    with pytest.raises(NotSupportedError, match="completion"):
        await running.stack.inference.completion(model=HAIKU, content="Once")


async def test_a_prompt_that_is_too_long(running: Any) -> None:
    for stream in (False, True):
        with pytest.raises(ContextLengthExceededError, match="Input is too long"):
            await running.chat(messages=[UserMessage(content="hello " * 3000)], stream=stream)


# ---- messages --------------------------------------------------------------------------------------------------------


async def test_a_conversation_is_put_into_turns(running: Any) -> None:
    second = CALL.model_copy(update={"call_id": "tooluse_2"})
    body = await running.body_of(
        messages=[
            SystemMessage(content="Be kind."),
            UserMessage(content="One", context="Retrieved"),
            UserMessage(content=["Look:", ImageMedia(image=PNG_URL), " \n"]),
            assistant(text=""),
            assistant(text="Let me see."),
            CompletionMessage(content="", stop_reason=StopReason.end_of_message, tool_calls=[CALL, second]),
            ToolResponseMessage(call_id="tooluse_1", tool_name="weather", content="sunny"),
            ToolResponseMessage(call_id="tooluse_2", tool_name="weather", content=""),
            UserMessage(content="And now?"),
            SystemMessage(content="Be brief."),
        ],
        tools=[WEATHER],
    )
    assert body["system"] == [{"text": "Be kind."}, {"text": "Be brief."}]
    use = {"toolUseId": "tooluse_1", "name": "weather", "input": {"sunny": True}}
    image = {"format": "png", "source": {"bytes": base64.b64encode(PNG).decode()}}
    assert body["messages"] == [
        {"role": "user", "content": [{"text": "One"}, {"text": "Retrieved"}, {"text": "Look:"}, {"image": image}]},
        {
            "role": "assistant",
            "content": [
                {"text": "Let me see."},
                {"toolUse": use},
                {"toolUse": {**use, "toolUseId": "tooluse_2"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"toolResult": {"toolUseId": "tooluse_1", "content": [{"text": "sunny"}]}},
                {"toolResult": {"toolUseId": "tooluse_2", "content": [{"text": "(empty)"}]}},
                {"text": "And now?"},
            ],
        },
    ]


async def test_what_is_no_conversation_is_refused_here(running: Any) -> None:
    cases: list[tuple[list[Any], str]] = [
        ([assistant(text="I begin."), CAPITAL], "begin with a user message"),
        ([SystemMessage(content="Only this.")], "begin with a user message"),
        ([UserMessage(content=" ")], "without content"),
        ([SystemMessage(content=ImageMedia(image=PNG_URL)), CAPITAL], "system message takes no images"),
        ([UserMessage(content=ImageMedia(image="https://example.com/x.png"))], "fetches no images"),
        ([UserMessage(content=ImageMedia(image="data:image/bmp;base64,AAAA"))], "'image/bmp'"),
        ([UserMessage(content=ImageMedia(image="data:image/png;base64,%%%"))], "base64 of the data: URL is malformed"),
    ]
    for messages, words in cases:
        with pytest.raises(InvalidRequestError, match=words) as caught:
            await running.chat(messages=messages)
        assert caught.value.param == "messages"
    assert not running.front.count("Converse")


async def test_what_the_service_refuses_is_said_in_its_words(running: Any) -> None:
    with pytest.raises(InvalidRequestError, match="toolConfig field must be defined"):
        await running.chat(messages=[CAPITAL, assistant(CALL), ToolResponseMessage(**_answer(CALL))])
    # botocore itself finds this one.
    with pytest.raises(InvalidRequestError, match="toolUseId, value: 0, valid min length: 1"):
        await running.chat(messages=[CAPITAL, assistant(CALL.model_copy(update={"call_id": ""}))], tools=[WEATHER])


def _answer(call: ToolCall) -> dict[str, Any]:
    return {"call_id": call.call_id, "tool_name": call.tool_name, "content": "sunny"}


# ---- tools -----------------------------------------------------------------------------------------------------------


async def test_a_tool_call_and_its_answer(running: Any) -> None:
    arguments: dict[str, Any] = {"tools": [WEATHER], "tool_choice": ToolChoice.required}
    reply = await running.chat(**arguments, sampling_params=SamplingParams(max_tokens=100))
    body = running.front.last("Converse").body
    assert body["toolConfig"] == {
        "tools": [
            {
                "toolSpec": {
                    "name": "weather",
                    "description": "Tells the weather",
                    "inputSchema": {
                        "json": {
                            "type": "object",
                            "properties": {
                                "sunny": {"type": "boolean", "description": "Whether to say only that"},
                            },
                            "required": ["sunny"],
                        }
                    },
                }
            }
        ],
        "toolChoice": {"any": {}},
    }
    assert reply.completion_message.stop_reason is StopReason.end_of_message
    [call] = reply.completion_message.tool_calls
    assert call.tool_name == "weather"
    assert isinstance(call.arguments["sunny"], bool)
    messages = [CAPITAL, reply.completion_message, ToolResponseMessage(**_answer(call))]
    answer = await running.chat(messages=messages, tools=[WEATHER], tool_choice=ToolChoice.auto)
    assert running.front.last("Converse").body["toolConfig"]["toolChoice"] == {"auto": {}}
    assert answer.completion_message.content


async def test_a_tool_call_in_a_stream(running: Any) -> None:
    events = await running.events(
        tools=[WEATHER], tool_choice=ToolChoice.required, sampling_params=SamplingParams(max_tokens=100)
    )
    deltas = [e.delta for e in events if isinstance(e.delta, ToolCallDelta)]
    status = ToolCallParseStatus
    assert deltas[0] == ToolCallDelta(content="", parse_status=status.started)
    pieces = [d.content for d in deltas if d.parse_status is status.in_progress]
    assert len(pieces) > 1
    last = deltas[-1]
    assert last.parse_status is status.success
    assert isinstance(last.content, ToolCall)
    assert last.content.call_id.startswith("tooluse_")
    assert last.content.arguments == json.loads("".join(str(piece) for piece in pieces))
    assert events[-1].stop_reason is StopReason.end_of_message


async def test_text_and_two_calls_in_one_stream(running: Any) -> None:
    """Scripted: the engine does not mix them."""

    def block(index: int, key: str, *pieces: str) -> bytes:
        use = {"toolUse": {"toolUseId": key, "name": "weather"}}
        out = event("contentBlockStart", {"contentBlockIndex": index, "start": use})
        for piece in pieces:
            out += event("contentBlockDelta", {"contentBlockIndex": index, "delta": {"toolUse": {"input": piece}}})
        return out + event("contentBlockStop", {"contentBlockIndex": index})

    running.front.answers.append(
        stream_of(
            event("messageStart", {"role": "assistant"}),
            event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"reasoningContent": {"text": "hm"}}}),
            event("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "I look."}}),
            block(2, "a", '{"sunny"', ": true}"),
            block(3, "b"),
            event("messageStop", {"stopReason": "tool_use"}),
            event("metadata", {"usage": {}, "metrics": {}}),
            event("somethingNew", {}),
        )
    )
    events = await running.events(tools=[WEATHER])
    assert [e.delta for e in events if isinstance(e.delta, str)] == ["", "I look.", ""]
    calls = [e.delta.content for e in events if isinstance(e.delta, ToolCallDelta)]
    assert [c for c in calls if isinstance(c, ToolCall)] == [
        ToolCall(call_id="a", tool_name="weather", arguments={"sunny": True}),
        ToolCall(call_id="b", tool_name="weather", arguments={}),
    ]


async def test_a_required_call_that_does_not_come_is_found_out(running: Any) -> None:
    for _ in range(2):
        running.front.answers.append(converse("end_turn", {"text": "No."}))
    with pytest.raises(NotSupportedError) as caught:
        await running.chat(tools=[WEATHER], tool_choice=ToolChoice.required)
    assert caught.value.param == "tool_choice"


# ---- JSON, stop reasons ----------------------------------------------------------------------------------------------


async def test_a_json_schema(running: Any) -> None:
    limit = SamplingParams(max_tokens=100)
    reply = await running.chat(response_format=SUNNY, sampling_params=limit)
    assert json.loads(reply.completion_message.content).keys() == {"sunny"}
    sent = running.front.last("Converse").body["outputConfig"]["textFormat"]
    assert sent["type"] == "json_schema"
    assert json.loads(sent["structure"]["jsonSchema"]["schema"]) == SUNNY.json_schema
    events = await running.events(response_format=SUNNY, sampling_params=limit)
    assert json.loads("".join(e.delta for e in events)).keys() == {"sunny"}
    running.front.answers.append(converse("end_turn", {"text": "Here: {}"}))
    with pytest.raises(BackendError, match="did not apply the JSON schema"):
        await running.chat(response_format=SUNNY)


async def test_stop_reasons(running: Any) -> None:
    """Scripted: most of them come of what the engine does not have."""
    cases = {
        "max_tokens": StopReason.out_of_tokens,
        "model_context_window_exceeded": StopReason.out_of_tokens,
        "guardrail_intervened": StopReason.end_of_turn,
        "content_filtered": StopReason.end_of_turn,
        "stop_sequence": StopReason.end_of_turn,
        "malformed_model_output": None,
        "malformed_tool_use": None,
        "new_word": StopReason.end_of_turn,
    }
    for word, reason in cases.items():
        stream = stream_of(
            event("messageStart", {"role": "assistant"}),
            event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}}),
            event("messageStop", {"stopReason": word}),
        )
        running.front.answers += [converse(word, {"text": "Hi"}), stream]
        if reason is None:
            for call in (running.chat, running.events):
                with pytest.raises(BackendError, match=word):
                    await call()
        else:
            assert (await running.chat()).completion_message.stop_reason is reason
            assert (await running.events())[-1].stop_reason is reason

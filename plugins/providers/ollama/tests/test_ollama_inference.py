"""The provider before the stand-in, whose replies are those of a real engine."""

from __future__ import annotations

import base64
import json
from typing import Any

import anyio
import pytest
from backends.llama_server import LlamaServer
from backends.ollama_models import BARE, CHAT, EMBEDDER, NO_TOOLS, SEEING
from backends.ollama_stack import LONG, Running, Start, limit
from backends.ollama_wire import ndjson

from llamastack.api import (
    ChatCompletionResponseEventType,
    CompletionMessage,
    ImageMedia,
    JsonSchemaResponseFormat,
    LogProbConfig,
    Model,
    SamplingParams,
    StopReason,
    SystemMessage,
    ToolCall,
    ToolCallDelta,
    ToolCallParseStatus,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    ToolResponseMessage,
    UserMessage,
)
from llamastack.provider import (
    AuthenticationError,
    ContextLengthExceededError,
    InvalidRequestError,
    NotSupportedError,
    ObjectNotFoundError,
    UnsupportedModelError,
)
from llamastack.provider.context import PROVIDER_DATA_HEADER, use_provider_data
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack_adapters.openai_dialect import OpenAIForm

pytestmark = pytest.mark.anyio
PNG = base64.b64decode("iVBORw0KGgo=")
WEATHER = ToolDefinition(
    tool_name="weather",
    description="Tells it",
    parameters={"city": ToolParamDefinition(param_type="str", default="Rome")},
)
SCHEMA = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
)


# ---- what is served ----------------------------------------------------------------------------------------------


async def test_what_is_served(running: Running) -> None:
    models = {model.identifier: model.metadata for model in await running.stack.models.list_models()}
    assert list(models) == [CHAT, BARE, "smollm2", SEEING, "looker", NO_TOOLS, EMBEDDER, "embedder", "small"]
    assert models["smollm2"]["alias_of"] == BARE
    assert models["small"]["alias_of"] == CHAT
    assert models[CHAT] == {
        "loaded": False,
        "size_bytes": 144_000_000,
        "max_context_length": 2048,
        "capabilities": ["completion", "tools"],
    }
    assert models[EMBEDDER]["embedding_dimension"] == 576
    shown = running.ollama.count("/api/show")
    await running.chat(model="smollm2")
    await running.stack.instances["inference"][0].refresh(force=True)
    models = {model.identifier: model.metadata for model in await running.stack.models.list_models()}
    assert [name for name, about in models.items() if about["loaded"]] == [BARE, "smollm2"]
    assert models[BARE]["context_length"] == 2048
    assert running.ollama.count("/api/show") == shown  # asked once for each digest


async def test_names(running: Running) -> None:
    for name, sent in (("smollm2", "smollm2"), (f"o/{BARE}", BARE), ("small", CHAT), ("o/small", CHAT)):
        await running.chat(model=name, sampling_params=limit(1))
        assert running.ollama.last("/api/chat").body["model"] == sent
    with pytest.raises(ObjectNotFoundError):
        await running.chat(model="nonsense")


async def test_registering(running: Running) -> None:
    for name in (CHAT, "smollm2", BARE, "small"):
        await running.stack.models.register_model(Model(identifier=name))
    with pytest.raises(UnsupportedModelError) as caught:
        await running.stack.models.register_model(Model(identifier="llama3:70b"))
    assert "'ollama pull llama3:70b', or set 'allow_pull: true'" in caught.value.message
    assert f"Served: {EMBEDDER}, {SEEING}, {NO_TOOLS}, small, {CHAT}, {BARE}" in caught.value.message
    assert running.ollama.pulls == []


# ---- chats -------------------------------------------------------------------------------------------------------


async def test_chat_whole_and_streamed(running: Running) -> None:
    reply = (await running.chat()).completion_message
    assert (reply.content, reply.stop_reason) == ("The capital of France is Paris.", StopReason.end_of_turn)
    events = [chunk.event async for chunk in await running.chat(stream=True)]
    kinds = ChatCompletionResponseEventType
    assert [e.event_type for e in events] == [kinds.start, *[kinds.progress] * (len(events) - 2), kinds.complete]
    assert "".join(str(e.delta) for e in events) == reply.content
    assert events[-1].stop_reason is StopReason.end_of_turn
    short = await running.chat(sampling_params=limit(2))
    assert short.completion_message.stop_reason is StopReason.out_of_tokens


async def test_every_kind_of_message(running: Running) -> None:
    call = ToolCall(call_id="c", tool_name="weather", arguments={"city": "Paris"})
    await running.chat(
        model=SEEING,
        messages=[
            SystemMessage(content="Be brief"),
            UserMessage(content=["Look", ImageMedia(image="data:image/png;base64,iVBORw0KGgo=")], context="more"),
            CompletionMessage(content="", stop_reason=StopReason.end_of_message, tool_calls=[call]),
            ToolResponseMessage(call_id="c", tool_name="weather", content="Sunny"),
            UserMessage(content="Well?"),
        ],
        sampling_params=limit(1),
    )
    assert running.ollama.last("/api/chat").body["messages"] == [
        {"role": "system", "content": "Be brief"},
        {"role": "user", "content": "Look\nmore", "images": [base64.b64encode(PNG).decode()]},
        {
            "role": "assistant",  # without the content, which is empty: so Ollama's client sends it
            "tool_calls": [{"function": {"name": "weather", "arguments": {"city": "Paris"}}}],
        },
        {"role": "tool", "tool_name": "weather", "content": "Sunny"},
        {"role": "user", "content": "Well?"},
    ]


@pytest.mark.parametrize(
    ("params", "options"),
    [
        (None, {"temperature": 0.0, "repeat_penalty": 1.0}),
        ({"max_tokens": 3}, {"temperature": 0.0, "num_predict": 3, "repeat_penalty": 1.0}),
        (
            {"strategy": "top_p", "temperature": 0.7, "top_p": 0.8, "seed": 5, "max_tokens": 3},
            {
                "temperature": 0.7,
                "top_p": 0.8,
                "top_k": 0,
                "min_p": 0.0,
                "seed": 5,
                "num_predict": 3,
                "repeat_penalty": 1.0,
            },
        ),
        (
            {
                "strategy": "top_k",
                "temperature": 0.7,
                "top_k": 9,
                "repetition_penalty": 1.2,
                "stop": ["x"],
                "max_tokens": 3,
            },
            {
                "temperature": 0.7,
                "top_k": 9,
                "top_p": 1.0,
                "min_p": 0.0,
                "repeat_penalty": 1.2,
                "stop": ["x"],
                "num_predict": 3,
            },
        ),
    ],
)
async def test_sampling(running: Running, params: dict[str, Any] | None, options: dict[str, Any]) -> None:
    await running.chat(sampling_params=None if params is None else SamplingParams.model_validate(params))
    assert running.ollama.last("/api/chat").body["options"] == options


async def asked(running: Running, extra: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What Ollama is sent for a chat of `/v1`."""
    messages = [{"role": "user", "content": "What is the capital of France?"}]

    def form(call: ProviderCall) -> OpenAIForm:
        return OpenAIForm(call.identifier, {"messages": messages, "max_tokens": 1, **fields}, extra=extra)

    calls = running.stack.routed_calls("inference")
    method = ProviderMethod("openai_chat", "chat_completion", form, dict)
    reply = await calls.call(method, CHAT, fields, b"{}", stream=False)
    assert reply["choices"][0]["message"]["content"]
    return dict(running.ollama.last("/api/chat").body)


async def test_fields_that_only_ollama_has_reach_it(running: Running) -> None:
    own = {"mirostat": 2, "repeat_last_n": 33, "keep_alive": "3m", "options": {"num_batch": 64}}
    body = await asked(running, own, temperature=0.7, top_p=0.5, top_k=5)
    assert body["keep_alive"] == "3m"
    assert body["options"] == {
        "temperature": 0.7,
        "top_p": 0.5,
        "top_k": 5,
        "min_p": 0.0,
        "mirostat": 2,
        "num_batch": 64,
        "num_predict": 1,
        "repeat_last_n": 33,
        "repeat_penalty": 1.0,
    }
    for extra, param in (({"options": 5}, "options"), ({"nonsense": 1}, "nonsense")):
        with pytest.raises(InvalidRequestError) as refused:
            await asked(running, extra)
        assert refused.value.param == param


async def test_settings_of_the_provider(start: Start) -> None:
    async with start(context_length=512, keep_alive="7m") as running:
        await running.chat(sampling_params=limit(1))
        await running.complete()
        await running.stack.inference.embeddings(model=EMBEDDER, contents=["x"])
        for path in ("/api/chat", "/api/generate", "/api/embed"):
            body = running.ollama.last(path).body
            assert (body["options"]["num_ctx"], body["keep_alive"]) == (512, "7m")
        [model] = [m for m in await running.stack.models.list_models() if m.identifier == NO_TOOLS]
        assert model.metadata["context_length"] == 512


async def test_stop_texts(running: Running) -> None:
    reply = await running.chat(sampling_params=limit(24, stop=[" of"]))
    assert reply.completion_message.content == "The capital"


async def test_json_schema(running: Running) -> None:
    for stream in (False, True):
        reply = await running.chat(response_format=SCHEMA, stream=stream)
        text = "".join([str(c.event.delta) async for c in reply]) if stream else reply.completion_message.content
        assert isinstance(json.loads(text)["sunny"], bool)
    held = await running.complete(response_format=SCHEMA, sampling_params=limit(40))
    assert isinstance(json.loads(held.completion_message.content)["sunny"], bool)


@pytest.mark.parametrize("top_k", [0, 2])
async def test_logprobs(running: Running, top_k: int) -> None:
    asked = {"logprobs": LogProbConfig(top_k=top_k), "sampling_params": limit(3)}
    whole = await running.chat(**asked)
    assert [len(place.logprobs_by_token) for place in whole.logprobs] == [max(1, top_k)] * 3
    pieces = [c.event async for c in await running.chat(**asked, stream=True)]
    assert [place for event in pieces for place in event.logprobs or ()] == whole.logprobs
    text = await running.complete(**asked)
    assert len(text.logprobs) == 3


async def test_logprobs_beyond_what_it_gives(running: Running) -> None:
    with pytest.raises(InvalidRequestError, match="at most 20") as caught:
        await running.chat(logprobs=LogProbConfig(top_k=21))
    assert caught.value.param == "logprobs.top_k"


async def test_an_ollama_that_is_too_old_for_logprobs(running: Running) -> None:
    line = {"message": {"role": "assistant", "content": "Hi"}, "done": True, "done_reason": "stop"}
    running.ollama.answers.append(ndjson(line))
    with pytest.raises(NotSupportedError, match="ignored 'logprobs'"):
        await running.chat(logprobs=LogProbConfig())


async def test_what_a_model_thinks_is_not_what_it_says(running: Running) -> None:
    thought = {"message": {"role": "assistant", "content": "", "thinking": "Hm."}, "done": False}
    answer = {"message": {"role": "assistant", "content": "Yes."}, "done": True, "done_reason": "stop"}
    thought["logprobs"], answer["logprobs"] = ([{"token": token, "logprob": -0.5}] for token in ("Hm.", "Yes."))
    running.ollama.answers.extend([ndjson(thought, answer), ndjson(thought, answer)])
    whole = await running.chat(logprobs=LogProbConfig())
    assert whole.completion_message.content == "Yes."
    assert [place.logprobs_by_token for place in whole.logprobs] == [{"Yes.": -0.5}]
    events = [chunk.event async for chunk in await running.chat(stream=True, logprobs=LogProbConfig())]
    assert "".join(str(event.delta) for event in events) == "Yes."
    given = [place.logprobs_by_token for event in events for place in event.logprobs or ()]
    assert given == [{"Yes.": -0.5}]


# ---- tools -------------------------------------------------------------------------------------------------------


async def test_tools_whole_and_streamed(running: Running) -> None:
    asked = {"tools": [WEATHER], "sampling_params": limit(60)}
    reply = (await running.chat(**asked)).completion_message
    [call] = reply.tool_calls
    assert (call.tool_name, list(call.arguments), reply.stop_reason) == ("weather", ["city"], StopReason.end_of_message)
    assert call.call_id
    [tool] = running.ollama.last("/api/chat").body["tools"]
    assert tool["function"]["parameters"]["properties"]["city"] == {
        "type": "string",
        "description": '(default: "Rome")',
    }
    deltas = [c.event.delta async for c in await running.chat(**asked, stream=True)]
    made = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
    status = ToolCallParseStatus
    assert [d.parse_status for d in made] == [status.started, status.in_progress, status.success]
    assert isinstance(made[-1].content, ToolCall)
    assert made[-1].content.arguments == call.arguments
    assert made[-1].content.call_id != call.call_id


async def test_several_calls_have_ids_of_their_own(running: Running) -> None:
    calls = [{"function": {"name": "weather", "arguments": {"city": city}}} for city in ("Paris", "Rome")]
    lines = [{"message": {"role": "assistant", "content": "", "tool_calls": [c]}, "done": False} for c in calls]
    end = {"message": {"role": "assistant", "content": ""}, "done": True, "done_reason": "stop"}
    running.ollama.answers.append(ndjson(*lines, end))
    made = (await running.chat(tools=[WEATHER])).completion_message.tool_calls
    assert [call.arguments["city"] for call in made] == ["Paris", "Rome"]
    assert len({call.call_id for call in made}) == 2


@pytest.mark.parametrize(
    ("arguments", "param", "words"),
    [
        ({"tools": [WEATHER], "tool_choice": ToolChoice.required}, "tool_choice", "tool_choice 'required'"),
        ({"tools": [WEATHER], "model": NO_TOOLS}, "tools", "does not support tools"),
        (
            {"model": CHAT, "messages": [UserMessage(content=ImageMedia(image="data:image/png;base64,AA=="))]},
            "messages",
            "does not take images",
        ),
        (
            {"model": SEEING, "messages": [UserMessage(content=ImageMedia(image="http://x.invalid/a.png"))]},
            "messages",
            "takes images only as data: URLs",
        ),
        ({"model": EMBEDDER}, "model", "does not support chat"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    running: Running, arguments: dict[str, Any], param: str, words: str
) -> None:
    for stream in (False, True):
        with pytest.raises(NotSupportedError, match=words) as caught:
            await running.chat(**arguments, stream=stream)
        assert (caught.value.param, caught.value.provider_id) == (param, "o")


@pytest.mark.parametrize("image", ["data:image/png;base64,%%%", "data:image/png;base64,"])
async def test_images_that_are_none(running: Running, image: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await running.chat(model=SEEING, messages=[UserMessage(content=ImageMedia(image=image))])
    assert caught.value.param == "messages"


# ---- texts, vectors ----------------------------------------------------------------------------------------------


async def test_completion_whole_and_streamed(running: Running) -> None:
    whole = (await running.complete()).completion_message
    assert "four" in whole.content
    assert whole.stop_reason is StopReason.out_of_tokens
    pieces = [piece async for piece in await running.complete(stream=True)]
    assert "".join(piece.delta for piece in pieces) == whole.content
    assert running.ollama.last("/api/generate").body["raw"] is True
    with pytest.raises(InvalidRequestError, match="empty text"):
        await running.complete(content="")


async def test_embeddings(running: Running) -> None:
    vectors = (await running.stack.inference.embeddings(model="embedder", contents=["a", "b", "a"])).embeddings
    assert [len(vector) for vector in vectors] == [576] * 3
    assert vectors[0] == pytest.approx(vectors[2], abs=1e-3)
    assert vectors[0] != pytest.approx(vectors[1], abs=1e-3)
    with pytest.raises(ContextLengthExceededError):
        await running.stack.inference.embeddings(model=EMBEDDER, contents=["x " * 600])


# ---- keys, clients that go away ----------------------------------------------------------------------------------


async def test_keys(start: Start, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("OLLAMA_API_KEY", "of-the-environment")
    monkeypatch.setenv("OLLAMA_HOST", "http://elsewhere.invalid")
    async with start() as running:
        await running.chat(sampling_params=limit(1))
        assert "authorization" not in running.ollama.last("/api/chat").headers
    async with start(api_key="sk-operator") as running:
        running.ollama.keys = {"sk-operator", "sk-client"}
        await running.chat(sampling_params=limit(1))
        assert running.ollama.last("/api/chat").headers["authorization"] == "Bearer sk-operator"
        with use_provider_data({"ollama_api_key": "sk-client"}):
            await running.chat(sampling_params=limit(1))
        assert running.ollama.last("/api/chat").headers["authorization"] == "Bearer sk-client"
        with use_provider_data({"ollama_api_key": "sk-wrong"}), pytest.raises(AuthenticationError) as caught:
            await running.chat(stream=True)
        assert caught.value.param == f"{PROVIDER_DATA_HEADER}.ollama_api_key"
        assert "provider 'o' (remote::ollama)" in caught.value.message
        shown = f"{caught.value!r} {caught.value.to_wire()} {caplog.text} {await running.stack.inspect.health()}"
        assert "sk-" not in shown


async def test_a_client_that_goes_away_stops_ollama(running: Running, llama: LlamaServer) -> None:
    for stream in (True, False):
        with anyio.move_on_after(20) as waiting:

            async def ask(stream: bool = stream) -> None:
                reply = await running.chat(messages=LONG, sampling_params=limit(1500), stream=stream)
                async for _ in reply:
                    pass

            async def go_away() -> None:
                while not await anyio.to_thread.run_sync(llama.working_on):
                    await anyio.sleep(0.02)
                waiting.cancel()

            async with anyio.create_task_group() as group:
                group.start_soon(ask)
                group.start_soon(go_away)
        assert await anyio.to_thread.run_sync(llama.becomes_idle, 5)


async def test_a_stream_that_is_closed_before_its_first_piece(running: Running, llama: LlamaServer) -> None:
    stream = await running.chat(messages=LONG, sampling_params=limit(1500), stream=True)
    await stream.aclose()
    await stream.aclose()
    assert await anyio.to_thread.run_sync(llama.becomes_idle, 5)

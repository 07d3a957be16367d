"""remote::tgi: what it sends and what it gives, over a real engine."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from backends.llama_server import MODEL
from backends.openai_front import Seen
from backends.tgi import TGIStandIn
from served_stack import served_stack
from starlette.responses import JSONResponse

from llamastack import Stack
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
    TokenLogProbs,
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
    ContextLengthExceededError,
    InvalidRequestError,
    NotSupportedError,
    UnsupportedModelError,
)

pytestmark = pytest.mark.anyio

CAPITAL = [UserMessage(content="What is the capital of France?")]
ANSWER = "The capital of France is Paris."
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
WEATHER = ToolDefinition(tool_name="weather", parameters={"city": ToolParamDefinition(param_type="str")})
SCHEMA = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}, "rain": {"const": None}},
        "required": ["sunny"],
    }
)
CHAT = "/v1/chat/completions"


def first(place: TokenLogProbs) -> str:
    return next(iter(place.logprobs_by_token))


def limit(tokens: int, **more: Any) -> SamplingParams:
    return SamplingParams.model_validate({"max_tokens": tokens, **more})


@dataclass
class Running:
    stack: Stack
    tgi: TGIStandIn

    async def chat(self, **arguments: Any) -> Any:
        given = {"model": MODEL, "messages": CAPITAL, "sampling_params": limit(24), **arguments}
        return await self.stack.inference.chat_completion(**given)

    async def text(self, **arguments: Any) -> Any:
        given = {"model": MODEL, "content": PROMPT, "sampling_params": limit(24), **arguments}
        return await self.stack.inference.completion(**given)

    async def events(self, **arguments: Any) -> list[Any]:
        return [chunk.event async for chunk in await self.chat(stream=True, **arguments)]

    async def pieces(self, **arguments: Any) -> list[Any]:
        return [piece async for piece in await self.text(stream=True, **arguments)]

    async def chat_body(self, **arguments: Any) -> Any:
        await self.chat(**{"sampling_params": limit(1), **arguments})
        return self.tgi.last(CHAT).body

    async def parameters(self, **arguments: Any) -> Any:
        await self.text(**{"sampling_params": limit(1), **arguments})
        return self.tgi.last("/").body["parameters"]


@pytest.fixture
def start(tgi: Callable[..., tuple[TGIStandIn, str]], running: Callable[..., Any]) -> Callable[..., Any]:
    """`async with start(version=2) as p`: a stand-in with these settings, and a provider for it."""
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Running]:
        stand_in, url = tgi(**settings)
        async with running(url=url, models={"small": MODEL}) as stack:
            yield Running(stack, stand_in)

    return started


@pytest.fixture
async def p(start: Callable[..., Any]) -> AsyncIterator[Running]:
    async with start() as running:
        yield running


# ---- what is served --------------------------------------------------------------------------------------------------


async def test_it_serves_what_info_names(p: Running) -> None:
    models = {model.identifier: model for model in await p.stack.models.list_models()}
    assert list(models) == [MODEL, "small"]
    assert models[MODEL].metadata == {"context_length": 2048, "max_input_tokens": 1024}
    assert models["small"].metadata["alias_of"] == MODEL
    reply = await p.chat(model="small")
    assert reply.completion_message.content == ANSWER
    await p.stack.models.register_model(Model(identifier="small"))
    with pytest.raises(UnsupportedModelError, match=f"'other' is not served. Served: {MODEL}, small"):
        await p.stack.models.register_model(Model(identifier="other"))


async def test_an_older_server_and_a_url_for_openai_clients(
    tgi: Callable[..., tuple[TGIStandIn, str]], running: Callable[..., Any]
) -> None:
    _, url = tgi(version=2)
    async with running(url=f"{url}/v1/") as stack:
        models = await stack.models.list_models()
        assert models[0].metadata == {"context_length": 2048, "max_input_tokens": 1024}
        reply = await stack.inference.completion(model=MODEL, content=PROMPT, sampling_params=limit(24))
        assert reply.completion_message.content == ANSWER


async def test_embeddings_are_refused(p: Running) -> None:
    with pytest.raises(NotSupportedError, match="embeddings"):
        await p.stack.inference.embeddings(model=MODEL, contents=["a"])


# ---- chats -----------------------------------------------------------------------------------------------------------


async def test_chat_whole_and_streamed(p: Running) -> None:
    reply = await p.chat()
    assert reply.completion_message.content == ANSWER
    assert reply.completion_message.stop_reason is StopReason.end_of_turn
    events = await p.events()
    kinds = ChatCompletionResponseEventType
    assert [event.event_type for event in events] == [
        kinds.start,
        *[kinds.progress] * (len(events) - 2),
        kinds.complete,
    ]
    assert len(events) > 6
    assert "".join(event.delta for event in events) == ANSWER
    assert events[-1].stop_reason is StopReason.end_of_turn
    assert (await p.chat(sampling_params=limit(3))).completion_message.stop_reason is StopReason.out_of_tokens
    assert (await p.events(sampling_params=limit(3)))[-1].stop_reason is StopReason.out_of_tokens


async def test_what_a_chat_is_asked_for(p: Running) -> None:
    body = await p.chat_body(sampling_params=None)
    assert body == {
        "model": "tgi",
        "messages": [{"role": "user", "content": CAPITAL[0].content}],
        "temperature": 0.0,
    } | {"stream": False}
    sampled = limit(5, strategy="top_p", top_p=0.9, temperature=0.7, seed=3, repetition_penalty=1.25, stop=["x"])
    body = await p.chat_body(sampling_params=sampled)
    wanted = {"max_tokens": 5, "top_p": 0.9, "temperature": 0.7, "seed": 3, "presence_penalty": -0.75, "stop": ["x"]}
    assert {name: body.get(name) for name in wanted} == wanted
    # All tokens: what the server refuses as a number.
    body = await p.chat_body(sampling_params=limit(5, strategy="top_p", top_p=1.0))
    assert "top_p" not in body


async def test_a_repetition_penalty_counts(p: Running) -> None:
    assert (await p.chat(sampling_params=limit(24, repetition_penalty=3.0))).completion_message.content != ANSWER
    assert (await p.text(sampling_params=limit(24, repetition_penalty=3.0))).completion_message.content != ANSWER


async def test_a_seed_makes_sampling_repeatable(p: Running) -> None:
    async def sample(seed: int) -> Any:
        params = limit(12, strategy="top_p", top_p=0.99, temperature=1.5, seed=seed)
        return (await p.chat(sampling_params=params)).completion_message.content

    assert await sample(1) == await sample(1) != await sample(2)


async def test_what_a_chat_cannot_do(p: Running) -> None:
    with pytest.raises(NotSupportedError, match="provider 'p' does not support top_k sampling") as refused:
        await p.chat(sampling_params=limit(5, strategy="top_k", top_k=4))
    assert refused.value.param == "sampling_params.top_k"
    with pytest.raises(NotSupportedError, match="a JSON schema together with tools") as refused:
        await p.chat(tools=[WEATHER], response_format=SCHEMA)
    assert refused.value.param == "response_format"
    before = len(p.tgi.seen)
    with pytest.raises(InvalidRequestError, match="tool_choice"):
        await p.chat(tool_choice=ToolChoice.required)
    with pytest.raises(InvalidRequestError):
        await p.chat(messages=[])
    assert not [seen for seen in p.tgi.seen[before:] if seen.path == CHAT]


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_server_refuses(p: Running, stream: bool) -> None:
    refused: list[tuple[SamplingParams, str]] = [
        (limit(5, stop=list("abcde")), "supports up to 4 stop sequences"),
        (limit(5, strategy="top_p", top_p=0.0), "`top_p` must be > 0.0 and < 1.0"),
    ]
    for params, expected in refused:
        for call in (p.chat, p.text):
            with pytest.raises(InvalidRequestError, match=expected):
                await call(sampling_params=params, stream=stream)
    for call in (p.chat, p.text):
        with pytest.raises(InvalidRequestError, match="must be >= 0 and <= 5. Given: 6"):
            await call(logprobs=LogProbConfig(top_k=6), stream=stream)
        with pytest.raises(ContextLengthExceededError, match="must be <= 2048"):
            await call(sampling_params=limit(4000), stream=stream)
    with pytest.raises(ContextLengthExceededError, match="must have less than 1024 tokens"):
        await p.text(content="a b " * 600, stream=stream)


async def test_content_of_several_parts(p: Running) -> None:
    parts = UserMessage(content=["What is the capital", "of France?"])
    body = await p.chat_body(messages=[SystemMessage(content=["Be", "short."]), parts])
    assert [message["content"] for message in body["messages"]] == ["Be\nshort.", "What is the capital\nof France?"]
    await p.chat(messages=[UserMessage(content="")])
    await p.text(content=["What is", "this?"], sampling_params=limit(2))
    assert p.tgi.last("/").body["inputs"] == "What is\nthis?"


async def test_images(start: Callable[..., Any]) -> None:
    seen = [UserMessage(content=["What is this?", ImageMedia(image="data:image/png;base64,AAAA")])]
    async with start() as p:
        with pytest.raises(NotSupportedError, match="does not support images in messages") as refused:
            await p.chat(messages=seen)
        assert refused.value.param == "messages"
        with pytest.raises(NotSupportedError, match="images here"):
            await p.text(content=seen[0].content)
    # The engine has no eyes: that its address reaches the server is all there is to see.
    async with start(pipeline_tag="image-text-to-text") as p:
        body = await p.chat_body(messages=seen)
        assert body["messages"][0]["content"][1] == {
            "type": "image_url",
            "image_url": {"url": "data:image/png;base64,AAAA"},
        }


# ---- tools -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"name_in_each": True}])
async def test_a_required_tool(start: Callable[..., Any], settings: dict[str, Any]) -> None:
    wanted = {"tools": [WEATHER], "tool_choice": ToolChoice.required, "sampling_params": limit(80)}
    async with start(**settings) as p:
        reply = await p.chat(**wanted)
        call = reply.completion_message.tool_calls[0]
        assert call.tool_name == "weather"
        assert isinstance(call.arguments["city"], str)
        assert reply.completion_message.stop_reason is StopReason.end_of_message
        sent = p.tgi.last(CHAT).body
        assert sent["tool_choice"] == "required"
        assert sent["tools"][0]["function"]["parameters"]["required"] == ["city"]
        events = await p.events(**wanted)
    deltas = [event.delta for event in events if isinstance(event.delta, ToolCallDelta)]
    assert deltas[0].parse_status is ToolCallParseStatus.started
    raw = "".join(d.content for d in deltas if d.parse_status is ToolCallParseStatus.in_progress)
    assert json.loads(raw) == call.arguments
    assert deltas[-1].parse_status is ToolCallParseStatus.success
    assert deltas[-1].content == call
    assert events[-1].stop_reason is StopReason.end_of_message


async def test_tool_calls_as_version_2_has_them(start: Callable[..., Any]) -> None:
    async with start(version=2) as p:
        with pytest.raises(NotSupportedError, match="tool_choice 'required': its server is too old") as refused:
            await p.chat(tools=[WEATHER], tool_choice=ToolChoice.required, sampling_params=limit(80))
        assert refused.value.param == "tool_choice"
        # Scripted, as a small model may rather talk.
        function = {"name": "weather", "arguments": {"city": "Rome"}, "description": None}
        message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": function}]}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "eos_token"}
        p.tgi.answers.append(JSONResponse({"object": "chat.completion", "choices": [choice]}))
        reply = await p.chat(tools=[WEATHER])
        assert reply.completion_message.tool_calls == [
            ToolCall(call_id="0", tool_name="weather", arguments={"city": "Rome"})
        ]
        assert reply.completion_message.stop_reason is StopReason.end_of_message


async def test_tool_results_go_back(p: Running) -> None:
    call = ToolCall(call_id="0", tool_name="weather", arguments={"city": "Paris"})

    def assistant(text: str) -> CompletionMessage:
        return CompletionMessage(content=text, stop_reason=StopReason.end_of_message, tool_calls=[call])

    result = ToolResponseMessage(call_id="0", tool_name="weather", content="It rains.")
    for text in ("", "I look."):
        body = await p.chat_body(messages=[*CAPITAL, assistant(text), result])
        roles = ["user", "assistant", *(["assistant"] if text else []), "tool"]
        assert [message["role"] for message in body["messages"]] == roles
        # One with content would lose its calls at the server.
        calls = [message for message in body["messages"] if "tool_calls" in message]
        assert len(calls) == 1
        assert "content" not in calls[0]
        assert json.loads(calls[0]["tool_calls"][0]["function"]["arguments"]) == {"city": "Paris"}
        assert body["messages"][-1] == {"role": "tool", "tool_call_id": "0", "content": "It rains."}


# ---- text ------------------------------------------------------------------------------------------------------------


async def test_text_whole_and_streamed(p: Running) -> None:
    reply = await p.text()
    assert reply.completion_message.content == ANSWER
    assert reply.completion_message.stop_reason is StopReason.end_of_turn
    assert reply.logprobs is None
    pieces = await p.pieces()
    assert len(pieces) > 6
    assert "".join(piece.delta for piece in pieces) == ANSWER
    assert pieces[-1].stop_reason is StopReason.end_of_turn
    assert (await p.pieces(sampling_params=limit(3)))[-1].stop_reason is StopReason.out_of_tokens


async def test_what_a_text_is_asked_for(p: Running) -> None:
    fixed = {"details": True, "decoder_input_details": False, "return_full_text": False}
    assert await p.parameters(sampling_params=limit(4)) == {**fixed, "do_sample": False, "max_new_tokens": 4}
    sampled = limit(5, strategy="top_k", top_k=3, temperature=0.7, seed=3, repetition_penalty=1.25, stop=["x"])
    assert await p.parameters(sampling_params=sampled) == {
        **fixed,
        "do_sample": True,
        "max_new_tokens": 5,
        "top_k": 3,
        "temperature": 0.7,
        "seed": 3,
        "repetition_penalty": 1.25,
        "stop": ["x"],
    }
    parameters = await p.parameters(sampling_params=limit(5, strategy="top_p", top_p=0.5, temperature=0.0))
    assert parameters == {**fixed, "do_sample": False, "max_new_tokens": 5, "top_p": 0.5}
    parameters = await p.parameters(sampling_params=limit(5, strategy="top_p", top_p=1.0))
    assert parameters == {**fixed, "do_sample": True, "max_new_tokens": 5}


# ---- stop texts, log probabilities, JSON -----------------------------------------------------------------------------


@pytest.mark.parametrize(("stop", "kept"), [(" France is", "The capital of"), ("nce", "The capital of Fra")])
async def test_stop_texts_are_no_part_of_the_reply(p: Running, stop: str, kept: str) -> None:
    arguments: dict[str, Any] = {
        "sampling_params": limit(24, stop=["never", stop]),
        "logprobs": LogProbConfig(top_k=1),
    }
    for whole, parts in (
        (await p.chat(**arguments), await p.events(**arguments)),
        (
            await p.text(**arguments),
            await p.pieces(**arguments),
        ),
    ):
        assert whole.completion_message.content == kept
        assert whole.completion_message.stop_reason is StopReason.end_of_turn
        assert "".join(part.delta for part in parts) == kept
        assert parts[-1].stop_reason is StopReason.end_of_turn
        streamed = [place for part in parts for place in part.logprobs or ()]
        assert streamed == whole.logprobs
        assert [first(place) for place in streamed][:3] == ["The", " capital", " of"]
    # What merely looks like the beginning of one is not kept back for ever.
    arguments["sampling_params"] = limit(24, stop=[" Paris!", ". And"])
    assert "".join(event.delta for event in await p.events(**arguments)) == ANSWER
    assert "".join(piece.delta for piece in await p.pieces(**arguments)) == ANSWER


async def test_log_probabilities(p: Running) -> None:
    for most in (0, 2):
        wanted = LogProbConfig(top_k=most)
        chat, text = await p.chat(logprobs=wanted), await p.text(logprobs=wanted)
        assert [first(place) for place in text.logprobs] == ["The", " capital", " of", " France", " is", " Paris", "."]
        assert chat.logprobs[:7] == text.logprobs
        assert all(len(place.logprobs_by_token) == max(1, most) for place in text.logprobs)
        assert all(value <= 0 for place in text.logprobs for value in place.logprobs_by_token.values())
        assert [place for event in await p.events(logprobs=wanted) for place in event.logprobs or ()] == chat.logprobs
        assert [place for piece in await p.pieces(logprobs=wanted) for place in piece.logprobs or ()] == text.logprobs


async def test_json(p: Running) -> None:
    wanted = {"response_format": SCHEMA, "sampling_params": limit(40)}
    assert "sunny" in json.loads((await p.chat(**wanted)).completion_message.content)
    assert p.tgi.last(CHAT).body["response_format"] == {"type": "json_object", "value": SCHEMA.json_schema}
    assert "sunny" in json.loads((await p.text(**wanted)).completion_message.content)
    grammar = p.tgi.last("/").body["parameters"]["grammar"]
    assert grammar["type"] == "json"
    assert json.loads(grammar["value"]) == SCHEMA.json_schema  # with what is null in it
    assert "sunny" in json.loads("".join(event.delta for event in await p.events(**wanted)))
    assert "sunny" in json.loads("".join(piece.delta for piece in await p.pieces(**wanted)))
    with pytest.raises(InvalidRequestError, match="must have a 'properties' field"):
        await p.text(response_format=JsonSchemaResponseFormat(json_schema={"type": "object"}))


async def test_no_request_is_made_twice(p: Running) -> None:
    await p.chat()
    await p.text()
    posts: list[Seen] = [seen for seen in p.tgi.seen if seen.path in ("/", CHAT)]
    assert len(posts) == 2
    assert posts[0].headers["user-agent"] == posts[1].headers["user-agent"] == "llamastack-provider-tgi"


# ---- what OpenAI's API has no name for -------------------------------------------------------------------------------


async def test_its_own_fields_of_a_text_reach_it_through_openai_s_api(
    tgi: Callable[..., tuple[TGIStandIn, str]],
) -> None:
    stand_in, url = tgi()
    provider = {"provider_id": "p", "provider_type": "remote::tgi", "config": {"url": url}}
    config = {"providers": {"inference": [provider]}}
    own = {"typical_p": 0.9, "watermark": True, "truncate": 100, "adapter_id": "a/b"}
    asked = {"model": MODEL, "prompt": PROMPT, "max_tokens": 1}
    async with served_stack(config) as (_, http):
        reply = await http.post("/v1/completions", json={**asked, **own})
        assert reply.status_code == 200, reply.text
        assert own.items() <= stand_in.last("/").body["parameters"].items()
        calls = len(stand_in.seen)
        refused = await http.post("/v1/completions", json={**asked, "best_off": 2})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "best_off")
        assert len(stand_in.seen) == calls, "nothing was asked of the server"

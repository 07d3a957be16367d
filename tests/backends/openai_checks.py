"""What every provider of the OpenAI dialect must do; a plugin's tests inherit it and say where their backend differs.

The backend is llama.cpp's server behind an `OpenAIFront`. What a test scripts, because a model of 135 million
parameters cannot be relied on for it, it puts into `front.answers`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Any, ClassVar

import anyio
import pytest
from starlette.responses import JSONResponse, Response

from backends.llama_server import MODEL, LlamaServer
from backends.openai_front import OpenAIFront, events, openai_list
from llamastack import Stack
from llamastack.api import (
    ChatCompletionResponseEventType,
    ImageMedia,
    JsonSchemaResponseFormat,
    LogProbConfig,
    SamplingParams,
    SamplingStrategy,
    StopReason,
    ToolCall,
    ToolCallDelta,
    ToolCallParseStatus,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ContextLengthExceededError,
    NotFoundError,
    NotSupportedError,
    ObjectNotFoundError,
    UnsupportedModelError,
)
from llamastack.provider.context import PROVIDER_DATA_HEADER, use_provider_data

KEY = "sk-operator-7d1f"
OWN_KEY = "sk-client-93ac"
CAPITAL = [UserMessage(content="What is the capital of France?")]
LONG = [UserMessage(content="Count from one to one thousand, in words.")]
WEATHER = ToolDefinition(tool_name="weather", parameters={"city": ToolParamDefinition(param_type="str")})
SCHEMA = JsonSchemaResponseFormat(
    json_schema={
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
)


def limit(tokens: int, **more: Any) -> SamplingParams:
    return SamplingParams.model_validate({"max_tokens": tokens, **more})


@dataclass
class Running:
    """A stack with one provider, `p`, and the front of its backend."""

    stack: Stack
    front: OpenAIFront

    async def chat(self, **arguments: Any) -> Any:
        given = {"model": MODEL, "messages": CAPITAL, "sampling_params": limit(24), **arguments}
        return await self.stack.inference.chat_completion(**given)

    async def body_of(self, **arguments: Any) -> Any:
        """What the backend is sent for a chat."""
        await self.chat(**arguments)
        return self.front.last("/chat/completions").body


class OpenAIDialectChecks:
    """Each class variable says where a backend differs."""

    provider_type: ClassVar[str]
    key_field: ClassVar[str]
    key_name: ClassVar[str] = "api_key"
    key_needed: ClassVar[bool] = True
    prefix: ClassVar[str] = "/v1"
    config: ClassVar[Mapping[str, Any]] = {}
    top_k: ClassVar[str | None] = "top_k"
    repetition_penalty: ClassVar[str | None] = "repetition_penalty"
    seed: ClassVar[str | None] = "seed"
    completion_schema: ClassVar[bool] = False
    top_logprobs: ClassVar[bool] = True

    def listing(self, models: Sequence[str]) -> Any:
        """What the backend answers at /models."""
        return openai_list(models)

    def url_of(self, front_url: str) -> str:
        return front_url

    def front_settings(self) -> dict[str, Any]:
        return {"prefix": self.prefix, "listing": self.listing, "keys": {KEY, OWN_KEY}}

    @pytest.fixture
    def started(self, front: Callable[..., tuple[OpenAIFront, str]]) -> Callable[..., Any]:
        """`async with started(**config) as running`."""
        from contextlib import asynccontextmanager

        @asynccontextmanager
        async def start(**config: Any) -> AsyncIterator[Running]:
            made, url = front(**self.front_settings())
            full = {"url": self.url_of(url), self.key_name: KEY, **self.config, **config}
            given = {name: value for name, value in full.items() if value is not None}
            provider = {"provider_id": "p", "provider_type": self.provider_type, "config": given}
            async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
                yield Running(stack, made)

        return start

    @pytest.fixture
    async def running(self, started: Callable[..., Any]) -> AsyncIterator[Running]:
        async with started(models={"small": MODEL}) as running:
            yield running

    # ---- what is served ------------------------------------------------------------------------------------------

    async def test_it_serves_what_the_backend_lists_and_its_aliases(self, running: Running) -> None:
        models = {model.identifier: model for model in await running.stack.models.list_models()}
        assert list(models) == [MODEL, "small"]
        assert models["small"].metadata["alias_of"] == MODEL
        assert all(model.provider_id == "p" for model in models.values())
        await running.chat(model="small")
        assert running.front.last("/chat/completions").body["model"] == MODEL
        await running.chat(model="p/small")
        with pytest.raises(ObjectNotFoundError, match=f"Served: {MODEL}, small"):
            await running.chat(model="nonsense")

    async def test_registering(self, running: Running) -> None:
        from llamastack.api import Model

        await running.stack.models.register_model(Model(identifier=MODEL))
        await running.stack.models.register_model(Model(identifier="small"))
        with pytest.raises(UnsupportedModelError, match=f"'nonsense' is not served. Served: {MODEL}, small"):
            await running.stack.models.register_model(Model(identifier="nonsense"))

    async def test_a_model_that_the_backend_has_dropped(self, running: Running) -> None:
        running.front.models = []
        with pytest.raises(NotFoundError, match=f"The model `{MODEL}` does not exist") as caught:
            await running.chat()
        assert (caught.value.provider_id, caught.value.param) == ("p", "model")

    # ---- generating ----------------------------------------------------------------------------------------------

    async def test_chat_whole_and_streamed(self, running: Running) -> None:
        reply = (await running.chat()).completion_message
        assert reply.content == "The capital of France is Paris."
        assert reply.stop_reason is StopReason.end_of_turn
        chunks = [chunk.event async for chunk in await running.chat(stream=True)]
        kinds = ChatCompletionResponseEventType
        assert [c.event_type for c in chunks] == [kinds.start, *[kinds.progress] * (len(chunks) - 2), kinds.complete]
        assert len(chunks) > 5
        assert "".join(str(c.delta) for c in chunks) == reply.content
        assert chunks[-1].stop_reason is StopReason.end_of_turn

    async def test_too_few_tokens(self, running: Running) -> None:
        reply = await running.chat(sampling_params=limit(2))
        assert reply.completion_message.stop_reason is StopReason.out_of_tokens

    async def test_completion_whole_and_streamed(self, running: Running) -> None:
        arguments = {"model": MODEL, "content": "One, two, three,", "sampling_params": limit(6)}
        whole = await running.stack.inference.completion(**arguments)
        assert whole.completion_message.content
        assert whole.completion_message.stop_reason is StopReason.out_of_tokens
        pieces = [piece async for piece in await running.stack.inference.completion(**arguments, stream=True)]
        assert "".join(piece.delta for piece in pieces) == whole.completion_message.content
        assert len(pieces) > 3
        assert pieces[-1].stop_reason is StopReason.out_of_tokens

    async def test_embeddings(self, running: Running) -> None:
        vectors = (
            await running.stack.inference.embeddings(model="small", contents=["a llama", "a car", "a llama"])
        ).embeddings
        assert len(vectors) == 3
        assert len(vectors[0]) == 576
        alike, unlike = (sum(map(mul, vectors[0], vectors[other])) for other in (2, 1))
        assert alike > 0.99 > 0.9 > unlike

    async def test_sampling(self, running: Running) -> None:
        body = await running.body_of(
            sampling_params=limit(4, strategy="top_p", temperature=0.7, top_p=0.9, stop=["x", "y"])
        )
        assert body["max_tokens"] == 4
        assert (body["temperature"], body["top_p"], body["stop"]) == (0.7, 0.9, ["x", "y"])
        assert (await running.body_of(sampling_params=limit(4)))["temperature"] == 0

    @pytest.mark.parametrize(
        ("field", "given", "value"),
        [
            ("top_k", {"strategy": SamplingStrategy.top_k, "top_k": 7}, 7),
            ("repetition_penalty", {"repetition_penalty": 1.3}, 1.3),
            ("seed", {"seed": 11}, 11),
        ],
    )
    async def test_sampling_that_not_every_backend_has(
        self, running: Running, field: str, given: dict[str, Any], value: float
    ) -> None:
        word = getattr(self, field)
        if word is not None:
            assert (await running.body_of(sampling_params=limit(4, **given)))[word] == value
            return
        with pytest.raises(NotSupportedError, match="provider 'p' does not support") as caught:
            await running.chat(sampling_params=limit(4, **given))
        assert (caught.value.param, caught.value.provider_id) == (f"sampling_params.{field}", "p")

    async def test_logprobs(self, running: Running) -> None:
        reply = await running.chat(logprobs=LogProbConfig(top_k=2), sampling_params=limit(3))
        sent = running.front.last("/chat/completions").body
        if not self.top_logprobs:
            assert sent["logprobs"] == 2
            return
        assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
        assert [len(place.logprobs_by_token) for place in reply.logprobs] == [2, 2, 2]
        only = [
            c.event async for c in await running.chat(logprobs=LogProbConfig(), sampling_params=limit(3), stream=True)
        ]
        places = [place for event in only for place in event.logprobs or ()]
        assert [len(place.logprobs_by_token) for place in places] == [1, 1, 1]

    async def test_json_schema(self, running: Running) -> None:
        reply = await running.chat(response_format=SCHEMA)
        assert isinstance(json.loads(reply.completion_message.content)["sunny"], bool)
        text = [c.event.delta async for c in await running.chat(response_format=SCHEMA, stream=True)]
        assert isinstance(json.loads("".join(text))["sunny"], bool)

    async def test_json_schema_of_a_text_completion(self, running: Running) -> None:
        arguments = {"model": MODEL, "content": "Is it sunny?", "sampling_params": limit(24), "response_format": SCHEMA}
        if self.completion_schema:
            await running.stack.inference.completion(**arguments | {"sampling_params": limit(24, stop=["z"])})
            assert running.front.last("/completions").body["response_format"]["type"] == "json_schema"
            return
        with pytest.raises(NotSupportedError, match="does not support a JSON schema for a text completion") as caught:
            await running.stack.inference.completion(**arguments)
        assert caught.value.param == "response_format"

    async def test_images_are_handed_on(self, running: Running) -> None:
        running.front.answers.append(JSONResponse(whole(content="A dot.")))
        image = ImageMedia(image="data:image/png;base64,iVBORw0KGgo=")
        body = await running.body_of(messages=[UserMessage(content=["What is this?", image])])
        assert body["messages"][0]["content"] == [
            {"type": "text", "text": "What is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        ]

    # ---- tools: the replies are scripted -------------------------------------------------------------------------

    async def test_tools(self, running: Running) -> None:
        running.front.answers.append(JSONResponse(whole(tool_calls=[call('{"city": "Paris"}')], finish="tool_calls")))
        reply = await running.chat(tools=[WEATHER], tool_choice=ToolChoice.required)
        sent = running.front.last("/chat/completions").body
        assert sent["tool_choice"] == "required"
        assert sent["tools"][0]["function"]["parameters"]["properties"] == {"city": {"type": "string"}}
        assert reply.completion_message.stop_reason is StopReason.end_of_message
        assert reply.completion_message.tool_calls == [
            ToolCall(call_id="call_1", tool_name="weather", arguments={"city": "Paris"})
        ]

    async def test_tools_in_a_stream(self, running: Running) -> None:
        running.front.answers.append(
            events(
                piece({"role": "assistant", "content": None}),
                piece({"tool_calls": [{"index": 0, **call("")}]}),
                piece({"tool_calls": [{"index": 0, "function": {"arguments": '{"city": '}}]}),
                piece({"tool_calls": [{"index": 0, "function": {"arguments": '"Paris"}'}}]}),
                piece({}, finish="tool_calls"),
            )
        )
        deltas = [c.event.delta async for c in await running.chat(tools=[WEATHER], stream=True)]
        made = [delta for delta in deltas if isinstance(delta, ToolCallDelta)]
        status = ToolCallParseStatus
        assert [d.parse_status for d in made] == [
            status.started,
            status.in_progress,
            status.in_progress,
            status.success,
        ]
        assert "".join(str(d.content) for d in made[:3]) == '{"city": "Paris"}'
        assert made[3].content == ToolCall(call_id="call_1", tool_name="weather", arguments={"city": "Paris"})

    async def test_a_backend_that_passes_over_tool_choice(self, running: Running) -> None:
        running.front.answers.append(JSONResponse(whole(content="I would rather talk.")))
        with pytest.raises(NotSupportedError, match="ignored 'tool_choice'") as caught:
            await running.chat(tools=[WEATHER], tool_choice=ToolChoice.required)
        assert (caught.value.param, caught.value.provider_id) == ("tool_choice", "p")

    # ---- keys ----------------------------------------------------------------------------------------------------

    async def test_the_operators_key_and_a_clients_own(self, running: Running) -> None:
        await running.chat()
        assert running.front.last("/chat/completions").headers["authorization"] == f"Bearer {KEY}"
        with use_provider_data({self.key_field: OWN_KEY, "another_api_key": "x"}):
            await running.chat()
        assert running.front.last("/chat/completions").headers["authorization"] == f"Bearer {OWN_KEY}"
        with use_provider_data({"another_api_key": "x"}):
            await running.chat()
        assert running.front.last("/chat/completions").headers["authorization"] == f"Bearer {KEY}"

    async def test_a_key_that_is_refused(self, running: Running, caplog: pytest.LogCaptureFixture) -> None:
        wrong = "sk-wrong-5512"
        with use_provider_data({self.key_field: wrong}), pytest.raises(AuthenticationError) as caught:
            await running.chat(stream=True)
        error = caught.value
        assert error.status == 401
        assert error.message.startswith(f"provider 'p' ({self.provider_type}): ")
        assert f"'{self.key_field}' in the header {PROVIDER_DATA_HEADER}" in error.message
        assert (error.param, error.provider_id) == (f"{PROVIDER_DATA_HEADER}.{self.key_field}", "p")
        running.front.keys = {"another"}
        with pytest.raises(AuthenticationError, match=f"the configured {self.key_name}") as caught:
            await running.chat()
        assert caught.value.param == self.key_name
        shown = f"{error!r} {error.to_wire()} {caught.value.to_wire()} {caplog.text}"
        shown += f"{await running.stack.inspect.list_providers()} {await running.stack.inspect.health()}"
        assert not [secret for secret in (wrong, KEY, OWN_KEY) if secret in shown]

    async def test_without_a_key_of_its_own(self, started: Callable[..., Any]) -> None:
        from llamastack.api import Model

        async with started(**{self.key_name: None}, models={"small": MODEL}) as running:
            assert [m.identifier for m in await running.stack.models.list_models()] == ["small"]
            ways = f"'{self.key_name}' in its config, or '{self.key_field}' in the header {PROVIDER_DATA_HEADER}"
            for attempt in (running.chat(model="small"), running.stack.models.register_model(Model(identifier=MODEL))):
                with pytest.raises(AuthenticationError, match=ways) as caught:
                    await attempt
                assert "provider 'p'" in caught.value.message
                assert caught.value.param == f"{PROVIDER_DATA_HEADER}.{self.key_field}"
            with use_provider_data({self.key_field: OWN_KEY}):
                assert (await running.chat(model="small")).completion_message.content
                await running.stack.models.register_model(Model(identifier=MODEL))
                await running.chat()

    # ---- faults; more of them in the tests of remote::openai -----------------------------------------------------

    async def test_a_prompt_that_is_too_long(self, running: Running) -> None:
        with pytest.raises(ContextLengthExceededError, match="exceeds the available context") as caught:
            await running.chat(messages=[UserMessage(content="x " * 4000)])
        assert caught.value.status == 400

    @pytest.mark.parametrize("status", [404, 405])
    async def test_a_model_that_generates_or_embeds_is_not_a_wrong_url(self, running: Running, status: int) -> None:
        ask = running.stack.inference
        calls = {
            "does not chat": [lambda: running.chat(), lambda: running.chat(stream=True)],
            "does not complete texts": [
                lambda: ask.completion(model=MODEL, content="One,"),
                lambda: ask.completion(model=MODEL, content="One,", stream=True),
            ],
            "does not embed": [lambda: ask.embeddings(model=MODEL, contents=["a llama"])],
        }
        for cannot, made in calls.items():
            for make in made:
                # As FastAPI answers where it has no route.
                running.front.answers.append(JSONResponse({"detail": "Not Found"}, status))
                with pytest.raises(NotSupportedError, match=f"'{MODEL}' {cannot}: .* answered {status} at ") as caught:
                    await make()
                assert (caught.value.provider_id, caught.value.param) == ("p", "model")
                assert "url" not in caught.value.message

    async def test_without_a_list_of_models_a_missing_route_may_be_a_wrong_url(self, running: Running) -> None:
        running.front.answers.append(JSONResponse({"detail": "Not Found"}, 404))
        missing = Response("<h1>Not Found</h1>", 404)
        running.front.routes = {f"{self.prefix}/models": lambda _: missing, "/api/": lambda _: missing}
        with pytest.raises(BackendError, match=r"is the url in the config right\?"):
            await running.stack.inference.embeddings(model=MODEL, contents=["a llama"])

    async def test_a_client_that_goes_away_stops_the_backend(self, running: Running, llama: LlamaServer) -> None:
        for streams in (True, False):
            with anyio.move_on_after(20) as waiting:

                async def ask(streams: bool = streams) -> None:
                    reply = await running.chat(messages=LONG, sampling_params=limit(1500), stream=streams)
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


def call(arguments: str) -> dict[str, Any]:
    """A call of the tool `weather`, as OpenAI has it."""
    return {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": arguments}}


def whole(finish: str = "stop", **message: Any) -> dict[str, Any]:
    """A whole chat completion, as OpenAI has it."""
    assistant = {"role": "assistant", "content": None, **message}
    choice = {"index": 0, "message": assistant, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": MODEL, "choices": [choice]}


def piece(delta: Mapping[str, Any], finish: str | None = None) -> str:
    """The data of one event of a streamed chat completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return json.dumps({"id": "c", "object": "chat.completion.chunk", "created": 0, "model": MODEL, "choices": [choice]})

"""Each row of the table of presets, before a scripted backend: where it sends what, and what it refuses."""

from __future__ import annotations

import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends.openai_checks import OWN_KEY, whole
from backends.scripted_http import ScriptedHttp, answer, served_by, sse
from served_stack import served_stack

from llamastack import Stack
from llamastack.api import (
    JsonSchemaResponseFormat,
    LogProbConfig,
    SamplingParams,
    ToolChoice,
    ToolDefinition,
    ToolParamDefinition,
    UserMessage,
)
from llamastack.provider import AuthenticationError, NotSupportedError
from llamastack.provider.capabilities import NOT_IMPLEMENTED, UNSUPPORTED
from llamastack.provider.context import use_provider_data
from llamastack.stack import ConfigError
from llamastack.stack.discovery import default_discovery, known_packages
from llamastack_provider_openai.presets import PRESETS, SPECS, Preset

pytestmark = pytest.mark.anyio
KEY = "sk-operator-5d0c"
HELLO = [UserMessage(content="Hello")]
USAGE = {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4}
REPLY = {**whole(content="Hi"), "usage": USAGE}
SAMPLERS: dict[str, Any] = {"frequency_penalty": 0.5, "presence_penalty": 0.4, "min_p": 0.1, "logit_bias": {"7": 2.0}}
WEATHER = ToolDefinition(tool_name="weather", parameters={"city": ToolParamDefinition(param_type="str")})
EMBEDDING = {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]}
every = pytest.mark.parametrize("preset", PRESETS, ids=lambda preset: preset.name)


def piece(delta: dict[str, Any], finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice], **more}


def path_of(preset: Preset) -> str:
    """The path of its URL, which the scripted backend gets instead of the service."""
    return httpx.URL(preset.url).path.rstrip("/")


def config_of(backend: ScriptedHttp, preset: Preset, **config: Any) -> dict[str, Any]:
    backend.models = [preset.model_prefix + "m"]
    backend.default = answer(200, REPLY)
    if not preset.lists_models:
        config.setdefault("models", {"m": "m"})
    given = {"path": path_of(preset), "api_key": KEY, **config}
    return {"providers": {"inference": [served_by(backend, preset.provider_type, **given)]}}


@asynccontextmanager
async def before(backend: ScriptedHttp, preset: Preset, **config: Any) -> AsyncIterator[Stack]:
    async with Stack.from_config(config_of(backend, preset, **config)) as stack:
        yield stack


async def chat(stack: Stack, **arguments: Any) -> Any:
    return await stack.inference.chat_completion(model="m", messages=HELLO, **arguments)


async def sent(backend: ScriptedHttp, stack: Stack, **sampling: Any) -> Any:
    """The body of a chat with these sampling params."""
    await chat(stack, sampling_params=SamplingParams.model_validate(sampling))
    return backend.last("/chat/completions").json


# ---- the table -------------------------------------------------------------------------------------------------------


def test_the_entry_points_are_the_table() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))
    written = dict(project["project"]["entry-points"]["llamastack.providers.inference"])
    assert written.pop("remote::openai") == "llamastack_provider_openai:OPENAI"
    assert written.pop("remote::azure") == "llamastack_provider_openai:AZURE"
    module = "llamastack_provider_openai.presets"
    assert written == {preset.provider_type: f"{module}:SPECS.{preset.attribute}" for preset in PRESETS}


def test_the_table_is_sound() -> None:
    names = [preset.name for preset in PRESETS]
    assert names == sorted(set(names))
    assert len(names) >= 12
    for preset in PRESETS:
        assert preset.source.startswith("https://"), preset.name
        assert preset.url.startswith("https://" if preset.key_needed else "http://127.0.0.1:"), preset.name
        assert bool(preset.key_variable) >= preset.key_needed, preset.name
        assert bool(preset.models) != preset.lists_models, preset.name
        assert set(preset.samplers) <= SAMPLERS.keys(), preset.name
        assert set(preset.lacks.values()) <= {UNSUPPORTED, NOT_IMPLEMENTED}, preset.name


def test_where_they_come_from_is_known_without_them() -> None:
    types = [*(preset.provider_type for preset in PRESETS), "remote::azure", "remote::openai"]
    assert {known_packages().get(name) for name in types} == {"llamastack-provider-openai"}


@every
def test_it_is_found_like_any_other_provider(preset: Preset) -> None:
    discovery = default_discovery()
    spec = discovery.load_spec(discovery.find("llamastack.providers.inference", preset.provider_type))
    assert spec is getattr(SPECS, preset.attribute)
    config = spec.load_config_class()()
    assert str(config.url).rstrip("/") == preset.url  # type: ignore[attr-defined]
    refused = {name for name in spec.capabilities if spec.capabilities.refused(name)}
    assert refused == {"registration", "unregister", *preset.lacks}


# ---- on the wire -----------------------------------------------------------------------------------------------------


@every
async def test_a_chat(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    async with before(scripted_backend, preset) as stack:
        reply = await chat(stack, sampling_params=SamplingParams(max_tokens=5))
        assert reply.completion_message.content == "Hi"
        request = scripted_backend.last("/chat/completions")
        assert request.path == f"{path_of(preset)}/chat/completions"
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.json == {
            "model": "m",
            "messages": [{"role": "user", "content": "Hello"}],
            "temperature": 0.0,
            preset.max_tokens: 5,
        }


@every
async def test_a_stream(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    async with before(scripted_backend, preset) as stack:
        events = (piece({"role": "assistant", "content": "Hi"}), piece({}, "stop", usage=USAGE), "[DONE]")
        scripted_backend.answers.append(sse(*events))
        chunks = [chunk async for chunk in await chat(stack, stream=True)]
        assert "".join(str(chunk.event.delta) for chunk in chunks) == "Hi"
        asked = scripted_backend.last("/chat/completions").json
        assert asked["stream"] is True
        assert asked.get("stream_options") == ({"include_usage": True} if preset.stream_options else None)


@every
async def test_its_own_sampling(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    """What the service has goes out by the service's name; what it lacks is refused by ours."""
    ways: list[tuple[str, str | None, Any, dict[str, Any]]] = [
        ("top_k", preset.top_k, 7, {"strategy": "top_k", "top_k": 7}),
        ("repetition_penalty", preset.repetition_penalty, 1.5, {"repetition_penalty": 1.5}),
        ("seed", preset.seed, 11, {"seed": 11}),
        *((name, name if name in preset.samplers else None, value, {name: value}) for name, value in SAMPLERS.items()),
    ]
    async with before(scripted_backend, preset) as stack:
        for name, field, value, sampling in ways:
            if field is not None:
                assert (await sent(scripted_backend, stack, **sampling))[field] == value, name
                continue
            with pytest.raises(NotSupportedError, match="provider 'p' does not support") as caught:
                await sent(scripted_backend, stack, **sampling)
            assert caught.value.param == f"sampling_params.{name}"


@every
async def test_a_tool_that_must_be_called(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
    async with before(scripted_backend, preset) as stack:
        scripted_backend.answers.append(answer(200, whole(tool_calls=[call], finish="tool_calls")))
        reply = await chat(stack, tools=[WEATHER], tool_choice=ToolChoice.required)
        assert reply.completion_message.tool_calls[0].arguments == {"city": "Paris"}
        assert scripted_backend.last("/chat/completions").json["tool_choice"] == preset.tool_choice_required


@every
async def test_what_it_lacks_is_refused_and_the_rest_is_asked_for(
    scripted_backend: ScriptedHttp, preset: Preset
) -> None:
    text = {"id": "t", "object": "text_completion", "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    scripted_backend.routes |= {"/embeddings": answer(200, EMBEDDING)}
    schema = JsonSchemaResponseFormat(json_schema={"type": "object"})
    token = {"token": "{}", "logprob": -0.1, "bytes": None, "top_logprobs": [{"token": "{}", "logprob": -0.1}]}
    answer_body = whole(content="{}")
    answer_body["choices"][0]["logprobs"] = {"content": [token]}
    async with before(scripted_backend, preset) as stack:
        calls: dict[str, Any] = {
            "completion": (text, lambda: stack.inference.completion(model="m", content="Hel")),
            "embeddings": (EMBEDDING, lambda: stack.inference.embeddings(model="m", contents=["a"])),
            "json_schema": (whole(content="{}"), lambda: chat(stack, response_format=schema)),
            "logprobs": (answer_body, lambda: chat(stack, logprobs=LogProbConfig(top_k=1))),
        }
        assert calls.keys() >= preset.lacks.keys()
        for capability, (reply, call) in calls.items():
            before_it = len(scripted_backend.calls())
            if capability in preset.lacks:
                with pytest.raises(NotSupportedError, match=rf"\({capability}: {preset.lacks[capability]}\)"):
                    await call()
                assert len(scripted_backend.calls()) == before_it
                continue
            scripted_backend.answers.append(answer(200, reply))
            assert await call()
            assert len(scripted_backend.calls()) == before_it + 1
        if "completion" not in preset.lacks:
            scripted_backend.answers.append(answer(200, text))
            await stack.inference.completion(model="m", content="a", sampling_params=SamplingParams(max_tokens=4))
            assert scripted_backend.last("/completions").json["max_tokens"] == 4  # whatever a chat calls it


@every
async def test_headers(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    extra = dict.fromkeys(preset.headers or ("X-Team",), "llamas-of-the-andes")
    async with before(scripted_backend, preset, headers=extra) as stack:
        await chat(stack)
        seen = scripted_backend.last("/chat/completions").headers
        assert {name: seen[name.lower()] for name in extra} == extra
        assert seen["authorization"] == f"Bearer {KEY}"
        shown = f"{await stack.inspect.list_providers()} {await stack.inspect.health()}"
        assert "llamas-of-the-andes" not in shown


# ---- by /v1 ----------------------------------------------------------------------------------------------------------


@every
async def test_a_request_of_the_openai_api_is_forwarded(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    asked: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], "own": {"x": 1}}
    async with served_stack(config_of(scripted_backend, preset)) as (_, client):
        for field in ("max_tokens", "max_completion_tokens"):
            reply = await client.post("/v1/chat/completions", json={**asked, field: 5})
            assert (reply.status_code, reply.json()) == (200, REPLY)
            request = scripted_backend.last("/chat/completions")
            assert request.path == f"{path_of(preset)}/chat/completions"
            assert request.headers["authorization"] == f"Bearer {KEY}"
            name = preset.max_tokens if field == "max_tokens" else preset.other_names.get(field, field)
            assert request.json == {**asked, name: 5}


@every
async def test_a_stream_of_the_openai_api(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    asked = {
        "model": "m",
        "messages": [{"role": "user", "content": "Hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with served_stack(config_of(scripted_backend, preset)) as (_, client):
        last = {**piece({}, "stop"), "usage": USAGE}
        scripted_backend.answers.append(sse(piece({"role": "assistant", "content": "Hi"}), last, "[DONE]"))
        reply = await client.post("/v1/chat/completions", json=asked)
        assert '"content":"Hi"' in reply.text.replace(" ", "")
        assert '"total_tokens":4' in reply.text.replace(" ", "")
        assert reply.text.endswith("data: [DONE]\n\n")
        assert ("stream_options" in scripted_backend.last("/chat/completions").json) is preset.stream_options


@every
async def test_what_it_lacks_is_refused_by_v1_too(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    requests: dict[str, tuple[str, dict[str, Any]]] = {
        "completion": ("completions", {"prompt": "Hel"}),
        "embeddings": ("embeddings", {"input": "Hel"}),
        "logprobs": ("chat/completions", {"logprobs": True, "messages": [{"role": "user", "content": "Hello"}]}),
    }
    async with served_stack(config_of(scripted_backend, preset)) as (_, client):
        for capability in preset.lacks.keys() & requests.keys():
            route, body = requests[capability]
            reply = await client.post(f"/v1/{route}", json={"model": "m", **body})
            assert (reply.status_code, capability in reply.json()["error"]["message"]) == (400, True)
        assert scripted_backend.calls() == []


# ---- what is served, keys, config ------------------------------------------------------------------------------------


@every
async def test_what_it_serves(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    async with before(scripted_backend, preset, models={"mine": "m"}) as stack:
        names = [model.identifier for model in await stack.models.list_models()]
        [provider] = (await stack.inspect.health()).providers
        if preset.lists_models:
            assert names == ["m", "mine"]
            assert scripted_backend.last("/models").path == f"{path_of(preset)}/models"
            return
        assert names == ["mine"]
        assert f"{preset.title} has no list of models" in str(provider.note)
        assert scripted_backend.received == []


async def test_a_service_without_a_list_serves_what_its_row_says(scripted_backend: ScriptedHttp) -> None:
    [preset] = [preset for preset in PRESETS if not preset.lists_models]
    provider = served_by(scripted_backend, preset.provider_type, path="", api_key=KEY)
    async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
        assert [model.identifier for model in await stack.models.list_models()] == list(preset.models)


@every
async def test_a_client_brings_its_own_key(scripted_backend: ScriptedHttp, preset: Preset) -> None:
    async with before(scripted_backend, preset, api_key=None, models={"m": "m"}) as stack:
        with use_provider_data({preset.key_field: OWN_KEY, "another_api_key": "x"}):
            await chat(stack)
        assert scripted_backend.last("/chat/completions").headers["authorization"] == f"Bearer {OWN_KEY}"
        if not preset.key_needed:
            await chat(stack)
            assert "authorization" not in scripted_backend.last("/chat/completions").headers
            return
        with pytest.raises(
            AuthenticationError, match=f"'api_key' in its config, or '{preset.key_field}' in the header"
        ):
            await chat(stack)


@every
@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"max_token_field": "x"}, "max_token_field"),
        ({"top_k_field": "top_k"}, "top_k_field"),
        ({"headers": {"Authorization": "Bearer sk-x"}}, "is set by the provider itself"),
        ({"headers": {"X Y": "z"}}, "headers"),
        ({"headers": {"X-Y": "a\nb"}}, "must be printable ASCII"),
    ],
    ids=["unknown", "of remote::openai", "key", "name", "value"],
)
async def test_an_option_that_it_does_not_have_is_refused(
    scripted_backend: ScriptedHttp, preset: Preset, config: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Stack.from_config(config_of(scripted_backend, preset, **config))
    assert "providers.inference[0].config" in str(caught.value)
    assert "sk-x" not in str(caught.value)

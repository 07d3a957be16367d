"""Azure OpenAI, before a stand-in of a resource that the openai package has been tried with (tests/e2e)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from backends.azure import API_VERSION, CUT, DEPLOYMENT, FILTERED, KEY, azure_stand_in
from backends.scripted_http import ScriptedHttp, answer
from served_stack import served_stack

from llamastack import Stack
from llamastack.api import ProviderStatus, SamplingParams, StopReason, UserMessage
from llamastack.provider import AuthenticationError, InvalidRequestError, NotFoundError, RateLimitError
from llamastack.provider.context import use_provider_data
from llamastack.stack import ConfigError

pytestmark = pytest.mark.anyio
HELLO = "Hello"
SURFACES = {
    "v1": ({}, "/openai/v1/", ""),
    "deployments": (
        {"api_version": API_VERSION},
        f"/openai/deployments/{quote(DEPLOYMENT)}/",
        f"?api-version={API_VERSION}",
    ),
}
both = pytest.mark.parametrize("surface", SURFACES)


@pytest.fixture
def azure() -> Iterator[ScriptedHttp]:
    with azure_stand_in() as backend:
        yield backend


def config_of(azure: ScriptedHttp, surface: str, **config: Any) -> dict[str, Any]:
    own: dict[str, Any] = {"url": azure.url, "api_key": KEY, "deployments": [DEPLOYMENT], **SURFACES[surface][0]}
    given = {name: value for name, value in {**own, **config}.items() if value is not None}
    return {"providers": {"inference": [{"provider_id": "p", "provider_type": "remote::azure", "config": given}]}}


@asynccontextmanager
async def before(azure: ScriptedHttp, surface: str = "v1", **config: Any) -> AsyncIterator[Stack]:
    async with Stack.from_config(config_of(azure, surface, **config)) as stack:
        yield stack


async def chat(stack: Stack, text: str = HELLO, model: str = DEPLOYMENT, **arguments: Any) -> Any:
    messages = [UserMessage(content=text)]
    return await stack.inference.chat_completion(model=model, messages=messages, **arguments)


# ---- native ----------------------------------------------------------------------------------------------------------


@both
async def test_every_call_goes_to_its_path(azure: ScriptedHttp, surface: str) -> None:
    _, begin, end = SURFACES[surface]
    async with before(azure, surface) as stack:
        reply = await chat(stack, sampling_params=SamplingParams(max_tokens=5))
        assert reply.completion_message.content == "Hi"
        request = azure.received[-1]
        assert request.path == f"{begin}chat/completions{end}"
        assert request.headers["api-key"] == KEY
        assert "authorization" not in request.headers
        assert request.json["max_completion_tokens"] == 5
        assert request.json["model"] == DEPLOYMENT
        text = await stack.inference.completion(
            model=DEPLOYMENT, content="a", sampling_params=SamplingParams(max_tokens=4)
        )
        assert text.completion_message.content == "Hi"
        assert azure.received[-1].path == f"{begin}completions{end}"
        assert azure.received[-1].json["max_tokens"] == 4
        vectors = await stack.inference.embeddings(model=DEPLOYMENT, contents=["a", "b"])
        assert vectors.embeddings == [[0.5, 0.0], [0.5, 1.0]]
        assert azure.received[-1].path == f"{begin}embeddings{end}"


@both
async def test_a_stream(azure: ScriptedHttp, surface: str) -> None:
    async with before(azure, surface) as stack:
        chunks = [chunk.event async for chunk in await chat(stack, stream=True)]
        assert "".join(str(event.delta) for event in chunks) == "Hi"
        assert chunks[-1].stop_reason is StopReason.end_of_turn
        assert (chunks[-1].usage.prompt_tokens, chunks[-1].usage.completion_tokens) == (3, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_that_is_filtered(azure: ScriptedHttp, stream: bool) -> None:
    async with before(azure) as stack:
        with pytest.raises(InvalidRequestError, match="content management policy") as caught:
            await chat(stack, FILTERED, stream=stream)
        assert (caught.value.provider_id, caught.value.param, caught.value.backend_code) == (
            "p",
            "prompt",
            "content_filter",
        )


async def test_a_reply_that_is_filtered(azure: ScriptedHttp) -> None:
    async with before(azure) as stack:
        reply = await chat(stack, CUT)
        assert (reply.completion_message.content, reply.stop_detail) == ("Hi", "content_filter")
        last = [chunk.event async for chunk in await chat(stack, CUT, stream=True)][-1]
        assert last.stop_detail == "content_filter"


async def test_a_deployment_that_is_not_there(azure: ScriptedHttp) -> None:
    async with before(azure, deployments=["gone"]) as stack:
        with pytest.raises(NotFoundError, match="API deployment for this resource does not exist"):
            await chat(stack, model="gone")


async def test_a_rate_limit(azure: ScriptedHttp) -> None:
    async with before(azure, max_retries=0) as stack:
        body = {"error": {"code": "429", "message": "Requests have exceeded the token rate limit."}}
        azure.answers.append(answer(429, body, headers={"retry-after": "17"}))
        with pytest.raises(RateLimitError, match="token rate limit") as caught:
            await chat(stack)
        assert caught.value.retry_after == 17


# ---- what is served, keys --------------------------------------------------------------------------------------------


@both
async def test_the_deployments_are_served_not_the_base_models(azure: ScriptedHttp, surface: str) -> None:
    async with before(azure, surface, deployments=[DEPLOYMENT, "other"], models={"mine": DEPLOYMENT}) as stack:
        names = [model.identifier for model in await stack.models.list_models()]
        assert names == [DEPLOYMENT, "other", "mine"]
        await chat(stack, model="mine")
        assert azure.received[-1].json["model"] == DEPLOYMENT


@pytest.mark.parametrize("path", ["", "/", "/openai", "/openai/v1", "/openai/v1/"])
async def test_the_url_may_end_as_clients_take_it(azure: ScriptedHttp, path: str) -> None:
    async with before(azure, url=azure.url + path) as stack:
        await chat(stack)


async def test_the_operators_key_and_a_clients_own(azure: ScriptedHttp) -> None:
    async with before(azure, api_key=None, models={"mine": DEPLOYMENT}) as stack:
        with use_provider_data({"azure_api_key": KEY}):
            await chat(stack, model="mine")
        with pytest.raises(AuthenticationError, match="'azure_api_key' in the header"):
            await chat(stack, model="mine")


async def test_a_key_that_is_refused(azure: ScriptedHttp, caplog: pytest.LogCaptureFixture) -> None:
    wrong = "wrong-key-77aa"
    async with before(azure, api_key=wrong) as stack:
        [provider] = (await stack.inspect.health()).providers
        assert provider.status is ProviderStatus.down
        assert "invalid subscription key" in str(provider.reason)
        assert "the configured api_key" in str(provider.reason)
        assert wrong not in f"{provider} {caplog.text}"


async def test_an_api_version_that_is_not_there(azure: ScriptedHttp) -> None:
    async with before(azure, "deployments", api_version="1999-01-01") as stack:
        [provider] = (await stack.inspect.health()).providers
        assert provider.status is ProviderStatus.down
        assert "Resource not found" in str(provider.reason)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"deployments": None}, "deployments"),
        ({"deployments": []}, "deployments"),
        ({"url": None}, "url"),
        ({"api_version": "2024&x=1"}, "api_version"),
        ({"deployment": "x"}, "deployment"),
    ],
)
async def test_a_config_that_does_not_fit(azure: ScriptedHttp, config: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=rf"providers\.inference\[0\]\.config\.{says}"):
        Stack.from_config(config_of(azure, "v1", **config))


# ---- by /v1 ----------------------------------------------------------------------------------------------------------


def asked(text: str = HELLO, **more: Any) -> dict[str, Any]:
    return {"model": DEPLOYMENT, "messages": [{"role": "user", "content": text}], **more}


@both
async def test_requests_of_the_openai_api_are_forwarded(azure: ScriptedHttp, surface: str) -> None:
    _, begin, end = SURFACES[surface]
    async with served_stack(config_of(azure, surface)) as (_, client):
        for name in (DEPLOYMENT, f"p/{DEPLOYMENT}"):
            request = asked(max_completion_tokens=5, data_sources=[])
            reply = await client.post("/v1/chat/completions", json={**request, "model": name})
            assert (reply.status_code, reply.json()["prompt_filter_results"][0]["prompt_index"]) == (200, 0)
            assert azure.received[-1].path == f"{begin}chat/completions{end}"
            assert azure.received[-1].json == request
        vectors = await client.post("/v1/embeddings", json={"model": DEPLOYMENT, "input": ["a"]})
        assert vectors.json()["data"][0]["embedding"] == [0.5, 0]
        assert azure.received[-1].path == f"{begin}embeddings{end}"
        text = await client.post("/v1/completions", json={"model": DEPLOYMENT, "prompt": "a", "max_tokens": 4})
        assert text.json()["choices"][0]["text"] == "Hi"
        assert azure.received[-1].json["max_tokens"] == 4


async def test_a_stream_of_the_openai_api(azure: ScriptedHttp) -> None:
    async with served_stack(config_of(azure, "v1")) as (_, client):
        pieces = await events(client, asked(stream=True, stream_options={"include_usage": True}))
        assert "prompt_filter_results" in pieces[0]
        texts = [choice.get("delta", {}).get("content") for piece in pieces for choice in piece["choices"]]
        assert "".join(text or "" for text in texts) == "Hi"
        assert pieces[-1]["usage"]["total_tokens"] == 4
        cut = await events(client, asked(CUT, stream=True))
        assert cut[-1]["choices"][0]["finish_reason"] == "content_filter"


async def events(client: httpx.AsyncClient, request: dict[str, Any]) -> list[Any]:
    """The decoded pieces of a stream that is complete."""
    reply = await client.post("/v1/chat/completions", json=request)
    assert reply.status_code == 200, reply.text
    *pieces, done, rest = reply.text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    return [json.loads(piece.removeprefix("data: ")) for piece in pieces]


async def test_errors_of_the_openai_api(azure: ScriptedHttp) -> None:
    async with served_stack(config_of(azure, "v1", deployments=[DEPLOYMENT, "gone"])) as (_, client):
        filtered = await client.post("/v1/chat/completions", json=asked(FILTERED))
        assert (filtered.status_code, filtered.json()["error"]["code"]) == (400, "content_filter")
        assert "content management policy" in filtered.json()["error"]["message"]
        gone = await client.post("/v1/chat/completions", json={**asked(), "model": "gone"})
        assert (gone.status_code, "does not exist" in gone.json()["error"]["message"]) == (404, True)

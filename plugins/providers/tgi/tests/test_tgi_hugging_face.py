"""remote::hf::serverless and remote::hf::endpoint, over a real engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from backends.llama_server import MODEL
from backends.tgi import ROUTER, TGIStandIn, endpoint
from pydantic import ValidationError
from starlette.responses import JSONResponse

from llamastack import Stack
from llamastack.api import JsonSchemaResponseFormat, Model, SamplingParams, UserMessage
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    Deps,
    NotSupportedError,
    ObjectNotFoundError,
    ProviderUnavailableError,
)
from llamastack.provider.context import use_provider_data
from llamastack_provider_tgi.config import EndpointConfig, ServerlessConfig
from llamastack_provider_tgi.inference import get_adapter_impl

pytestmark = pytest.mark.anyio

ANSWER = "The capital of France is Paris."
CAPITAL = [UserMessage(content="What is the capital of France?")]
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
REPO = "owner/small"
SCHEMA = JsonSchemaResponseFormat(json_schema={"type": "object", "properties": {"a": {"type": "boolean"}}})
Make = Callable[..., tuple[TGIStandIn, str]]
Run = Callable[..., Any]


async def chat(stack: Stack, model: str, **more: Any) -> Any:
    sampling = SamplingParams(max_tokens=24)
    reply = await stack.inference.chat_completion(
        **{"model": model, "messages": CAPITAL, "sampling_params": sampling, **more}
    )
    return reply.completion_message.content


async def text(stack: Stack, model: str, **more: Any) -> Any:
    sampling = SamplingParams(max_tokens=24)
    return await stack.inference.completion(model=model, content=PROMPT, sampling_params=sampling, **more)


# ---- serverless ------------------------------------------------------------------------------------------------------


@pytest.fixture
def serverless(tgi: Make) -> tuple[TGIStandIn, dict[str, Any]]:
    """A stand-in that offers `owner/small`, and the config for it."""
    offers = {REPO: {"hf-inference": "live", "elsewhere": "live"}}
    stand_in, url = tgi(model_id=REPO, keys={"hf_good", "hf_client"}, offers=offers)
    return stand_in, {"url": f"{url}/hf-inference", "hub_url": url, "huggingface_repo": REPO}


async def test_serverless(serverless: tuple[TGIStandIn, dict[str, Any]], running: Run) -> None:
    stand_in, config = serverless
    async with running("remote::hf::serverless", **config, api_token="hf_good", models={"mine": REPO}) as stack:
        assert [model.identifier for model in await stack.models.list_models()] == [REPO, "mine"]
        assert await chat(stack, "mine") == ANSWER
        sent = stand_in.last(f"{ROUTER}{REPO}/v1/chat/completions")
        assert sent.headers["authorization"] == "Bearer hf_good"
        assert sent.body["model"] == REPO
        pieces = [piece.delta async for piece in await text(stack, REPO, stream=True)]
        assert "".join(pieces) == ANSWER
        assert stand_in.last(f"{ROUTER}{REPO}").body["inputs"] == PROMPT
        # What serves it is not known for certain, and so is not what its presence_penalty means.
        with pytest.raises(NotSupportedError) as refused:
            await chat(stack, REPO, sampling_params=SamplingParams(repetition_penalty=1.2))
        assert refused.value.param == "sampling_params.repetition_penalty"
        with pytest.raises(NotSupportedError, match="embeddings"):
            await stack.inference.embeddings(model=REPO, contents=["a"])


async def test_serverless_asks_the_hub_once_in_a_while(serverless: tuple[TGIStandIn, dict[str, Any]]) -> None:
    stand_in, config = serverless
    provider = await get_adapter_impl(ServerlessConfig.model_validate(config), Deps(provider_id="p"))
    for _ in range(3):
        assert [model.identifier for model in await provider.list_models()] == [REPO]
    assert [seen.path for seen in stand_in.seen] == [f"/api/models/{REPO}"]
    await provider.shutdown()
    # Where it is not to be asked, what the config says is what is served.
    provider = await get_adapter_impl(
        ServerlessConfig.model_validate({**config, "hub_url": None, "huggingface_repo": "a/b"}), Deps(provider_id="p")
    )
    assert [model.identifier for model in await provider.list_models()] == ["a/b"]
    assert len(stand_in.seen) == 1
    await provider.shutdown()


async def test_serverless_without_a_token(serverless: tuple[TGIStandIn, dict[str, Any]], running: Run) -> None:
    _, config = serverless
    async with running("remote::hf::serverless", **config) as stack:
        with pytest.raises(AuthenticationError, match="'huggingface_api_token' in the header"):
            await chat(stack, REPO)
        with use_provider_data({"huggingface_api_token": "hf_client"}):
            assert await chat(stack, REPO) == ANSWER


async def test_models_that_serverless_does_not_offer(
    serverless: tuple[TGIStandIn, dict[str, Any]], running: Run
) -> None:
    stand_in, config = serverless
    config["api_token"] = "hf_good"
    for offers, expected in (
        ({}, "has no model 'owner/small'"),
        ({REPO: {"elsewhere": "live"}}, "'owner/small' is not offered at hf-inference; it is live at: elsewhere"),
        ({REPO: {"hf-inference": "error"}}, "'owner/small' is error at hf-inference; it is live at: no provider"),
    ):
        stand_in.offers = offers
        async with running("remote::hf::serverless", **config) as stack:
            with pytest.raises(ObjectNotFoundError, match=expected):
                await chat(stack, REPO)


async def test_serverless_loads_a_model(serverless: tuple[TGIStandIn, dict[str, Any]], running: Run) -> None:
    stand_in, config = serverless
    loading = {"error": f"Model {REPO} is currently loading", "estimated_time": 20.0}
    stand_in.answers.append(JSONResponse(loading, 503))
    async with running("remote::hf::serverless", **config, api_token="hf_good") as stack:
        with pytest.raises(ProviderUnavailableError, match="is currently loading"):
            await chat(stack, REPO)


# ---- endpoints -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [{"endpoint_name": "mine"}, {"endpoint_name": "mine", "namespace": "somebody"}, {"endpoint_name": "somebody/mine"}],
)
async def test_an_endpoint_by_its_name(tgi: Make, running: Run, place: dict[str, str]) -> None:
    # Where it runs the model is a folder, whose name says nothing.
    stand_in, url = tgi(model_id="/repository", keys={"hf_good"})
    stand_in.endpoints["somebody/mine"] = endpoint(url)
    config = {"endpoints_url": f"{url}/v2", "hub_url": url, "api_token": "hf_good", **place}
    async with running("remote::hf::endpoint", **config) as stack:
        models = await stack.models.list_models()
        assert [model.identifier for model in models] == [MODEL]
        assert models[0].metadata["context_length"] == 2048
        assert await chat(stack, MODEL) == ANSWER
        assert (await text(stack, MODEL)).completion_message.content == ANSWER
    assert stand_in.last("/v1/chat/completions").headers["authorization"] == "Bearer hf_good"
    asked = "/api/whoami-v2" in [seen.path for seen in stand_in.seen]
    assert asked == (place == {"endpoint_name": "mine"})


async def test_an_endpoint_by_its_url(tgi: Make, running: Run) -> None:
    _, url = tgi(model_id="/repository", keys={"hf_good"})
    async with running("remote::hf::endpoint", url=url, api_token="hf_good", models={MODEL: "/repository"}) as stack:
        assert [model.identifier for model in await stack.models.list_models()] == ["/repository", MODEL]
        assert await chat(stack, MODEL) == ANSWER


async def test_endpoints_that_do_not_serve(tgi: Make, running: Run) -> None:
    stand_in, url = tgi(keys={"hf_good"})
    config = {"endpoints_url": f"{url}/v2", "api_token": "hf_good", "endpoint_name": "somebody/mine"}
    async with running("remote::hf::endpoint", **config) as stack:
        with pytest.raises(ObjectNotFoundError, match="has no Inference Endpoint 'somebody/mine'"):
            await chat(stack, MODEL)
    for state in ("paused", "scaledToZero", "failed", "initializing", "pending"):
        stand_in.endpoints["somebody/mine"] = endpoint(None, state=state, message="As it is")
        provider = await get_adapter_impl(EndpointConfig.model_validate(config), Deps(provider_id="p"))
        with pytest.raises(ProviderUnavailableError) as down:
            await provider.list_models()
        assert down.value.message == f"Inference Endpoint 'somebody/mine' is {state}: As it is"
        await provider.shutdown()
    for state in ("updating", "updateFailed"):
        stand_in.endpoints["somebody/mine"] = endpoint(url, state=state)
        provider = await get_adapter_impl(EndpointConfig.model_validate(config), Deps(provider_id="p"))
        assert [model.identifier for model in await provider.list_models()] == [MODEL]
        await provider.shutdown()
    stand_in.endpoints["somebody/mine"] = {"name": "mine"}
    provider = await get_adapter_impl(EndpointConfig.model_validate(config), Deps(provider_id="p"))
    with pytest.raises(BackendError, match="cannot be understood"):
        await provider.list_models()
    await provider.shutdown()


async def test_an_endpoint_that_is_paused_meanwhile(tgi: Make, running: Run) -> None:
    stand_in, url = tgi(keys={"hf_good"})
    stand_in.endpoints["somebody/mine"] = endpoint(url)
    config = {"endpoints_url": f"{url}/v2", "api_token": "hf_good", "endpoint_name": "somebody/mine"}
    async with running("remote::hf::endpoint", **config) as stack:
        assert await chat(stack, MODEL) == ANSWER
        # A failure while it runs stays what it was.
        stand_in.answers.append(JSONResponse({"error": "out of memory", "error_type": "generation"}, 424))
        with pytest.raises(BackendError, match="out of memory"):
            await chat(stack, MODEL)
        stand_in.endpoints["somebody/mine"] = endpoint(url, state="paused")
        stand_in.answers.append(JSONResponse({"error": "Bad Gateway"}, 502))
        with pytest.raises(ProviderUnavailableError, match="Inference Endpoint 'somebody/mine' is paused"):
            await chat(stack, MODEL)
        stand_in.endpoints["somebody/mine"] = endpoint(url)
        with anyio.fail_after(10):
            while (await stack.models.list_models())[0].unavailable_reason:
                await anyio.sleep(0.05)
        assert await chat(stack, MODEL) == ANSWER


async def test_an_endpoint_that_is_something_else(tgi: Make, running: Run) -> None:
    stand_in, url = tgi(keys={"hf_good"}, is_tgi=False)
    stand_in.endpoints["somebody/mine"] = endpoint(url)
    config = {"endpoints_url": f"{url}/v2", "api_token": "hf_good", "endpoint_name": "somebody/mine"}
    async with running("remote::hf::endpoint", **config) as stack:
        assert await chat(stack, MODEL) == ANSWER
        assert stand_in.last("/v1/chat/completions").body["model"] == MODEL
        with pytest.raises(NotSupportedError, match="text completion: .* is not Text Generation Inference"):
            await text(stack, MODEL)
        with pytest.raises(NotSupportedError, match="a JSON schema"):
            await chat(stack, MODEL, response_format=SCHEMA)
        with pytest.raises(NotSupportedError, match="a repetition penalty"):
            await chat(stack, MODEL, sampling_params=SamplingParams(repetition_penalty=1.2))
    provider = await get_adapter_impl(EndpointConfig.model_validate({"url": url}), Deps(provider_id="p"))
    with pytest.raises(BackendError, match="has no /info, which names its model"):
        await provider.list_models()
    await provider.shutdown()


async def test_an_endpoint_without_a_token(tgi: Make, running: Run) -> None:
    stand_in, url = tgi(keys={"hf_client"})
    stand_in.endpoints["somebody/mine"] = endpoint(url)
    config = {"endpoints_url": f"{url}/v2", "hub_url": url, "endpoint_name": "somebody/mine", "models": {"mine": MODEL}}
    async with running("remote::hf::endpoint", **config) as stack:
        assert [model.identifier for model in await stack.models.list_models()] == ["mine"]
        with pytest.raises(AuthenticationError, match="'huggingface_api_token' in the header"):
            await chat(stack, "mine")
        with use_provider_data({"huggingface_api_token": "hf_client"}):
            assert await chat(stack, "mine") == ANSWER
            await stack.models.register_model(Model(identifier=MODEL))
            assert await chat(stack, MODEL) == ANSWER


def test_configs_that_are_refused() -> None:
    for config in (
        {},
        {"endpoint_name": "mine"},  # whose?
        {"url": "http://a.test", "endpoint_name": "a"},
        {"url": "http://a.test", "namespace": "b"},
        {"endpoint_name": "a/b", "namespace": "c"},
        {"endpoint_name": "../a"},
        {"url": "http://user:secret@a.test"},
    ):
        with pytest.raises(ValidationError) as refused:
            EndpointConfig.model_validate(config)
        assert "secret" not in str(refused.value)
    with pytest.raises(ValidationError):
        ServerlessConfig.model_validate({"huggingface_repo": "a/b/c"})
    assert "hf_secret" not in repr(ServerlessConfig.model_validate({"huggingface_repo": "a", "api_token": "hf_secret"}))

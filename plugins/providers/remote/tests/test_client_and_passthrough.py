"""The same calls in process, over HTTP, and through a stack whose provider is another stack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx
import pytest
from scripted_stacks import Scripts

from llamastack import LlamaStackClient, Stack
from llamastack.api import CompletionMessage, KeywordMemoryBank, MemoryBankDocument, Model, Shield, UserMessage
from llamastack.provider.errors import (
    ConflictError,
    InternalError,
    InvalidRequestError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
)
from llamastack.stack.discovery import Discovery
from llamastack_server.uvicorn_server import bind, serve, url_of

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello there")]
ALL = ("inference", "safety", "memory", "agents", "telemetry")


def sample_config(**more: Any) -> dict[str, Any]:
    providers: dict[str, Any] = {api: [{"provider_id": "s", "provider_type": "remote::sample"}] for api in ALL}
    return {"providers": providers | more}


@asynccontextmanager
async def served(config: dict[str, Any], discovery: Discovery) -> AsyncIterator[str]:
    """A stack behind a real server; gives its URL."""
    listening = bind("127.0.0.1", 0)
    ready = anyio.Event()
    async with Stack.from_config(config, discovery=discovery) as stack, anyio.create_task_group() as group:
        group.start_soon(serve, stack, listening, ready.set)
        await ready.wait()
        yield url_of(listening)
        group.cancel_scope.cancel()


@asynccontextmanager
async def in_process(discovery: Discovery) -> AsyncIterator[Any]:
    async with Stack.from_config(sample_config(), discovery=discovery) as stack:
        yield stack


@asynccontextmanager
async def over_http(discovery: Discovery) -> AsyncIterator[Any]:
    async with served(sample_config(), discovery) as url, LlamaStackClient(url) as client:
        yield client


@asynccontextmanager
async def through_another_stack(discovery: Discovery) -> AsyncIterator[Any]:
    async with served(sample_config(), discovery) as url:
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": url}}
        async with Stack.from_config({"providers": {api: [remote] for api in ALL}}, discovery=discovery) as stack:
            yield stack


@pytest.fixture(params=[in_process, over_http, through_another_stack], ids=lambda make: make.__name__)
async def apis(request: pytest.FixtureRequest, discovery: Discovery) -> AsyncIterator[Any]:
    async with request.param(discovery) as made:
        yield made


async def test_inference(apis: Any) -> None:
    assert [m.identifier for m in await apis.models.list_models()] == ["sample-echo"]
    reply = await apis.inference.chat_completion(model="sample-echo", messages=HELLO)
    assert isinstance(reply.completion_message, CompletionMessage)
    assert reply.completion_message.content == "Hello there"
    chunks = [c async for c in await apis.inference.chat_completion(model="sample-echo", messages=HELLO, stream=True)]
    assert [c.event.delta for c in chunks] == ["", "Hello ", "there", ""]
    pieces = [p async for p in await apis.inference.completion(model="sample-echo", content="a b", stream=True)]
    assert "".join(p.delta for p in pieces) == "a b"


async def test_registries(apis: Any) -> None:
    await apis.models.register_model(Model(identifier="sample-echo"))
    await apis.models.register_model(Model(identifier="sample-echo"))
    with pytest.raises(ConflictError):
        await apis.models.register_model(Model(identifier="sample-echo", metadata={"k": 1}))
    with pytest.raises(InvalidRequestError, match="model 'other' is not served. Served: sample-echo"):
        await apis.models.register_model(Model(identifier="other"))
    await apis.models.unregister_model("sample-echo")
    with pytest.raises(NotFoundError):
        await apis.models.unregister_model("sample-echo")
    assert await apis.models.get_model("nope") is None


async def test_safety(apis: Any) -> None:
    await apis.shields.register_shield(Shield(identifier="mine", type="words", params={"words": ["hello"]}))
    found = await apis.safety.run_shield(shield_type="mine", messages=HELLO)
    assert found.violation.metadata == {"words": ["hello"]}
    passed = await apis.safety.run_shield(shield_type="sample-words", messages=HELLO)
    assert passed.violation is None


async def test_memory(apis: Any) -> None:
    await apis.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="bank"))
    document = MemoryBankDocument(document_id="d", content="llamas spit", metadata={"n": None})
    await apis.memory.insert_documents(bank_id="bank", documents=[document])
    found = await apis.memory.query_documents(bank_id="bank", query="spit")
    assert [(c.document_id, c.metadata) for c in found.chunks] == [("d", {"n": None})]
    await apis.memory.delete_documents(bank_id="bank", document_ids=["d"])
    assert (await apis.memory.query_documents(bank_id="bank", query="spit")).chunks == []
    with pytest.raises(ObjectNotFoundError, match="no memory bank 'nope' is served"):
        await apis.memory.query_documents(bank_id="nope", query="spit")


async def test_agents_and_telemetry(apis: Any) -> None:
    config = {"model": "sample-echo", "instructions": "x", "enable_session_persistence": False}
    agent = await apis.agents.create_agent(config)
    session = await apis.agents.create_agent_session(agent.agent_id, "s")
    ids = {"agent_id": agent.agent_id, "session_id": session.session_id}
    events = [e async for e in await apis.agents.create_agent_turn(**ids, messages=HELLO, stream=True)]
    turn = events[-1].event.payload.turn
    assert turn.output_message.content == "Hello there"
    assert await apis.agents.get_agent_turn(agent_id=agent.agent_id, turn_id=turn.turn_id) == turn
    with pytest.raises(NotFoundError, match="no trace 'none' is known"):
        await apis.telemetry.get_trace("none")


async def test_health_and_routes(apis: Any) -> None:
    health = await apis.inspect.health()
    assert health.status == "OK"
    assert {p.api for p in health.providers} == set(ALL)
    routes = await apis.inspect.list_routes()
    assert "/inference/chat_completion" in [r.route for r in routes["inference"]]


async def test_stream_errors_come_out_as_errors(discovery: Discovery, script: Scripts) -> None:
    script("a", fail_after_pieces=1, fail_call=None)
    scripted = [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]
    async with served(sample_config(inference=scripted), discovery) as url, LlamaStackClient(url) as client:
        got = []
        with pytest.raises(InternalError) as caught:
            async for chunk in await client.inference.chat_completion(model="m", messages=HELLO, stream=True):
                got.append(chunk.event.delta)
        assert got == ["", "0 "]
        assert caught.value.provider_id == "a"


async def test_provider_data_is_handed_on(discovery: Discovery, script: Scripts) -> None:
    a = script("a")
    scripted = [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]
    async with served(sample_config(inference=scripted), discovery) as far_url:
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": far_url}}
        async with (
            served({"providers": {"inference": [remote]}}, discovery) as near_url,
            LlamaStackClient(near_url, provider_data={"scripted_api_key": "k"}) as client,
        ):
            await client.inference.chat_completion(model="m", messages=HELLO)
    assert a.last("request_data").scripted_api_key == "k"


async def test_leaving_a_stream_cancels_through_both_stacks(discovery: Discovery, script: Scripts) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.01)
    scripted = [{"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}]
    async with served(sample_config(inference=scripted), discovery) as url:
        remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": url}}
        async with Stack.from_config({"providers": {"inference": [remote]}}, discovery=discovery) as stack:
            stream = await stack.inference.chat_completion(model="m", messages=HELLO, stream=True)
            async for _ in stream:
                break
            await stream.aclose()
            with anyio.fail_after(5):
                while a.in_flight:
                    await anyio.sleep(0.01)


async def test_nobody_there() -> None:
    listening = bind("127.0.0.1", 0)
    url = url_of(listening)
    listening.close()
    async with LlamaStackClient(url) as client:
        with pytest.raises(ProviderUnavailableError, match=url):
            await client.inspect.health()


async def test_a_remote_that_comes_up_later(discovery: Discovery) -> None:
    listening = bind("127.0.0.1", 0)
    port = listening.getsockname()[1]
    listening.close()
    remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": f"http://127.0.0.1:{port}"}}
    async with Stack.from_config({"providers": {"inference": [remote]}}, discovery=discovery) as stack:
        assert (await stack.inspect.health()).providers[0].status == "down"
        listening = bind("127.0.0.1", port)
        ready = anyio.Event()
        async with (
            Stack.from_config(sample_config(), discovery=discovery) as other,
            anyio.create_task_group() as group,
        ):
            group.start_soon(serve, other, listening, ready.set)
            await ready.wait()
            with anyio.fail_after(10):
                while (await stack.inspect.health()).providers[0].status != "healthy":
                    await anyio.sleep(0.05)
            reply = await stack.inference.chat_completion(model="sample-echo", messages=HELLO)
            assert reply.completion_message.content == "Hello there"
            group.cancel_scope.cancel()


async def test_something_that_is_no_llamastack(discovery: Discovery) -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, text="<html>a proxy's page</html>")

    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    async with LlamaStackClient("http://any", http=http) as client:
        with pytest.raises(Exception, match="did not answer as list_models does"):
            await client.models.list_models()

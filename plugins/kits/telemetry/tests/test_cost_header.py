"""What calls cost: in the header of replies, in spans and for plugins; over the real server and a backend over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from access_fake import AROUND
from backends.scripted_http import Received, ScriptedHttp, Steps, answer, scripted_http, served_by, sse
from served_stack import served_stack

from llamastack import Stack
from llamastack.api.models import Model
from llamastack.provider.provider_call import Proceed, ProviderCall
from llamastack.stack.discovery import Discovery
from llamastack_telemetry import prices_of

pytestmark = pytest.mark.anyio
CHAT = "/v1/chat/completions"
HEADER = "X-LlamaStack-Cost"
PRICES = {
    "models": [
        {"model": "m", "input": 0.15, "output": 0.6, "cached_input": 0.1},
        {"model": "euro", "input": 1, "output": 1, "currency": "EUR"},
        {"model": "vec*", "input": 0.02},
    ]
}


def reply(request: Received) -> Steps:
    """A reply that took as many tokens as the prompt says."""
    asked = request.json
    if "input" in asked:
        vectors = [{"object": "embedding", "index": 0, "embedding": [1.0]}]
        return answer(200, {"object": "list", "data": vectors, "model": "v", "usage": {"prompt_tokens": 50}})
    read = int(asked["messages"][-1]["content"])
    usage: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": 500, "total_tokens": read + 500}
    if read == 7:
        usage["prompt_tokens_details"] = {"cached_tokens": 5}
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    head: dict[str, Any] = {"id": "c-1", "created": 0, "model": "m-2024"}
    if asked.get("stream"):
        piece = {**head, "object": "chat.completion.chunk"}
        delta = {"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        return sse(
            {**piece, "choices": [delta]},
            {**piece, "choices": [end]},
            {**piece, "choices": [], "usage": usage},
            "[DONE]",
        )
    return answer(
        200, {**head, "object": "chat.completion", "choices": [choice], "usage": None if read == 0 else usage}
    )


@pytest.fixture
def backend() -> Iterator[ScriptedHttp]:
    with scripted_http(models=["m", "euro", "free", "vec-1", "own"]) as made:
        made.routes["/chat/completions"] = reply
        made.routes["/embeddings"] = reply
        yield made


@asynccontextmanager
async def served(
    backend: ScriptedHttp, discovery: Discovery | None = None, **more: Any
) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    config = {"providers": {"inference": [served_by(backend)], **more.pop("providers", {})}, "prices": PRICES, **more}
    async with served_stack(config, discovery) as found:
        yield found


def asked(model: str, tokens: int, **more: object) -> dict[str, object]:
    return {"model": model, "messages": [{"role": "user", "content": str(tokens)}], **more}


async def cost(client: httpx.AsyncClient, model: str, tokens: int, path: str = CHAT) -> str | None:
    found = await client.post(path, json=asked(model, tokens))
    assert found.status_code == 200, found.text
    return found.headers.get(HEADER)


async def test_a_whole_reply_says_what_it_cost(backend: ScriptedHttp) -> None:
    async with served(backend) as (stack, client):
        assert await cost(client, "m", 1000) == "0.00045 USD"
        assert await cost(client, "m", 1000, "/inference/chat_completion") == "0.00045 USD"
        assert await cost(client, "euro", 10) == "0.00051 EUR"
        assert await cost(client, "free", 10) is None
        assert await cost(client, "m", 0) is None, "the backend reports no tokens"
        assert await cost(client, "m", 7) == "0.0003008 USD", "5 of the 7 tokens came from a cache"
        vectors = await client.post("/v1/embeddings", json={"model": "vec-1", "input": "Hi"})
        assert vectors.headers[HEADER] == "0.000001 USD"
        assert HEADER not in (await client.get("/v1/models")).headers
        for model, status in (("none", 404), ("m", 200)):
            stream = await client.post(CHAT, json=asked(model, 5, stream=True))
            assert (stream.status_code, HEADER in stream.headers) == (status, False)
        assert await cost(client, "m", 1000) == "0.00045 USD", "nothing is left of the stream"
        assert prices_of(stack) is not None


@pytest.mark.usefixtures("calls_plugin")
async def test_several_calls_of_a_request_are_added_up(backend: ScriptedHttp, discovery: Discovery) -> None:
    async def again_and_elsewhere(call: ProviderCall, proceed: Proceed) -> object:
        for _ in range(2):
            await proceed(call)
        await proceed(call.replaced(identifier="euro"))
        return await proceed(call)

    async with served(backend, discovery) as (_, client):
        AROUND.does = again_and_elsewhere
        assert await cost(client, "m", 100) == "0.0006 EUR, 0.000945 USD"


@pytest.mark.usefixtures("calls_plugin")
async def test_a_stream_has_no_part_of_its_cost(backend: ScriptedHttp, discovery: Discovery) -> None:
    async def twice(call: ProviderCall, proceed: Proceed) -> object:
        assert [piece async for piece in await proceed(call)]
        return await proceed(call)

    async with served(backend, discovery) as (_, client):
        AROUND.does = twice
        stream = await client.post(CHAT, json=asked("m", 100, stream=True))
    assert (stream.status_code, HEADER in stream.headers) == (200, False)


async def test_nobody_pays_for_the_calls_of_others(backend: ScriptedHttp) -> None:
    async with served(backend) as (_, client):
        found: dict[int, str | None] = {}

        async def ask(tokens: int) -> None:
            found[tokens] = await cost(client, "euro", tokens)

        async with anyio.create_task_group() as tasks:
            for tokens in range(1000, 9000, 100):
                tasks.start_soon(ask, tokens)
    assert found == {tokens: f"0.00{tokens // 100 + 5:02}".rstrip("0") + " EUR" for tokens in found}
    assert len(found) == 80


async def test_pages_of_other_origins_may_read_it(backend: ScriptedHttp) -> None:
    server = {"allowed_origins": ["https://app.example"]}
    async with served(backend, server=server) as (_, client):
        found = await client.post(CHAT, json=asked("m", 1), headers={"Origin": "https://app.example"})
    exposed = found.headers.get_list("access-control-expose-headers", split_commas=True)
    assert {"X-Request-ID", HEADER} <= set(exposed)


async def test_the_models_own_prices_go_before_the_others(backend: ScriptedHttp) -> None:
    models = [{"identifier": "m", "provider_id": "p", "metadata": {"prices": {"input": 1000, "output": 0}}}]
    async with served(backend, models=models) as (stack, client):
        assert await cost(client, "m", 2) == "0.002 USD"
        assert await cost(client, "own", 2) is None
        own = Model(identifier="own", provider_id="p", metadata={"prices": {"request": 3, "currency": "CHF"}})
        await stack.models.register_model(own)
        assert await cost(client, "own", 2) == "3 CHF"
        await stack.models.unregister_model("own")
        assert await cost(client, "own", 2) is None


async def test_prices_of_a_file_come_after_those_of_the_run_config(backend: ScriptedHttp, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text(
        "currency: EUR\nmodels:\n- {model: m, input: 9, output: 9}\n- {model: '*', input: 0, output: 2}\n"
    )
    prices = {**PRICES, "file": str(tmp_path / "prices.yaml")}
    async with served(backend, prices=prices) as (_, client):
        assert await cost(client, "m", 1000) == "0.00045 USD"
        assert await cost(client, "free", 10) == "0.001 EUR"


async def test_a_stack_without_prices_has_no_hook_for_them(backend: ScriptedHttp) -> None:
    async with served_stack({"providers": {"inference": [served_by(backend)]}}) as (stack, client):
        assert await cost(client, "m", 1000) is None
        assert prices_of(stack) is None
        assert not [name for name, _ in stack.hooks.manager.list_name_plugin() if "Cost" in name or "Price" in name]


async def priced_spans(stack: Stack) -> list[tuple[object, object]]:
    traces = (await stack.telemetry.list_traces()).data
    spans = [span for trace in traces for span in (await stack.telemetry.list_spans(trace_id=trace.trace_id)).data]
    priced = [span.attributes for span in spans if "llamastack.cost" in span.attributes]
    return [(each["llamastack.cost"], each["llamastack.cost.currency"]) for each in priced]


async def test_traces_and_metrics_have_the_cost(backend: ScriptedHttp) -> None:
    telemetry = {"telemetry": [{"provider_id": "traces", "provider_type": "meta-reference"}]}
    async with served(backend, providers=telemetry, image_name="priced", tracing={"interval_s": 0.01}) as (
        stack,
        client,
    ):
        assert await cost(client, "m", 1000) == "0.00045 USD"
        await client.post(CHAT, json=asked("m", 1000, stream=True))
        with anyio.fail_after(10):
            while len(spans := await priced_spans(stack)) < 2:
                await anyio.sleep(0.01)
        assert spans == [(0.00045, "USD"), (0.00045, "USD")]
        metrics = (await client.get("/metrics")).text
    assert 'llamastack_cost_total{currency="USD",model="m",provider="p"} 0.0009' in metrics

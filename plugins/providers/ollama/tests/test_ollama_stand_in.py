"""The stand-in for Ollama, measured by Ollama's own client for Python, sync and async."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

import anyio
import pytest
from backends.llama_server import LlamaServer
from backends.ollama import OllamaStandIn, ollama_stand_in
from backends.ollama_models import BARE, CHAT, EMBEDDER, NO_TOOLS, SEEING
from backends.serving import becomes
from ollama import AsyncClient, Client, Options, ResponseError

pytestmark = pytest.mark.anyio
CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
GREEDY = Options(temperature=0, num_predict=24, repeat_penalty=1.0)
SCHEMA = {
    "type": "object",
    "properties": {"sunny": {"type": "boolean"}},
    "required": ["sunny"],
    "additionalProperties": False,
}
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"enum": ["Paris"]}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(stand_in: tuple[OllamaStandIn, str]) -> Iterator[Client]:
    with Client(stand_in[1]) as made:
        yield made


def test_chat(client: Client) -> None:
    whole = client.chat(CHAT, messages=CAPITAL, options=GREEDY)
    assert whole.message.content == "The capital of France is Paris."
    assert (whole.model, whole.done, whole.done_reason) == (CHAT, True, "stop")
    assert whole.eval_count is not None
    assert whole.eval_count >= 7
    assert whole.total_duration is not None
    assert whole.total_duration > 1_000_000
    pieces = list(client.chat(CHAT, messages=CAPITAL, options=GREEDY, stream=True))
    assert "".join(piece.message.content or "" for piece in pieces) == whole.message.content
    assert [piece.done for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    short = client.chat(CHAT, messages=CAPITAL, options=Options(temperature=0, num_predict=2))
    assert short.done_reason == "length"


def test_generate_embed_and_formats(client: Client) -> None:
    raw = client.generate(CHAT, "One, two, three,", raw=True, options=GREEDY)
    assert "four" in raw.response
    asked = client.generate(CHAT, "What is the capital of France?", options=GREEDY)
    assert "Paris" in asked.response
    assert asked.context
    held = client.chat(CHAT, messages=CAPITAL, format=SCHEMA, options=GREEDY)
    assert isinstance(json.loads(held.message.content or "")["sunny"], bool)
    with_logprobs = client.chat(CHAT, messages=CAPITAL, logprobs=True, top_logprobs=2, options=GREEDY)
    assert with_logprobs.logprobs is not None
    assert with_logprobs.logprobs[0].logprob < 0
    assert len(with_logprobs.logprobs[0].top_logprobs or ()) == 2
    vectors = client.embed(EMBEDDER, input=["a", "b"]).embeddings
    assert len(vectors) == 2
    assert math.hypot(*vectors[0]) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ResponseError, match="exceeds the context length"):
        client.embed(EMBEDDER, input="x " * 600, truncate=False)


def test_tools(client: Client) -> None:
    more = Options(temperature=0, num_predict=60)
    reply = client.chat(CHAT, messages=CAPITAL, tools=[WEATHER], options=more)
    assert reply.message.tool_calls is not None
    [call] = reply.message.tool_calls
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Paris"})
    with pytest.raises(ResponseError, match="does not support tools") as caught:
        client.chat(NO_TOOLS, messages=CAPITAL, tools=[WEATHER])
    assert caught.value.status_code == 400


def test_models(client: Client) -> None:
    names = [model.model for model in client.list().models]
    assert names == [CHAT, BARE, SEEING, NO_TOOLS, EMBEDDER]
    assert client.ps().models == []
    client.chat("smollm2", messages=CAPITAL, options=GREEDY)
    [loaded] = client.ps().models
    assert (loaded.model, loaded.context_length) == (BARE, 2048)
    client.generate(BARE, keep_alive=0)
    assert client.ps().models == []
    shown = client.show(SEEING)
    assert shown.capabilities == ["completion", "vision"]
    assert (shown.modelinfo or {})["llama.context_length"] == 2048
    with pytest.raises(ResponseError, match="model 'nope' not found") as caught:
        client.show("nope")
    assert caught.value.status_code == 404


async def test_pull(stand_in: tuple[OllamaStandIn, str]) -> None:
    made, url = stand_in
    client = AsyncClient(url)
    lines = [line async for line in await client.pull("tiny", stream=True)]
    assert lines[0].status == "pulling manifest"
    assert lines[-1].status == "success"
    totals = {line.digest: line.total for line in lines if line.digest}
    assert sum(total or 0 for total in totals.values()) == 102_500
    assert {line.digest: line.completed for line in lines if line.digest} == totals
    assert "tiny:latest" in [model.model for model in (await client.list()).models]
    with pytest.raises(ResponseError, match="pull model manifest: file does not exist"):
        await client.pull("nope")
    with pytest.raises(ResponseError, match="file does not exist"):
        async for _ in await client.pull("nope", stream=True):
            pass
    assert made.pulls == ["tiny:latest", "nope:latest", "nope:latest"]
    await client.close()


async def test_a_client_that_goes_away(llama: LlamaServer) -> None:
    with ollama_stand_in(llama) as (made, url):
        client = AsyncClient(url)
        stream = await client.chat(CHAT, messages=CAPITAL, options=Options(num_predict=1500), stream=True)
        await anext(aiter(stream))
        await stream.aclose()  # type: ignore[attr-defined]
        await client.close()
        assert await anyio.to_thread.run_sync(llama.becomes_idle)
        assert await anyio.to_thread.run_sync(becomes, lambda: made.disconnects == 1)

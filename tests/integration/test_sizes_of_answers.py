"""Answers of backends that are far too large, or become so when they are unpacked: refused, while the loop runs on."""

from __future__ import annotations

import gzip
import json
import resource
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from backends.scripted_http import ScriptedHttp, Steps, answer, chunked, served_by, sse
from loop_watch import LoopWatch
from served_stack import served_stack

from llamastack import LlamaStackClient
from llamastack.api import UserMessage
from llamastack.http.answer_limits import AnswerLimits
from llamastack.http.sse import MOST_EVENT_BYTES
from llamastack.provider.errors import BackendError, LlamaStackError
from llamastack.stack import Stack

# One process packs what is large.
pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("sizes_of_answers")]
MIB = 2**20
ASK = [UserMessage(content="Hi")]
LIMIT = 4 * MIB
_BLOCK = b" " * MIB


@pytest.fixture(scope="module")
def bombs() -> dict[str, bytes]:
    """What is small, and large when it is unpacked."""
    return {
        "answer": packed_of(b'{"a": "', b" ", 512),
        "zlib": packed_of(b'{"a": "', b" ", 64, 15),
        "raw": packed_of(b'{"a": "', b" ", 64, -15),
        "event": packed_of(b"data: {", b" ", 512),
        "comment": packed_of(b": a comment", b" ", 512),
        "error": packed_of(b"said so ", b"<", 64),
        "no data": packed_of(b"", b"data:\n\n" * 64, 4),
        "comments": packed_of(b"", b": x\n\n\n\n\n" * 64, 4),
    }


def packed_of(begin: bytes, block: bytes, mib: int, wbits: int = 31) -> bytes:
    """What unpacks to a beginning, and this block for so many MiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    parts = [packer.compress(begin)]
    parts += [packer.compress(block * (MIB // len(block))) for _ in range(mib)]
    return b"".join(parts) + packer.flush()


@asynccontextmanager
async def watched() -> AsyncIterator[None]:
    """Fails where a step of the loop takes more than 50 ms of processor time."""
    with LoopWatch() as watch:
        yield
        held_up = watch.take()
    assert held_up.step_s < 0.05, held_up


def served(config: dict[str, Any]) -> Any:
    return served_stack({"providers": {"inference": [config]}, "refresh_interval_s": 60})


def repeated(
    times: int, *, head: dict[str, str] | None = None, kind: str = "application/json", begin: bytes = b'{"a": "'
) -> Steps:
    """A plain answer in chunks that never ends its text."""
    return chunked(begin, *[lambda: _BLOCK] * times, content_type=kind, headers=head)


async def refusals_of(
    backend: ScriptedHttp, steps: Steps, *, stream: bool, client: httpx.AsyncClient, stack: Stack
) -> list[str]:
    backend.routes["/chat/completions"] = steps
    messages = []
    with pytest.raises(BackendError) as caught:
        reply: Any = await stack.inference.chat_completion(model="p/m", messages=ASK, stream=stream)
        async for _ in reply:
            pass
    messages.append(caught.value.message)
    body = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    refused = await client.post("/v1/chat/completions", json=body)
    if not stream:
        assert refused.status_code == 502
    messages.append(refused.text)
    return messages


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_over_the_limit(
    scripted_backend: ScriptedHttp, bombs: dict[str, bytes], transport: str, stream: bool
) -> None:
    packed = bombs["answer"]
    twice = gzip.compress(packed)
    assert len(twice) < 20_000
    before = peak_mib()
    config = served_by(scripted_backend, api_key="k", max_response_bytes=LIMIT, max_event_bytes=MIB)
    async with served(config) as (stack, client), watched():
        for steps in (
            answer(200, packed, headers={"Content-Encoding": "gzip"}),
            answer(200, packed, headers={"Content-Encoding": "x-gzip"}),
            answer(200, bombs["zlib"], headers={"Content-Encoding": "deflate"}),
            answer(200, bombs["raw"], headers={"Content-Encoding": "deflate"}),
            answer(200, twice, headers={"Content-Encoding": "gzip, gzip"}),
            repeated(800),
        ):
            for message in await refusals_of(scripted_backend, steps, stream=stream, client=client, stack=stack):
                assert "answered more than 4194304 bytes ('max_response_bytes' in the config)" in message
        assert len(await stack.models.list_models()) == 1  # it is not down
    assert peak_mib() - before < 100


async def test_events_over_the_limit(scripted_backend: ScriptedHttp, bombs: dict[str, bytes], transport: str) -> None:
    head = {"Content-Encoding": "gzip"}
    config = served_by(scripted_backend, api_key="k", max_response_bytes=LIMIT, max_event_bytes=MIB)
    before = peak_mib()
    async with served(config) as (stack, client), watched():
        for steps in (
            chunked(bombs["event"], headers=head),
            chunked(bombs["comment"], headers=head),
            repeated(800, kind="text/event-stream", begin=b"data: {"),
        ):
            for message in await refusals_of(scripted_backend, steps, stream=True, client=client, stack=stack):
                assert "an event of more than 1048576 bytes ('max_event_bytes' in the config)" in message
    assert peak_mib() - before < 100


@pytest.mark.parametrize("filler", ["no data", "comments"])
async def test_a_flood_of_events_that_say_nothing(
    scripted_backend: ScriptedHttp, bombs: dict[str, bytes], transport: str, filler: str
) -> None:
    """It has an end only because the backend ends it; others are served meanwhile."""
    scripted_backend.routes["/chat/completions"] = chunked(bombs[filler], headers={"Content-Encoding": "gzip"})
    config = served_by(scripted_backend, api_key="k")
    async with served(config) as (stack, client), watched():
        with pytest.raises(LlamaStackError, match="before the reply was complete"):
            reply: Any = await stack.inference.chat_completion(model="p/m", messages=ASK, stream=True)
            async for _ in reply:
                pass
        body = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        assert "before the reply was complete" in (await client.post("/v1/chat/completions", json=body)).text


async def test_the_body_of_an_error_is_not_read_to_its_end(
    scripted_backend: ScriptedHttp, bombs: dict[str, bytes], transport: str
) -> None:
    config = served_by(scripted_backend, api_key="k")
    plain = [
        b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n" + b"%x\r\n" % (64 * MIB),
        *[lambda: _BLOCK] * 64,
        b"\r\n0\r\n\r\n",
    ]
    async with served(config) as (_, client), watched():
        for steps in (answer(400, bombs["error"], headers={"Content-Encoding": "gzip"}), plain):
            scripted_backend.routes["/chat/completions"] = steps
            for stream in (False, True):
                body = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
                refused = await client.post("/v1/chat/completions", json=body)
                assert refused.status_code == 400
                assert len(refused.content) < 5000


async def test_an_answer_within_the_limit_is_read_whatever_its_packing(
    scripted_backend: ScriptedHttp, transport: str
) -> None:
    whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "é" * MIB}, "finish_reason": "stop"}]}
    plain = json.dumps(whole, ensure_ascii=False).encode()
    members = gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + b"\0" * 9
    event = (
        b"data: "
        + json.dumps({"choices": [{"index": 0, "delta": {"content": "Hi"}, "finish_reason": "stop"}]}).encode()
    )
    config = served_by(scripted_backend, api_key="k")
    async with served(config) as (stack, _):
        for packed, encoding in (
            (plain, "identity"),
            (gzip.compress(plain), "gzip"),
            (members, "GZIP"),
            (zlib.compress(plain), "deflate"),
            (zlib.compress(plain)[2:-4], "deflate"),
        ):
            scripted_backend.routes["/chat/completions"] = answer(200, packed, headers={"Content-Encoding": encoding})
            reply = await stack.inference.chat_completion(model="p/m", messages=ASK)
            assert len(reply.completion_message.content) == MIB
        for packed in (gzip.compress(event + b"\n\ndata: [DONE]\n\n"),):
            steps = chunked(
                *[packed[at : at + 7] for at in range(0, len(packed), 7)], headers={"Content-Encoding": "gzip"}
            )
            scripted_backend.routes["/chat/completions"] = steps
            pieces = [p async for p in await stack.inference.chat_completion(model="p/m", messages=ASK, stream=True)]
            assert "".join(str(piece.event.delta) for piece in pieces) == "Hi"
        cut = gzip.compress(plain)[:-20]
        scripted_backend.routes["/chat/completions"] = answer(200, cut, headers={"Content-Encoding": "gzip"})
        with pytest.raises(BackendError, match="cut short"):
            await stack.inference.chat_completion(model="p/m", messages=ASK)
    assert scripted_backend.calls()[0].headers["accept-encoding"] == "gzip, deflate"


async def test_our_own_client_has_limits_and_takes_nothing_compressed(
    scripted_backend: ScriptedHttp, bombs: dict[str, bytes]
) -> None:
    limits = AnswerLimits(response_bytes=LIMIT, event_bytes=MIB)
    head = {"Content-Encoding": "gzip"}

    async def ask(*, stream: bool) -> None:
        reply: Any = await client.inference.chat_completion(model="m", messages=ASK, stream=stream)
        async for _ in reply:
            pass

    not_asked = "answered with content-encoding 'gzip', which was not asked for"
    event = repeated(100, kind="text/event-stream", begin=b"data: ")
    async with LlamaStackClient(scripted_backend.url, answer_limits=limits) as client, watched():
        for steps, stream, words in (
            (answer(200, bombs["answer"], headers=head), False, not_asked),
            (answer(400, bombs["error"], headers=head), False, not_asked),
            (repeated(100), False, "answered more than 4194304 bytes"),
            (chunked(bombs["event"], headers=head), True, not_asked),
            (event, True, "an event of more than 1048576 bytes"),
        ):
            scripted_backend.routes["/inference/chat_completion"] = steps
            with pytest.raises(BackendError, match=words):
                await ask(stream=stream)
    assert {call.headers["accept-encoding"] for call in scripted_backend.calls()} == {"identity"}


def _adapters() -> Iterator[tuple[str, dict[str, Any], str]]:
    yield "remote::tgi", {}, "/chat/completions"
    yield "remote::ollama", {}, "/api/chat"
    yield "remote", {}, "/inference/chat_completion"


@pytest.mark.parametrize(("provider_type", "config", "path"), list(_adapters()))
async def test_every_adapter_has_them(
    scripted_backend: ScriptedHttp,
    bombs: dict[str, bytes],
    provider_type: str,
    config: dict[str, Any],
    path: str,
) -> None:
    scripted_backend.routes["/info"] = answer(200, {"model_id": "m", "max_total_tokens": 4096})
    instance = served_by(
        scripted_backend, provider_type, path="", max_response_bytes=LIMIT, max_event_bytes=MIB, **config
    )
    async with Stack.from_config({"providers": {"inference": [instance]}, "refresh_interval_s": 60}) as stack:
        provider = stack.instances["inference"][0].provider
        async with watched():
            for steps in (
                answer(200, bombs["answer"], headers={"Content-Encoding": "gzip"}),
                repeated(100),
            ):
                scripted_backend.routes[path] = steps
                # Ollama is asked for a stream whatever its client wants, and each line of it is an event.
                with pytest.raises(BackendError, match="answered more than 4194304 bytes|more than 1048576 bytes"):
                    await provider.chat_completion(model="m", messages=ASK)
            kind = "application/x-ndjson" if provider_type == "remote::ollama" else "text/event-stream"
            begin = b'{"' if provider_type == "remote::ollama" else b"data: "
            scripted_backend.routes[path] = repeated(100, kind=kind, begin=begin)
            with pytest.raises(BackendError, match="an event of more than 1048576 bytes"):
                async for _ in await provider.chat_completion(model="m", messages=ASK, stream=True):
                    pass


def _long_events(text: str) -> Iterator[tuple[str, str, Steps]]:
    """By adapter: the path, and a stream with one event that holds `text`."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": "stop"}
    for provider_type in ("remote::openai", "remote::tgi"):
        yield provider_type, "/chat/completions", sse({"choices": [choice]}, "[DONE]")
    message = {"role": "assistant", "content": text}
    line = json.dumps({"model": "m", "message": message, "done": True, "done_reason": "stop"}).encode() + b"\n"
    yield "remote::ollama", "/api/chat", chunked(line, content_type="application/x-ndjson")


@pytest.mark.parametrize("provider_type", ["remote::openai", "remote::tgi", "remote::ollama"])
async def test_a_limit_on_events_above_the_default_counts(scripted_backend: ScriptedHttp, provider_type: str) -> None:
    text = "x" * (MOST_EVENT_BYTES + MIB)
    path, steps = next((path, steps) for name, path, steps in _long_events(text) if name == provider_type)
    scripted_backend.routes["/info"] = answer(200, {"model_id": "m", "max_total_tokens": 4096})
    scripted_backend.routes[path] = steps
    instance = served_by(scripted_backend, provider_type, path="", max_event_bytes=2 * MOST_EVENT_BYTES)
    async with Stack.from_config({"providers": {"inference": [instance]}, "refresh_interval_s": 60}) as stack:
        provider = stack.instances["inference"][0].provider
        reply = await provider.chat_completion(model="m", messages=ASK, stream=True)
        assert "".join([piece.event.delta async for piece in reply]) == text


async def test_bedrock_and_qdrant_have_them(scripted_backend: ScriptedHttp, bombs: dict[str, bytes]) -> None:
    """Their SDKs ask for no answer that is compressed, or have it unpacked by us."""
    backend = scripted_backend
    keys = {"region_name": "us-east-1", "aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": "secret-of-it"}
    bedrock = {"endpoint_url": backend.url, "models": {"m": "m"}, "max_response_bytes": LIMIT, **keys}
    qdrant = {"url": backend.url, "max_response_bytes": LIMIT}
    run = {
        "providers": {
            "inference": [
                {"provider_id": "b", "provider_type": "remote::bedrock", "config": bedrock},
                {"provider_id": "e", "provider_type": "remote::sample"},
            ],
            "memory": [{"provider_id": "q", "provider_type": "remote::qdrant", "config": qdrant}],
        }
    }
    backend.default = repeated(40)
    async with Stack.from_config(run) as stack, watched():
        over = "answered more than 4194304 bytes"
        packed = answer(200, bombs["answer"], headers={"Content-Encoding": "gzip"})
        for steps, of_bedrock in ((repeated(100), over), (packed, "cannot be understood")):
            backend.default = steps
            for api in ("inference", "memory"):
                await stack.instances[api][0].refresh(force=True)
            reasons = {one.provider_id: str(one.reason) for one in (await stack.inspect.health()).providers}
            assert (over in reasons["q"], of_bedrock in reasons["b"]) == (True, True), reasons


async def test_parsing_the_largest_answer_is_linear(scripted_backend: ScriptedHttp) -> None:
    """Of what costs a moment for each MiB: at most 20 ms of them."""
    choice = {"index": 0, "message": {"role": "assistant", "content": "word \\n é " * 400_000}, "finish_reason": "stop"}
    content = json.dumps({"choices": [choice]}).encode()
    vectors = [{"object": "embedding", "index": n, "embedding": [0.123456789 * n] * 1024} for n in range(300)]
    from llamastack_adapters.non_streaming_replies import has_form

    for body, field in ((content, "choices"), (json.dumps({"data": vectors}).encode(), "data")):
        started = time.thread_time()
        assert has_form(body, field)
        assert (time.thread_time() - started) / (len(body) / MIB) < 0.02


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson"])
async def test_calling_itself_a_stream_does_not_lift_the_limit(
    scripted_backend: ScriptedHttp, transport: str, kind: str, stream: bool
) -> None:
    """Whole answers, of many short lines, and one that came where a stream was asked for."""
    begin, block = (b"{", b'"a": 1,\n') if stream else (b"data: {}\n\n", b"data: {}\n\n")
    lines = block * (MIB // len(block))
    scripted_backend.routes["/chat/completions"] = chunked(begin, *[lambda: lines] * 20, content_type=kind)
    config = served_by(scripted_backend, max_response_bytes=LIMIT, max_event_bytes=MIB)
    async with served(config) as (stack, client):
        for messages in await refusals_of(
            scripted_backend, scripted_backend.routes["/chat/completions"], stream=stream, client=client, stack=stack
        ):
            assert "answered more than 4194304 bytes" in messages


async def test_space_before_an_answer_is_read_in_linear_time(scripted_backend: ScriptedHttp, transport: str) -> None:
    """Read again at each block, 64 MiB of it took half a minute."""
    scripted_backend.routes["/chat/completions"] = answer(
        200, packed_of(b"", b" ", 512), headers={"Content-Encoding": "gzip"}
    )
    async with served(served_by(scripted_backend)) as (stack, _):
        started = time.thread_time()
        with pytest.raises(BackendError, match="answered more than"):
            async for _piece in await stack.inference.chat_completion(model="p/m", messages=ASK, stream=True):
                pass
        assert time.thread_time() - started < 3

"""What goes wrong between the provider and Ollama, and what the user is told."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import anyio
import pytest
from backends.ollama_models import CHAT, EMBEDDER
from backends.ollama_stack import LONG, Running, Start, limit
from backends.ollama_wire import ndjson, refusal
from starlette.responses import Response

from llamastack import Stack
from llamastack.api import ProviderStatus, StopReason, ToolCall, ToolDefinition
from llamastack.provider import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)

pytestmark = pytest.mark.anyio
BEGUN = {"model": CHAT, "message": {"role": "assistant", "content": "Hi"}, "done": False}


async def failure(running: Running, **arguments: Any) -> LlamaStackError:
    """The error that a chat ends with, whole or in a stream."""
    with pytest.raises(LlamaStackError) as caught:
        reply = await running.chat(**arguments)
        async for _ in reply:
            pass
    assert caught.value.provider_id == "o"
    return caught.value


async def becomes(stack: Stack, status: ProviderStatus) -> str | None:
    with anyio.fail_after(10):
        while True:
            [provider] = (await stack.inspect.health()).providers
            if provider.status is status:
                return provider.reason
            await anyio.sleep(0.05)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_ollama_that_goes_down_and_comes_back(running: Running, stream: bool) -> None:
    await running.chat(sampling_params=limit(1))
    running.proxy.refuse()
    error = await failure(running, stream=stream)
    assert isinstance(error, ProviderUnavailableError)
    assert error.message == f"provider 'o' (remote::ollama) is down: connection refused at {running.proxy.url}"
    assert await becomes(running.stack, ProviderStatus.down) == f"connection refused at {running.proxy.url}"
    running.proxy.restore()
    await becomes(running.stack, ProviderStatus.healthy)
    await running.chat(sampling_params=limit(1))


async def test_an_ollama_that_is_down_through_httpx_own_transport(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "*")  # any word about proxies in the environment chooses it
    async with start() as running:
        running.proxy.refuse()
        message = f"provider 'o' (remote::ollama) is down: connection refused at {running.proxy.url}"
        assert (await failure(running, stream=True)).message == message
        with pytest.raises(ProviderUnavailableError) as caught:  # which Ollama's client words in its own way
            await running.stack.inference.embeddings(model=EMBEDDER, contents=["a"])
        assert caught.value.message == message
        running.proxy.restore()
        await running.chat(sampling_params=limit(1))


async def test_a_host_name_that_is_not_known(start: Start) -> None:
    async with start(url="http://nowhere.invalid:11434") as running:
        reason = await becomes(running.stack, ProviderStatus.down)
        assert reason == "host name not known at http://nowhere.invalid:11434"


async def test_a_kept_connection_that_ollama_has_closed(running: Running) -> None:
    for call in (running.chat, running.complete):
        await call(sampling_params=limit(1))
        running.proxy.drop_idle()
        await call(sampling_params=limit(1))
    running.proxy.drop_idle()
    await running.stack.inference.embeddings(model=EMBEDDER, contents=["x"])


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_before_the_first_byte(start: Start, stream: bool) -> None:
    async with start(timeout_s=0.5) as running:
        running.proxy.delay_s = 30
        running.proxy.drop_idle()
        error = await failure(running, stream=stream)
        assert isinstance(error, ProviderTimeoutError)
        assert f"{running.proxy.url} was silent for 0.5 s" in error.message


async def test_silence_in_mid_stream(start: Start) -> None:
    async with start(timeout_s=0.5) as running:
        running.proxy.stall_after = 1000
        running.proxy.drop_idle()
        stream = await running.chat(messages=LONG, sampling_params=limit(400), stream=True)
        with pytest.raises(ProviderTimeoutError):
            async for _ in stream:
                pass


@pytest.mark.parametrize("fault", ["cut_after", "reset_after"])
async def test_a_connection_that_breaks_in_mid_stream(running: Running, fault: str) -> None:
    setattr(running.proxy, fault, 1000)
    running.proxy.drop_idle()
    seen = []
    with pytest.raises(LlamaStackError) as caught:
        async for chunk in await running.chat(messages=LONG, sampling_params=limit(400), stream=True):
            seen.append(chunk)
    assert seen
    assert isinstance(caught.value, BackendError)
    assert caught.value.provider_id == "o"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ((BEGUN, "{bad"), "cannot be understood"),
        ((BEGUN, "[1]"), "cannot be understood"),
        ((BEGUN,), "ended the stream before the reply was complete"),
        ((), "ended the stream before the reply was complete"),
        ((BEGUN, {"error": "an error was encountered while running the model"}), "an error was encountered"),
        ((BEGUN, {**BEGUN, "done": True, "done_reason": "error"}), "finish_reason 'error'"),
        (({"error": "llama runner process has terminated"},), "llama runner process has terminated"),
    ],
)
async def test_streams_that_make_no_sense(running: Running, lines: tuple[Any, ...], words: str, stream: bool) -> None:
    running.ollama.answers.append(ndjson(*lines))
    error = await failure(running, stream=stream)
    assert isinstance(error, BackendError)
    assert words in error.message


async def test_embeddings_that_make_no_sense(running: Running) -> None:
    running.ollama.answers.extend([Response("{}"), Response('{"embeddings": [[1.0]]}'), Response("hello")])
    for _ in range(3):
        with pytest.raises(BackendError) as caught:
            await running.stack.inference.embeddings(model=EMBEDDER, contents=["a", "b"])
        assert caught.value.provider_id == "o"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, InvalidRequestError), (404, NotFoundError), (500, BackendError), (503, ProviderUnavailableError)],
)
async def test_each_status_is_one_error(running: Running, status: int, kind: type, stream: bool) -> None:
    running.ollama.answers.append(refusal(status, "because of the moon"))
    error = await failure(running, stream=stream)
    assert type(error) is kind
    assert f"answered {status}: because of the moon" in error.message
    assert error.param == ("model" if status == 404 else None)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_full_queue_is_a_rate_limit_that_is_waited_for(running: Running, stream: bool) -> None:
    busy = "server busy, please try again.  maximum pending requests exceeded"
    running.ollama.answers.extend([refusal(503, busy), refusal(429, "slow down", retry_after="0"), None])
    before = running.ollama.count("/api/chat")
    reply = await running.chat(stream=stream, sampling_params=limit(1))
    if stream:
        assert [chunk async for chunk in reply]
    assert running.ollama.count("/api/chat") - before == 3


async def test_a_wait_that_is_too_long_is_the_clients(running: Running) -> None:
    running.ollama.answers.append(refusal(429, "tomorrow", retry_after="86000"))
    started = time.monotonic()
    error = await failure(running)
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 86_000
    assert time.monotonic() - started < 9  # it waits 10 s at most


async def test_a_redirect_is_not_followed(running: Running) -> None:
    running.ollama.answers.append(Response(status_code=307, headers={"location": "http://elsewhere.invalid/api/chat"}))
    error = await failure(running)
    assert "redirects to http://elsewhere.invalid/api/chat" in error.message


async def test_something_else_than_ollama(running: Running) -> None:
    running.ollama.routes["/api/tags"] = lambda _: Response("<html>Hello</html>", media_type="text/html")
    await running.stack.instances["inference"][0].refresh(force=True)
    reason = await becomes(running.stack, ProviderStatus.down)
    assert reason is not None
    assert "answered something that cannot be understood" in reason


async def test_closing_twice(running: Running) -> None:
    provider = running.stack.instances["inference"][0].provider
    await provider.shutdown()
    await provider.shutdown()


async def test_a_generation_that_has_begun_is_not_asked_for_again(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "httpx_aiohttp", None)  # whose own errors tell it apart
    async with start() as running:
        running.ollama.answers.extend([ndjson(BEGUN), ndjson(BEGUN)])
        running.proxy.cut_after = 160  # the head is whole by then, the first line is not
        running.proxy.drop_idle()
        before = running.ollama.count("/api/chat")
        await failure(running, stream=True)
        assert running.ollama.count("/api/chat") - before == 1


def part(content: str = "", *, done: str | None = None, arguments: Any = ..., **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if arguments is not ...:
        message["tool_calls"] = [{"function": {"name": "f", "arguments": arguments}}]
    return {"model": CHAT, "message": message, "done": done is not None, "done_reason": done, **more}


async def outcome_of(running: Running, *lines: Any, stream: bool) -> tuple[Any, ...]:
    """Text, calls, failed calls and the end of a reply that has these lines."""
    running.ollama.answers.append(ndjson(*lines))
    tools = [ToolDefinition(tool_name="f")]
    reply = await running.chat(stream=stream, tools=tools)
    if not stream:
        message = reply.completion_message
        failed = [delta.content for delta in reply.failed_tool_calls or ()]
        return message.content, [c.arguments for c in message.tool_calls], failed, message.stop_reason
    text, calls, failed = "", [], []
    async for chunk in reply:
        event = chunk.event
        if isinstance(event.delta, str):
            text += event.delta
        elif isinstance(event.delta.content, ToolCall):
            calls.append(event.delta.content.arguments)
        elif event.delta.parse_status == "failure":
            failed.append(event.delta.content)
    return text, calls, failed, event.stop_reason


@pytest.mark.parametrize("stream", [False, True])
async def test_replies_that_differ_a_little(running: Running, stream: bool) -> None:
    end, called, full = StopReason.end_of_turn, StopReason.end_of_message, StopReason.out_of_tokens
    for lines, wanted in (
        ((part("Hi"), part(done="")), ("Hi", [], [], end)),
        ((part("Hi"), part(done="because")), ("Hi", [], [], end)),
        ((part("Hi"), part(done="length")), ("Hi", [], [], full)),
        ((part("Hi"), part(done="max_tokens")), ("Hi", [], [], full)),
        ((part("a\ud83d"), part("\ude00b"), part(done="stop")), ("a😀b", [], [], end)),
        ((json.dumps(part("a\u2028b\x85c"), ensure_ascii=False), part(done="stop")), ("a\u2028b\x85c", [], [], end)),
        ((part("a\ud83d"), part(done="stop")), ("a\ufffd", [], [], end)),
        ((part(arguments={"x": 1}), part(done="stop")), ("", [{"x": 1}], [], called)),
        ((part(arguments='{"x":1}'), part(arguments=None), part(done="stop")), ("", [{"x": 1}, {}], [], called)),
        ((part(arguments={"x": 1}), part(arguments="{oops"), part(done="stop")), ("", [{"x": 1}], ["{oops"], called)),
        ((part(arguments={"x": 1}), part(arguments='{"x'), part(done="length")), ("", [{"x": 1}], ['{"x'], full)),
    ):
        assert await outcome_of(running, *lines, stream=stream) == wanted, lines

"""A Bedrock that refuses, fails, is slow or cuts its answers; and callers that go away."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, aclosing
from typing import Any

import anyio
import pytest
from backends.bedrock_wire import error, event, exception, frame, stream_of
from backends.fault_proxy import FaultProxy
from backends.llama_server import LlamaServer
from backends.serving import becomes
from starlette.responses import JSONResponse, Response

from llamastack.api import SamplingParams, StopReason, UserMessage
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ContextLengthExceededError,
    InvalidRequestError,
    LlamaStackError,
    NotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)

pytestmark = pytest.mark.anyio

START = event("messageStart", {"role": "assistant"})
TEXT = event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": "Hi"}})
STOP = event("messageStop", {"stopReason": "end_turn"})
LONG: dict[str, Any] = {
    "messages": [UserMessage(content="Count from one to one thousand, in words.")],
    "sampling_params": SamplingParams(max_tokens=1500, stop=["no such text"]),
}
STORY = {**LONG, "messages": [UserMessage(content="Write a very long story.")]}
"""The reply has all of its tokens: the engine still computes when the test looks, however busy the machine is."""


async def both_ways(running: Any, answer: Response, kind: type[LlamaStackError], words: str) -> LlamaStackError:
    """The error of a chat that is answered so, which must be the same in a stream."""
    running.front.answers += [answer, answer]
    found = []
    for call in (running.chat, running.events):
        with pytest.raises(kind, match=words) as caught:
            await call()
        assert type(caught.value) is kind
        assert caught.value.provider_id == "p"
        found.append(caught.value)
    assert not running.front.answers
    assert found[0].message == found[1].message
    return found[0]


REFUSALS: list[tuple[int, str, type[LlamaStackError]]] = [
    (400, "ValidationException", InvalidRequestError),
    (403, "AccessDeniedException", PermissionDeniedError),
    (403, "UnrecognizedClientException", AuthenticationError),
    (403, "ExpiredTokenException", AuthenticationError),
    (403, "InvalidSignatureException", AuthenticationError),
    (404, "ResourceNotFoundException", NotFoundError),
    (408, "ModelTimeoutException", ProviderTimeoutError),
    (424, "ModelErrorException", BackendError),
    (429, "ThrottlingException", RateLimitError),
    (429, "ModelNotReadyException", RateLimitError),
    (400, "ServiceQuotaExceededException", RateLimitError),
    (500, "InternalServerException", BackendError),
    (503, "ServiceUnavailableException", ProviderUnavailableError),
]


async def test_refusals(started: Callable[..., Any]) -> None:
    async with started(max_retries=0) as running:
        for number, (status, code, kind) in enumerate(REFUSALS, 1):
            answer = error(status, code, f"The words of AWS about {code}.")
            raised = await both_ways(running, answer, kind, f"The words of AWS about {code}")
            assert "http://127.0.0.1:" in raised.message
            assert f"answered {status}" in raised.message
            # One call each: botocore makes none again.
            assert (running.front.count("Converse"), running.front.count("ConverseStream")) == (number, number)
        assert (await running.chat()).completion_message.content == "The capital of"


async def test_answers_of_others(running: Any) -> None:
    """Of a proxy in between, or of a server that is no Bedrock."""
    page = Response("<html><h1>Bad Gateway</h1></html>", 502, media_type="text/html")
    await both_ways(running, page, ProviderUnavailableError, "answered 502")
    await both_ways(running, Response("", 500), BackendError, "answered 500")
    page = Response("<html>Not here</html>", 404, media_type="text/html")
    await both_ways(running, page, BackendError, "answered 404.*endpoint_url in the config")
    long = error(400, "ValidationException", "prompt is too long: 9 > 8")
    await both_ways(running, long, ContextLengthExceededError, "too long")


async def test_malformed_replies(running: Any) -> None:
    for answer in (
        Response("no JSON", media_type="application/json"),
        JSONResponse([1]),
        JSONResponse({}),
        JSONResponse({"output": {"message": {"content": [{"toolUse": {}}]}}, "stopReason": "tool_use"}),
        JSONResponse({"output": {"message": {"content": "text"}}, "stopReason": "end_turn"}),
        JSONResponse({"output": {"message": {"content": [{"text": "x"}]}}}),
    ):
        running.front.answers.append(answer)
        with pytest.raises(BackendError, match="cannot be understood"):
            await running.chat()


async def test_malformed_streams(running: Any) -> None:
    bad, short = "cannot be understood", "ended the stream before the reply was complete"
    for answer, words in (
        (stream_of(START, TEXT, TEXT[:-1] + b"\0", STOP), bad),
        (stream_of(START, TEXT, b"\xff" * 40), bad),
        (stream_of(START, TEXT, event("contentBlockDelta", {})), bad),
        (stream_of(START, frame(b"{", event_type="contentBlockDelta", message_type="event"), STOP), bad),
        (stream_of(START, frame(b"[7]", event_type="contentBlockDelta", message_type="event"), STOP), bad),
        (Response("<html>Hello, I am a login page.</html>", media_type="text/html"), bad),
        (stream_of(START, TEXT), short),
        (stream_of(START, TEXT, STOP[:20]), short),
        (stream_of(), short),
    ):
        running.front.answers.append(answer)
        with pytest.raises(BackendError, match=words):
            await running.events()
    # A reason that nobody knows still says that the reply is complete.
    running.front.answers.append(stream_of(START, TEXT, event("messageStop", {"stopReason": 7})))
    assert (await running.events())[-1].stop_reason is StopReason.end_of_turn
    assert (await running.events())[-1].stop_reason is not None


async def test_exceptions_inside_a_stream(running: Any) -> None:
    cases: list[tuple[bytes, type[LlamaStackError], str]] = [
        (exception("throttlingException", "It broke."), RateLimitError, "It broke"),
        (exception("validationException", "It broke."), InvalidRequestError, "It broke"),
        (exception("internalServerException", "It broke."), BackendError, "It broke"),
        (exception("serviceUnavailableException", "It broke."), ProviderUnavailableError, "It broke"),
        (exception("modelStreamErrorException", "It broke."), BackendError, "It broke"),
        (exception("newException", "botocore does not know it"), BackendError, "it does not say why"),
        (frame(b"", message_type="error", error_code="Boom", error_message="It broke."), BackendError, "It broke"),
    ]
    for number, (message, kind, words) in enumerate(cases, 1):
        running.front.answers.append(stream_of(START, TEXT, message))
        seen = []
        with pytest.raises(kind, match=f"http://127.* broke off: {words}") as caught:
            async for chunk in await running.chat(stream=True):
                seen.append(chunk.event.delta)
        assert type(caught.value) is kind
        assert seen == ["", "Hi"]
        # What has begun is not made again.
        assert running.front.count("ConverseStream") == number


async def test_a_rate_limit_is_waited_for(started: Callable[..., Any]) -> None:
    slow = error(429, "ThrottlingException", "Slow down.", retry_after="0.1")
    async with started(max_retries=2, max_retry_wait_s=1) as running:
        for call, operation in ((running.chat, "Converse"), (running.events, "ConverseStream")):
            running.front.answers += [slow, slow]
            assert await call()
            assert running.front.count(operation) == 3
        running.front.answers += [slow, slow, slow]
        with pytest.raises(RateLimitError) as caught:
            await running.chat()
        assert caught.value.retry_after == pytest.approx(0.1)
        running.front.answers.append(error(429, "ThrottlingException", "Slow down.", retry_after="30"))
        began = time.monotonic()
        with pytest.raises(RateLimitError) as caught:
            await running.chat()
        assert time.monotonic() - began < 5
        assert caught.value.retry_after == 30


async def test_a_backend_that_is_not_there(started: Callable[..., Any], faulty: Callable[[str], FaultProxy]) -> None:
    proxies: list[FaultProxy] = []

    def through(url: str) -> str:
        proxies.append(faulty(url))
        return proxies[0].url

    async with started(through=through) as running:
        await running.chat()
        proxies[0].refuse()
        for call in (running.chat, running.events):
            with pytest.raises(ProviderUnavailableError, match=f"connection refused at {proxies[0].url}$"):
                await call()
        proxies[0].restore()
        assert await running.chat()
        assert [m.identifier for m in await running.stack.models.list_models() if m.unavailable_reason is None]


async def test_it_starts_without_its_backend(started: Callable[..., Any], faulty: Callable[[str], FaultProxy]) -> None:
    proxies: list[FaultProxy] = []

    def through(url: str) -> str:
        proxies.append(faulty(url))
        proxies[0].refuse()
        return proxies[0].url

    async with started(through=through) as running:
        with pytest.raises(LlamaStackError, match="connection refused at http://127"):
            await running.chat()
        proxies[0].restore()
        with anyio.fail_after(20):
            while not await running.stack.models.list_models():
                await anyio.sleep(0.1)
        assert await running.chat()


async def test_a_host_that_is_not_known(started: Callable[..., Any]) -> None:
    async with started(endpoint_url="http://bedrock.invalid:4711/x") as running:
        with pytest.raises(LlamaStackError, match=r"host name not known at http://bedrock\.invalid:4711"):
            await running.chat()


async def test_a_host_that_does_not_take_the_connection(started: Callable[..., Any]) -> None:
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(3):  # more than its queue holds: further ones get no answer
            one = waiting.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        async with started(endpoint_url=url, connect_timeout_s=0.3) as running:
            with pytest.raises(LlamaStackError, match=rf"no connection in 0\.3 s at {url}"):
                await running.chat()


async def test_silence(started: Callable[..., Any], faulty: Callable[[str], FaultProxy]) -> None:
    proxies: list[FaultProxy] = []

    def through(url: str) -> str:
        proxies.append(faulty(url))
        return proxies[0].url

    async with started(through=through, timeout_s=0.6) as running:
        await running.chat()
        proxies[0].drop_idle()
        proxies[0].stall_after = 0
        for call in (running.chat, running.events):
            began = time.monotonic()
            with pytest.raises(ProviderTimeoutError, match=r"was silent for 0\.6 s"):
                await call()
            assert time.monotonic() - began < 5
        proxies[0].stall_after = 900
        seen = []
        with pytest.raises(ProviderTimeoutError, match=r"was silent for 0\.6 s"):
            async for chunk in await running.chat(stream=True, **LONG):
                seen.append(chunk.event.delta)
        assert len(seen) > 1
        proxies[0].restore()
        assert await running.chat()


async def test_an_answer_that_is_cut(started: Callable[..., Any], faulty: Callable[[str], FaultProxy]) -> None:
    proxies: list[FaultProxy] = []

    def through(url: str) -> str:
        proxies.append(faulty(url))
        return proxies[0].url

    async with started(through=through) as running:
        kinds: dict[str, tuple[type[LlamaStackError], str]] = {
            "cut_after": (BackendError, "broke off its answer"),
            "reset_after": (LlamaStackError, "broke off its answer|connection reset by peer"),
        }
        for fault, (kind, words) in kinds.items():
            proxies[0].drop_idle()
            setattr(proxies[0], fault, 900)
            seen = []
            with pytest.raises(kind, match=rf"{proxies[0].url}.*({words})|({words}) at {proxies[0].url}"):
                async for chunk in await running.chat(stream=True, **LONG):
                    seen.append(chunk.event.delta)
            assert len(seen) > 1
            setattr(proxies[0], fault, 60)
            with pytest.raises(kind, match=rf"{proxies[0].url}.*({words})|({words}) at {proxies[0].url}"):
                await running.chat()
            proxies[0].restore()
            assert await running.chat()


async def test_connections_are_kept_and_made_anew(
    started: Callable[..., Any], faulty: Callable[[str], FaultProxy]
) -> None:
    proxies: list[FaultProxy] = []
    few: dict[str, Any] = {"sampling_params": SamplingParams(max_tokens=1)}

    def through(url: str) -> str:
        proxies.append(faulty(url))
        return proxies[0].url

    async with started(through=through) as running:
        await running.chat(**few)
        before = proxies[0].connections
        for _ in range(3):
            await running.chat(**few)
            await running.events(**few)
        assert proxies[0].connections == before
        for _ in range(3):
            before = proxies[0].connections
            proxies[0].drop_idle()
            await running.chat(**few)
            assert proxies[0].connections > before


# ---- callers that go away --------------------------------------------------------------------------------------------


async def begins(llama: LlamaServer) -> None:
    with anyio.fail_after(20):
        while not await anyio.to_thread.run_sync(llama.working_on):
            await anyio.sleep(0.02)


async def test_a_cancelled_call_ends_the_generation(running: Any, llama: LlamaServer) -> None:
    for number, stream in enumerate((False, True), 1):
        assert await anyio.to_thread.run_sync(llama.becomes_idle)
        async with anyio.create_task_group() as calls:

            async def call(stream: bool = stream) -> None:
                async for _ in await running.chat(stream=stream, **LONG):
                    pass

            calls.start_soon(call)
            await begins(llama)
            calls.cancel_scope.cancel()
        assert await anyio.to_thread.run_sync(llama.becomes_idle)
        assert await anyio.to_thread.run_sync(becomes, lambda number=number: running.front.disconnects == number)


async def test_a_closed_stream_ends_the_generation(running: Any, llama: LlamaServer) -> None:
    for number, pieces in enumerate((0, 1, 5), 1):
        assert await anyio.to_thread.run_sync(llama.becomes_idle)
        async with aclosing(await running.chat(stream=True, **STORY)) as stream:
            for _ in range(pieces):
                await anext(stream)
            await begins(llama)
        assert await anyio.to_thread.run_sync(llama.becomes_idle)
        assert await anyio.to_thread.run_sync(becomes, lambda number=number: running.front.disconnects == number)
        await stream.aclose()
    assert await running.chat()


async def test_a_stack_that_stops_ends_the_generation(started: Callable[..., Any], llama: LlamaServer) -> None:
    assert await anyio.to_thread.run_sync(llama.becomes_idle)
    async with started() as running:
        stream = await running.chat(stream=True, **STORY)
        await anext(stream)
        await begins(llama)
    assert await anyio.to_thread.run_sync(llama.becomes_idle)
    await stream.aclose()


async def test_many_at_once(started: Callable[..., Any], faulty: Callable[[str], FaultProxy]) -> None:
    """More than the ten connections that botocore has by default."""
    proxies: list[FaultProxy] = []
    replies: list[Any] = []

    def through(url: str) -> str:
        proxies.append(faulty(url))
        return proxies[0].url

    async with started(through=through) as running:
        before = proxies[0].connections

        async def call() -> None:
            replies.append(await running.chat(stream=True))

        proxies[0].delay_s = 0.3  # so that no connection is free again before all are made
        running.front.answers += [stream_of(START, TEXT, STOP)] * 12
        async with anyio.create_task_group() as calls:
            for _ in range(12):
                calls.start_soon(call)
        assert len([chunk for reply in replies async for chunk in reply]) == 36
        assert proxies[0].connections >= before + 12

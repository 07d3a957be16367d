"""What goes wrong between the provider and its backend, and what the user is told."""

from __future__ import annotations

import gzip
import json
import socket
import time
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from backends.fault_proxy import FaultProxy
from backends.llama_server import MODEL, LlamaServer
from backends.openai_checks import CAPITAL, LONG, Running, limit, piece, whole
from backends.openai_front import OpenAIFront, events, refusal
from starlette.responses import JSONResponse, Response

from llamastack import Stack
from llamastack.api import ProviderStatus, UserMessage
from llamastack.provider import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
    RequestTooLargeError,
)
from llamastack.provider.context import use_provider_data

pytestmark = pytest.mark.anyio


@dataclass
class Proxied(Running):
    """A stack whose provider reaches its backend through `proxy`."""

    proxy: FaultProxy


Start = Callable[..., AbstractAsyncContextManager[Proxied]]


@pytest.fixture
def start(front: Callable[..., tuple[OpenAIFront, str]], faulty: Callable[[str], FaultProxy]) -> Start:
    """`async with start(**config) as running`; refused: nothing listens at the start."""

    @asynccontextmanager
    async def run(*, refused: bool = False, path: str = "/v1", **config: Any) -> AsyncIterator[Proxied]:
        made, url = front()
        proxy = faulty(url)
        if refused:
            proxy.refuse()
        provider = {
            "provider_id": "p",
            "provider_type": "remote::openai",
            "config": {"url": proxy.url + path, **config},
        }
        run_config = {"providers": {"inference": [provider]}, "refresh_interval_s": 60}
        async with Stack.from_config(run_config) as stack:
            yield Proxied(stack, made, proxy)

    return run


async def failure(running: Running, **arguments: Any) -> LlamaStackError:
    """The error that a chat ends with, whole or in a stream."""
    with pytest.raises(LlamaStackError) as caught:
        reply = await running.chat(**arguments)
        async for _ in reply:
            pass
    assert caught.value.provider_id == "p"
    return caught.value


async def becomes(stack: Stack, status: ProviderStatus, within_s: float = 10) -> str | None:
    """Wait for the provider's status; gives its reason."""
    with anyio.fail_after(within_s):
        while True:
            [provider] = (await stack.inspect.health()).providers
            if provider.status is status:
                return provider.reason
            await anyio.sleep(0.05)


# ---- out of reach ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_a_backend_that_goes_down_and_comes_back(start: Start, stream: bool) -> None:
    async with start() as running:
        await running.chat()
        proxy = running.proxy
        proxy.refuse()
        started = time.monotonic()
        error = await failure(running, stream=stream)
        assert time.monotonic() - started < 1
        assert isinstance(error, ProviderUnavailableError)
        assert error.message == f"provider 'p' (remote::openai) is down: connection refused at {proxy.url}"
        assert await becomes(running.stack, ProviderStatus.down) == f"connection refused at {proxy.url}"
        proxy.restore()
        await becomes(running.stack, ProviderStatus.healthy)
        await running.chat()


async def test_a_backend_that_is_down_at_the_start(start: Start) -> None:
    async with start(refused=True) as running:
        assert await becomes(running.stack, ProviderStatus.down) == f"connection refused at {running.proxy.url}"
        running.proxy.restore()
        await becomes(running.stack, ProviderStatus.healthy)
        await running.chat()


async def test_a_host_name_that_is_not_known() -> None:
    config = {"url": "http://nowhere.invalid/v1", "models": {"m": "m"}}
    provider = {"provider_id": "p", "provider_type": "remote::openai", "config": config}
    async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
        assert await becomes(stack, ProviderStatus.down) == "host name not known at http://nowhere.invalid"


async def test_a_kept_connection_that_the_backend_has_closed(start: Start) -> None:
    async with start() as running:
        for stream in (False, True):
            await running.chat()
            running.proxy.drop_idle()
            reply = await running.chat(stream=stream)
            if stream:
                assert [chunk async for chunk in reply]


# ---- silence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_silence_before_the_first_byte(start: Start, stream: bool) -> None:
    async with start(timeout_s=0.5) as running:
        running.proxy.delay_s = 30
        running.proxy.drop_idle()
        error = await failure(running, stream=stream)
        assert isinstance(error, ProviderTimeoutError)
        assert error.message == f"provider 'p' (remote::openai): {running.proxy.url} was silent for 0.5 s"


async def test_silence_in_mid_stream(start: Start) -> None:
    async with start(timeout_s=0.5) as running:
        running.proxy.stall_after = 1500
        running.proxy.drop_idle()
        stream = await running.chat(messages=LONG, sampling_params=limit(400), stream=True)
        with pytest.raises(ProviderTimeoutError, match=r"was silent for 0\.5 s") as caught:
            pieces = [chunk async for chunk in stream]
            assert not pieces
        assert caught.value.provider_id == "p"


# ---- broken off --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["cut_after", "reset_after"])
async def test_a_connection_that_breaks_in_mid_stream(start: Start, fault: str) -> None:
    async with start() as running:
        setattr(running.proxy, fault, 1500)
        running.proxy.drop_idle()
        seen = []
        with pytest.raises(BackendError) as caught:
            async for chunk in await running.chat(messages=LONG, sampling_params=limit(400), stream=True):
                seen.append(chunk)
        assert seen
        assert caught.value.provider_id == "p"
        running.proxy.restore()
        await becomes(running.stack, ProviderStatus.healthy)
        await running.chat()


async def test_a_connection_that_is_reset_before_the_first_byte(start: Start) -> None:
    async with start() as running:
        running.proxy.reset_after = 0
        running.proxy.drop_idle()
        before = running.proxy.connections
        error = await failure(running)
        assert isinstance(error, ProviderUnavailableError | BackendError)
        assert running.proxy.connections - before <= 3


# ---- nonsense ----------------------------------------------------------------------------------------------------

BEGUN = piece({"role": "assistant", "content": "Hi"})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (events(BEGUN, "{bad", done=False), "sent an event that is not JSON: {bad"),
        (events(BEGUN, "[1]", done=False), "cannot be understood"),
        (events(BEGUN, '{"choices": [7]}'), "no 'choices'"),
        (events(BEGUN, piece({}, finish="abort")), "finish_reason 'abort'"),
        (events(piece({"role": "assistant"})), "ended the stream before the reply was complete"),
        (events(BEGUN, done=False), "ended the stream before the reply was complete"),
        (events(), "ended the stream before the reply was complete"),
        (events(BEGUN, '{"error": {"message": "out of memory", "type": "server_error"}}'), "broke off: out of memory"),
        (JSONResponse({"id": "c"}), "answered a stream with JSON without 'choices'"),
        (Response("<html>", media_type="text/html"), "answered a stream with text/html"),
    ],
)
async def test_streams_that_make_no_sense(start: Start, answer: Response, expected: str) -> None:
    async with start() as running:
        running.front.answers.append(answer)
        error = await failure(running, stream=True)
        assert isinstance(error, BackendError)
        assert expected in error.message


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Response("hello"), "answered something else than JSON"),
        (JSONResponse({"choices": []}), "no 'choices'"),
        (JSONResponse({"choices": [{"finish_reason": "stop"}]}), "a choice without a 'message'"),
        (JSONResponse(whole(content={"a": 1})), "cannot be understood"),
        (JSONResponse(whole(content="Hi", finish="abort")), "finish_reason 'abort'"),
        (JSONResponse(whole(finish="")), "neither a 'finish_reason'"),
        (JSONResponse([]), "no 'choices'"),
    ],
)
async def test_replies_that_make_no_sense(start: Start, answer: Response, expected: str) -> None:
    async with start() as running:
        running.front.answers.append(answer)
        error = await failure(running)
        assert isinstance(error, BackendError)
        assert expected in error.message


async def test_an_error_with_a_status_in_mid_stream(start: Start) -> None:
    async with start() as running:
        running.front.answers.append(events(BEGUN, '{"error": {"code": 503, "message": "overloaded"}}'))
        assert isinstance(await failure(running, stream=True), ProviderUnavailableError)


# ---- refusals ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequestError),
        (402, PermissionDeniedError),
        (403, PermissionDeniedError),
        (413, RequestTooLargeError),
        (422, InvalidRequestError),
        (500, BackendError),
        (501, NotSupportedError),
        (502, ProviderUnavailableError),
        (503, ProviderUnavailableError),
        (504, ProviderTimeoutError),
        (418, BackendError),
    ],
)
async def test_each_status_is_one_error(start: Start, status: int, kind: type, stream: bool) -> None:
    async with start() as running:
        running.front.answers.append(refusal(status, "because of the moon", param="messages"))
        error = await failure(running, stream=stream)
        assert type(error) is kind
        assert f"answered {status}: because of the moon" in error.message


async def test_a_wrong_path_is_said_to_be_one(start: Start) -> None:
    async with start(path="/v2") as running:
        reason = await becomes(running.stack, ProviderStatus.down)
        assert reason is not None
        assert reason.endswith("answered 404: 404 Not Found; is the url in the config right?")


async def test_a_redirect_is_not_followed(start: Start) -> None:
    async with start() as running:
        elsewhere = Response(status_code=307, headers={"location": "http://elsewhere.invalid/v1?key=x"})
        running.front.answers.append(elsewhere)
        error = await failure(running)
        assert error.message.endswith("redirects to http://elsewhere.invalid/v1; is the url in the config right?")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_rate_limit_is_waited_for(start: Start, stream: bool) -> None:
    async with start() as running:
        running.front.answers.extend([refusal(429, "slow down", retry_after=1), refusal(429, "slow down")])
        before = len(running.front.seen)
        started = time.monotonic()
        reply = await running.chat(stream=stream)
        assert time.monotonic() - started > 1
        assert len(running.front.seen) - before == 3
        if stream:
            assert [chunk async for chunk in reply][-1].event.stop_reason is not None


async def test_a_rate_limit_is_not_waited_for_without_end(start: Start) -> None:
    async with start(max_retries=1) as running:
        running.front.answers.extend([refusal(429, "slow down", retry_after=0)] * 2)
        before = len(running.front.seen)
        error = await failure(running)
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 0
        assert len(running.front.seen) - before == 2


async def test_a_longer_wait_than_allowed_is_the_clients(start: Start) -> None:
    async with start(max_retry_wait_s=10) as running:
        running.front.answers.append(refusal(429, "come back tomorrow", retry_after=86_000))
        started = time.monotonic()
        error = await failure(running)
        assert isinstance(error, RateLimitError)
        assert error.retry_after == 86_000
        assert time.monotonic() - started < 9


# ---- streams that nobody reads -----------------------------------------------------------------------------------


async def test_a_stream_that_is_closed_before_its_first_piece(start: Start, llama: LlamaServer) -> None:
    async with start() as running:
        stream = await running.chat(messages=LONG, sampling_params=limit(1500), stream=True)
        await stream.aclose()
        await stream.aclose()
        assert await anyio.to_thread.run_sync(llama.becomes_idle, 5)


async def test_nothing_stays_open(start: Start) -> None:
    async with start() as running:
        stream = await running.chat(stream=True)
        provider = running.stack.instances["inference"][0].provider
        await provider.shutdown()
        await provider.shutdown()
        await stream.aclose()


def unused_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


async def test_no_answer_at_all_is_told_in_the_words_of_the_system() -> None:
    url = f"http://127.0.0.1:{unused_port()}"
    provider = {"provider_id": "p", "provider_type": "remote::openai", "config": {"url": f"{url}/v1"}}
    async with Stack.from_config({"providers": {"inference": [provider]}}) as stack:
        with pytest.raises(ProviderUnavailableError) as caught:
            await stack.inference.chat_completion(model="p/m", messages=CAPITAL)
        assert f"provider 'p' (remote::openai) is down: connection refused at {url}" in caught.value.message


async def test_a_model_is_found_by_name(start: Start) -> None:
    async with start() as running:
        assert (await running.stack.models.get_model(identifier=f"p/{MODEL}")).identifier == MODEL


async def test_keys_of_calls_at_the_same_time_do_not_mix(start: Start) -> None:
    async with start(api_key="sk-operator") as running:

        async def ask(number: int) -> None:
            with use_provider_data({"openai_api_key": f"sk-{number}"} if number % 5 else {}):
                message = UserMessage(content=f"Number {number}")
                reply = await running.chat(messages=[message], sampling_params=limit(1), stream=bool(number % 2))
                if number % 2:
                    assert [chunk async for chunk in reply]

        async with anyio.create_task_group() as group:
            for number in range(50):
                group.start_soon(ask, number)
        calls = [seen for seen in running.front.seen if seen.path.endswith("/chat/completions")]
        keys = {seen.body["messages"][0]["content"]: seen.headers["authorization"] for seen in calls}
        assert keys == {
            f"Number {number}": f"Bearer sk-{number}" if number % 5 else "Bearer sk-operator" for number in range(50)
        }


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_compressed_answers(start: Start, encoding: str) -> None:
    pack = {"gzip": gzip.compress, "deflate": zlib.compress}[encoding]
    headers = {"content-encoding": encoding}
    body = json.dumps(whole(content="Hi")).encode()
    stream = f"data: {BEGUN}\r\n\r\ndata:{piece({}, finish='stop')}\n\ndata:[DONE]\n\n".encode()
    async with start() as running:
        running.front.answers.append(Response(pack(body), media_type="application/json", headers=headers))
        assert (await running.chat()).completion_message.content == "Hi"
        running.front.answers.append(Response(pack(stream), media_type="text/event-stream", headers=headers))
        assert "".join([str(c.event.delta) async for c in await running.chat(stream=True)]) == "Hi"


async def test_a_name_that_nobody_can_ask_for_does_not_hide_the_others(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as running:
        running.front.models = [" odd\n", MODEL, "x" * 600]
        await running.stack.instances["inference"][0].refresh(force=True)
        assert [model.identifier for model in await running.stack.models.list_models()] == [MODEL]
        assert r"leaves out ' odd\n'" in caplog.text


@pytest.mark.parametrize("length", [80, 290, 480, 1990])
async def test_a_key_is_struck_out_before_a_long_text_is_shortened(start: Start, length: int) -> None:
    key = "sk-a-key-of-forty-characters-or-so-2f81c7"
    async with start(api_key=key) as running:
        echo = "y" * length + key + "z" * 5000
        for answer, stream in (
            (refusal(400, echo), False),
            (events(BEGUN, echo, done=False), True),
            (events(BEGUN, piece({}, finish=f"error {echo}")), True),
        ):
            running.front.answers.append(answer)
            error = await failure(running, stream=stream)
            assert "sk-a" not in error.message
            assert "2f81c7" not in error.message
            assert len(error.message) < 2200


async def test_no_cookie_of_one_call_goes_out_with_another(start: Start) -> None:
    async with start() as running:
        answer = JSONResponse(whole(content="Hi"))
        answer.set_cookie("session", "a-clients")
        running.front.answers.append(answer)
        await running.chat()
        await running.chat(sampling_params=limit(1))
        assert "cookie" not in running.front.last("/chat/completions").headers


async def test_a_generation_that_may_have_begun_is_not_asked_for_again(start: Start) -> None:
    async with start() as running:
        running.proxy.delay_s, running.proxy.reset_after = 0.3, 1
        running.proxy.drop_idle()
        before = len(running.front.seen)
        await failure(running, sampling_params=limit(1))
        assert len(running.front.seen) - before == 1

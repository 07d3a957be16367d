"""remote::tgi: its keys, and what happens when its backend or its caller gives up."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio
import pytest
from backends.fault_proxy import FaultProxy
from backends.llama_server import MODEL, LlamaServer
from backends.serving import becomes
from backends.tgi import TGIStandIn
from starlette.responses import JSONResponse, Response, StreamingResponse

from llamastack import Stack
from llamastack.api import SamplingParams, ToolChoice, ToolDefinition, UserMessage
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    Deps,
    InvalidRequestError,
    NotSupportedError,
    ObjectNotFoundError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.context import PROVIDER_DATA_HEADER, use_provider_data
from llamastack_provider_tgi.config import TGIConfig
from llamastack_provider_tgi.inference import TGIInference, get_adapter_impl

pytestmark = pytest.mark.anyio

LONG = "Count from one to one thousand, in words."
CHAT = "/v1/chat/completions"
Make = Callable[..., tuple[TGIStandIn, str]]
Run = Callable[..., Any]


def chat(stack: Stack, tokens: int = 8, **more: Any) -> Any:
    return stack.inference.chat_completion(
        model=MODEL, messages=[UserMessage(content=LONG)], sampling_params=SamplingParams(max_tokens=tokens), **more
    )


def text(stack: Stack, tokens: int = 8, **more: Any) -> Any:
    return stack.inference.completion(
        model=MODEL, content=LONG, sampling_params=SamplingParams(max_tokens=tokens), **more
    )


BOTH = pytest.mark.parametrize("call", [chat, text])


def sse(*data: str) -> Response:
    return Response("".join(f"data: {item}\n\n" for item in data), media_type="text/event-stream")


def chunk(content: str, finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return json.dumps({"choices": [choice]}, ensure_ascii=False)


def piece(content: str, finish: str | None = None) -> str:
    details = {"finish_reason": finish, "generated_tokens": 1, "input_length": 1, "seed": None} if finish else None
    token = {"id": 1, "text": content, "logprob": -1.0, "special": False}
    given = {"index": 1, "token": token, "generated_text": "x" if finish else None, "details": details}
    return json.dumps(given, ensure_ascii=False)


# ---- keys ------------------------------------------------------------------------------------------------------------


async def test_no_token_is_sent_that_is_not_for_it(
    tgi: Make, running: Run, token_of_the_machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_for: list[str] = []
    # Looking for one may call the Hub and write files.
    monkeypatch.setattr(
        "huggingface_hub.inference._providers.hf_inference.get_token", lambda: looked_for.append("a token")
    )
    stand_in, url = tgi()
    async with running(url=url) as stack:
        await chat(stack)
        await text(stack)
        with use_provider_data({"huggingface_api_token": "hf_client"}):
            await chat(stack)
            await text(stack, stream=True)
        await chat(stack)
    keys = [seen.headers.get("authorization") for seen in stand_in.seen if seen.body]
    assert keys == [None, None, "Bearer hf_client", "Bearer hf_client", None]
    assert not looked_for
    assert token_of_the_machine not in json.dumps([dict(seen.headers) for seen in stand_in.seen])


async def test_the_tokens_of_config_and_client(tgi: Make, running: Run, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    _, url = tgi(keys={"hf_operator", "hf_client"})
    async with running(url=url, api_token="hf_operator") as stack:
        await chat(stack)
        with use_provider_data({"huggingface_api_token": "hf_client"}):
            await chat(stack)
        with use_provider_data({"huggingface_api_token": "hf_wrong"}), pytest.raises(AuthenticationError) as refused:
            await chat(stack)
        assert refused.value.param == f"{PROVIDER_DATA_HEADER}.huggingface_api_token"
        assert "'p'" in refused.value.message
        with (
            use_provider_data({"huggingface_api_token": "hf\n1"}),
            pytest.raises(InvalidRequestError, match="printable"),
        ):
            await chat(stack)
        shown = f"{await stack.inspect.list_providers()} {await stack.inspect.health()} {refused.value!r}"
    async with running(url=url) as stack:
        with pytest.raises(AuthenticationError, match="no key was given; 'api_token' in its config, or 'hugg"):
            await text(stack, stream=True)
    for secret in ("hf_operator", "hf_client", "hf_wrong"):
        assert secret not in caplog.text + shown


async def test_a_token_that_may_not(tgi: Make, running: Run) -> None:
    stand_in, url = tgi()
    stand_in.answers.append(JSONResponse({"error": "This model is gated. Ask for access with hf_operator"}, 403))
    async with running(url=url, api_token="hf_operator") as stack:
        with pytest.raises(PermissionDeniedError, match=r"gated\. Ask for access with \*\*\*") as refused:
            await chat(stack)
    assert refused.value.param == "api_token"


# ---- answers that are errors -----------------------------------------------------------------------------------------


@BOTH
async def test_error_answers(tgi: Make, running: Run, call: Any) -> None:
    stand_in, url = tgi()
    async with running(url=url) as stack:
        for status, kind in (
            (424, BackendError),
            (500, BackendError),
            (503, ProviderUnavailableError),
            (422, InvalidRequestError),
        ):
            for stream in (False, True):
                stand_in.answers.append(JSONResponse({"error": "No more of it", "error_type": "such"}, status))
                before = len([seen for seen in stand_in.seen if seen.body])
                with pytest.raises(kind, match=f"answered {status}: No more of it") as failed:
                    await call(stack, stream=stream)
                assert type(failed.value) is kind
                assert failed.value.provider_id == "p"
                assert len([seen for seen in stand_in.seen if seen.body]) == before + 1
        stand_in.answers.append(Response(status_code=307, headers={"location": "https://elsewhere.test/x"}))
        with pytest.raises(BackendError, match="redirects to https://elsewhere.test/x"):
            await call(stack)
        assert await call(stack)


@BOTH
async def test_rate_limits_are_waited_for(tgi: Make, running: Run, call: Any) -> None:
    stand_in, url = tgi()
    overloaded = {"error": "Model is overloaded", "error_type": "overloaded"}
    as_event = overloaded if call is text else {"error": {"message": "Model is overloaded", "http_status_code": 429}}
    async with running(url=url, max_retries=1, max_retry_wait_s=1) as stack:
        stand_in.answers.append(JSONResponse(overloaded, 429, headers={"retry-after": "0"}))
        await call(stack)
        # A stream has a status already when it is refused.
        stand_in.answers.append(sse(json.dumps(as_event)))
        stream = await call(stack, stream=True)
        assert [item async for item in stream]
        stand_in.answers.append(JSONResponse(overloaded, 429, headers={"retry-after": "30"}))
        with pytest.raises(RateLimitError, match="Model is overloaded") as limited:
            await call(stack, stream=True)
        assert limited.value.retry_after == 30


async def test_a_stream_that_breaks_off_with_an_error(tgi: Make, running: Run) -> None:
    stand_in, url = tgi()
    async with running(url=url) as stack:
        fault = json.dumps({"error": "Request failed during generation: CUDA", "error_type": "generation"})
        stand_in.answers.append(sse(piece("one"), fault))
        stream = await text(stack, stream=True)
        assert (await anext(stream)).delta == "one"
        with pytest.raises(BackendError, match="broke off: Request failed during generation: CUDA"):
            await anext(stream)
        fault = json.dumps({"error": {"message": "CUDA is out of memory", "http_status_code": 424}})
        stand_in.answers.append(sse(chunk("one"), fault, "[DONE]"))
        stream = await chat(stack, stream=True)
        with pytest.raises(BackendError, match="broke off: CUDA is out of memory"):
            [event async for event in stream]


@BOTH
async def test_answers_that_make_no_sense(tgi: Make, running: Run, call: Any) -> None:
    stand_in, url = tgi()
    called = {"message": {"tool_calls": [{"function": 3}]}, "finish_reason": "stop"}
    async with running(url=url) as stack:
        for answer in (
            Response("<html>Welcome</html>", media_type="text/html"),
            JSONResponse({"choices": []}),
            JSONResponse([{"generated_text": "x"}]),
            JSONResponse({"generated_text": 5, "details": {}}),
            JSONResponse("x"),
            JSONResponse({"choices": [called]}),
        ):
            stand_in.answers.extend([answer, answer])
            with pytest.raises(BackendError):
                await call(stack)
            with pytest.raises(BackendError):
                [item async for item in await call(stack, stream=True)]
        assert await call(stack)


@BOTH
async def test_chunks_that_make_no_sense(tgi: Make, running: Run, call: Any) -> None:
    stand_in, url = tgi()
    good = piece("one") if call is text else chunk("one")
    async with running(url=url) as stack:
        for bad in ('{"choices": [{"del', "[1]", "5", '{"token": 3, "choices": 3}'):
            stand_in.answers.append(sse(good, bad))
            stream = await call(stack, stream=True)
            with pytest.raises(BackendError):
                [item async for item in stream]
        # It ends in order, but too early.
        stand_in.answers.append(sse(good))
        with pytest.raises(BackendError, match="ended the stream before the reply was complete"):
            [item async for item in await call(stack, stream=True)]


@BOTH
async def test_what_ends_a_line_elsewhere_is_text_here(tgi: Make, running: Run, call: Any) -> None:
    stand_in, url = tgi()
    separators = "a\u2028b\u0085c\u2029d"
    make = piece if call is text else chunk
    end = "eos_token" if call is text else "stop"
    blocks = "".join(f"data:{item}\r\n\r\n" for item in (make(separators), make("!", end), "[DONE]")).encode()

    async def byte_by_byte() -> AsyncIterator[bytes]:
        for at in range(len(blocks)):
            yield blocks[at : at + 1]

    stand_in.answers.append(StreamingResponse(byte_by_byte(), media_type="text/event-stream"))
    async with running(url=url) as stack:
        items = [item async for item in await call(stack, stream=True)]
    parts = [item.delta if call is text else item.event.delta for item in items]
    assert "".join(parts) == separators + "!"


async def test_a_tool_that_is_not_called_is_found_out(tgi: Make, running: Run) -> None:
    stand_in, url = tgi()
    tool = {"tools": [ToolDefinition(tool_name="weather")], "tool_choice": ToolChoice.required}
    async with running(url=url) as stack:
        reply = {"choices": [{"message": {"role": "assistant", "content": "No."}, "finish_reason": "stop"}]}
        stand_in.answers.append(JSONResponse(reply))
        with pytest.raises(NotSupportedError, match="ignored 'tool_choice'"):
            await chat(stack, **tool)
        # A call that is cut short is none, though its stream has ended in order.
        function = {"name": "weather", "arguments": '{"ci'}
        delta = {"role": "assistant", "tool_calls": [{"index": 0, "id": "0", "function": function}]}
        half = json.dumps({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        stand_in.answers.append(sse(half, "[DONE]"))
        with pytest.raises(BackendError, match="ended the stream before the reply was complete"):
            [event async for event in await chat(stack, stream=True, **tool)]


@pytest.mark.parametrize(("call", "cannot"), [(chat, "does not chat"), (text, "does not complete texts")])
async def test_a_server_without_a_route_for_the_call(tgi: Make, running: Run, call: Any, cannot: str) -> None:
    """A server of an embedding model has no route for chats."""
    stand_in, url = tgi()
    async with running(url=url) as stack:
        for status in (404, 405):
            for stream in (False, True):
                stand_in.answers.append(Response(status_code=status))
                with pytest.raises(NotSupportedError, match=f"{cannot}: .* answered {status}") as refused:
                    await call(stack, stream=stream)
                assert refused.value.param == "model"
        assert await call(stack)


async def test_what_is_no_tgi(tgi: Make, running: Run) -> None:
    _, url = tgi(is_tgi=False)
    async with running(url=url) as stack:
        with pytest.raises(ObjectNotFoundError, match="has no /info: is it a text-generation-inference server"):
            await chat(stack)


# ---- a backend that is not there -------------------------------------------------------------------------------------


async def test_a_backend_that_is_down_and_comes_back(
    tgi: Make, running: Run, faulty: Callable[[str], FaultProxy]
) -> None:
    _, url = tgi()
    proxy = faulty(url)
    async with running(url=proxy.url) as stack:
        await chat(stack)
        proxy.refuse()
        for call in (chat, text):
            for stream in (False, True):
                with pytest.raises(ProviderUnavailableError, match=f"connection refused at {proxy.url}"):
                    await call(stack, stream=stream)
        proxy.restore()
        with anyio.fail_after(10):
            while (await stack.models.list_models())[0].unavailable_reason:
                await anyio.sleep(0.05)
        assert (await chat(stack)).completion_message.content


async def test_a_host_that_is_not_known(running: Run) -> None:
    async with running(url="http://tgi.invalid:8080") as stack:
        with pytest.raises(ObjectNotFoundError, match="host name not known at http://tgi.invalid:8080"):
            await chat(stack)


@BOTH
async def test_a_backend_that_is_silent(
    tgi: Make, running: Run, faulty: Callable[[str], FaultProxy], call: Any
) -> None:
    _, url = tgi()
    proxy = faulty(url)
    async with running(url=proxy.url, timeout_s=0.5) as stack:
        proxy.drop_idle()
        proxy.delay_s = 30
        for stream in (False, True):
            with pytest.raises(ProviderTimeoutError, match=r"was silent for 0\.5 s"):
                await call(stack, stream=stream)
        proxy.restore()
        proxy.drop_idle()
        proxy.stall_after = 1200
        with pytest.raises(ProviderTimeoutError, match=r"was silent for 0\.5 s"):
            [item async for item in await call(stack, tokens=100, stream=True)]


@BOTH
async def test_a_stream_that_is_cut(tgi: Make, running: Run, faulty: Callable[[str], FaultProxy], call: Any) -> None:
    _, url = tgi()
    proxy = faulty(url)
    async with running(url=proxy.url) as stack:
        for fault, kind in (("cut_after", BackendError), ("reset_after", ProviderUnavailableError)):
            proxy.drop_idle()
            setattr(proxy, fault, 1200)
            seen = []
            with pytest.raises(kind):
                async for item in await call(stack, tokens=100, stream=True):
                    seen.append(item)
            assert seen
            proxy.restore()
            proxy.drop_idle()
            assert await call(stack)


# ---- a caller that gives up ------------------------------------------------------------------------------------------


async def working(llama: LlamaServer) -> None:
    with anyio.fail_after(10):
        while not await anyio.to_thread.run_sync(llama.working_on):
            await anyio.sleep(0.01)


async def idle(llama: LlamaServer) -> bool:
    return await anyio.to_thread.run_sync(llama.becomes_idle)


@BOTH
async def test_a_caller_that_is_cancelled(tgi: Make, running: Run, llama: LlamaServer, call: Any) -> None:
    stand_in, url = tgi()
    async with running(url=url) as stack:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: call(stack, tokens=900))
            await working(llama)
            tasks.cancel_scope.cancel()
        assert await idle(llama)
        assert await anyio.to_thread.run_sync(becomes, lambda: stand_in.disconnects)


@BOTH
async def test_a_stream_that_is_closed(tgi: Make, running: Run, llama: LlamaServer, call: Any) -> None:
    _, url = tgi()
    async with running(url=url) as stack:
        stream = await call(stack, tokens=900, stream=True)
        await working(llama)
        await stream.aclose()  # before its first piece
        await stream.aclose()
        assert await idle(llama)
        stream = await call(stack, tokens=900, stream=True)
        for _ in range(3):
            await anext(stream)
        await working(llama)
        await stream.aclose()
        assert await idle(llama)
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                async for _ in await call(stack, tokens=900, stream=True):
                    pass

            tasks.start_soon(read)
            await working(llama)
            tasks.cancel_scope.cancel()
        assert await idle(llama)


async def test_a_caller_that_is_cancelled_before_the_first_piece(
    tgi: Make, running: Run, llama: LlamaServer, faulty: Callable[[str], FaultProxy]
) -> None:
    _, url = tgi()
    proxy = faulty(url)
    async with running(url=proxy.url) as stack:
        proxy.drop_idle()
        proxy.stall_after = 0
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: chat(stack, tokens=900, stream=True))
            await working(llama)
            tasks.cancel_scope.cancel()
        assert await idle(llama)


async def test_nothing_stays_open(tgi: Make) -> None:
    _, url = tgi()
    provider = await get_adapter_impl(TGIConfig.model_validate({"url": url}), Deps(provider_id="p"))
    assert isinstance(provider, TGIInference)
    messages: Any = [UserMessage(content="Hello")]
    began = time.monotonic()
    for _ in range(5):
        stream: Any = await provider.chat_completion(MODEL, messages, SamplingParams(max_tokens=2), stream=True)
        assert [event async for event in stream]
        await provider.completion(MODEL, "Hello", SamplingParams(max_tokens=2))
    assert time.monotonic() - began < 30
    await provider.shutdown()
    await provider.shutdown()


async def test_instances_share_nothing(tgi: Make) -> None:
    (one, first), (two, second) = tgi(keys={"hf_one"}, model_id="a/one"), tgi(keys={"hf_two"}, model_id="b/two")
    stack = Stack.from_config(
        {
            "providers": {
                "inference": [
                    {"provider_id": name, "provider_type": "remote::tgi", "config": {"url": url, "api_token": token}}
                    for name, url, token in (("one", first, "hf_one"), ("two", second, "hf_two"))
                ]
            }
        }
    )
    async with stack:
        assert [model.identifier for model in await stack.models.list_models()] == ["a/one", "b/two"]
        for name in ("a/one", "b/two"):
            await stack.inference.completion(model=name, content="Hello", sampling_params=SamplingParams(max_tokens=2))
    assert one.last("/").headers["authorization"] == "Bearer hf_one"
    assert two.last("/").headers["authorization"] == "Bearer hf_two"

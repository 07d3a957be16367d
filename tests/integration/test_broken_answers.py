"""Broken answers, connections that end, and when to ask again, on every path to a backend."""

from __future__ import annotations

import json
import time
from pathlib import Path

import anyio
import pytest
from backends.scripted_http import CLOSE, RESET, ScriptedHttp, Steps, answer, scripted_http, sse
from paths_to_backends import ASK, BODY, WHOLE, Outcome, chunk, paths_to

from llamastack import LlamaStackClient
from llamastack.provider.errors import LlamaStackError

pytestmark = pytest.mark.anyio


# ---- broken answers -------------------------------------------------------------------------------------------------

_JSON = json.dumps(WHOLE)
BROKEN = [
    "{not json",
    "{}",
    "",
    "[]",
    "null",
    '"text"',
    _JSON[:-1],
    _JSON[:-30],
    _JSON + "}",
    '{"choices": 7}',
    '{"choices": [7]}',
    '{"choices": null}',
    "<html>",
    "\x00",
]


@pytest.mark.parametrize("stream", [False, True])
async def test_broken_json_is_not_passed_on(scripted_backend: ScriptedHttp, stream: bool) -> None:
    async with paths_to(scripted_backend) as paths:
        for body in BROKEN:
            for path, outcome in (await paths.all_of(answer(200, body), stream=stream)).items():
                assert outcome.status == 502, (path, body, outcome)
        paths.backend.routes["/embeddings"] = answer(200, WHOLE)
        reply = await paths.far.post("/v1/embeddings", json={"model": "p/m", "input": "a"})
        assert reply.status_code == 502


NO_HTTP: list[Steps] = [
    [b"220 mail.example ESMTP\r\n", CLOSE],
    [b"HTTP/1.1 200 OK\r\nX-Secret: hidden\r\nContent-Le", CLOSE],
    [b"HTTP/9.9 abc\r\n\r\n", CLOSE],
    [b"HTTP/1.1 2000 OK\r\n\r\n", CLOSE],
    [b"\x15\x03\x03\x00\x02\x02\x46", CLOSE],
    [CLOSE],
    [RESET],
    [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json\r\n\r\nzz\r\nhidden\r\n", CLOSE],
    [b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\nContent-Type: application/json\r\n\r\n{", CLOSE],
    [b"HTTP/1.1 200 OK\r\nContent-Length: x\r\nX-Secret: hidden\r\n\r\n{", CLOSE],
    [b"HTTP/1.1 200 OK\r\nX-Secret: " + b"hidden" * 5000 + b"\r\n\r\n", CLOSE],
    [b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\nhidden", CLOSE],
    [b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 6\r\n\r\nhidden", CLOSE],
]


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
@pytest.mark.parametrize("stream", [False, True])
async def test_a_backend_that_speaks_no_http(
    scripted_backend: ScriptedHttp, stream: bool, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "httpx":
        monkeypatch.setattr("llamastack_adapters.http_client.aiohttp_transport", lambda options, **more: None)
    async with paths_to(scripted_backend) as paths:
        for steps in NO_HTTP:
            for path, outcome in (await paths.all_of(steps, stream=stream)).items():
                assert outcome.status in (502, 503), (path, steps, outcome)
                for repr_of in ("hidden", "RawResponse", "b'", "<", "CIMultiDict", "Error", "mail.example", "aiohttp"):
                    assert repr_of not in outcome.message, (path, steps, outcome)


# ---- when to ask again ----------------------------------------------------------------------------------------------


async def test_when_to_ask_again_is_passed_on(scripted_backend: ScriptedHttp) -> None:
    async with paths_to(scripted_backend) as paths:
        for status, told_as in ((429, 429), (503, 503), (529, 503), (500, 502), (408, 504)):
            for given, wanted in (
                ({"Retry-After": "7"}, {"retry-after": "7"}),
                ({"retry-after-ms": "1500"}, {"retry-after": "2", "retry-after-ms": "1500"}),
                ({"x-should-retry": "false", "Retry-After": "7"}, {"x-should-retry": "false", "retry-after": "7"}),
                ({"x-should-retry": "true"}, {"x-should-retry": "true"}),
                ({"Retry-After": "-5"}, {"retry-after": "1"}),
                ({"Retry-After": "9" * 20}, {"retry-after": "86400"}),
                ({"Retry-After": "nan"}, {}),
                ({"Retry-After": "inf"}, {}),
                ({}, {}),
            ):
                paths.backend.routes["/chat/completions"] = answer(status, {"error": {"message": "no"}}, headers=given)
                for stream in (False, True):
                    for client, model in ((paths.far, "p/m"), (paths.near, "r/m")):
                        body = {**BODY, "model": model, "stream": stream}
                        for route in ("/v1/chat/completions", "/inference/chat_completion"):
                            reply = await client.post(route, json=body)
                            names = ("retry-after", "retry-after-ms", "x-should-retry")
                            got = {name: reply.headers[name] for name in names if name in reply.headers}
                            assert (reply.status_code, got) == (told_as, wanted), (given, route, stream)
                async with LlamaStackClient(str(paths.near.base_url)) as client:
                    with pytest.raises(LlamaStackError) as caught:
                        await client.inference.chat_completion(model="r/m", messages=ASK)
                    assert (caught.value.retry_after is None) == ("retry-after" not in wanted)


async def test_our_own_attempts_never_follow_at_once(scripted_backend: ScriptedHttp) -> None:
    async with paths_to(scripted_backend, max_retries=2) as paths:
        for wait in ("-5", "0", "0.001"):
            scripted_backend.received.clear()
            started = time.monotonic()
            outcome = await paths.all_of(
                answer(429, {"error": {"message": "no"}}, headers={"Retry-After": wait}), stream=False
            )
            assert {seen.status for seen in outcome.values()} == {429}
            assert time.monotonic() - started > 3 * 2 * 0.25
            assert len(scripted_backend.calls()) == 3 * 3 + 1  # what is forwarded its client tries again


# ---- connections ----------------------------------------------------------------------------------------------------


class UnqueuedTime:
    """Time less what the threads of this process, which the backend is part of, have waited for a busy machine."""

    thread_time = staticmethod(time.thread_time)

    @staticmethod
    def monotonic() -> float:
        tasks = Path("/proc/self/task").glob("*/schedstat")
        return time.monotonic() - sum(int(task.read_text().split()[1]) for task in tasks) / 1e9


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_many_streams_at_once_from_a_backend_that_closes_without_a_word(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if transport == "httpx":
        monkeypatch.setattr("llamastack_adapters.http_client.aiohttp_transport", lambda options, **more: None)
    monkeypatch.setattr("llamastack.http.connections.time", UnqueuedTime)
    steps = [*sse(chunk("Hello"), chunk(finish="stop"), "[DONE]"), 0.002, CLOSE]
    wrong: list[Outcome] = []
    with scripted_http() as backend:
        async with paths_to(backend) as paths:
            backend.routes["/chat/completions"] = steps

            async def ask(number: int) -> None:
                path = paths.forwarded if number % 2 else paths.natively
                outcome = await path(stream=True)
                if (outcome.status, outcome.text, outcome.message) != (200, "Hello", ""):
                    wrong.append(outcome)

            for _ in range(8):
                async with anyio.create_task_group() as group:
                    for number in range(48):
                        group.start_soon(ask, number)
    assert not wrong

"""A small POST request goes past aiohttp's session, a long one through it: the same to see from outside."""

from __future__ import annotations

import anyio
import httpx
import pytest
from backends.scripted_http import CLOSE, HOLD, RESET, ScriptedHttp, Steps, answer, chunked

from llamastack_adapters.pool import ConnectionPool

pytestmark = pytest.mark.anyio
TIMEOUT = httpx.Timeout(5, read=0.3)
HEADERS = {"Content-Type": "application/json", "X-Own": "1", "Host": "models.example", "User-Agent": "own"}
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n"


@pytest.fixture(params=[b"{}", b" " * 2**18 + b"{}"], ids=["small", "long"])
def body(request: pytest.FixtureRequest) -> bytes:
    found: bytes = request.param
    return found


@pytest.mark.parametrize(
    ("steps", "content"),
    [
        (answer(200, b"whole"), b"whole"),
        (answer(200, b""), b""),
        (answer(204, b"", content_type=None), b""),
        (answer(404, b"not there"), b"not there"),
        (answer(307, b"", headers={"Location": "/elsewhere", "Set-Cookie": "a=b"}), b""),
        (chunked(b"one", b"two", content_type="application/json"), b"onetwo"),
        (chunked(b"one", 0.02, b"two"), b"onetwo"),
        ([b"HTTP/1.1 200 OK\r\n\r\nuntil its end", CLOSE], b"until its end"),
        ([b"HTTP/1.1 100 Continue\r\n\r\n", HEAD + b"\r\nfour"], b"four"),
        ([HEAD + b"Connection: close\r\n\r\nfour", CLOSE], b"four"),
        ([step for byte in HEAD + b"\r\nfour" for step in (bytes([byte]), 0.0)], b"four"),
    ],
    ids=[
        "sized", "empty", "no-content", "error", "redirect", "chunks", "slow-chunks", "until-the-end", "continue",
        "closes", "bytes",
    ],
)  # fmt: skip
async def test_answers(scripted_backend: ScriptedHttp, body: bytes, steps: Steps, content: bytes) -> None:
    scripted_backend.answers.extend([steps, answer(200, b"next")])
    pool = ConnectionPool(timeout=TIMEOUT)
    for expected in (content, b"next"):
        reply = await pool.send("POST", f"{scripted_backend.url}/a%20b?c=d", HEADERS, body)
        assert await reply.read() == expected
        await reply.aclose()
    await pool.aclose()
    assert [seen.body for seen in scripted_backend.received] == [body, body]
    for seen in scripted_backend.received:
        own = {name: seen.headers.get(name) for name in ("content-type", "x-own", "host", "user-agent", "cookie")}
        assert own == {
            "content-type": "application/json", "x-own": "1", "host": "models.example", "user-agent": "own",
            "cookie": None,
        }  # fmt: skip
        assert seen.path == "/a%20b?c=d"
    closes = CLOSE in steps
    assert scripted_backend.connections == (2 if closes else 1)


@pytest.mark.parametrize(
    ("steps", "error"),
    [
        ([CLOSE], httpx.HTTPError),
        ([RESET], httpx.HTTPError),
        ([HOLD], httpx.ReadTimeout),
        ([HEAD, HOLD], httpx.ReadTimeout),
        ([HEAD, CLOSE], httpx.HTTPError),
        ([HEAD + b"\r\nfo", CLOSE], httpx.ReadError),
        ([HEAD + b"\r\nfo", RESET], httpx.HTTPError),
        ([HEAD + b"\r\nfo", HOLD], httpx.ReadTimeout),
        (chunked(b"one", CLOSE), httpx.ReadError),
        ([b"no HTTP\r\n\r\n", CLOSE], httpx.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2**17 + b"\r\n\r\n", CLOSE], httpx.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"], httpx.RemoteProtocolError),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", CLOSE], httpx.RemoteProtocolError),
    ],
)
async def test_failures(
    scripted_backend: ScriptedHttp, body: bytes, steps: Steps, error: type[httpx.HTTPError]
) -> None:
    scripted_backend.answers.extend([steps, answer(200, b"next")])
    pool = ConnectionPool(timeout=TIMEOUT)
    with pytest.raises(error) as raised:
        reply = await pool.send("POST", f"{scripted_backend.url}/x", HEADERS, body)
        try:
            await reply.read()
        finally:
            await reply.aclose()
    assert raised.value.request.url.path == "/x"
    again = await pool.send("POST", f"{scripted_backend.url}/x", HEADERS, body)
    assert await again.read() == b"next"
    await again.aclose()
    await pool.aclose()
    assert scripted_backend.connections == 2


async def test_an_answer_may_come_before_the_body_is_read(scripted_backend: ScriptedHttp, body: bytes) -> None:
    scripted_backend.greeting = [answer(413, b"too long")[0], CLOSE]
    pool = ConnectionPool(timeout=TIMEOUT)
    with anyio.fail_after(3):
        try:
            reply = await pool.send("POST", scripted_backend.url, HEADERS, body)
        except httpx.HTTPError:
            assert len(body) > 2**18  # only while a long body is written can the end of the connection be seen first
        else:
            assert (reply.status, await reply.read()) == (413, b"too long")
            await reply.aclose()
    await pool.aclose()


@pytest.mark.parametrize("begun", [[HOLD], [HEAD + b"\r\nfo", HOLD]], ids=["before-the-head", "within-the-body"])
async def test_a_cancelled_call_closes_its_connection(
    scripted_backend: ScriptedHttp, body: bytes, begun: Steps
) -> None:
    scripted_backend.answers.extend([begun, answer(200, b"next")])
    pool = ConnectionPool(timeout=httpx.Timeout(5), limits=httpx.Limits(max_connections=1))
    with anyio.move_on_after(0.2) as limit:
        reply = await pool.send("POST", scripted_backend.url, HEADERS, body)
        try:
            await reply.read()
        finally:
            await reply.aclose()
    assert limit.cancelled_caught
    with anyio.fail_after(3):
        again = await pool.send("POST", scripted_backend.url, HEADERS, body)
        assert await again.read() == b"next"
        await again.aclose()
    await pool.aclose()
    assert scripted_backend.connections == 2


async def test_calls_wait_for_a_free_connection(scripted_backend: ScriptedHttp, body: bytes) -> None:
    scripted_backend.default = chunked(b"one", 0.05, b"two", content_type="application/json")
    pool = ConnectionPool(timeout=httpx.Timeout(5), limits=httpx.Limits(max_connections=2))
    replies: list[bytes] = []

    async def call() -> None:
        reply = await pool.send("POST", scripted_backend.url, HEADERS, body)
        replies.append(await reply.read())
        await reply.aclose()

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(call)
    await pool.aclose()
    assert replies == [b"onetwo"] * 6
    assert scripted_backend.connections == 2


@pytest.mark.parametrize("value", ["a\r\nX-Other: b", "a\nb", "a\0b"])
async def test_a_header_cannot_begin_another_one(scripted_backend: ScriptedHttp, body: bytes, value: str) -> None:
    scripted_backend.default = answer(200, b"one")
    pool = ConnectionPool(timeout=TIMEOUT)
    for headers in (HEADERS, {"X-Own": value}, HEADERS):
        if headers is HEADERS:
            reply = await pool.send("POST", scripted_backend.url, headers, body)
            assert await reply.read() == b"one"
            await reply.aclose()
        else:
            with pytest.raises(ValueError, match="header"):
                await pool.send("POST", scripted_backend.url, headers, body)
    await pool.aclose()
    assert len(scripted_backend.received) == 2


async def test_a_pool_that_is_closed_sends_nothing(scripted_backend: ScriptedHttp, body: bytes) -> None:
    pool = ConnectionPool(timeout=TIMEOUT)
    scripted_backend.default = answer(200, b"one")
    reply = await pool.send("POST", scripted_backend.url, HEADERS, body)
    await reply.aclose()
    await pool.aclose()
    with pytest.raises((RuntimeError, httpx.HTTPError)):
        await pool.send("POST", scripted_backend.url, HEADERS, body)
    assert len(scripted_backend.received) == 1

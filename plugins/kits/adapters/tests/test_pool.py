"""ConnectionPool with a backend, by the session of aiohttp and by httpx alone: the same to see from outside."""

from __future__ import annotations

import gc
import gzip
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import anyio
import httpx
import pytest
from backends.scripted_http import ScriptedHttp
from backends.scripted_http import answer as scripted_answer
from backends.serving import serving
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from llamastack_adapters.http_client import http_client
from llamastack_adapters.pool import ConnectionPool

pytestmark = pytest.mark.anyio
TIMEOUT = httpx.Timeout(5, read=0.5)


async def echo(request: Request) -> Response:
    body = (await request.body()).decode()
    return JSONResponse({"method": request.method, "body": body, "own": request.headers.get("x-own")}, 418)


async def packed(request: Request) -> Response:
    return Response(gzip.compress(b"unpacked " * 1000), headers={"Content-Encoding": "gzip"})


async def elsewhere(request: Request) -> Response:
    return Response(status_code=307, headers={"Location": "/echo", "Set-Cookie": "a=b"})


async def cookies(request: Request) -> Response:
    return JSONResponse(dict(request.cookies))


async def stalls(request: Request) -> Response:
    async def blocks() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"
        await anyio.sleep(30)

    return StreamingResponse(blocks())


async def silent(request: Request) -> Response:
    await anyio.sleep(30)
    return Response()


APP = Starlette(
    routes=[
        Route(f"/{function.__name__}", function, methods=["GET", "POST"])
        for function in (echo, packed, elsewhere, cookies, stalls, silent)
    ]
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving(APP) as found:
        yield found


@pytest.fixture(params=["aiohttp", "httpx"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """httpx alone: as where httpx-aiohttp is not installed, or a proxy is asked for."""
    if request.param == "httpx":
        monkeypatch.setattr("llamastack_adapters.http_client.aiohttp_transport", lambda options: None)
    return str(request.param)


async def test_an_answer(url: str, transport: str) -> None:
    exchanges = ConnectionPool(timeout=TIMEOUT)
    answer = await exchanges.send("POST", f"{url}/echo", {"X-Own": "1", "Content-Type": "text/plain"}, b"hello")
    assert answer.status == 418
    assert answer.headers["CONTENT-TYPE"] == "application/json"
    assert await answer.read() == b'{"method":"POST","body":"hello","own":"1"}'
    await answer.aclose()
    empty = await exchanges.send("GET", f"{url}/echo", {}, None)
    assert b'"body":""' in await empty.read()
    await empty.aclose()
    await exchanges.aclose()
    await exchanges.aclose()


async def test_a_body_is_unpacked(url: str, transport: str) -> None:
    exchanges = ConnectionPool(timeout=TIMEOUT)
    for read_whole in (True, False):
        answer = await exchanges.send("GET", f"{url}/packed", {}, None)
        content = await answer.read() if read_whole else b"".join([block async for block in answer.blocks()])
        assert content == b"unpacked " * 1000
        await answer.aclose()
    await exchanges.aclose()


async def test_redirects_are_not_followed_and_cookies_not_kept(url: str, transport: str) -> None:
    exchanges = ConnectionPool(timeout=TIMEOUT)
    answer = await exchanges.send("POST", f"{url}/elsewhere", {}, b"secret")
    assert (answer.status, answer.headers["location"]) == (307, "/echo")
    await answer.aclose()
    kept = await exchanges.send("GET", f"{url}/cookies", {}, None)
    assert await kept.read() == b"{}"
    await kept.aclose()
    await exchanges.aclose()


async def test_failures_are_httpxs_with_their_request(url: str, transport: str, free_tcp_port: int) -> None:
    exchanges = ConnectionPool(timeout=TIMEOUT)
    with pytest.raises(httpx.TransportError) as refused:
        await exchanges.send("GET", f"http://127.0.0.1:{free_tcp_port}/x", {}, None)
    assert refused.value.request.url.port == free_tcp_port
    answer = await exchanges.send("GET", f"{url}/stalls", {}, None)
    came = b""
    with pytest.raises(httpx.ReadTimeout) as silent:
        async for block in answer.blocks():
            came += block
    assert came == b"onetwo"
    assert silent.value.request.url.path == "/stalls"
    await answer.aclose()
    await exchanges.aclose()


async def test_an_answer_that_is_let_go_of_leaves_the_pool_usable(url: str, transport: str) -> None:
    exchanges = ConnectionPool(timeout=TIMEOUT, limits=httpx.Limits(max_connections=1))
    for _ in range(3):
        answer = await exchanges.send("GET", f"{url}/stalls", {}, None)
        async for block in answer.blocks():
            assert block
            break
        with anyio.fail_after(2):
            await answer.aclose()
    await exchanges.aclose()


async def test_a_failure_keeps_no_body(url: str) -> None:
    """By the session of aiohttp: else each would stay until garbage is collected."""
    exchanges = ConnectionPool(timeout=TIMEOUT)
    body = bytes(1000)

    gc.collect()
    gc.disable()
    try:
        before = sys.getrefcount(body)
        with suppress(httpx.ReadTimeout):
            await exchanges.send("POST", f"{url}/silent", {}, body)
        assert sys.getrefcount(body) == before
    finally:
        gc.enable()
        await exchanges.aclose()


@pytest.mark.parametrize("size", [1, 2**18, 2**18 + 1, 3 * 2**20 + 7])
async def test_a_body_of_any_size_arrives_whole(scripted_backend: ScriptedHttp, transport: str, size: int) -> None:
    scripted_backend.default = scripted_answer(200, {})
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    exchanges = ConnectionPool(timeout=httpx.Timeout(30))
    answer = await exchanges.send("POST", scripted_backend.url, {}, body)
    assert answer.status == 200
    await answer.aclose()
    await exchanges.aclose()
    async with http_client() as client:
        assert (await client.post(scripted_backend.url, content=body)).status_code == 200
    assert [received.body for received in scripted_backend.received] == [body, body]

"""Limits of requests: their heads, the bodies of all together, requests in a row."""

from __future__ import annotations

import json
import time

import anyio
import httpx
import pytest
from raw_client import RawClient, RawClients, request
from scripted_stacks import Scripts
from served_stack import served_script

from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
KIB = 2**10
LIMIT = 64 * KIB


def head_of(size: int, path: str = "/health") -> bytes:
    """A head of so many bytes, to its last one."""
    short = request("GET", path, b"", "X: ")
    return short.replace(b"X: ", b"X: " + b"a" * (size - len(short)))


def error_of(asked: RawClient, path: str) -> str:
    """The message of a refusal, in the form of its path."""
    error = json.loads(asked.body)["error"]
    assert error["code"] == "request_head_too_large"
    assert error["request_id"] in asked.head
    assert "connection: close" in asked.head
    if path.startswith("/v1"):
        assert error["type"] == "invalid_request_error"
    return str(error["message"])


@pytest.mark.parametrize("path", ["/health", "/v1/models", "/nothing"])
async def test_the_largest_head_and_one_byte_more(discovery: Discovery, script: Scripts, path: str) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        fits = await raw.ask(head_of(LIMIT, path))
        assert fits.statuses == [404 if path == "/nothing" else 200]
        over = await raw.ask(head_of(LIMIT + 1, path))
        assert over.statuses == [431]
        assert "over the limit of 65536 bytes (server.max_head_bytes)" in error_of(over, path)


MIB = 2**20
HEADS = {
    "one header": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40 * MIB,
    "many headers": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"a:\r\n" * (10 * MIB),
    "a name": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\n" + b"a" * 40 * MIB,
    "spaces": b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX:" + b" " * 40 * MIB,
    "a target": b"GET /v1/models?" + b"a" * 40 * MIB,
    "empty lines": b"\r\n" * (20 * MIB),
}


@pytest.mark.parametrize("kind", HEADS)
async def test_a_huge_head_is_refused_at_once(discovery: Discovery, script: Scripts, kind: str) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw, anyio.create_task_group() as group:
        asked = await raw.open()
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                before = time.monotonic()
                await anyio.sleep(0.001)
                longest = max(longest, time.monotonic() - before)

        group.start_soon(watch)
        data = HEADS[kind]
        for start in range(0, len(data), MIB):  # client and server share this loop
            if not await asked.send(data[start : start + MIB]):
                break
        await asked.read()
        group.cancel_scope.cancel()
        assert asked.statuses == [431]
        error_of(asked, "/health" if kind == "empty lines" else "/v1/models")
        assert longest < 0.3
        assert (await client.get("/health")).status_code == 200


async def test_a_head_that_comes_in_small_parts(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery, server={"max_head_bytes": 300}) as client, RawClients(client) as raw:
        for size, status in ((300, 200), (301, 431)):
            asked = await raw.open()
            for byte in head_of(size):
                await asked.send(bytes([byte]))
                await anyio.sleep(0)
            await asked.read()
            assert asked.statuses == [status]


async def test_a_refusal_ends_although_the_client_sends_on(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        asked = await raw.open(head_of(LIMIT + 1))
        with anyio.fail_after(10):
            while await asked.send(b"x" * 1000):
                await anyio.sleep(0.05)


async def test_a_body_of_any_size_has_a_small_head(discovery: Discovery, script: Scripts) -> None:
    """What comes in one block with a head does not count as head, nor does a large body before the next request."""
    script("a")
    text = "x" * 300 * KIB
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": text}]}).encode()
    posted = request("POST", "/inference/chat_completion", body).replace(b"Connection: close\r\n", b"")
    async with served_script(discovery, server={"max_head_bytes": 1000}) as client, RawClients(client) as raw:
        asked = await raw.ask(posted + posted + request("GET", "/health"))
        assert asked.statuses == [200, 200, 200]


def chunked(path: str) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    )


@pytest.mark.parametrize("path", ["/inference/chat_completion", "/v1/chat/completions"])
@pytest.mark.parametrize(
    ("kind", "start", "more"),
    [
        ("an extension", b"1;a=", b"x" * 50_000),
        ("many extensions", b"", b"1;a=" + b"x" * 5000 + b"\r\n \r\n"),
        ("one trailer", b"0\r\nX: ", b"x" * 50_000),
        ("many trailers", b"0\r\n", b"x: y\r\n" * 10_000),
    ],
)
async def test_what_comes_with_chunks_has_the_same_limit(
    discovery: Discovery, script: Scripts, path: str, kind: str, start: bytes, more: bytes
) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        asked = await raw.open(chunked(path))
        await anyio.sleep(0.05)
        await asked.send(start)
        for _ in range(200):
            if not await asked.send(more):
                break
        await asked.read()
        assert asked.statuses == [431]
        assert "chunk extensions or trailers (server.max_head_bytes)" in error_of(asked, path)


async def test_a_body_in_chunks_of_one_byte(discovery: Discovery, script: Scripts) -> None:
    script("a")
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": "x" * 100_000}]}).encode()
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body) + b"0\r\n\r\n"
    async with served_script(discovery, server={"max_head_bytes": 500}) as client, RawClients(client) as raw:
        asked = await raw.open(chunked("/inference/chat_completion"))
        for start in range(0, len(chunks), 10_000):
            await asked.send(chunks[start : start + 10_000])
        await asked.read()
        assert asked.statuses == [200]


async def test_trailers_are_no_headers(discovery: Discovery, script: Scripts) -> None:
    script("a")
    body = json.dumps(CHAT).encode()
    for trailer in (b"X-LlamaStack-ProviderData: no json", b"X-Request-ID: forged", b"Host: evil.example"):
        chunks = b"%x\r\n%b\r\n0\r\n%b\r\n\r\n" % (len(body), body, trailer)
        async with served_script(discovery) as client, RawClients(client) as raw:
            asked = await raw.ask(chunked("/inference/chat_completion") + chunks)
            assert asked.statuses == [200]
            assert "forged" not in asked.head


async def test_requests_in_a_row_beyond_any_use(discovery: Discovery, script: Scripts) -> None:
    """Each would wait in memory for the reply to the one before it."""
    a = script("a", piece_delay_s=0.5)
    slow = request("POST", "/inference/chat_completion", json.dumps(CHAT).encode()).replace(
        b"Connection: close\r\n", b""
    )
    quick = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with served_script(discovery) as client, RawClients(client) as raw:
        few = await raw.ask(slow + quick * 200 + request("GET", "/health"))
        assert few.statuses == [200] * 202
        many = await raw.open(slow)
        await anyio.sleep(0.1)
        assert a.in_flight == 1
        for _ in range(20):
            if not await many.send(quick * 1000):
                break
        await many.read()
        assert len(many.statuses) <= 1
        with anyio.fail_after(5):
            while a.in_flight:
                await anyio.sleep(0.01)


# ---- the bodies of all -----------------------------------------------------------------------------------------------


def chat_of(size: int, path: str = "/inference/chat_completion") -> tuple[str, bytes]:
    body = json.dumps({**CHAT, "messages": [{"role": "user", "content": ""}]})
    return path, body.replace('""', f'"{"x" * (size - len(body))}"').encode()


@pytest.mark.parametrize("in_chunks", [False, True])
@pytest.mark.parametrize("path", ["/inference/chat_completion", "/v1/chat/completions"])
async def test_large_bodies_together_have_a_limit(
    discovery: Discovery, script: Scripts, path: str, in_chunks: bool
) -> None:
    a = script("a", piece_delay_s=1)
    _, body = chat_of(3 * MIB, path)
    replies: list[httpx.Response] = []
    async with served_script(discovery, server={"max_buffered_bytes": 10 * MIB}) as client:

        async def parts() -> object:  # type: ignore[misc]
            for start in range(0, len(body), 100_000):
                yield body[start : start + 100_000]

        async def ask() -> None:
            replies.append(await client.post(path, content=parts() if in_chunks else body))

        async with anyio.create_task_group() as group:
            for _ in range(8):
                group.start_soon(ask)
            with anyio.fail_after(5):
                while a.in_flight < 2:
                    await anyio.sleep(0.01)
            # A small one finds room.
            assert (await client.post(path, json=CHAT)).status_code == 200
        assert sorted(reply.status_code for reply in replies) == [200] * 2 + [503] * 6
        for reply in replies:
            if reply.status_code == 503:
                error = reply.json()["error"]
                assert error["code"] == "server_busy"
                assert "server.max_buffered_bytes" in error["message"]
                assert int(reply.headers["retry-after"]) >= 1
                assert ("type" in error) is path.startswith("/v1")
        # All room is there again.
        replies.clear()
        async with anyio.create_task_group() as group:
            for _ in range(2):
                group.start_soon(ask)
        assert [reply.status_code for reply in replies] == [200, 200]


async def test_room_comes_back_whatever_becomes_of_a_request(discovery: Discovery, script: Scripts) -> None:
    a = script("a", pieces=10_000, piece_delay_s=0.01)
    path, body = chat_of(700 * KIB)
    half = request("POST", path, body)[: 400 * KIB]
    settings = {"max_buffered_bytes": MIB, "body_timeout_s": 0.5}
    async with served_script(discovery, server=settings) as client, RawClients(client) as raw:
        for _ in range(3):
            gone = await raw.open(half)
            await anyio.sleep(0.05)
            await anyio.aclose_forcefully(gone.stream)  # in the middle of a body
            silent = await raw.ask(half)  # as long as its time allows
            assert silent.statuses == [408]
            assert (await client.post(path, content=b"{" + body)).status_code == 400
            assert (await client.post(path, content=body.replace(b'"m"', b'"n"'))).status_code == 404
            big = {"content": body, "headers": {"X-LlamaStack-ProviderData": "none"}}
            assert (await client.post("/models/register", **big)).status_code == 400  # type: ignore[arg-type]
            streamed = body.replace(b"{", b'{"stream": true, ', 1)
            async with client.stream("POST", path, content=streamed) as reply:  # a client that goes away
                async for _ in reply.aiter_lines():
                    break
            with anyio.fail_after(5):
                while a.in_flight:
                    await anyio.sleep(0.01)
        a.piece_delay_s = 0
        reply = await client.post(path, content=body)
        assert reply.status_code == 200, reply.text


@pytest.mark.parametrize("header", ['{"scripted_api_key": "k"}', "none"])
async def test_nothing_of_a_request_with_a_large_body_is_left_to_the_next(
    discovery: Discovery, script: Scripts, header: str
) -> None:
    """Its body is read in parts, and reading goes on in the middle of the request."""
    a = script("a")
    path, body = chat_of(MIB)
    async with served_script(discovery) as client:
        first = await client.post(path, content=body, headers={"X-LlamaStack-ProviderData": header})
        assert first.status_code == (400 if header == "none" else 200)
        for _ in range(3):
            assert (await client.post(path, json=CHAT)).status_code == 200
    assert [data for name, data in a.calls if name == "request_data"][-3:] == [None] * 3


async def test_what_is_only_announced_takes_no_room(discovery: Discovery, script: Scripts) -> None:
    script("a")
    path, body = chat_of(700 * KIB)
    async with served_script(discovery, server={"max_buffered_bytes": MIB}) as client, RawClients(client) as raw:
        for _ in range(5):
            await raw.open(request("POST", path, body)[:1000])
        await anyio.sleep(0.1)
        assert (await client.post(path, content=body)).status_code == 200


async def test_a_body_that_can_never_have_room_is_too_large(discovery: Discovery, script: Scripts) -> None:
    script("a")
    path, body = chat_of(2 * MIB)
    async with served_script(discovery, server={"max_buffered_bytes": MIB}) as client:
        reply = await client.post(path, content=body)
        assert reply.status_code == 413
        assert "server.max_buffered_bytes" in reply.json()["error"]["message"]


async def test_many_digits_of_a_length(discovery: Discovery, script: Scripts) -> None:
    script("a")
    async with served_script(discovery) as client, RawClients(client) as raw:
        for digits in ("9" * 18, "9" * 5000):
            asked = await raw.ask(request("POST", "/v1/chat/completions", b"", f"Content-Length: {digits}"))
            assert asked.statuses in ([413], [400])


UPGRADE = ("Connection: keep-alive, Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__")


def asking_for_http2(*, chunked: bool = False) -> bytes:
    """As the HTTP client of Java sends it: with a body, and on a connection that stays open."""
    body = json.dumps(CHAT).encode()
    whole = request("POST", "/v1/chat/completions", body, *UPGRADE).replace(b"Connection: close\r\n", b"")
    if chunked:
        head = whole.removesuffix(body).replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
        return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    return whole


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_request_that_asks_for_another_protocol_keeps_its_body(
    discovery: Discovery, script: Scripts, chunked: bool
) -> None:
    script("a")
    asks, last = asking_for_http2(chunked=chunked), request("GET", "/health")
    async with served_script(discovery) as client, RawClients(client) as raw:
        assert (await raw.ask(asks + last)).statuses == [200, 200]
        assert (await raw.ask(asks * 50 + last)).statuses == [200] * 51
        parted = await raw.open(asks[:60])
        for part in (asks[60:200], asks[200:-10], asks[-10:] + last):
            await anyio.sleep(0.02)
            await parted.send(part)
        await parted.read()
        assert parted.statuses == [200, 200]
        assert (await raw.ask(b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n")).statuses == [400]

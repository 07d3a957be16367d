"""The scripted backend that other tests rely on."""

from __future__ import annotations

import httpx
import pytest
from backends.scripted_http import CLOSE, RESET, ScriptedHttp, answer, chunked, scripted_http, sse

pytestmark = pytest.mark.anyio


async def test_it_answers_in_turn_and_keeps_what_it_was_sent(scripted_backend: ScriptedHttp) -> None:
    backend = scripted_backend
    backend.answers += [
        answer(429, {"error": "slow"}, headers={"Retry-After": "3"}),
        sse({"a": 1}, 0.01, b": c\n\n", "[DONE]"),
        lambda request: answer(200, request.body, content_type=None),
    ]
    async with httpx.AsyncClient(base_url=backend.url) as http:
        assert (await http.get("/v1/models")).json()["data"][0]["id"] == "m"
        refused = await http.post("/x", json={"q": 1})
        assert (refused.status_code, refused.headers["retry-after"], refused.json()) == (429, "3", {"error": "slow"})
        streamed = await http.post("/x")
        assert streamed.content == b'data: {"a": 1}\n\n: c\n\ndata: [DONE]\n\n'
        echoed = await http.post("/x", content=iter_blocks())
        assert (echoed.content, "content-type" in echoed.headers) == (b"onetwo", False)
        assert (await http.post("/x")).status_code == 404
    assert backend.last("/x").connection == 1
    assert backend.connections == 1
    assert backend.calls()[0].json == {"q": 1}


async def iter_blocks():  # type: ignore[no-untyped-def]
    yield b"one"
    yield b"two"


async def test_it_breaks_off(scripted_backend: ScriptedHttp) -> None:
    backend = scripted_backend
    backend.answers += [[b"HTTP/1.1 200 OK\r\nContent-Len", CLOSE], chunked(b"one", CLOSE), chunked(b"one", RESET)]
    async with httpx.AsyncClient(base_url=backend.url) as http:
        for _ in range(3):
            with pytest.raises(httpx.TransportError):
                await http.post("/x")
    assert backend.connections == 3


async def test_it_need_not_speak_http() -> None:
    with scripted_http(greeting=[b"220 mail.example ESMTP\r\n", CLOSE]) as backend:
        async with httpx.AsyncClient(base_url=backend.url) as http:
            with pytest.raises(httpx.TransportError):
                await http.get("/x")

"""The tap between a provider and its backend: what it records, and what it puts in the place of answers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("kill_table")]
sys.path.insert(0, str(Path(__file__).parent))

from scripted_openai import MODEL, scripted_openai  # noqa: E402

from llamastack_conformance.backend_tap import answer, tap  # noqa: E402
from llamastack_conformance.gate import Gate  # noqa: E402
from llamastack_conformance.replaying import repeated  # noqa: E402

BODY: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def backend() -> Iterator[str]:
    with scripted_openai() as url:
        yield url


async def test_each_answer_is_recorded_with_its_request(backend: str) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        for limit in (1, 2):
            reply = await client.post("/chat/completions", json={**BODY, "max_tokens": limit})
            recorded = made.exchanges[-1]
            assert f'"max_tokens":{limit}'.encode() in recorded.request.body
            assert bytes(recorded.answer).endswith(reply.content)
            assert bytes(recorded.answer).startswith(b"HTTP/1.1 200")
        assert (len(made.exchanges), made.connections) == (2, 1)


async def test_a_recorded_answer_can_be_injected_byte_by_byte(backend: str) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        first = await client.post("/chat/completions", json={**BODY, "stream": True})
        recorded = bytes(made.exchanges[-1].answer)
        made.disturb(inject=lambda _: [bytes([byte]) for byte in recorded])
        async with client.stream("POST", "/chat/completions", json=BODY) as again:
            blocks = [block async for block in again.aiter_raw()]
        assert b"".join(blocks) == first.content
        assert max(map(len, blocks)) < 64
        assert len(made.exchanges) == 1


@pytest.mark.parametrize(("wanted", "most", "is_met"), [(4, 4, True), (5, 4, False)])
async def test_requests_wait_for_each_other_at_a_gate(backend: str, wanted: int, most: int, is_met: bool) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        gate = Gate(wanted, within_s=10 if is_met else 0.3)
        made.disturb(gate=gate)
        async with anyio.create_task_group() as group:
            for _ in range(4):
                group.start_soon(client.get, "/models")
        await client.get("/models")  # the gate is open now
        assert (gate.most, gate.is_met, made.connections) == (most, is_met, 4)


async def test_what_was_asked_before_is_answered_as_before(backend: str) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        first = await client.post("/chat/completions", json=BODY)
        await client.post("/chat/completions", json={**BODY, "model": "not-there"})
        made.disturb(inject=await repeated(made.exchanges))
        again = await client.post("/chat/completions", json=BODY)
        assert (again.content, len(made.exchanges)) == (first.content, 2)
        for other in ({**BODY, "max_tokens": 1}, {**BODY, "model": "not-there"}):
            await client.post("/chat/completions", json=other)
        assert len(made.exchanges) == 4


async def test_an_injected_answer_has_its_media_type(backend: str) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        made.disturb(inject=lambda _: answer(503, "<html></html>", media_type="text/html", retry_after="1"))
        reply = await client.get("/models")
    assert (reply.status_code, reply.text) == (503, "<html></html>")
    assert (reply.headers["content-type"], reply.headers["retry-after"]) == ("text/html", "1")


async def test_an_injected_answer_can_be_cut_or_held(backend: str) -> None:
    async with tap(backend) as made, httpx.AsyncClient(base_url=made.url) as client:
        whole = answer(200, "x" * 100)
        made.disturb(inject=lambda _: whole, cuts=True)
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/models")
        made.disturb(inject=lambda request: whole if b"/models" in request.head else None, holds=True, hangs=True)
        for path in ("/models", "/other"):
            with pytest.raises(httpx.ReadTimeout):
                await client.get(path, timeout=0.2)
        assert (made.holding, len(made.exchanges)) == (2, 0)

"""Where documents come from: text, data: URLs, and a real HTTP server."""

from __future__ import annotations

import base64
import socket
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import anyio
import pytest

from llamastack.api.common import ImageMedia
from llamastack.api.memory import MemoryBankDocument
from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import InvalidRequestError
from llamastack_provider_qdrant.memory import QdrantMemory

pytestmark = pytest.mark.anyio


class Site(BaseHTTPRequestHandler):
    """Some pages; /slow answers after a second, /endless never ends."""

    def log_message(self, format: str, *args: Any) -> None: ...

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/slow":
            time.sleep(1)
        status, kind, body = {
            "/good": (200, "text/plain; charset=latin-1", "Ein schöner Text über Katzen".encode("latin-1")),
            "/slow": (200, "text/plain", b"late"),
            "/image": (200, "image/png", b"\x89PNG"),
            "/broken": (200, "text/plain", b"\xff\xfe\xfa"),
            "/large": (200, "text/plain", b"x" * 5000),
            "/moved": (302, "text/html", b"<a>moved</a>"),
        }.get(path, (404, "text/html", b"<h1>Not found</h1>"))
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        if status == 302:
            self.send_header("location", "/good")
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            assert path == "/slow"


@pytest.fixture
def site(serve: Any) -> str:
    return str(serve(Site))


@pytest.fixture
async def memory(start: Any) -> QdrantMemory:
    memory: QdrantMemory = await start(
        location=":memory:", max_document_bytes=4000, fetch_timeout=0.5, allow_private_urls=True
    )
    await memory.register_memory_bank(
        VectorMemoryBank(identifier="b", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)
    )
    return memory


async def contents(memory: QdrantMemory) -> list[object]:
    return [chunk.content for chunk in (await memory.query_documents("b", "text", {"max_chunks": 10})).chunks]


async def insert(memory: QdrantMemory, *contents: Any) -> None:
    await memory.insert_documents(
        "b", [MemoryBankDocument(document_id=f"d{i}", content=content) for i, content in enumerate(contents)]
    )


@pytest.mark.parametrize("page", ["/good", "/good?token=secret", "/moved"])
async def test_a_page_is_fetched(memory: QdrantMemory, site: str, page: str) -> None:
    await insert(memory, site + page)
    assert await contents(memory) == ["Ein schöner Text über Katzen"]


async def test_data_urls_and_lists_of_text(memory: QdrantMemory) -> None:
    encoded = base64.b64encode("grüße".encode()).decode()
    await insert(memory, f"data:text/plain;base64,{encoded}", ["one", "two"])
    assert sorted(map(str, await contents(memory))) == ["grüße", "one\ntwo"]


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("/gone?token=secret", "answered 404"),
        ("/image", "'image/png' are not supported"),
        ("/broken", "not text"),
        ("/large", "larger than 4000 bytes"),
        ("/slow", "did not answer within 0.5 s|cannot be fetched: ReadTimeout"),
    ],
)
async def test_a_page_that_cannot_be_had_stores_nothing(
    memory: QdrantMemory, site: str, page: str, message: str
) -> None:
    with pytest.raises(InvalidRequestError, match=message) as caught:
        await insert(memory, "fine", site + page)
    assert caught.value.param == "documents[1].content"
    assert "secret" not in caught.value.message
    assert await contents(memory) == []


async def test_an_unreachable_url_stores_nothing(memory: QdrantMemory) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    for url in (f"http://127.0.0.1:{port}/x", "http://nowhere.invalid/x"):
        with pytest.raises(InvalidRequestError) as caught:
            await insert(memory, "fine", url)
        assert caught.value.param == "documents[1].content"
    assert await contents(memory) == []


@pytest.mark.parametrize(
    "content",
    [
        "file:///etc/passwd",
        "data:text/plain;base64,@@@",
        "data:image/png;base64,AA==",
        ImageMedia(image="http://127.0.0.1/x.png"),
        "x" * 4001,
        "ü" * 2001,
        "\ud800",
    ],
)
async def test_content_that_is_no_text_stores_nothing(memory: QdrantMemory, content: Any) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await insert(memory, "fine", content)
    assert str(caught.value.param).startswith("documents[1].content")
    assert await contents(memory) == []


async def test_an_id_twice_in_one_call_is_refused(memory: QdrantMemory) -> None:
    twice = [MemoryBankDocument(document_id=name, content="text") for name in ("a", "b", "a")]
    with pytest.raises(
        InvalidRequestError, match=r"documents\[2\].document_id: 'a' is also the id of documents\[0\]"
    ) as caught:
        await memory.insert_documents("b", twice)
    assert caught.value.param == "documents[2].document_id"
    assert await contents(memory) == []


async def test_a_cancelled_insert_stores_nothing(memory: QdrantMemory) -> None:
    with anyio.move_on_after(0.2) as scope:
        await insert(memory, *(["word " * 700] * 100))
    assert scope.cancelled_caught
    assert await contents(memory) == []


async def test_documents_without_text_have_no_chunks(memory: QdrantMemory) -> None:
    await insert(memory, "", " \n ", "text")
    assert await contents(memory) == ["text"]

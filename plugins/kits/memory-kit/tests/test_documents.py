"""Document content: text, data: URLs, fetched URLs; what cannot be read is refused and never stored."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
import pytest

from llamastack.api import ImageMedia
from llamastack.provider.errors import InvalidRequestError
from llamastack_memory_kit.documents import document_text

pytestmark = pytest.mark.anyio


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        status, kind, body = {
            "/text": (200, "text/plain; charset=latin-1", "caf\xe9".encode("latin-1")),
            "/big": (200, "text/plain", b"x" * 5000),
            "/png": (200, "image/png", b"\x89PNG"),
            "/odd": (300, "text/html", b"<html>choose</html>"),
            "/moved": (302, "text/html", b"<html>moved</html>"),
            "/circle": (302, "text/html", b"<html>moved</html>"),
        }.get(self.path, (404, "text/html", b"<html>not here</html>"))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if status == 302:
            self.send_header("Location", {"/moved": "/text"}.get(self.path, self.path))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Pages)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


async def read(content: Any, **options: Any) -> str:
    async with httpx.AsyncClient() as client:
        return await document_text(content, client, **({"allow_private": True} | options))


async def test_text_is_itself(site: str) -> None:
    assert await read("plain text") == "plain text"
    assert await read(["a", "b"]) == "a\nb"
    for text in (
        "see http://example.org",
        "data: the new oil",
        "data: a/b; c, d",
        "data:a; b, c",
        "http://example.org is a site",
        "data:text/plain",
    ):
        assert await read(text) == text
    assert await read(f"{site}/text") == "café"
    assert await read(f"{site}/moved") == "café"


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("data:,a%20b", "a b"),
        ("data:text/plain;base64," + base64.b64encode("é".encode()).decode(), "é"),
        ("data:text/plain;charset=latin-1,%E9", "é"),
        ("data:application/json,{}", "{}"),
    ],
)
async def test_data_urls(url: str, text: str) -> None:
    assert await read(url) == text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("data:text/plain;charset=a%00b,x", "is not text in a%00b"),
        ("data:text/plain;charset=undefined,x", "is not text in undefined"),
        ("FILE:///etc/passwd", "file: URLs are not read here"),
        ("data:text/plain;base64,%%%", "base64 of the data: URL is malformed"),
        ("data:text/plain,%FF", "is not text in utf-8"),
        ("data:text/plain;charset=nonsense,x", "is not text in nonsense"),
        ("data:image/png;base64,AA==", "documents of type 'image/png' are not supported"),
        ("file:///etc/passwd", "file: URLs are not read here"),
        (ImageMedia(image="http://x/y.png"), "images cannot be stored as text"),
        ("http://[bad/x", "http://\\[bad/x cannot be fetched"),
        ("http://127.0.0.1:9/x?key=hunter2", r"http://127\.0\.0\.1:9/x cannot be fetched: connection refused"),
    ],
)
async def test_what_cannot_be_read_is_refused(content: Any, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says) as caught:
        await read(content, param="documents[3].content")
    assert (caught.value.param or "").startswith("documents[3].content")
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/none", "/none answered 404: nothing was stored"),
        ("/odd", "/odd answered 300: nothing was stored"),
        ("/circle", "/circle leads through more than 5 redirects"),
        ("/png", "documents of type 'image/png' are not supported"),
        ("/big", "/big is larger than 1000 bytes"),
    ],
)
async def test_error_pages_and_wrong_kinds_are_no_documents(site: str, path: str, says: str) -> None:
    with pytest.raises(InvalidRequestError, match=says):
        await read(f"{site}{path}", max_bytes=1000)


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "169.254.169.254", "10.0.0.1", "[::1]", "0.0.0.0", "0x7f.1"]
)
async def test_what_only_the_server_can_reach_is_not_fetched(host: str) -> None:
    with pytest.raises(InvalidRequestError, match="leads to a private address|the host is not known"):
        await read(f"http://{host}/latest/meta-data", allow_private=False)

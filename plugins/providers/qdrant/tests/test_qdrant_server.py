"""A server that is down, slow, or refuses: which error comes out, and that it holds no key."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from pydantic import ValidationError

from llamastack.api.memory_banks import VectorMemoryBank
from llamastack.provider import (
    AuthenticationError,
    BackendError,
    ConflictError,
    InvalidRequestError,
    LlamaStackError,
    PermissionDeniedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RateLimitError,
)
from llamastack.provider.validation import explain_validation_error
from llamastack_provider_qdrant.config import QdrantConfig

pytestmark = pytest.mark.anyio

KEY = "s3cr3t-key"
BANK = VectorMemoryBank(identifier="b", embedding_model="all-MiniLM-L6-v2", chunk_size_in_tokens=64)


def answering(status: int, body: str, wait_s: float = 0, **headers: str) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...

        def do_GET(self) -> None:
            time.sleep(wait_s)
            payload = body.format(key=self.headers.get("api-key")).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(payload)))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                self.wfile.write(payload)
            except BrokenPipeError:
                assert wait_s

    return Handler


Serve = Callable[[type[BaseHTTPRequestHandler]], str]


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, InvalidRequestError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (409, ConflictError),
        (422, InvalidRequestError),
        (429, RateLimitError),
        (500, BackendError),
        (502, ProviderUnavailableError),
        (503, ProviderUnavailableError),
        (504, ProviderTimeoutError),
    ],
)
async def test_refusals(start: Any, serve: Serve, status: int, expected: type[LlamaStackError]) -> None:
    url = serve(answering(status, "you sent {key}"))
    memory = await start(url=url, api_key=KEY)
    for call in (memory.health, memory.list_memory_banks):
        with pytest.raises(expected) as caught:
            await call()
        assert type(caught.value) is expected
        assert caught.value.provider_id == "docs"
        assert caught.value.message == f"qdrant at {url} answered {status}: you sent ***"
        assert KEY not in repr(caught.value) + str(caught.value.to_wire())
    assert KEY not in repr(memory) + repr(vars(memory))


@pytest.mark.parametrize(("given", "seconds"), [("7", 7), ("Wed, 21 Oct 2037 07:28:00 GMT", None)])
async def test_slow_down(start: Any, serve: Serve, given: str, seconds: int | None) -> None:
    memory = await start(url=serve(answering(429, "{{}}", Retry_After=given)))
    with pytest.raises(RateLimitError) as caught:
        await memory.health()
    assert caught.value.retry_after == seconds


async def test_a_server_that_does_not_answer_in_time(start: Any, serve: Serve) -> None:
    memory = await start(url=serve(answering(200, "", wait_s=1.5)), timeout=1)
    with pytest.raises(ProviderTimeoutError, match="did not answer within 1 s") as caught:
        await memory.health()
    assert caught.value.provider_id == "docs"


@pytest.mark.parametrize("body", ["hello", "{{}}", '{{"result": 1}}', "[]", ""])
async def test_something_else_than_qdrant(start: Any, serve: Serve, body: str) -> None:
    memory = await start(url=serve(answering(200, body)))
    with pytest.raises(BackendError, match="does not answer like Qdrant"):
        await memory.health()


async def test_a_server_that_is_down(start: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    memory = await start(url=url)
    for call in (memory.health(), memory.list_memory_banks(), memory.register_memory_bank(BANK)):
        with pytest.raises(
            ProviderUnavailableError, match=f"qdrant at {url} cannot be reached: ConnectError"
        ) as caught:
            await call
        assert caught.value.provider_id == "docs"
    memory = await start(url="http://nowhere.invalid:6333")
    with pytest.raises(ProviderUnavailableError, match=r"nowhere\.invalid:6333 cannot be reached"):
        await memory.query_documents("b", "text")


@pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")
async def test_the_key_is_in_no_traceback_of_a_server_that_is_down(start: Any) -> None:
    memory = await start(url="http://nowhere.invalid:6333", api_key=KEY)
    with pytest.raises(ProviderUnavailableError) as caught:
        await memory.health()
    assert KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "exactly one of path, location and url"),
        ({"path": "x", "location": ":memory:"}, "exactly one of path, location and url"),
        ({"location": "somewhere"}, "location"),
        ({"location": ":memory:", "api_key": KEY}, "api_key needs url"),
        ({"url": f"http://user:{KEY}@host"}, "must not contain credentials"),
        ({"url": f"http://host?api_key={KEY}"}, "must not contain credentials"),
        ({"url": "host:6333"}, "must be http"),
        ({"url": "ftp://host"}, "must be http"),
        ({"url": "http://[bad"}, "url"),
        ({"url": "http://host", "timeout": 0}, "timeout"),
        ({"url": "http://host", "collection_prefix": "a/b"}, "collection_prefix"),
        ({"url": "http://host", "host": "x"}, "host"),
    ],
)
def test_config_is_checked_and_keeps_secrets(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message) as caught:
        QdrantConfig.model_validate(config)
    assert KEY not in str(caught.value) + repr(explain_validation_error(caught.value, QdrantConfig))


def test_the_key_is_not_shown() -> None:
    assert KEY not in repr(QdrantConfig(url="https://host", api_key=KEY))  # type: ignore[arg-type]

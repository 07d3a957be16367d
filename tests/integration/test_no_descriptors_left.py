"""No file descriptors left: told as the server's own shortage, while no provider is said to be down."""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from backends.scripted_http import CLOSE, ScriptedHttp, answer, served_by, sse
from served_stack import served_stack

from llamastack import LlamaStackClient
from llamastack.api import ProviderStatus, UserMessage
from llamastack.provider.descriptor_shortage import SHORTAGE, is_shortage
from llamastack.provider.errors import ProviderUnavailableError, ServerBusyError
from llamastack.stack.stores.sqlite import SqliteStore, SqliteStoreConfig
from llamastack_adapters.http_client import http_client
from llamastack_memory_kit.documents import document_text

pytestmark = pytest.mark.anyio
ASK = [UserMessage(content="Hi")]
WHOLE = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}]}


@contextmanager
def none_left() -> Iterator[None]:
    """No file descriptor can be opened in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for one in taken:
            os.close(one)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_backend_that_cannot_be_reached_for_it_is_not_down(
    scripted_backend: ScriptedHttp, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    # No connection is kept, so that each request needs a descriptor.
    listing = {"object": "list", "data": [{"id": "m", "object": "model"}]}
    scripted_backend.routes["/models"] = [*answer(200, listing, headers={"Connection": "close"}), CLOSE]
    scripted_backend.routes["/chat/completions"] = [*answer(200, WHOLE, headers={"Connection": "close"}), CLOSE]
    config = served_by(scripted_backend, api_key="k")
    async with served_stack({"providers": {"inference": [config]}, "refresh_interval_s": 60}) as (stack, client):
        await client.get("/health")  # which opens the client's own connection
        instance = stack.instances["inference"][0]
        body: dict[str, Any] = {"model": "p/m", "messages": [{"role": "user", "content": "Hi"}]}
        with none_left():
            for path in ("/v1/chat/completions", "/inference/chat_completion"):
                for stream in (False, True):
                    refused = await client.post(path, json={**body, "stream": stream})
                    error = refused.json()["error"]
                    assert (refused.status_code, error["code"]) == (503, "server_busy")
                    assert error["message"] == f"{SHORTAGE}, so {scripted_backend.url} cannot be reached"
            await instance.refresh(force=True)
            assert (instance.status, len(instance.served)) == (ProviderStatus.healthy, 1)
        assert "is down" not in caplog.text
        assert f"inference p cannot be asked: {SHORTAGE}" in caplog.text
        assert "server_busy" in caplog.text
        assert (await client.post("/v1/chat/completions", json=body)).status_code == 200


async def test_our_own_client_tells_it_as_its_own(scripted_backend: ScriptedHttp, transport: str) -> None:
    async with LlamaStackClient(scripted_backend.url) as client:
        with none_left(), pytest.raises(ServerBusyError, match="no file descriptors left"):
            await client.inference.chat_completion(model="m", messages=ASK)


async def test_a_host_name_that_cannot_be_looked_up_for_it_is_not_called_unknown(transport: str) -> None:
    async with LlamaStackClient("http://nowhere.invalid") as client:
        with none_left(), pytest.raises(ServerBusyError, match="no file descriptors left"):
            await client.inference.chat_completion(model="m", messages=ASK)
        with pytest.raises(ProviderUnavailableError, match="host name not known"):
            await client.inference.chat_completion(model="m", messages=ASK)


async def test_connections_wait_and_the_log_says_so(
    scripted_backend: ScriptedHttp, caplog: pytest.LogCaptureFixture
) -> None:
    scripted_backend.routes["/chat/completions"] = sse("[DONE]")
    async with served_stack({"providers": {"inference": [served_by(scripted_backend, api_key="k")]}}) as (_, client):
        await client.get("/health")
        # The connection is made before, and taken by the server when there are none left.
        waiting = socket.socket()
        waiting.setblocking(False)
        with none_left():
            waiting.connect_ex(("127.0.0.1", client.base_url.port or 80))
            with anyio.fail_after(5):
                while "so new connections wait" not in caplog.text:
                    await anyio.sleep(0.02)
        assert "Traceback" not in caplog.text
        waiting.close()
        async with httpx.AsyncClient(base_url=client.base_url) as another:
            assert (await another.get("/health")).status_code == 200


async def test_the_registry_tells_it_as_the_servers_own(tmp_path: Path) -> None:
    store = SqliteStore(SqliteStoreConfig(path=tmp_path / "r.sqlite"), None)
    with none_left(), pytest.raises(OSError, match="cannot be opened: this server has no file descriptors left"):
        await store.open()
    await store.open()
    try:

        def fails(connection: sqlite3.Connection) -> None:
            sqlite3.connect(tmp_path / "another.sqlite").execute("CREATE TABLE a (b)")

        with none_left(), pytest.raises(ServerBusyError, match="so the store .* cannot be used"):
            await store._run(store._reader, fails)
    finally:
        await store.close()


async def test_a_document_that_cannot_be_fetched_for_it_is_not_called_wrong(transport: str) -> None:
    async with http_client() as http:
        for url, private in (("http://127.0.0.1:1/a", True), ("http://nowhere.invalid/a", False)):
            with none_left(), pytest.raises(ServerBusyError, match="no file descriptors left"):
                await document_text(url, http, allow_private=private)


def test_what_is_no_shortage() -> None:
    assert not is_shortage(OSError(errno.ENOENT, "gone"))
    assert not is_shortage(socket.gaierror(-2, "Name or service not known"))
    assert not is_shortage(sqlite3.OperationalError("unable to open database file"))
    assert is_shortage(OSError(errno.ENFILE, "table overflow"))

"""What an endpoint leaves behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.types import Scope

from llamastack.provider.errors import BackendError, LlamaStackError, raise_translated
from llamastack_server.connection import Connection
from llamastack_server.endpoint import Endpoint
from llamastack_server.errors import NATIVE_ERRORS
from llamastack_server.process_limits import ProcessLimits
from llamastack_server.scope_state import STATE, ServerState
from llamastack_server.sender import Sender
from llamastack_server.settings import ServerConfig

pytestmark = pytest.mark.anyio


class Body(bytearray):
    """Bytes that can be watched."""


class Fails(Endpoint):
    def __init__(self, kind: str) -> None:
        super().__init__(NATIVE_ERRORS)
        self._kind = kind

    async def respond(self, scope: Scope, body: bytes) -> bytes | AsyncIterator[bytes]:
        if self._kind == "at once":
            raise BackendError("no")
        if self._kind == "in other words":
            try:
                raise ValueError("no")
            except ValueError as error:
                raise_translated(error, BackendError("no"))
        return self._pieces(body)

    async def _pieces(self, body: bytes) -> AsyncIterator[bytes]:
        yield body
        raise BackendError("no")


class Flow:
    def resume_reading(self) -> None: ...


class Output:
    blocks = 0


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("kind", ["at once", "in other words", "in mid stream"])
async def test_a_request_that_fails_leaves_no_garbage(kind: str, no_collection: None) -> None:
    """Else the body of each would be kept until garbage is collected, which a server does rarely."""
    connection = Connection.__new__(Connection)
    connection.when_lost, connection.flow = set(), Flow()  # type: ignore[assignment]
    connection._output = Output()  # type: ignore[assignment]
    scope = {
        "type": "http",
        "headers": [],
        "extensions": {"llamastack.connection": weakref.ref(connection)},
        STATE: ServerState(ProcessLimits(ServerConfig()), lambda path: NATIVE_ERRORS),
    }
    watched: list[weakref.ref[Body]] = []

    async def receive() -> dict[str, Any]:
        body = Body(b"x" * 100)
        watched.append(weakref.ref(body))
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None: ...

    failed = False
    try:
        await Fails(kind)(scope, receive, Sender(send, (b"x-request-id", b"1")))
    except LlamaStackError:
        failed = True
    assert failed is (kind != "in mid stream")
    assert [body() for body in watched] == [None]
    assert not connection.when_lost

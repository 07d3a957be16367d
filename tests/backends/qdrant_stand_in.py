"""Qdrant's HTTP API before an embedded Qdrant: a stand-in, as no package brings the real server.

Qdrant's own client, with which the provider calls it, proves the parts that are here.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import BaseModel, TypeAdapter
from qdrant_client import QdrantClient, models


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


class QuietHandler(BaseHTTPRequestHandler):
    """Answers without logging, over connections that are kept alive."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # an answer in several small packets would wait for the client to confirm the first

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
                return client.create_collection(
                    name,
                    vectors_config=wanted.vectors,
                    sparse_vectors_config=wanted.sparse_vectors,
                    metadata=wanted.metadata,
                )
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
            case ("POST", "collections", name, "points", "query", "batch"):
                return client.query_batch_points(name, models.QueryRequestBatch.model_validate(body).searches)
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

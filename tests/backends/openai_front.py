"""A thin front of llama.cpp's server with what that server lacks: keys, a model list of its own, refusals on demand.

What it does not answer itself it hands on, byte for byte, so the replies are those of the real engine.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from backends.held_calls import call_schema
from backends.llama_server import MODEL, LlamaServer
from backends.serving import serving

_NOT_OF_A_HELD_CALL = ("tools", "tool_choice", "parallel_tool_calls", "stream", "stream_options")


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    path: str
    headers: Mapping[str, str]
    body: Any
    raw: bytes = b""


def openai_list(models: Sequence[str]) -> Any:
    """What OpenAI answers at /models."""
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "tests"} for name in models]
    return {"object": "list", "data": data}


@dataclass
class OpenAIFront:
    """engine: what requests are handed on to; a path `prefix + /x` here is `/v1/x` there.

    models: the names that it knows; None lets every name through, and the list too. keys: those it takes, None for any.
    answers: the next answers to calls, each a `Response` or None for the engine's. holds_calls: whether a tool call
    that is required, of any tool or of one by its name, is made by holding the engine to the schema of one, as its
    model is too small to make it by itself. seen: requests, oldest first.
    """

    engine: LlamaServer
    prefix: str = "/v1"
    models: list[str] | None = field(default_factory=lambda: [MODEL])
    keys: set[str] | None = None
    listing: Callable[[Sequence[str]], Any] = openai_list
    routes: dict[str, Callable[[Request], Response]] = field(default_factory=dict)
    answers: deque[Response | None] = field(default_factory=deque)
    holds_calls: bool = False
    seen: list[Seen] = field(default_factory=list)
    disconnects: int = 0
    """Clients that went away before their reply had said its end."""

    def last(self, path: str) -> Seen:
        """The newest request to `prefix + path`."""
        return next(s for s in reversed(self.seen) if s.path == self.prefix + path)

    async def handle(self, request: Request) -> Response:
        raw = await request.body()
        path = request.url.path
        body = json.loads(raw) if raw else None
        self.seen.append(Seen(path, dict(request.headers), body, raw))
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.keys is not None and key not in self.keys:
            # As OpenAI does: with the key, whole or in parts, in the message.
            return refusal(401, f"Incorrect API key provided: {key}.", code="invalid_api_key")
        for known, answer in self.routes.items():
            if path.startswith(known):
                return answer(request)
        if self.answers and (scripted := self.answers.popleft()) is not None:
            return scripted
        if not path.startswith(self.prefix):
            return Response("<html><body><h1>404 Not Found</h1></body></html>", 404, media_type="text/html")
        inner = path.removeprefix(self.prefix)
        if self.models is not None:
            if inner == "/models":
                return JSONResponse(self.listing(self.models))
            if isinstance(body, dict) and body.get("model") not in self.models:
                wanted = body.get("model")
                return refusal(404, f"The model `{wanted}` does not exist", code="model_not_found", param="model")
        if self.holds_calls and isinstance(body, dict) and (functions := must_call(body)):
            return await self._held_call(request, body, functions)
        engine = self.engine.embeddings_url if inner == "/embeddings" else self.engine.url
        return await self._handed_on(request, f"{engine}/v1{inner}", raw)

    async def _held_call(self, request: Request, body: dict[str, Any], functions: list[dict[str, Any]]) -> Response:
        schema = call_schema((function["name"], function["parameters"]) for function in functions)
        asked = {name: value for name, value in body.items() if name not in _NOT_OF_A_HELD_CALL}
        asked["response_format"] = {"type": "json_schema", "json_schema": {"name": "call", "schema": schema}}
        reply = await request.app.state.http.post(f"{self.engine.url}/v1/chat/completions", json=asked)
        whole = reply.json()
        choice = whole["choices"][0]
        made = json.loads(choice["message"]["content"])
        arguments = json.dumps(made["arguments"])
        call = {"id": "call_held", "type": "function", "function": {"name": made["name"], "arguments": arguments}}
        if not body.get("stream"):
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
            return JSONResponse({**whole, "choices": [{**choice, "message": message, "finish_reason": "tool_calls"}]})
        begun = {**call, "index": 0, "function": {"name": made["name"], "arguments": ""}}
        deltas = [{"role": "assistant", "content": None, "tool_calls": [begun]}]
        deltas += [
            {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}
            for piece in (arguments[at : at + 5] for at in range(0, len(arguments), 5))
        ]
        head = {**whole, "object": "chat.completion.chunk"}
        usage = head.pop("usage")
        pieces = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        pieces.append({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            pieces.append({**head, "choices": [], "usage": usage})
        return events(*(json.dumps(piece) for piece in pieces))

    async def _handed_on(self, request: Request, url: str, raw: bytes) -> Response:
        http: httpx.AsyncClient = request.app.state.http
        outgoing = http.build_request(request.method, url, content=raw, headers={"Content-Type": "application/json"})
        sending = anyio.create_task_group()
        response: httpx.Response | None = None
        gone = False

        async def watch() -> None:
            nonlocal gone
            while not await request.is_disconnected():
                await anyio.sleep(0.01)
            gone = True
            sending.cancel_scope.cancel()

        async with sending:
            sending.start_soon(watch)
            response = await http.send(outgoing, stream=True)
            if not response.headers["content-type"].startswith("text/event-stream"):
                await response.aread()
            sending.cancel_scope.cancel()
        if response is None or gone:
            self.disconnects += 1
            return Response(status_code=499)
        kind = response.headers["content-type"]
        if response.is_stream_consumed:
            return Response(response.content, response.status_code, media_type=kind)
        return StreamingResponse(self._blocks(response), response.status_code, media_type=kind)

    async def _blocks(self, response: httpx.Response) -> AsyncIterator[bytes]:
        complete = False
        try:
            async for block in response.aiter_raw():
                complete = block.endswith(b"data: [DONE]\n\n")
                yield block
            complete = True
        finally:
            if not complete:
                self.disconnects += 1
            with anyio.CancelScope(shield=True):
                await response.aclose()


def must_call(body: dict[str, Any]) -> list[dict[str, Any]]:
    """The functions of which a request wants one to be called; none where the model may choose."""
    functions = [tool["function"] for tool in body.get("tools") or ()]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        return [function for function in functions if function["name"] == choice.get("function", {}).get("name")]
    return functions if choice == "required" else []


def refusal(status: int, message: str, *, code: str | None = None, param: str | None = None, **more: Any) -> Response:
    """An error in OpenAI's form. more: headers, with `_` for `-`."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    headers = {name.replace("_", "-"): str(value) for name, value in more.items()}
    error = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers=headers)


def events(*data: str, done: bool = True) -> Response:
    """A whole stream of server-sent events with this data."""
    text = "".join(f"data: {item}\n\n" for item in (*data, *(["[DONE]"] if done else [])))
    return Response(text, media_type="text/event-stream")


@asynccontextmanager
async def open_http(app: Starlette) -> AsyncIterator[None]:
    """Lifespan of an app that hands requests on: one client, in `app.state.http`."""
    # llama.cpp's server closes kept connections after a while, without a word.
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=120, limits=limits) as app.state.http:
        yield


@contextmanager
def openai_front(engine: LlamaServer, **settings: Any) -> Iterator[tuple[OpenAIFront, str]]:
    """A front over the llama.cpp server `engine`, and its URL with the prefix."""
    front = OpenAIFront(engine, **settings)
    app = Starlette(routes=[Route("/{path:path}", front.handle, methods=["GET", "POST"])], lifespan=open_http)
    with serving(app) as url:
        yield front, url + front.prefix

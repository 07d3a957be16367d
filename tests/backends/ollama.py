"""A stand-in for an Ollama server: Ollama's HTTP API over llama.cpp's real engine.

Follows https://docs.ollama.com/api (in Ollama's repository docs/api.md, api/types.go and server/routes.go), version
0.12.11: /api/chat, /api/generate, /api/embed, /api/tags, /api/ps, /api/show, /api/pull, /api/version and /. As Ollama
does, it makes the prompt itself and has the engine complete it.

Every model of it is the engine's one. What it does otherwise than Ollama:

- With tools, and where the last message is not the answer of one, the reply is held to the JSON schema of a call: so
  small a model would not call by itself. The engine writes the arguments.
- It sees no images; a model that is said to have vision passes over them.
- It pulls nothing: layers have sizes alone.
- It has no think, suffix, template, adapters, cloud models, nor /api/create, copy, delete, push and blobs.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from backends.held_calls import call_schema
from backends.llama_server import CONTEXT_LENGTH, LlamaServer
from backends.ollama_models import OllamaModels, StandInModel
from backends.ollama_wire import (
    RefusedError,
    all_of,
    called_message,
    engine_options,
    keep_alive_of,
    logprob_of,
    merged_lines,
    options_of,
    plain_message,
    refusal,
    streamed,
    time_text,
)
from backends.openai_front import Seen, open_http
from backends.serving import serving

VERSION = "0.12.11"
_LONGEST_EMBEDDED = 256


@dataclass
class OllamaStandIn(OllamaModels):
    """keys: those it takes, as a proxy before Ollama does; None for any. answers: the next answers to calls that
    compute, each a `Response` or None for the engine's. routes: answers of its own, by path. seen: requests, oldest
    first.
    """

    engine: LlamaServer
    keys: set[str] | None = None
    answers: deque[Response | None] = field(default_factory=deque)
    routes: dict[str, Callable[[Request], Response]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)

    def last(self, path: str) -> Seen:
        """The newest request to `path`."""
        return next(s for s in reversed(self.seen) if s.path == path)

    def count(self, path: str) -> int:
        return sum(s.path == path for s in self.seen)

    # ---- routing -------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        raw = await request.body()
        path = request.url.path
        try:
            body = json.loads(raw) if raw else None
        except ValueError:
            body = raw
        self.seen.append(Seen(path, dict(request.headers), body))
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self.keys is not None and key not in self.keys:
            return refusal(401, f"unauthorized: {key}")
        if path in self.routes:
            return self.routes[path](request)
        table: dict[tuple[str, str], Callable[[Request, Any], Awaitable[Response]]] = {
            ("GET", "/"): self._root,
            ("GET", "/api/version"): self._version,
            ("GET", "/api/tags"): self._tags,
            ("GET", "/api/ps"): self._ps,
            ("POST", "/api/show"): self._show,
            ("POST", "/api/pull"): self._pull,
            ("POST", "/api/chat"): self._chat,
            ("POST", "/api/generate"): self._generate,
            ("POST", "/api/embed"): self._embed,
        }
        method = "GET" if request.method == "HEAD" else request.method
        answer = table.get((method, path))
        if answer is None:
            known = any(path == p for _, p in table)
            return PlainTextResponse("405 method not allowed" if known else "404 page not found", 405 if known else 404)
        if path in ("/api/chat", "/api/generate", "/api/embed") and self.answers:
            scripted = self.answers.popleft()
            if scripted is not None:
                return scripted
        if method == "POST":
            if not raw:
                return refusal(400, "missing request body")
            if not isinstance(body, dict):
                return refusal(400, "invalid character looking for beginning of value")
        try:
            return await answer(request, body)
        except RefusedError as error:
            return error.answer

    async def _root(self, _: Request, __: Any) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, _: Request, __: Any) -> Response:
        return JSONResponse({"version": VERSION})

    # ---- computing -----------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, body: Mapping[str, Any]) -> Response:
        model = self._able(body, "chat")
        messages = body.get("messages") or []
        options = options_of(body)
        tools = body.get("tools") or []
        if tools and "tools" not in model.capabilities:
            raise RefusedError(400, f"registry.ollama.ai/library/{model.name} does not support tools")
        if not messages:
            return JSONResponse(self._only_loaded(body, model, {"message": {"role": "assistant", "content": ""}}))
        rendered = [plain_message(message) for message in messages]
        prompt = await self._prompt(request, rendered, min(options["num_ctx"], CONTEXT_LENGTH))
        payload = {"prompt": prompt, **engine_options(options, body)}
        calling = bool(tools) and rendered[-1]["role"] != "tool"
        if calling:
            payload |= {
                "json_schema": call_schema((t["function"]["name"], t["function"]["parameters"]) for t in tools),
                "stop": [],
            }

        def line(text: str) -> dict[str, Any]:
            return {"message": {"role": "assistant", "content": text}}

        return await self._generation(request, body, model, options, payload, line, calling=calling)

    async def _generate(self, request: Request, body: Mapping[str, Any]) -> Response:
        model = self._able(body, "generate")
        prompt, options = body.get("prompt") or "", options_of(body)
        if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
            raise RefusedError(400, "raw mode does not support template, system, or context")
        if not prompt:
            return JSONResponse(self._only_loaded(body, model, {"response": ""}))
        if not body.get("raw"):
            system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
            messages = [*system, {"role": "user", "content": prompt}]
            prompt = await self._prompt(request, messages, min(options["num_ctx"], CONTEXT_LENGTH))
        payload = {"prompt": prompt, **engine_options(options, body)}
        return await self._generation(request, body, model, options, payload, lambda text: {"response": text})

    def _able(self, body: Mapping[str, Any], doing: str) -> StandInModel:
        if not 0 <= (body.get("top_logprobs") or 0) <= 20:
            raise RefusedError(400, "top_logprobs must be between 0 and 20")
        model = self._model(body.get("model"))
        if "completion" not in model.capabilities:
            raise RefusedError(400, f'"{body["model"]}" does not support {doing}')
        return model

    def _only_loaded(self, body: Mapping[str, Any], model: StandInModel, empty: Mapping[str, Any]) -> dict[str, Any]:
        unload = keep_alive_of(body) == 0
        self._used(body, model, options_of(body))
        head = {"model": body["model"], "created_at": time_text(datetime.now(UTC))}
        return {**head, **empty, "done": True, "done_reason": "unload" if unload else "load"}

    def _used(self, body: Mapping[str, Any], model: StandInModel, options: Mapping[str, Any]) -> None:
        seconds = keep_alive_of(body)
        self._loaded.pop(model.name, None)
        if seconds != 0:
            until = datetime.now(UTC) + timedelta(seconds=seconds if seconds > 0 else 10**9)
            self._loaded[model.name] = (until, min(options["num_ctx"], CONTEXT_LENGTH))

    async def _prompt(self, request: Request, messages: Sequence[Mapping[str, Any]], context: int) -> str:
        """The messages as text; the oldest are left out until the rest fits, system messages and the last apart."""
        for first in range(len(messages)):
            kept = [m for m in messages[:first] if m["role"] == "system"] + list(messages[first:])
            prompt = (await self._ask(request, "/apply-template", {"messages": kept}))["prompt"]
            if len(await self._tokens(request, prompt)) <= context:
                break
        return str(prompt)

    async def _tokens(self, request: Request, text: str) -> list[int]:
        tokens: list[int] = (await self._ask(request, "/tokenize", {"content": text, "parse_special": True}))["tokens"]
        return tokens

    async def _ask(self, request: Request, path: str, payload: Any) -> Any:
        http: httpx.AsyncClient = request.app.state.http
        url = self.engine.embeddings_url if path == "/v1/embeddings" else self.engine.url
        response = await http.post(url + path, json=payload)
        if response.is_error:
            raise RefusedError(response.status_code, response.json()["error"]["message"])
        return response.json()

    async def _generation(
        self,
        request: Request,
        body: Mapping[str, Any],
        model: StandInModel,
        options: Mapping[str, Any],
        payload: dict[str, Any],
        line: Callable[[str], dict[str, Any]],
        *,
        calling: bool = False,
    ) -> Response:
        begun = time.monotonic_ns()
        most = body.get("top_logprobs") or 0
        logprobs = bool(body.get("logprobs"))
        if logprobs:
            payload["n_probs"] = max(most, 1)
        self._used(body, model, options)
        pieces = self._engine_pieces(request, payload)
        first = await self._unless_gone(request, anext(pieces))
        if first is None:
            return Response(status_code=499)

        async def lines() -> AsyncIterator[dict[str, Any]]:
            text, given, piece = "", [], first
            complete = False
            try:
                while True:
                    head = {"model": body["model"], "created_at": time_text(datetime.now(UTC))}
                    text += piece["content"]
                    given = (
                        [logprob_of(p, most) for p in piece.get("completion_probabilities") or ()] if logprobs else []
                    )
                    more = {"logprobs": given} if given else {}
                    if piece["content"] and not calling:
                        yield {**head, **line(piece["content"]), "done": False, **more}
                    if piece["stop"]:
                        break
                    piece = await anext(pieces)
                if calling:
                    yield {**head, "message": called_message(text), "done": False}
                end = {**head, **line(""), "done": True}
                end["done_reason"] = "length" if piece["stop_type"] == "limit" else "stop"
                if "response" in end and not body.get("raw"):
                    end["context"] = await self._tokens(request, payload["prompt"] + text)
                timings = piece["timings"]
                end["total_duration"] = time.monotonic_ns() - begun
                end["load_duration"] = 1_000_000
                end["prompt_eval_count"] = piece["tokens_evaluated"]
                end["prompt_eval_duration"] = int(timings["prompt_ms"] * 1e6)
                end["eval_count"] = piece["tokens_predicted"]
                end["eval_duration"] = int(timings["predicted_ms"] * 1e6)
                yield end
                complete = True
            finally:
                if not complete:
                    self.disconnects += 1
                with anyio.CancelScope(shield=True):
                    await pieces.aclose()

        if body.get("stream") is not False:
            return streamed(lines())
        whole = await self._unless_gone(request, all_of(lines()))
        return Response(status_code=499) if whole is None else JSONResponse(merged_lines(whole))

    async def _engine_pieces(self, request: Request, payload: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        http: httpx.AsyncClient = request.app.state.http
        async with http.stream("POST", f"{self.engine.url}/completion", json={**payload, "stream": True}) as response:
            if response.is_error:
                error = json.loads(await response.aread())["error"]
                raise RefusedError(response.status_code, error["message"])
            async for text in response.aiter_lines():
                if text.startswith("data: "):
                    yield json.loads(text.removeprefix("data: "))

    async def _embed(self, request: Request, body: Mapping[str, Any]) -> Response:
        begun = time.monotonic_ns()
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise RefusedError(400, "invalid input type")
        model, options = self._model(body.get("model")), options_of(body)
        self._used(body, model, options)
        longest = min(options["num_ctx"], _LONGEST_EMBEDDED)
        inputs = [await self._tokens(request, text) for text in texts if text]
        if body.get("truncate") is False and any(len(tokens) > longest for tokens in inputs):
            raise RefusedError(400, "the input length exceeds the context length")
        inputs = [tokens[:longest] for tokens in inputs]
        data = (await self._ask(request, "/v1/embeddings", {"input": inputs}))["data"] if inputs else []
        return JSONResponse(
            {
                "model": body["model"],
                "embeddings": [entry["embedding"] for entry in sorted(data, key=lambda entry: entry["index"])],
                "total_duration": time.monotonic_ns() - begun,
                "load_duration": 1_000_000,
                "prompt_eval_count": sum(map(len, inputs)),
            }
        )


@contextmanager
def ollama_stand_in(engine: LlamaServer, **settings: Any) -> Iterator[tuple[OllamaStandIn, str]]:
    """A stand-in over the llama.cpp server `engine`, and its URL."""
    stand_in = OllamaStandIn(engine, **settings)
    app = Starlette(routes=[Route("/{path:path}", stand_in.handle, methods=["GET", "POST"])], lifespan=open_http)
    with serving(app) as url:
        yield stand_in, url

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

import base64
import binascii
import hashlib
import json
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from backends.held_calls import call_schema
from backends.llama_server import CONTEXT_LENGTH, LlamaServer
from backends.openai_front import Seen, open_http
from backends.serving import serving

_T = TypeVar("_T")
VERSION = "0.12.11"
CHAT, BARE, SEEING, EMBEDDER = "smollm2:135m", "smollm2:latest", "looker:latest", "embedder:latest"
NO_TOOLS = "plain:1b"
_LONGEST_EMBEDDED = 256
_DEFAULTS: dict[str, Any] = {
    "temperature": 0.8,
    "top_k": 40,
    "top_p": 0.9,
    "min_p": 0.0,
    "repeat_penalty": 1.1,
    "repeat_last_n": 64,
    "num_predict": -1,
    "num_ctx": 4096,
    "seed": -1,
    "stop": [],
}
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "llama",
    "families": ["llama"],
    "parameter_size": "134.52M",
    "quantization_level": "Q8_0",
}


@dataclass(frozen=True)
class StandInModel:
    name: str
    capabilities: tuple[str, ...] = ("completion", "tools")
    size: int = 144_000_000
    modified_at: str = "2025-06-01T08:00:00.123456789Z"

    @property
    def digest(self) -> str:
        return hashlib.sha256(f"{self.name}{self.capabilities}".encode()).hexdigest()


def _models(*models: StandInModel) -> dict[str, StandInModel]:
    return {model.name: model for model in models}


class _RefusedError(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.answer = refusal(status, text)


@dataclass
class OllamaStandIn:
    """models: those it has, by name with tag. library: what it can pull: name -> sizes of the layers, in bytes.

    keys: those it takes, as a proxy before Ollama does; None for any. answers: the next answers to calls that compute,
    each a `Response` or None for the engine's. routes: answers of its own, by path. seen: requests, oldest first.
    disconnects: clients that went away before the end. pulls: names, as pulls of them began. pulling: running pulls.
    pull_step_s: seconds between two lines of a pull; pull_steps: lines for each layer. pull_held: pulls stand still.
    pull_error: after how many lines one fails; pull_cut: or breaks off.
    """

    engine: LlamaServer
    models: dict[str, StandInModel] = field(
        default_factory=lambda: _models(
            StandInModel(CHAT),
            StandInModel(BARE),
            StandInModel(SEEING, ("completion", "vision")),
            StandInModel(NO_TOOLS, ("completion",)),
            StandInModel(EMBEDDER, ("embedding",)),
        )
    )
    library: dict[str, list[int]] = field(default_factory=lambda: {"tiny:latest": [100_000, 2_000, 500]})
    keys: set[str] | None = None
    answers: deque[Response | None] = field(default_factory=deque)
    routes: dict[str, Callable[[Request], Response]] = field(default_factory=dict)
    seen: list[Seen] = field(default_factory=list)
    disconnects: int = 0
    pulls: list[str] = field(default_factory=list)
    pulling: int = 0
    pull_step_s: float = 0.0
    pull_steps: int = 4
    pull_held: bool = False
    pull_error: int | None = None
    pull_cut: int | None = None
    _loaded: dict[str, tuple[datetime, int]] = field(default_factory=dict)

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
        except _RefusedError as error:
            return error.answer

    async def _root(self, _: Request, __: Any) -> Response:
        return PlainTextResponse("Ollama is running")

    async def _version(self, _: Request, __: Any) -> Response:
        return JSONResponse({"version": VERSION})

    def _model(self, name: object) -> StandInModel:
        if not isinstance(name, str) or not name:
            raise _RefusedError(400, "model is required")
        wanted = _tagged(name).lower()
        found = next((model for known, model in self.models.items() if known.lower() == wanted), None)
        if found is None:
            raise _RefusedError(404, f"model '{name}' not found")
        return found

    # ---- models --------------------------------------------------------------------------------------------------

    async def _tags(self, _: Request, __: Any) -> Response:
        return JSONResponse(
            {
                "models": [
                    {
                        "name": model.name,
                        "model": model.name,
                        "modified_at": model.modified_at,
                        "size": model.size,
                        "digest": model.digest,
                        "details": _DETAILS,
                    }
                    for model in self.models.values()
                ]
            }
        )

    async def _ps(self, _: Request, __: Any) -> Response:
        now = datetime.now(UTC)
        self._loaded = {name: (until, ctx) for name, (until, ctx) in self._loaded.items() if until > now}
        return JSONResponse(
            {
                "models": [
                    {
                        "name": name,
                        "model": name,
                        "size": self.models[name].size,
                        "digest": self.models[name].digest,
                        "details": _DETAILS,
                        "expires_at": _time(until),
                        "size_vram": 0,
                        "context_length": context,
                    }
                    for name, (until, context) in self._loaded.items()
                    if name in self.models
                ]
            }
        )

    async def _show(self, _: Request, body: Mapping[str, Any]) -> Response:
        model = self._model(body.get("model") or body.get("name"))
        many = ["<|im_start|>"] if body.get("verbose") else []
        return JSONResponse(
            {
                "license": "Apache 2.0",
                "modelfile": f'# Modelfile generated by "ollama show"\n# FROM {model.name}\n',
                "parameters": 'stop                           "<|im_end|>"',
                "template": "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}",
                "details": _DETAILS,
                "model_info": {
                    "general.architecture": "llama",
                    "general.parameter_count": 134515008,
                    "llama.context_length": CONTEXT_LENGTH,
                    "llama.embedding_length": 576,
                    "tokenizer.ggml.tokens": many,
                },
                "capabilities": list(model.capabilities),
                "modified_at": model.modified_at,
            }
        )

    async def _pull(self, request: Request, body: Mapping[str, Any]) -> Response:
        name = body.get("model") or body.get("name")
        if not isinstance(name, str) or not re.fullmatch(r"[\w./:-]+", name):
            return refusal(400, "invalid model name")
        lines = self._pulled(_tagged(name))
        if body.get("stream") is not False:
            return _ndjson(lines)
        last = (await self._unless_gone(request, _all(lines)) or [{"error": "gone"}])[-1]
        return refusal(500, last["error"]) if "error" in last else JSONResponse(last)

    async def _pulled(self, name: str) -> AsyncIterator[dict[str, Any]]:
        self.pulls.append(name)
        self.pulling += 1
        ended = False
        try:
            sent = 0
            async for line in self._pull_lines(name):
                if sent == self.pull_cut:
                    raise ConnectionResetError  # as when the server dies
                if sent == self.pull_error:
                    line = {"error": "max retries exceeded: unexpected EOF"}
                yield line
                if "error" in line:
                    break
                sent += 1
                await anyio.sleep(self.pull_step_s)
                while self.pull_held:
                    await anyio.sleep(0.01)
            ended = True
        finally:
            self.pulling -= 1
            if not ended:
                self.disconnects += 1

    async def _pull_lines(self, name: str) -> AsyncIterator[dict[str, Any]]:
        yield {"status": "pulling manifest"}
        if name not in self.library:
            yield {"error": "pull model manifest: file does not exist"}
            return
        for place, size in enumerate(self.library[name]):
            digest = hashlib.sha256(f"{name} {place}".encode()).hexdigest()
            line = {"status": f"pulling {digest[:12]}", "digest": f"sha256:{digest}", "total": size}
            yield line  # until something is there, without "completed"
            for step in range(1, self.pull_steps + 1):
                yield {**line, "completed": size * step // self.pull_steps}
        yield {"status": "verifying sha256 digest"}
        yield {"status": "writing manifest"}
        self.models[name] = StandInModel(name, size=sum(self.library[name]))
        yield {"status": "success"}

    # ---- computing -----------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, body: Mapping[str, Any]) -> Response:
        model = self._able(body, "chat")
        messages = body.get("messages") or []
        options = _options(body)
        tools = body.get("tools") or []
        if tools and "tools" not in model.capabilities:
            raise _RefusedError(400, f"registry.ollama.ai/library/{model.name} does not support tools")
        if not messages:
            return JSONResponse(self._only_loaded(body, model, {"message": {"role": "assistant", "content": ""}}))
        rendered = [_plain(message) for message in messages]
        prompt = await self._prompt(request, rendered, min(options["num_ctx"], CONTEXT_LENGTH))
        payload = {"prompt": prompt, **_engine_options(options, body)}
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
        prompt, options = body.get("prompt") or "", _options(body)
        if body.get("raw") and (body.get("template") or body.get("system") or body.get("context")):
            raise _RefusedError(400, "raw mode does not support template, system, or context")
        if not prompt:
            return JSONResponse(self._only_loaded(body, model, {"response": ""}))
        if not body.get("raw"):
            system = [{"role": "system", "content": body["system"]}] if body.get("system") else []
            messages = [*system, {"role": "user", "content": prompt}]
            prompt = await self._prompt(request, messages, min(options["num_ctx"], CONTEXT_LENGTH))
        payload = {"prompt": prompt, **_engine_options(options, body)}
        return await self._generation(request, body, model, options, payload, lambda text: {"response": text})

    def _able(self, body: Mapping[str, Any], doing: str) -> StandInModel:
        if not 0 <= (body.get("top_logprobs") or 0) <= 20:
            raise _RefusedError(400, "top_logprobs must be between 0 and 20")
        model = self._model(body.get("model"))
        if "completion" not in model.capabilities:
            raise _RefusedError(400, f'"{body["model"]}" does not support {doing}')
        return model

    def _only_loaded(self, body: Mapping[str, Any], model: StandInModel, empty: Mapping[str, Any]) -> dict[str, Any]:
        unload = _keep_alive(body) == 0
        self._used(body, model, _options(body))
        head = {"model": body["model"], "created_at": _time(datetime.now(UTC))}
        return {**head, **empty, "done": True, "done_reason": "unload" if unload else "load"}

    def _used(self, body: Mapping[str, Any], model: StandInModel, options: Mapping[str, Any]) -> None:
        seconds = _keep_alive(body)
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
            raise _RefusedError(response.status_code, response.json()["error"]["message"])
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
                    head = {"model": body["model"], "created_at": _time(datetime.now(UTC))}
                    text += piece["content"]
                    given = [_logprob(p, most) for p in piece.get("completion_probabilities") or ()] if logprobs else []
                    more = {"logprobs": given} if given else {}
                    if piece["content"] and not calling:
                        yield {**head, **line(piece["content"]), "done": False, **more}
                    if piece["stop"]:
                        break
                    piece = await anext(pieces)
                if calling:
                    yield {**head, "message": _called(text), "done": False}
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
            return _ndjson(lines())
        whole = await self._unless_gone(request, _all(lines()))
        return Response(status_code=499) if whole is None else JSONResponse(_merged(whole))

    async def _engine_pieces(self, request: Request, payload: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        http: httpx.AsyncClient = request.app.state.http
        async with http.stream("POST", f"{self.engine.url}/completion", json={**payload, "stream": True}) as response:
            if response.is_error:
                error = json.loads(await response.aread())["error"]
                raise _RefusedError(response.status_code, error["message"])
            async for text in response.aiter_lines():
                if text.startswith("data: "):
                    yield json.loads(text.removeprefix("data: "))

    async def _embed(self, request: Request, body: Mapping[str, Any]) -> Response:
        begun = time.monotonic_ns()
        given = body.get("input")
        texts = [given] if isinstance(given, str) else given or []
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise _RefusedError(400, "invalid input type")
        model, options = self._model(body.get("model")), _options(body)
        self._used(body, model, options)
        longest = min(options["num_ctx"], _LONGEST_EMBEDDED)
        inputs = [await self._tokens(request, text) for text in texts if text]
        if body.get("truncate") is False and any(len(tokens) > longest for tokens in inputs):
            raise _RefusedError(400, "the input length exceeds the context length")
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

    async def _unless_gone(self, request: Request, work: Awaitable[_T]) -> _T | None:
        """What `work` gives; None, and it is cancelled, when the client goes away."""
        results: list[_T] = []
        refused: list[_RefusedError] = []
        async with anyio.create_task_group() as group:

            async def watch() -> None:
                while not await request.is_disconnected():
                    await anyio.sleep(0.01)
                self.disconnects += 1
                group.cancel_scope.cancel()

            group.start_soon(watch)
            try:
                results.append(await work)
            except _RefusedError as error:
                refused.append(error)
            group.cancel_scope.cancel()
        if refused:
            raise refused[0]
        return results[0] if results else None


def refusal(status: int, text: str, **headers: str) -> Response:
    """An error in Ollama's form. headers: with `_` for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return JSONResponse({"error": text}, status, headers=named)


def ndjson(*lines: Any) -> Response:
    """A whole stream with these lines; a text stands as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    return Response("".join(f"{text}\n" for text in texts), media_type="application/x-ndjson")


def _ndjson(lines: AsyncIterator[dict[str, Any]]) -> Response:
    async def blocks() -> AsyncIterator[str]:
        try:
            async for line in lines:
                yield json.dumps(line) + "\n"
        finally:
            with anyio.CancelScope(shield=True):
                await lines.aclose()  # type: ignore[attr-defined]

    return StreamingResponse(blocks(), media_type="application/x-ndjson")


async def _all(lines: AsyncIterator[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line async for line in lines]


def _merged(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The lines of a stream as one answer, as without streaming."""
    whole = dict(lines[-1])
    logprobs = [entry for line in lines for entry in line.get("logprobs", ())]
    if logprobs:
        whole["logprobs"] = logprobs
    if "response" in whole:
        whole["response"] = "".join(line["response"] for line in lines)
        return whole
    calls = [call for line in lines for call in line["message"].get("tool_calls", ())]
    text = "".join(line["message"]["content"] for line in lines)
    whole["message"] = {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}
    return whole


def _tagged(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")


def _keep_alive(body: Mapping[str, Any]) -> float:
    given = body.get("keep_alive")
    if given is None:
        return 300.0
    if isinstance(given, int | float):
        return float(given)
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|ms|s|m|h)", given)
    if "".join(number + unit for number, unit in parts) != given.lstrip("-"):
        raise _RefusedError(400, f'time: invalid duration "{given}"')
    return sum(float(number) * _SECONDS[unit] for number, unit in parts) * (-1 if given.startswith("-") else 1)


def _options(body: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a request over Ollama's defaults; unknown ones are passed over, wrong types are refused."""
    options = dict(_DEFAULTS)
    for name, value in (body.get("options") or {}).items():
        if name not in options or value is None:
            continue
        fits = isinstance(value, list if name == "stop" else int | float) and not isinstance(value, bool)
        if not fits:
            kind = "array" if name == "stop" else "float32" if isinstance(options[name], float) else "integer"
            raise _RefusedError(500, f'option "{name}" must be of type {kind}')
        options[name] = value if isinstance(options[name], float | list) else int(value)
    return options


def _engine_options(options: Mapping[str, Any], body: Mapping[str, Any]) -> dict[str, Any]:
    taken = {name: value for name, value in options.items() if name not in ("num_predict", "num_ctx", "seed")}
    if options["seed"] >= 0:
        taken["seed"] = options["seed"]
    schema = {"type": "object"} if body.get("format") == "json" else body.get("format")
    return {**taken, "n_predict": options["num_predict"], **({"json_schema": schema} if schema else {})}


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as the template takes it. Raises for images that are not base64."""
    for image in message.get("images") or ():
        try:
            base64.b64decode(image, validate=True)
        except binascii.Error:
            raise _RefusedError(400, "illegal base64 data at input byte 0") from None
    text = message.get("content") or ""
    for call in message.get("tool_calls") or ():
        text += f"<tool_call>{json.dumps(call['function'])}</tool_call>"
    return {"role": message["role"], "content": text}


def _called(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
    except ValueError:  # out of tokens: what is no call is text
        return {"role": "assistant", "content": text}
    return {"role": "assistant", "content": "", "tool_calls": [{"function": call}]}


def _logprob(entry: Mapping[str, Any], most: int) -> dict[str, Any]:
    def one(token: Mapping[str, Any]) -> dict[str, Any]:
        return {name: token[name] for name in ("token", "logprob", "bytes")}

    tops = [one(token) for token in entry["top_logprobs"][:most]]
    return {**one(entry), **({"top_logprobs": tops} if most else {})}


@contextmanager
def ollama_stand_in(engine: LlamaServer, **settings: Any) -> Iterator[tuple[OllamaStandIn, str]]:
    """A stand-in over the llama.cpp server `engine`, and its URL."""
    stand_in = OllamaStandIn(engine, **settings)
    app = Starlette(routes=[Route("/{path:path}", stand_in.handle, methods=["GET", "POST"])], lifespan=open_http)
    with serving(app) as url:
        yield stand_in, url

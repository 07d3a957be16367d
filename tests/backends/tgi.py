"""A stand-in for text-generation-inference, for Hugging Face's router, and for what its Hub tells about endpoints.

It follows the source of text-generation-inference 3 (router/src/{lib,chat,server,validation}.rs and
router/src/infer/tool_grammar.rs at https://github.com/huggingface/text-generation-inference), and
https://huggingface.co/docs/inference-endpoints/api_reference for endpoints. Tokens and log probabilities are those of
llama.cpp's server.

It does not do: best_of, typical_p, watermark, truncate, adapters, decoder_input_details, regex grammars, images,
/v1/completions, /chat_tokenize, the routes of SageMaker and Vertex, and the headers with timings.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from backends.llama_server import MODEL
from backends.openai_front import Seen
from backends.serving import serving
from backends.tgi_engine import Generator, InferError, Rejected

ROUTER = "/hf-inference/models/"
ENDPOINTS = "/v2/endpoint/"
_NO_TOOL = {
    "name": "no_tool",
    "description": "Open ended response with no specific tool selected",
    "parameters": {"type": "object", "properties": {"content": {"type": "string"}}, "required": ["content"]},
}
_TOOL_PROMPT = "Given the functions available, respond with a JSON for a function call that best answers the prompt."


@dataclass(kw_only=True)
class TGIStandIn(Generator):
    """keys: bearer tokens that it takes, None for any.

    version: 3 or 2, which has tool calls in another form and knows no `tool_choice: required`. name_in_each: whether a
    streamed tool call names its tool in every piece, as 3.1 does. is_tgi: False for another server, with chats alone.
    endpoints: namespace/name -> their description. offers: repository -> provider -> state. answers: the next answers
    to POST requests, each a `Response` or None for the engine's. seen: requests, oldest first.
    """

    model_id: str = MODEL
    pipeline_tag: str | None = "text-generation"
    keys: set[str] | None = None
    version: int = 3
    name_in_each: bool = False
    is_tgi: bool = True
    endpoints: dict[str, dict[str, Any]] = field(default_factory=dict)
    offers: dict[str, dict[str, str]] = field(default_factory=dict)
    answers: deque[Response | None] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)

    def last(self, path: str) -> Seen:
        """The newest request to `path`."""
        return next(s for s in reversed(self.seen) if s.path == path)

    # ---- routes --------------------------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        raw = await request.body()
        path = request.url.path
        body = json.loads(raw) if raw else None
        self.seen.append(Seen(path, dict(request.headers), body))
        key = request.headers.get("authorization", "").removeprefix("Bearer ")
        known = self.keys is None or key in self.keys
        if path.startswith(("/api/", ENDPOINTS)):
            return self._hub(path, known)
        if path.startswith(ROUTER):
            if not known:
                return JSONResponse({"error": "Invalid username or password."}, 401)
            path = "/" + "/".join(path.removeprefix(ROUTER).split("/")[2:])
        if request.method == "GET":
            return self._described(path)
        if not known:
            return Response(status_code=401)
        if self.answers and (scripted := self.answers.popleft()) is not None:
            return scripted
        routes = {
            "/": self._compat,
            "/generate": self._generate,
            "/generate_stream": self._generate_stream,
            "/v1/chat/completions": self._chat,
            "/tokenize": self._tokenize,
        }
        if path not in routes or not (self.is_tgi or path.startswith("/v1/")):
            return Response(status_code=404)
        try:
            return await routes[path](request, body)
        except InferError as error:
            return JSONResponse(error.body, error.status)
        except Rejected as error:
            answer = f"Failed to deserialize the JSON body into the target type: {error}"
            return PlainTextResponse(answer, 422)

    def _described(self, path: str) -> Response:
        if path == "/health":
            return Response()
        if path == "/v1/models":
            entry = {"id": self.model_id, "object": "model", "created": 0, "owned_by": self.model_id}
            return JSONResponse({"object": "list", "data": [entry]})
        if path == "/info" and self.is_tgi:
            old = {"max_input_length": self.max_input_tokens} if self.version < 3 else {}
            return JSONResponse(
                {
                    "model_id": self.model_id,
                    "model_sha": None,
                    "model_pipeline_tag": self.pipeline_tag,
                    "max_concurrent_requests": 128,
                    "max_best_of": 2,
                    "max_stop_sequences": 4,
                    **(old or {"max_input_tokens": self.max_input_tokens}),
                    "max_total_tokens": self.max_total_tokens,
                    "validation_workers": 2,
                    "max_client_batch_size": 4,
                    "router": "text-generation-router",
                    "version": f"{self.version}.3.4",
                    "sha": None,
                    "docker_label": None,
                }
            )
        return Response(status_code=404)

    def _hub(self, path: str, known: bool) -> Response:
        if path.startswith("/api/models/"):
            repo = path.removeprefix("/api/models/")
            if repo not in self.offers:
                return JSONResponse({"error": "Repository not found"}, 404 if known else 401)
            offers = {
                provider: {"status": state, "providerId": repo, "task": "conversational"}
                for provider, state in self.offers[repo].items()
            }
            return JSONResponse({"_id": "1", "id": repo, "inferenceProviderMapping": offers})
        if not known:
            return JSONResponse({"error": "Invalid credentials in Authorization header"}, 401)
        if path == "/api/whoami-v2":
            return JSONResponse({"type": "user", "id": "1", "name": "somebody", "fullname": "Somebody"})
        found = self.endpoints.get(path.removeprefix(ENDPOINTS))
        return JSONResponse(found) if found else JSONResponse({"error": "Endpoint not found"}, 404)

    async def _compat(self, request: Request, body: Any) -> Response:
        # Whatever it is for: text-generation has the prompt before its text unless that is declined.
        parameters = _object(body, "parameters")
        if parameters.get("return_full_text") is None:
            parameters["return_full_text"] = self.pipeline_tag == "text-generation"
        body = {**body, "parameters": parameters}
        if body.get("stream"):
            return await self._generate_stream(request, body)
        return JSONResponse([await self.whole(request, _inputs(body), parameters)])

    async def _generate(self, request: Request, body: Any) -> Response:
        return JSONResponse(await self.whole(request, _inputs(body), _object(body, "parameters")))

    async def _generate_stream(self, request: Request, body: Any) -> Response:
        inputs, parameters = _inputs(body), _object(body, "parameters")
        return StreamingResponse(self._text_events(request, inputs, parameters), media_type="text/event-stream")

    async def _tokenize(self, request: Request, body: Any) -> Response:
        text, at = _inputs(body), 0
        tokens = []
        for token in await self.tokens_of(request, text):
            tokens.append({"id": token["id"], "text": token["piece"], "start": at, "stop": at + len(token["piece"])})
            at += len(token["piece"])
        return JSONResponse(tokens)

    # ---- chats ---------------------------------------------------------------------------------------------------

    async def _chat(self, request: Request, body: Any) -> Response:
        inputs, parameters, tools = await self._chat_input(request, body)
        logprobs = bool(body.get("logprobs"))
        if body.get("stream"):
            events = self._chat_events(request, body, inputs, parameters, tools, logprobs)
            return StreamingResponse(events, media_type="text/event-stream")
        generated = await self.whole(request, inputs, parameters)
        message: dict[str, Any] = {"role": "assistant", "content": generated["generated_text"]}
        if tools:
            call = _call(generated["generated_text"])
            if call is None:
                raise InferError("tool_error", f"Failed to parse generated text: {generated['generated_text']!r}")
            name, arguments = call
            if name == "no_tool":
                return await self._chat(request, {**body, "tools": None})
            given = json.dumps(arguments) if self.version >= 3 else arguments
            function = {"description": None, "name": name, "arguments": given}
            message = {"role": "assistant", "tool_calls": [{"id": "0", "type": "function", "function": function}]}
        details = generated["details"]
        tops = details.get("top_tokens") or [[]] * len(details["tokens"])
        choice = {
            "index": 0,
            "message": message,
            "logprobs": _chat_logprobs(zip(details["tokens"], tops, strict=True)) if logprobs else None,
            "finish_reason": _openai_reason(details["finish_reason"]),
        }
        usage = {"prompt_tokens": 0, "completion_tokens": details["generated_tokens"], "total_tokens": 0}
        return JSONResponse({**self._head("chat.completion"), "choices": [choice], "usage": usage})

    async def _chat_input(self, request: Request, body: Any) -> tuple[str, dict[str, Any], bool]:
        if not isinstance(body, dict) or not isinstance(body.get("messages"), list):
            raise Rejected("missing field `messages`")
        messages = [_text_message(message, place) for place, message in enumerate(body["messages"])]
        grammar, tools, choice = body.get("response_format"), body.get("tools"), body.get("tool_choice") or "auto"
        if grammar is not None and tools is not None:
            raise InferError("tool_error", "Tool error: Grammar and tools are mutually exclusive")
        if tools and choice != "none":
            functions = [tool["function"] for tool in tools]
            named = choice["function"]["name"] if isinstance(choice, dict) else choice
            if named == "auto":
                functions.append(_NO_TOOL)
            elif named != "required" or self.version < 3:
                functions = [function for function in functions if function["name"] == named]
                if not functions:
                    raise InferError("tool_error", f"Tool error: Tool with name {named} not found")
            grammar = {"type": "json", "value": _tool_schema(functions)}
            messages[-1]["content"] += f"\n---\n{body.get('tool_prompt') or _TOOL_PROMPT}\n{json.dumps(functions)}"
        answer = await request.app.state.http.post(f"{self.engine}/apply-template", json={"messages": messages})
        if not answer.is_success:
            raise InferError("validation", f"Template error: {answer.text}")
        penalty, temperature = body.get("presence_penalty"), body.get("temperature")
        parameters = {
            "do_sample": temperature != 0,
            "temperature": temperature or None,
            "repetition_penalty": None if penalty is None else penalty + 2.0,
            "max_new_tokens": body.get("max_tokens"),
            "top_n_tokens": body.get("top_logprobs"),
            "details": True,
            "grammar": grammar,
            **{name: body.get(name) for name in ("top_p", "seed", "stop", "frequency_penalty")},
        }
        return answer.json()["prompt"], parameters, bool(tools) and choice != "none"

    async def _chat_events(
        self, request: Request, body: Any, inputs: str, parameters: dict[str, Any], tools: bool, logprobs: bool
    ) -> AsyncIterator[str]:
        text, state = "", "buffering" if tools else "content"
        name: str | None = None
        try:
            async with aclosing(self.pieces(request, inputs, parameters)) as pieces:
                async for piece in pieces:
                    token, details = piece["token"], piece["details"]
                    part: str | None = None if token["special"] else token["text"]
                    naming = None
                    text += token["text"]
                    if state == "buffering":
                        call = _call(text.rstrip().rstrip(",} \n\t") + "}}")
                        if call is None:
                            continue
                        if call[0] == "no_tool":
                            inputs, parameters, _ = await self._chat_input(request, {**body, "tools": None})
                            again = self._chat_events(request, body, inputs, parameters, False, logprobs)
                            async with aclosing(again):
                                async for event in again:
                                    yield event
                            return
                        state, part, name = "tool", "{", call[0]
                        naming = name
                    elif state == "tool" and _call(text) is not None:
                        state, part = "buffering", token["text"].rstrip().removesuffix("}")
                    delta: dict[str, Any] = {"role": "assistant", "content": part or ""}
                    if tools and part is not None:
                        naming = name if self.name_in_each else naming
                        tool = {"index": 0, "id": "0", "type": "function"}
                        tool["function"] = {"name": naming, "arguments": part}
                        delta = {"role": "assistant", "tool_calls": [tool] if self.version >= 3 else tool}
                    choice = {
                        "index": 0,
                        "delta": delta,
                        "logprobs": _chat_logprobs([(token, piece["top_tokens"])]) if logprobs else None,
                        "finish_reason": _openai_reason(details["finish_reason"]) if details else None,
                    }
                    chunk = {**self._head("chat.completion.chunk"), "choices": [choice], "usage": None}
                    yield f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n"
        except InferError as error:
            yield f"data: {json.dumps(error.openai_body)}\n\n"
        yield "data: [DONE]\n\n"

    def _head(self, kind: str) -> dict[str, Any]:
        fingerprint = f"{self.version}.3.4-native"
        head = {"object": kind, "id": "", "created": int(time.time()), "model": self.model_id}
        return {**head, "system_fingerprint": fingerprint}


def _object(body: Any, name: str) -> dict[str, Any]:
    return dict((body.get(name) if isinstance(body, dict) else None) or {})


def _inputs(body: Any) -> str:
    inputs = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(inputs, str):
        raise Rejected("missing field `inputs`" if inputs is None else "inputs: invalid type, expected a string")
    return inputs


def _openai_reason(reason: str) -> str:
    return "stop" if reason == "eos_token" else reason


def _chat_logprobs(places: Any) -> dict[str, Any]:
    def entry(token: Mapping[str, Any]) -> dict[str, Any]:
        return {"token": token["text"], "logprob": token["logprob"]}

    return {"content": [{**entry(token), "top_logprobs": [entry(top) for top in tops]} for token, tops in places]}


def _tool_schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    calls = []
    for function in functions:
        given = function["parameters"]
        properties = {"_name": {"type": "string", "const": function["name"]}, **(given.get("properties") or {})}
        required = ["_name", *(given.get("required") or ())]
        call = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
        calls.append(call)
    return {"type": "object", "properties": {"function": {"anyOf": calls}}, "required": ["function"]}


def _call(text: str) -> tuple[str, dict[str, Any]] | None:
    """Name and arguments of a tool call; None when the text is no whole one."""
    try:
        arguments = dict(json.loads(text)["function"])
        return str(arguments.pop("_name")), arguments
    except (ValueError, KeyError, TypeError):
        return None


def _text_message(message: Any, place: int) -> dict[str, Any]:
    """A message as the template gets it: its content is text."""
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        content = json.dumps(message["tool_calls"])
    elif isinstance(content, list):
        # Nothing between the parts; an image's address is text for a model of text.
        content = "".join(p["text"] if p["type"] == "text" else f"![]({p['image_url']['url']})" for p in content)
    if not isinstance(content, str):
        raise Rejected(f"messages[{place}]: data did not match any variant of untagged enum MessageBody")
    return {"role": message["role"], "content": content}


def endpoint(url: str | None, *, state: str = "running", message: str = "", repository: str = MODEL) -> dict[str, Any]:
    """The description of an endpoint."""
    moment = "2026-01-02T03:04:05.678Z"
    status: dict[str, Any] = {"state": state, "message": message, "createdAt": moment, "updatedAt": moment}
    if url is not None:
        status["url"] = url
    model = {"repository": repository, "framework": "pytorch", "revision": "main", "task": "text-generation"}
    return {"name": "mine", "type": "protected", "healthRoute": "/health", "model": model, "status": status}


@contextmanager
def tgi_stand_in(engine: str, **settings: Any) -> Iterator[tuple[TGIStandIn, str]]:
    """A stand-in over the llama.cpp server at `engine`, and its URL."""
    stand_in = TGIStandIn(engine=engine, **settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with httpx.AsyncClient(timeout=120) as app.state.http:
            yield

    app = Starlette(routes=[Route("/{path:path}", stand_in.handle, methods=["GET", "POST"])], lifespan=lifespan)
    with serving(app) as url:
        yield stand_in, url

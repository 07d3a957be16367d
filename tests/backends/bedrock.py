"""A stand-in for Amazon Bedrock over the real llama.cpp engine, so that its SDKs can be used without an account.

It follows the API reference at docs.aws.amazon.com/bedrock/latest/APIReference: `API_runtime_Converse`,
`API_runtime_ConverseStream`, `API_runtime_InvokeModel` (with the bodies of "Amazon Titan Embeddings Text" and "Cohere
Embed" in the user guide), `API_ListFoundationModels` and `API_ListInferenceProfiles`; both services at one URL.
Signatures are checked for real, errors and event streams have AWS's form: see `bedrock_wire`.

What it does not do: every text model is SmolLM2, which sees no images (they are checked, then left out), and makes tool
calls only where `toolChoice` forces one; vectors have that model's size; no guardrails, documents, reasoning, caching.
"""

from __future__ import annotations

import base64
import json
import time
import uuid
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import anyio
import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from backends.bedrock_converse import (
    STOPS,
    RefusedError,
    call_events,
    call_of,
    counts,
    forced_tools,
    prompt_messages,
    reply_content,
    sampling,
)
from backends.bedrock_wire import EVENT_STREAM, Secret, event, refused, validation
from backends.llama_server import LlamaServer
from backends.serving import serving

REGION = "eu-central-1"
ACCESS_KEY = "AKIAOPERATOR00000001"
SECRET = "operator/secret+7d1f0c5e9b2a4c6d8e0f1a2b"
HAIKU = "anthropic.claude-3-haiku-20240307-v1:0"
LLAMA = "meta.llama3-8b-instruct-v1:0"
SONNET = "anthropic.claude-sonnet-4-20250514-v1:0"
TITAN_EMBED = "amazon.titan-embed-text-v2:0"
COHERE_EMBED = "cohere.embed-multilingual-v3"
EU_SONNET = f"eu.{SONNET}"
OWN_PROFILE = f"arn:aws:bedrock:{REGION}:123456789012:application-inference-profile/q1w2e3r4t5y6"


def foundation_model(name: str, outputs: str = "TEXT", **more: Any) -> dict[str, Any]:
    """An entry of ListFoundationModels."""
    return {
        "modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{name}",
        "modelId": name,
        "modelName": name.partition(".")[2][:20],
        "providerName": name.partition(".")[0].title(),
        "inputModalities": ["TEXT"],
        "outputModalities": [outputs],
        "responseStreamingSupported": outputs == "TEXT",
        "customizationsSupported": [],
        "inferenceTypesSupported": ["ON_DEMAND"],
        "modelLifecycle": {"status": "ACTIVE"},
        **more,
    }


def inference_profile(name: str, arn: str, kind: str, model: str) -> dict[str, Any]:
    """An entry of ListInferenceProfiles."""
    return {
        "inferenceProfileName": name.rpartition(".")[2][:20],
        "inferenceProfileArn": arn,
        "inferenceProfileId": name,
        "models": [{"modelArn": f"arn:aws:bedrock:{REGION}::foundation-model/{model}"}],
        "status": "ACTIVE",
        "type": kind,
        "createdAt": "2025-05-22T00:00:00Z",
        "updatedAt": "2025-05-22T00:00:00Z",
    }


def foundation_models() -> list[dict[str, Any]]:
    """One of each kind."""
    return [
        foundation_model(HAIKU, inputModalities=["TEXT", "IMAGE"]),
        foundation_model(LLAMA),
        foundation_model(SONNET, inferenceTypesSupported=["INFERENCE_PROFILE"], inputModalities=["TEXT", "IMAGE"]),
        foundation_model("anthropic.claude-v2", modelLifecycle={"status": "LEGACY"}),
        foundation_model("amazon.nova-canvas-v1:0", "IMAGE"),
        foundation_model(TITAN_EMBED, "EMBEDDING"),
        foundation_model(COHERE_EMBED, "EMBEDDING"),
        foundation_model("amazon.titan-embed-image-v1", "EMBEDDING"),
    ]


def _profiles() -> list[dict[str, Any]]:
    prefix = f"arn:aws:bedrock:{REGION}:123456789012:inference-profile"
    return [
        inference_profile(EU_SONNET, f"{prefix}/{EU_SONNET}", "SYSTEM_DEFINED", SONNET),
        inference_profile(f"eu.{LLAMA}", f"{prefix}/eu.{LLAMA}", "SYSTEM_DEFINED", LLAMA),
        inference_profile(OWN_PROFILE.rpartition("/")[2], OWN_PROFILE, "APPLICATION", HAIKU),
    ]


@dataclass(frozen=True)
class Seen:
    """A request that came in. operation: such as `Converse`."""

    operation: str
    model: str
    headers: Mapping[str, str]
    body: Any
    query: Mapping[str, str]


@dataclass
class BedrockFront:
    """keys: those it takes, by access key id; by default the operator's. answers: the next answers to calls of models,
    each a `Response` or None for the engine's. listing: what both lists answer instead of what is there. page_size: of
    the list of profiles. seen: requests, oldest first.
    """

    llama: LlamaServer
    keys: dict[str, Secret] = field(default_factory=lambda: {ACCESS_KEY: Secret(SECRET)})
    models: list[dict[str, Any]] = field(default_factory=foundation_models)
    profiles: list[dict[str, Any]] = field(default_factory=_profiles)
    region: str = REGION
    page_size: int = 1
    answers: deque[Response | None] = field(default_factory=deque)
    listing: Response | None = None
    seen: list[Seen] = field(default_factory=list)
    disconnects: int = 0

    def last(self, operation: str) -> Seen:
        """The newest request for an operation."""
        return next(s for s in reversed(self.seen) if s.operation == operation)

    def count(self, operation: str) -> int:
        return sum(s.operation == operation for s in self.seen)

    async def handle(self, request: Request) -> Response:
        raw = await request.body()
        parts = request.scope["raw_path"].decode().strip("/").split("/")
        operation = {
            ("GET", "foundation-models"): "ListFoundationModels",
            ("GET", "inference-profiles"): "ListInferenceProfiles",
            ("POST", "converse"): "Converse",
            ("POST", "converse-stream"): "ConverseStream",
            ("POST", "invoke"): "InvokeModel",
        }.get((request.method, parts[-1]), "")
        if not operation or (len(parts) == 3) != (parts[0] == "model"):
            return Response("<html><h1>404 Not Found</h1></html>", 404, media_type="text/html")
        model = unquote(parts[1]) if len(parts) == 3 else ""
        body = json.loads(raw) if raw else None
        self.seen.append(Seen(operation, model, dict(request.headers), body, dict(request.query_params)))
        refusal = refused(request, raw, self.keys, self.region, "bedrock")
        if refusal is not None:
            return refusal
        try:
            answer = await self._answer(request, operation, model, body)
        except RefusedError as found:
            answer = found.answer
        answer.headers["x-amzn-requestid"] = str(uuid.uuid4())
        return answer

    async def _answer(self, request: Request, operation: str, model: str, body: Any) -> Response:
        if not model:
            if self.listing is not None:
                return self.listing
            return (self._foundation_models if "Foundation" in operation else self._inference_profiles)(request)
        if self.answers and (scripted := self.answers.popleft()) is not None:
            return scripted
        known = self._known(model)
        if operation == "InvokeModel":
            return await self._invoke(request, known["modelId"], body)
        if "TEXT" not in known["outputModalities"]:
            return validation("This action doesn't support the model that you provided. Try again with a chat model.")
        return await self._converse(request, body, stream=operation == "ConverseStream")

    # ---- what is served ------------------------------------------------------------------------------------------

    def _foundation_models(self, request: Request) -> Response:
        filters: dict[str, Callable[[Any], list[str]]] = {
            "byProvider": lambda m: [m["providerName"]],
            "byOutputModality": lambda m: m["outputModalities"],
            "byInferenceType": lambda m: m["inferenceTypesSupported"],
            "byCustomizationType": lambda m: m["customizationsSupported"],
        }
        wanted = {name: value for name, value in request.query_params.items() if name in filters}
        found = [m for m in self.models if all(value in filters[name](m) for name, value in wanted.items())]
        return JSONResponse({"modelSummaries": found})

    def _inference_profiles(self, request: Request) -> Response:
        # As AWS does: without a type, those that it has defined itself.
        wanted = request.query_params.get("type", "SYSTEM_DEFINED")
        found = [profile for profile in self.profiles if profile["type"] == wanted]
        start = int(base64.b64decode(request.query_params.get("nextToken", "")) or 0)
        end = start + min(int(request.query_params.get("maxResults", self.page_size)), self.page_size)
        page: dict[str, Any] = {"inferenceProfileSummaries": found[start:end]}
        if end < len(found):
            page["nextToken"] = base64.b64encode(str(end).encode()).decode()
        return JSONResponse(page)

    def _known(self, model: str) -> dict[str, Any]:
        """The foundation model that a name leads to."""
        profile = next((p for p in self.profiles if model in (p["inferenceProfileArn"], p["inferenceProfileId"])), None)
        if profile is not None and (profile["type"] == "SYSTEM_DEFINED" or model.startswith("arn:")):
            arn = profile["models"][0]["modelArn"]
            return next(m for m in self.models if m["modelArn"] == arn)
        found = next((m for m in self.models if model in (m["modelId"], m["modelArn"])), None)
        if found is None:
            raise RefusedError(validation("The provided model identifier is invalid."))
        if "ON_DEMAND" not in found["inferenceTypesSupported"]:
            message = f"Invocation of model ID {model} with on-demand throughput isn't supported. Retry your request "
            message += "with the ID or ARN of an inference profile that contains this model."
            raise RefusedError(validation(message))
        return found

    # ---- Converse ------------------------------------------------------------------------------------------------

    async def _converse(self, request: Request, body: Any, *, stream: bool) -> Response:
        started = time.monotonic()
        messages = prompt_messages(body)
        template = await request.app.state.http.post(f"{self.llama.url}/apply-template", json={"messages": messages})
        tools = forced_tools(body)
        job = {"prompt": template.json()["prompt"], **sampling(body), "stream": stream}
        if tools:
            job |= {"json_schema": call_of(tools), "stop": []}
        answer = await self._asked(request, f"{self.llama.url}/completion", job)
        if stream and not tools:
            return StreamingResponse(self._events(answer, started), media_type=EVENT_STREAM)
        if not stream:
            reply = answer.json()
            content, reason = reply_content(reply["content"], STOPS[reply["stop_type"]], tools)
            output = {"message": {"role": "assistant", "content": content}}
            return JSONResponse({"output": output, "stopReason": reason, **counts(reply, started)})
        # A call is known only when it is whole; its input is then handed out in pieces, as it must be taken.
        pieces = [piece async for piece in self._pieces(answer)]
        text = "".join(piece["content"] for piece in pieces)
        content, reason = reply_content(text, STOPS[pieces[-1]["stop_type"]], tools)
        return Response(call_events(content, reason, counts(pieces[-1], started)), media_type=EVENT_STREAM)

    async def _asked(self, request: Request, url: str, job: dict[str, Any]) -> httpx.Response:
        """The engine's answer; a client that goes away meanwhile ends the engine's work."""
        http: httpx.AsyncClient = request.app.state.http
        response: httpx.Response | None = None
        async with anyio.create_task_group() as sending:

            async def watch() -> None:
                while not await request.is_disconnected():
                    await anyio.sleep(0.01)
                self.disconnects += 1
                sending.cancel_scope.cancel()

            sending.start_soon(watch)
            found = await http.send(http.build_request("POST", url, json=job), stream=True)
            if not job.get("stream") or not found.is_success:
                await found.aread()
            response = found
            sending.cancel_scope.cancel()
        if response is None:
            raise RefusedError(Response(status_code=499))
        if not response.is_success:
            too_long = b"exceed_context_size" in response.content
            text = "Input is too long for requested model." if too_long else response.text
            raise RefusedError(validation(text))
        return response

    async def _pieces(self, answer: httpx.Response) -> AsyncGenerator[dict[str, Any], None]:
        complete = False
        try:
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])
            complete = True
        finally:
            self.disconnects += not complete
            with anyio.CancelScope(shield=True):
                await answer.aclose()

    async def _events(self, answer: httpx.Response, started: float) -> AsyncIterator[bytes]:
        yield event("messageStart", {"role": "assistant"})
        last: dict[str, Any] = {}
        pieces = self._pieces(answer)
        try:
            async for last in pieces:
                if last["content"]:
                    yield event("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": last["content"]}})
        finally:
            with anyio.CancelScope(shield=True):
                await pieces.aclose()
        yield event("contentBlockStop", {"contentBlockIndex": 0})
        yield event("messageStop", {"stopReason": STOPS[last["stop_type"]]})
        yield event("metadata", counts(last, started))

    # ---- InvokeModel ---------------------------------------------------------------------------------------------

    async def _invoke(self, request: Request, model: str, body: Any) -> Response:
        known = {"inputText", "dimensions", "normalize", "embeddingTypes"}
        if model.startswith("cohere.embed"):
            known = {"texts", "input_type", "truncate", "embedding_types", "images"}
        elif not model.startswith("amazon.titan-embed-text"):
            return validation("The stand-in invokes embedding models alone.")
        for name in sorted(set(body) - known):
            return _malformed(f"extraneous key [{name}] is not permitted")
        texts = body.get("texts", [body.get("inputText")])
        if not all(isinstance(text, str) and text for text in texts):
            return _malformed("#/inputText: expected minLength: 1, actual: 0")
        if len(texts) > 96:
            return _malformed(f"#/texts: expected maximum item count: 96, found: {len(texts)}")
        answer = await self._asked(request, f"{self.llama.embeddings_url}/v1/embeddings", {"input": texts})
        reply = answer.json()
        vectors = [entry["embedding"] for entry in reply["data"]]
        if "inputText" in body:
            by_type = {"embeddingsByType": {"float": vectors[0]}} if "v2" in model else {}
            tokens = reply["usage"]["prompt_tokens"]
            return JSONResponse({"embedding": vectors[0], **by_type, "inputTextTokenCount": tokens})
        if body.get("input_type") not in ("search_document", "search_query", "classification", "clustering"):
            return _malformed("#: required key [input_type] not found")
        kind: dict[str, Any] = {"embeddings": vectors, "response_type": "embeddings_floats"}
        if body.get("embedding_types"):
            kind = {"embeddings": {"float": vectors}, "response_type": "embeddings_by_type"}
        return JSONResponse({"id": str(uuid.uuid4()), "texts": texts, **kind})


def _malformed(what: str) -> Response:
    return validation(f"Malformed input request: {what}, please reformat your input and try again.")


def bedrock_app(front: BedrockFront) -> Starlette:
    """The app of a stand-in. `app.state.front` may be another one for each test."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # The engine closes kept connections after a while: none is kept.
        limits = httpx.Limits(max_keepalive_connections=0)
        async with httpx.AsyncClient(timeout=120, limits=limits, verify=False) as app.state.http:
            yield

    async def handle(request: Request) -> Response:
        current: BedrockFront = request.app.state.front
        return await current.handle(request)

    app = Starlette(routes=[Route("/{path:path}", handle, methods=["GET", "POST"])], lifespan=lifespan)
    app.state.front = front
    return app


@contextmanager
def bedrock_front(llama: LlamaServer, **settings: Any) -> Iterator[tuple[BedrockFront, str]]:
    """A stand-in over the engine, and its URL: that of both services."""
    front = BedrockFront(llama, **settings)
    with serving(bedrock_app(front)) as url:
        yield front, url

"""A scripted backend of the OpenAI dialect: it computes nothing, and does at once what a model is asked for.

It is what broken providers are broken before, and it is fast; the suite itself runs against real engines in the tests
of the providers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
from backends.serving import serving
from scripted_memory import MEMORY_ROUTE
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

MODEL, OTHER = "scripted", "scripted-other"
_TEXT = (
    "The answer is that Paris is the capital of France and so on for quite a while until the tokens are over; "
    "Zürich 🦙 and Ærøskøbing are not"
)
_WORDS = _TEXT.split()
_BETWEEN_S = 0.002


def _words(body: dict[str, Any]) -> tuple[list[str], str]:
    if "response_format" in body:
        return ['{"sunny"', ":", " true}"], "stop"
    limit = body.get("max_tokens") or body.get("max_completion_tokens") or len(_WORDS)
    kept = [word if place == 0 else f" {word}" for place, word in enumerate(_WORDS)]
    text = "".join(kept[:limit])
    for stop in body.get("stop") or ():
        if stop in text:
            return [text.partition(stop)[0]], "stop"
    return kept[:limit], "length" if limit < len(kept) else "stop"


def _logprobs(words: list[str], body: dict[str, Any]) -> Any:
    if not body.get("logprobs"):
        return None
    top = [{"token": "x", "logprob": -2.0, "bytes": None}][: body.get("top_logprobs") or 0]
    return {"content": [{"token": w, "logprob": -0.5, "bytes": None, "top_logprobs": top} for w in words]}


def _usage(prompt: Any, words: list[str]) -> dict[str, int]:
    """Tokens are words here."""
    given = len(json.dumps(prompt).split())
    return {"prompt_tokens": given, "completion_tokens": len(words), "total_tokens": given + len(words)}


def _call(function: dict[str, Any]) -> dict[str, Any]:
    """A call of a function, with a text for each of its required parameters."""
    names = function.get("parameters", {}).get("required", [])
    arguments = json.dumps(dict.fromkeys(names, "Paris"))
    return {"id": "call_1", "type": "function", "function": {"name": function["name"], "arguments": arguments}}


def _deltas(call: dict[str, Any]) -> list[dict[str, Any]]:
    """The call in pieces, as OpenAI streams it."""
    function = call["function"]
    begun = {**call, "index": 0, "function": {**function, "arguments": ""}}
    text = function["arguments"]
    parts = [{"index": 0, "function": {"arguments": text[at : at + 5]}} for at in range(0, len(text), 5)]
    return [{"tool_calls": [part]} for part in (begun, *parts)]


def _known(body: dict[str, Any]) -> Response | None:
    if body["model"] in (MODEL, OTHER):
        return None
    return JSONResponse({"error": {"message": "The model does not exist", "code": "model_not_found"}}, 404)


async def _chat(request: Request) -> Response:
    body = await request.json()
    if (refusal := _known(body)) is not None:
        return refusal
    head = {"id": "c", "created": 0, "model": body["model"]}
    if body.get("tool_choice") == "required":
        call = _call(body["tools"][0]["function"])
        deltas, words = _deltas(call), ["call"] * 4
        message, reason = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
    else:
        words, reason = _words(body)
        deltas = [{"content": word} for word in words]
        message = {"role": "assistant", "content": "".join(words)}
    usage = _usage([body["messages"], body.get("tools")], words)
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": _logprobs(words, body)}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
    choices = [
        {"index": 0, "delta": d, "finish_reason": why} for d, why in (*((d, None) for d in deltas), ({}, reason))
    ]
    return _events({**head, "object": "chat.completion.chunk"}, choices, usage, body)


def _events(head: dict[str, Any], choices: list[Any], usage: dict[str, int], body: dict[str, Any]) -> Response:
    async def pieces() -> AsyncIterator[str]:
        for choice in choices:
            yield f"data: {json.dumps({**head, 'choices': [choice]}, ensure_ascii=False)}\n\n"
            await anyio.sleep(_BETWEEN_S)
        if (body.get("stream_options") or {}).get("include_usage"):
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def _completion(request: Request) -> Response:
    body = await request.json()
    if (refusal := _known(body)) is not None:
        return refusal
    words, reason = _words(body)
    head = {"id": "c", "object": "text_completion", "created": 0, "model": body["model"]}
    usage = _usage(body["prompt"], words)
    if not body.get("stream"):
        choice = {"index": 0, "text": "".join(words), "finish_reason": reason}
        return JSONResponse({**head, "choices": [choice], "usage": usage})
    choices = [
        {"index": 0, "text": text, "finish_reason": why} for text, why in (*((w, None) for w in words), ("", reason))
    ]
    return _events(head, choices, usage, body)


async def _embeddings(request: Request) -> Response:
    body = await request.json()
    vectors = [[byte / 255 - 0.5 for byte in hashlib.sha256(text.encode()).digest()] for text in body["input"]]
    data = [{"object": "embedding", "index": place, "embedding": v} for place, v in enumerate(vectors)]
    tokens = sum(len(text.split()) + 1 for text in body["input"])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return JSONResponse({"object": "list", "model": MODEL, "data": data, "usage": usage})


async def _models(_: Request) -> Response:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "t"} for name in (MODEL, OTHER)]
    return JSONResponse({"object": "list", "data": data})


@contextmanager
def scripted_openai() -> Iterator[str]:
    """Its base URL."""
    routes = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/completions", _completion, methods=["POST"]),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models),
        Mount("/v1/memory", routes=[MEMORY_ROUTE]),
    ]
    app = Starlette(routes=routes)
    app.state.memory_stores = {}
    with serving(app) as url:
        yield f"{url}/v1"

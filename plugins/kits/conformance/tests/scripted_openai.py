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
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

MODEL = "scripted"
_WORDS = [
    "The",
    "answer",
    "is",
    "that",
    "Paris",
    "is",
    "the",
    "capital",
    "of",
    "France",
    "and",
    "so",
    "on",
    "for",
    "quite",
    "a",
    "while",
    "until",
    "the",
    "tokens",
    "are",
    "over",
]
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


async def _chat(request: Request) -> Response:
    body = await request.json()
    if body["model"] != MODEL:
        return JSONResponse({"error": {"message": "The model does not exist", "code": "model_not_found"}}, 404)
    head = {"id": "c", "created": 0, "model": MODEL}
    if body.get("tool_choice") == "required":
        call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
        deltas = [{"tool_calls": [{**call, "index": 0}]}]
        message, reason, words = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls", []
    else:
        words, reason = _words(body)
        deltas = [{"content": word} for word in words]
        message = {"role": "assistant", "content": "".join(words)}
    if not body.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": _logprobs(words, body)}
        return JSONResponse({**head, "object": "chat.completion", "choices": [choice]})

    async def pieces() -> AsyncIterator[str]:
        for delta, why in (*((d, None) for d in deltas), ({}, reason)):
            choice = {"index": 0, "delta": delta, "finish_reason": why}
            yield f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': [choice]})}\n\n"
            await anyio.sleep(_BETWEEN_S)
        yield "data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def _completion(request: Request) -> Response:
    body = await request.json()
    words, reason = _words(body)
    head = {"id": "c", "object": "text_completion", "created": 0, "model": MODEL}
    if not body.get("stream"):
        return JSONResponse({**head, "choices": [{"index": 0, "text": "".join(words), "finish_reason": reason}]})

    async def pieces() -> AsyncIterator[str]:
        for text, why in (*((word, None) for word in words), ("", reason)):
            yield f"data: {json.dumps({**head, 'choices': [{'index': 0, 'text': text, 'finish_reason': why}]})}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def _embeddings(request: Request) -> Response:
    body = await request.json()
    vectors = [[byte / 255 for byte in hashlib.sha256(text.encode()).digest()] for text in body["input"]]
    data = [{"object": "embedding", "index": place, "embedding": v} for place, v in enumerate(vectors)]
    return JSONResponse({"object": "list", "model": MODEL, "data": data})


async def _models(_: Request) -> Response:
    return JSONResponse({"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0, "owned_by": "t"}]})


@contextmanager
def scripted_openai() -> Iterator[str]:
    """Its base URL."""
    routes = [
        Route("/v1/chat/completions", _chat, methods=["POST"]),
        Route("/v1/completions", _completion, methods=["POST"]),
        Route("/v1/embeddings", _embeddings, methods=["POST"]),
        Route("/v1/models", _models),
    ]
    with serving(Starlette(routes=routes)) as url:
        yield f"{url}/v1"

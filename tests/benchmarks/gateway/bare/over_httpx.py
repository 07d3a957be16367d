"""A Starlette app that passes chat completions through, over httpx with its own transport, and does nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

URL = os.environ["BENCH_BACKEND"] + "/v1/chat/completions"
JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    # What is measured is the way through, so neither limits nor time-outs stand in it.
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=None) as client:
        app.state.client = client
        yield


async def chat_completions(request: Request) -> Response:
    body = await request.body()
    client: httpx.AsyncClient = request.app.state.client
    if orjson.loads(body).get("stream"):
        reply = await client.send(client.build_request("POST", URL, content=body, headers=JSON), stream=True)
        return StreamingResponse(_events(reply), reply.status_code, media_type="text/event-stream")
    reply = await client.post(URL, content=body, headers=JSON)
    return Response(reply.content, reply.status_code, media_type="application/json")


async def _events(reply: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for data in reply.aiter_raw():
            yield data
    finally:
        await reply.aclose()


app = Starlette(routes=[Route("/v1/chat/completions", chat_completions, methods=["POST"])], lifespan=lifespan)

"""The yardstick: a Starlette app that passes chat completions through, over aiohttp, and does nothing else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
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
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None)) as session:
        app.state.session = session
        yield


async def chat_completions(request: Request) -> Response:
    body = await request.body()
    session: aiohttp.ClientSession = request.app.state.session
    if orjson.loads(body).get("stream"):
        reply = await session.post(URL, data=body, headers=JSON)
        return StreamingResponse(_events(reply), reply.status, media_type="text/event-stream")
    async with session.post(URL, data=body, headers=JSON) as reply:
        return Response(await reply.read(), reply.status, media_type="application/json")


async def _events(reply: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with reply:
        async for data in reply.content.iter_any():
            yield data


app = Starlette(routes=[Route("/v1/chat/completions", chat_completions, methods=["POST"])], lifespan=lifespan)

"""A stack behind the real server, in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx

from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery
from llamastack_server.uvicorn_server import bind, serve, url_of


@asynccontextmanager
async def served_stack(
    config: Mapping[str, Any], discovery: Discovery | None = None
) -> AsyncIterator[tuple[Stack, httpx.AsyncClient]]:
    """Serve the stack of `config` on a free port; gives it and an HTTP client of it."""
    listening = bind("127.0.0.1", 0)
    ready = anyio.Event()
    async with Stack.from_config(config, discovery=discovery) as stack, anyio.create_task_group() as group:
        group.start_soon(serve, stack, listening, ready.set)
        await ready.wait()
        async with httpx.AsyncClient(base_url=url_of(listening), timeout=60) as client:
            yield stack, client
        group.cancel_scope.cancel()


@asynccontextmanager
async def served_script(
    discovery: Discovery, names: Sequence[str] = ("a",), **run: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """Serve scripted inference providers of these names, each following the script of its name."""
    providers = [{"provider_id": name, "provider_type": "scripted", "config": {"script": name}} for name in names]
    async with served_stack({"providers": {"inference": providers}, **run}, discovery) as (_, client):
        yield client

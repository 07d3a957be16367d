"""The HTTP client that providers and our own client share."""

from __future__ import annotations

from typing import Any

import httpx


def http_client(**options: Any) -> httpx.AsyncClient:
    """An `httpx.AsyncClient` for one backend: kept for the life of a provider instance, closed with it.

    options: as `httpx.AsyncClient` takes them. Where the package httpx-aiohttp is installed (extra `server`), its
    transport is used: httpx's own searches its whole pool at every request.
    """
    if "transport" not in options:
        try:
            from httpx_aiohttp import AiohttpTransport
        except ImportError:
            pass
        else:
            options["transport"] = AiohttpTransport(
                verify=options.get("verify", True),
                limits=options.get("limits", httpx.Limits(max_connections=1000, max_keepalive_connections=100)),
            )
    return httpx.AsyncClient(**options)

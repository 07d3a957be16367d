"""Which hosts a request may name, and which web pages may send it: against DNS rebinding and foreign pages.

CORS: https://fetch.spec.whatwg.org/#http-cors-protocol.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable

from llamastack.provider.errors import InvalidRequestError, LlamaStackError, PermissionDeniedError
from llamastack.provider.routes import AsgiApp, AsgiMessage, Receive, Scope, Send
from llamastack_server.context import REQUEST_ID_HEADER
from llamastack_server.error_replies import send_error
from llamastack_server.hosts import (
    ANY,
    NULL_ORIGIN,
    host_pattern,
    is_loopback,
    is_own,
    origin_pattern,
    read_host,
    read_origin,
)
from llamastack_server.requests import headers_of
from llamastack_server.scope_state import state_of
from llamastack_server.settings import ServerConfig

_SAFE = ("GET", "HEAD", "OPTIONS")
_MOST_KNOWN = 1000
_LONGEST_SHOWN = 200  # characters
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,4096}")
_EXPOSED = f"{REQUEST_ID_HEADER}, Retry-After, Retry-After-Ms, X-Should-Retry".encode()
_ALLOWED_METHODS = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
_ALLOWED_HEADERS = b"Authorization, Content-Type, X-LlamaStack-ProviderData, X-Request-ID"
_REMEMBERED_FOR_S = b"600"

Headers = list[tuple[bytes, bytes]]


class OriginPolicy:
    """Middleware that refuses requests for another host or from another site, and sends the CORS headers.

    app: called for every other request.
    """

    def __init__(self, app: AsgiApp, *, settings: ServerConfig) -> None:
        self._app = app
        own_name = [settings.host] if read_host(settings.host) is not None else []
        self._hosts = [host_pattern(text) for text in (*settings.allowed_hosts, *own_name)]
        self._every_host = ANY in settings.allowed_hosts
        self._names_hosts = bool(settings.allowed_hosts)
        self._good_hosts: set[bytes] = set()
        self._every_origin = ANY in settings.allowed_origins
        self._null_origin = NULL_ORIGIN in settings.allowed_origins
        self._origins = [origin_pattern(text) for text in settings.allowed_origins if text not in (ANY, NULL_ORIGIN)]
        self._has_origins = bool(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = headers_of(scope)
            usual = headers.get(b"host") in self._good_hosts and len(headers) == len(scope["headers"])
            if not usual or self._has_origins or b"origin" in headers:
                await self._look(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _look(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = headers_of(scope)
        origin = headers.get(b"origin")
        allowed = origin is not None and self._allows(origin)
        if self._has_origins:
            send = _adding(self._cors_headers(origin if allowed else None), send)
        try:
            self._check_host(scope)
            if origin is not None and not allowed:
                self._check_origin(scope, origin, headers.get(b"host", b""))
        except LlamaStackError as error:
            await send_error(error, scope, receive, send)
            return
        if self._has_origins and origin is not None and _is_preflight(scope):
            if allowed:
                await _answer_preflight(headers, send)
            else:
                await send_error(_foreign(origin), scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _check_host(self, scope: Scope) -> None:
        given = [value for name, value in scope["headers"] if name == b"host"]
        if len(given) > 1:
            raise InvalidRequestError("the request has more than one header 'Host'")
        if not given:
            if scope.get("http_version", "1.1") != "1.0":
                raise InvalidRequestError("the request has no header 'Host'")
            return  # browsers always send it
        if not self._every_host and (self._names_hosts or state_of(scope).loopback):
            text = given[0].decode("latin-1")
            host = read_host(text)
            if host is None:
                raise InvalidRequestError(f"the header 'Host' is not a host: {_shown(text)}")
            if not is_loopback(host.name) and not any(pattern.fits(host) for pattern in self._hosts):
                raise PermissionDeniedError(
                    f"requests for the host {_shown(text)} are refused; add it to server.allowed_hosts if the server "
                    "is reached by that name"
                )
        if len(self._good_hosts) < _MOST_KNOWN:
            self._good_hosts.add(given[0])

    def _check_origin(self, scope: Scope, origin: bytes, host: bytes) -> None:
        """Refuse a page of another site, which must not write to a stack on this machine. Browsers send its origin."""
        if scope["method"] in _SAFE:
            return
        theirs, ours = read_origin(origin.decode("latin-1")), read_host(host.decode("latin-1"))
        if theirs is None or ours is None or not is_own(theirs, ours):
            raise _foreign(origin)

    def _allows(self, given: bytes) -> bool:
        if self._every_origin:
            return True
        text = given.decode("latin-1")
        if text == NULL_ORIGIN:
            return self._null_origin
        origin = read_origin(text)
        return origin is not None and any(pattern.fits(origin) for pattern in self._origins)

    def _cors_headers(self, allowed: bytes | None) -> Headers:
        """The CORS headers of every reply. allowed: the origin that may read it."""
        added: Headers = [] if self._every_origin else [(b"vary", b"Origin")]
        if allowed is not None:
            added.append((b"access-control-allow-origin", b"*" if self._every_origin else allowed))
            added.append((b"access-control-expose-headers", _EXPOSED))
        return added


def _is_preflight(scope: Scope) -> bool:
    return scope["method"] == "OPTIONS" and b"access-control-request-method" in headers_of(scope)


async def _answer_preflight(headers: dict[bytes, bytes], send: Send) -> None:
    """Answer a preflight request, by which a browser asks whether a page may send a request."""
    asked = headers.get(b"access-control-request-headers", b"")
    # Clients have their own headers, such as x-stainless-..., and CORS has no patterns for names.
    names = asked if asked.strip() and _HEADER_NAMES.fullmatch(asked) else _ALLOWED_HEADERS
    reply: Headers = [
        (b"access-control-allow-methods", _ALLOWED_METHODS),
        (b"access-control-allow-headers", names),
        (b"access-control-max-age", _REMEMBERED_FOR_S),
        (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers"),
    ]
    if headers.get(b"access-control-request-private-network") == b"true":
        reply.append((b"access-control-allow-private-network", b"true"))
    await send({"type": "http.response.start", "status": 204, "headers": reply})
    await send({"type": "http.response.body", "body": b""})


def _adding(headers: Headers, send: Send) -> Callable[[AsgiMessage], Awaitable[None]]:
    async def adding(message: AsgiMessage) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], *headers]
        await send(message)

    return adding


def _foreign(origin: bytes) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"requests from pages of {_shown(origin.decode('latin-1'))} are refused; "
        "server.allowed_origins names the origins that may send them"
    )


def _shown(text: str) -> str:
    return ascii(text[:_LONGEST_SHOWN])

"""Reads the context of a request out of its headers."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import anyio

from llamastack.provider.context import PROVIDER_DATA_HEADER, RequestContext, traceparent_from
from llamastack.provider.errors import InvalidRequestError
from llamastack.provider.hookspecs import IncomingRequest
from llamastack.provider.routes import Scope
from llamastack_server.requests import header_of, headers_of

REQUEST_ID_HEADER = "X-Request-ID"
TIMEOUT_HEADER = "X-Request-Timeout"
_ID, _DATA, _TIMEOUT = (name.lower().encode() for name in (REQUEST_ID_HEADER, PROVIDER_DATA_HEADER, TIMEOUT_HEADER))
_TRACEPARENT = b"traceparent"
_ACCEPTED = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
BeginSpan = Callable[[str | None, str], str | None]
"""From the traceparent of the client and the path to the traceparent of a new span."""
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


class Spans(NamedTuple):
    """The traceparent of a request's own span, and the one that its client sent."""

    own: str | None
    parent: str | None


def request_context(scope: Scope, begin_span: BeginSpan | None = None) -> tuple[RequestContext, Spans]:
    """The context of a request over HTTP, and its span. Its time limit is not in it: see `deadline_of`.

    The id of a request that begins a trace is that of the trace, unless the client names one.
    """
    headers = headers_of(scope)
    own, data, trace = headers.get(_ID), headers.get(_DATA), headers.get(_TRACEPARENT)
    parent = None if trace is None else _traceparent_of(scope, trace)
    span = None if begin_span is None else begin_span(parent, scope["path"])
    if own is None and parent is None and span is not None:
        request_id = span[3:35]
    else:
        request_id = request_id_from(None if own is None else own.decode("latin-1"))
    context = RequestContext(
        provider_data=None if data is None else data.decode("latin-1"),
        request_id=request_id,
        traceparent=span or parent,
    )
    return context, Spans(span, parent)


def deadline_of(scope: Scope) -> float | None:
    """When the time is over that the client allows, on the clock of `anyio.current_time()`; None without a limit.

    Raises InvalidRequestError for a header that is no time.
    """
    given = header_of(scope, _TIMEOUT)
    if given is None:
        return None
    seconds = float(given) if _SECONDS.fullmatch(given) else 0.0
    if not seconds:
        raise InvalidRequestError(
            f"the header {TIMEOUT_HEADER} must hold a number of seconds above 0, such as 2.5", param=TIMEOUT_HEADER
        )
    return anyio.current_time() + seconds


class _Headers(Mapping[str, str]):
    """The headers of a request, decoded when they are read: a plugin reads one or two."""

    def __init__(self, scope: Scope) -> None:
        self._raw = headers_of(scope)

    def __getitem__(self, name: str) -> str:
        return self._raw[name.encode("latin-1", "replace")].decode("latin-1")

    def __iter__(self) -> Iterator[str]:
        return (name.decode("latin-1") for name in self._raw)

    def __len__(self) -> int:
        return len(self._raw)


def incoming(scope: Scope) -> IncomingRequest:
    """What an authentication plugin is asked about."""
    client = scope.get("client")
    return IncomingRequest(scope["method"], scope["path"], _Headers(scope), client[0] if client else None)


def request_id_from(header: str | None) -> str:
    """The client's own id where it is a harmless one, else a new one."""
    if header and _ACCEPTED.fullmatch(header):
        return header
    return f"{random.getrandbits(128):032x}"


def _traceparent_of(scope: Scope, header: bytes) -> str | None:
    given = sum(1 for name, _ in scope["headers"] if name == _TRACEPARENT)
    return traceparent_from(header.decode("latin-1")) if given == 1 else None

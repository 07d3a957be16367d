"""The header that says what the calls of a request over HTTP cost."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from decimal import Decimal

from llamastack.provider import hookimpl
from llamastack.provider.provider_call import CallEvent
from llamastack.provider.routes import AsgiApp, AsgiMessage, Middleware, Receive, Scope, Send
from llamastack_telemetry.price_list import PriceList
from llamastack_telemetry.prices import Cost, added

COST_HEADER = "X-LlamaStack-Cost"
_NAME = COST_HEADER.lower().encode()
_EXPOSE = (b"access-control-expose-headers", COST_HEADER.encode())
_STREAM = b"text/event-stream"

_Totals = dict[str, Decimal]
"""By currency."""
_of_request: ContextVar[_Totals | None] = ContextVar("llamastack_cost_of_request", default=None)
"""What the calls of the request that is being served cost so far. Tasks of the request have the same dictionary."""


class CostHeader:
    """Adds up what the calls of a request cost, and puts it into the head of its reply."""

    def __init__(self, prices: PriceList) -> None:
        self._prices = prices

    @hookimpl
    def llamastack_call_finished(self, event: CallEvent) -> None:
        totals = _of_request.get()
        cost = None if totals is None else self._prices.cost_of(event)
        if totals is not None and cost is not None:
            totals[cost.currency] = added(totals.get(cost.currency, Decimal(0)), cost.amount)

    @hookimpl
    def llamastack_middleware(self) -> Sequence[Middleware]:
        return [Middleware(_with_cost)]


def _with_cost(app: AsgiApp) -> AsgiApp:
    async def with_cost(scope: Scope, receive: Receive, send: Send) -> None:
        totals: _Totals = {}

        async def sending(message: AsgiMessage) -> None:
            if totals and message["type"] == "http.response.start" and not _is_stream(message):
                message["headers"] = [*message.get("headers", ()), *_headers(totals, scope)]
            await send(message)

        entered = _of_request.set(totals)
        try:
            await app(scope, receive, sending)
        finally:
            _of_request.reset(entered)

    return with_cost


def _is_stream(head: AsgiMessage) -> bool:
    """The head of a stream comes before its cost is known. It would have the cost of a part."""
    return any(name.lower() == b"content-type" and value.startswith(_STREAM) for name, value in head.get("headers", ()))


def _headers(totals: _Totals, scope: Scope) -> list[tuple[bytes, bytes]]:
    # A list, as https://www.rfc-editor.org/rfc/rfc9110#section-5.6.1 has it: nobody adds up different currencies.
    shown = ", ".join(str(Cost(totals[currency], currency)) for currency in sorted(totals))
    found = [(_NAME, shown.encode())]
    if any(name == b"origin" for name, _ in scope["headers"]):
        found.append(_EXPOSE)  # beside those that the server exposes: browsers take the headers together
    return found

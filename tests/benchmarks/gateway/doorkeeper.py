"""A plugin that knows who asks, allows each call and counts its tokens, as one for accounts would."""

from __future__ import annotations

from llamastack.provider import hookimpl
from llamastack.provider.context import Principal
from llamastack.provider.hookspecs import Action, IncomingRequest, Resource
from llamastack.provider.provider_call import CallEvent

_KEYS = {"Bearer a-key-of-the-bench": Principal("bench")}
tokens_by_model: dict[str, int] = {}


@hookimpl
async def llamastack_authenticate(request: IncomingRequest) -> Principal | None:
    return _KEYS.get(request.headers.get("authorization", ""))


@hookimpl
async def llamastack_authorize(principal: Principal | None, action: Action, resource: Resource) -> bool | None:
    return principal is not None and action is Action.CALL and bool(resource.identifier)


@hookimpl
def llamastack_call_started(event: CallEvent) -> None:
    tokens_by_model.setdefault(event.identifier, 0)


@hookimpl
def llamastack_call_finished(event: CallEvent) -> None:
    tokens_by_model[event.identifier] += event.output_tokens or 0

"""The one-to-many extension points (pluggy; entry-point group `llamastack.plugins`).

Hooks are plain functions unless their specification is async. They are called on the event loop where one runs: they
must not block. An implementation may leave out arguments that it does not use. A failure in a hook that only reports
something is logged and has no other effect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import pluggy

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.commands import CliCommand
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.provider.context import Principal
    from llamastack.provider.provider_call import CallEvent, Proceed, ProviderCall
    from llamastack.provider.routes import Middleware, RouteGroup

PROJECT = "llamastack"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook that it is named after."""


class FinishedRequest(NamedTuple):
    """One request over HTTP, after its last byte.

    request_id: the id in the reply's header `X-Request-ID`.
    method: HTTP method.
    path: path of the URL, without the query.
    status: HTTP status; 499 for a client that went away before its reply was complete.
    duration_s: seconds from the request's head to the reply's last byte.
    route: the path of the route that answered, such as `/files/{file_id}`; None if there is none.
    traceparent: of its span, from `llamastack_begin_span`; None if it has none.
    parent: the traceparent that the client sent, if any.
    """

    request_id: str
    method: str
    path: str
    status: int
    duration_s: float
    route: str | None = None
    traceparent: str | None = None
    parent: str | None = None


@hookspec
def llamastack_apis() -> Sequence[ApiDefinition]:  # type: ignore[empty-body]
    """APIs to add to the built-in ones. A plugin with one that cannot be used, or whose name is taken, is left out.

    They get routes, client methods, registration, commands and a key in the run config, as the built-in ones have.
    `llamastack.provider.builtin_apis.routed_apis` makes a pair of a routed API and the resource API of its objects.
    """


@hookspec
def llamastack_check_apis(apis: Mapping[str, ApiDefinition], added: Mapping[str, str]) -> None:
    """Raise DiscoveryError if a surface cannot serve the APIs that one plugin adds: then this plugin is left out.

    apis: those so far and these, by name. added: the names of these, with the plugin. Called before anything starts,
    once for each plugin that adds APIs. Another exception is a fault of the plugin that checks, and the APIs stay.
    """


@hookspec
def llamastack_cli_commands() -> Sequence[CliCommand]:  # type: ignore[empty-body]
    """Commands to add to `llamastack`, each imported when it is used. A name that exists already is ignored."""


@hookspec
def llamastack_config_sections() -> Sequence[ConfigSection]:  # type: ignore[empty-body]
    """Top-level keys of the run config that the plugin reads. A name that is taken is an error."""


@hookspec
def llamastack_stack_plugins(config: object) -> Sequence[object]:  # type: ignore[empty-body]
    """Plugins of one stack, such as those that its run config asks for: a stack that does not need them has no cost.

    config: the `llamastack.stack.config.LoadedConfig` of the stack. The plugins may implement the hooks of a running
    stack, except `llamastack_authenticate` and `llamastack_authorize`. A plugin that fails here stops the start; a
    `llamastack.ConfigError` of `config.error(...)` is shown as it is.
    """


@hookspec
def llamastack_routes(stack: Any) -> Sequence[RouteGroup]:  # type: ignore[empty-body]
    """Routes to serve over HTTP. `stack` is the running `llamastack.Stack`.

    Two routes with the same path and HTTP method are an error that names both plugins. A plugin that fails here stops
    the start.
    """


@hookspec
def llamastack_middleware(stack: Any) -> Sequence[Middleware]:  # type: ignore[empty-body]
    """Middleware around every route of the server, in the order of their numbers. `stack` is the `llamastack.Stack`.

    A plugin that fails here stops the start.
    """


@hookspec
def llamastack_stack_lifespan(stack: Any) -> AbstractAsyncContextManager[object]:  # type: ignore[empty-body]
    """An async context manager around a running stack; `stack` is the `llamastack.Stack`.

    The stack enters it when every provider has tried to start, and leaves it while everything still works; several in
    reverse order. A failure at entry stops the start. A failure at exit is logged.
    """


@hookspec
def llamastack_object_registered(api: str, object: Any) -> None:
    """A user registered an object. The hook is not called for objects of the run config or of other processes.

    api: name of the resource API, such as `models`.
    object: the object, such as a `Model`.
    """


@hookspec
def llamastack_object_unregistered(api: str, object: Any) -> None:
    """A user's registration was undone. The arguments are those of `llamastack_object_registered`."""


@hookspec
def llamastack_request_finished(request: FinishedRequest) -> None:
    """A request over HTTP is done."""


OPEN_ROUTES = frozenset({"/health", "/ready"})
"""Everybody gets an answer here: a monitor of a server has no credentials."""


class IncomingRequest(NamedTuple):
    """The head of a request over HTTP.

    method: HTTP method. path: path of the URL, without the query. headers: by name in lower case; the first one if a
    name is repeated. client: address of the peer, if known.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    client: str | None = None


class Action(StrEnum):
    """What a principal wants to do with a resource."""

    READ = "read"
    """See it: an object in a list, or a reply of an API that the stack implements."""
    CALL = "call"
    REGISTER = "register"
    UNREGISTER = "unregister"


class Resource(NamedTuple):
    """The target of an action.

    api: the API of the call, such as `inference`; for reading and registration the API of the objects, such as
    `models`. method: the name of the API's method. identifier: of the object, or "" if the API has none.
    provider_id: of the instance that serves the object, or will serve it; None if it is not chosen yet.
    """

    api: str
    method: str
    identifier: str = ""
    provider_id: str | None = None


@hookspec
async def llamastack_authenticate(request: IncomingRequest) -> Principal | None:
    """The principal of this request over HTTP; None if this plugin does not know.

    Every plugin is asked. Raise AuthenticationError to refuse: one refusal overrides all other answers, and so does a
    plugin that fails. The first of several principals counts. If no plugin knows who it is, the reply is a 401.
    `/health` and `/ready` are open. Only plugins of the group `llamastack.required_plugins` may implement this hook.
    """


@hookspec
async def llamastack_authorize(principal: Principal | None, action: Action, resource: Resource) -> bool | None:
    """Whether `principal` may do it, over HTTP and in process. None: this plugin has no opinion.

    Every plugin is asked. One False overrides all other answers, and an action that no plugin allows is denied. The
    hook is called before every call of a provider, for each object in a list, and before an object is registered or
    unregistered; not for actions of the stack itself. Only plugins of the entry-point group
    `llamastack.required_plugins` may implement it.
    """


@hookspec
async def llamastack_around_call(call: ProviderCall, proceed: Proceed) -> Any:
    """Wraps every call of a provider, over HTTP and in process.

    `await proceed(call)` makes the call. It returns what the hook must return: the reply, or an async iterator of
    pieces if `call.stream` is set. Proceed with `call.replaced(...)` to change the request or to choose another
    instance, several times to try again, or not at all to answer or to refuse with an error of the family.
    """


@hookspec
def llamastack_begin_span(parent: str | None, target: str) -> str | None:
    """The traceparent of a new span, for a request over HTTP or a call of a provider. None: it gets no span.

    parent: the traceparent of the span that it is a part of; None at the root of a trace. target: the path of the URL,
    or the name of the API. Backends get the traceparent, and the events have it. The first plugin that returns one
    decides. Format: https://www.w3.org/TR/trace-context/#traceparent-header.
    """


@hookspec
def llamastack_call_started(event: CallEvent) -> None:
    """A provider is about to be called, over HTTP or in process."""


@hookspec
def llamastack_call_finished(event: CallEvent) -> None:
    """A call of a provider has ended. A stream ends with its last piece, or when it is closed."""

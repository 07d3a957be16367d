"""The hook of the native surface: one route per web method of the stack's APIs."""

from __future__ import annotations

from functools import partial

from llamastack.provider.routes import Route, RouteGroup
from llamastack.stack import Stack
from llamastack_server.native_endpoint import native_endpoint
from llamastack_server.openapi import native_openapi


def native_routes(stack: Stack) -> list[RouteGroup]:
    """The routes of all APIs of a running stack, API by API."""
    groups = [
        RouteGroup(
            [
                Route(method.definition.web.route, native_endpoint(method), method.definition.web.methods)
                for method in stack.api(name).methods.values()
            ],
            label=f"API '{name}'",
        )
        for name in stack.apis
    ]
    return [*groups, RouteGroup(openapi=partial(native_openapi, stack.apis))]

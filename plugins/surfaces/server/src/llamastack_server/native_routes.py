"""The hook of the native surface: one route per web method of the stack's APIs."""

from __future__ import annotations

from functools import partial

from llamastack.provider.routes import Route, RouteGroup
from llamastack.stack import Stack
from llamastack_server.native_endpoint import native_endpoint
from llamastack_server.openapi import native_openapi


def native_routes(stack: Stack) -> RouteGroup:
    """The routes of all APIs of a running stack."""
    routes = [
        Route(method.definition.web.route, native_endpoint(method), method.definition.web.methods)
        for name in stack.apis
        for method in stack.api(name).methods.values()
    ]
    return RouteGroup(routes, openapi=partial(native_openapi, stack.apis))

"""The routes of a stack, out of what all plugins give; checked before the stack starts."""

from __future__ import annotations

from anyio.from_thread import start_blocking_portal

from llamastack.stack import Stack
from llamastack_server.documentation import documentation_routes
from llamastack_server.router import Router

SERVER = "llamastack-server"


def check_routes(stack: Stack) -> None:
    """Look at a stack that is not started.

    Raises DiscoveryError where two plugins claim a route, PluginError where a plugin fails.
    """

    async def look() -> None:
        with stack.assembled():
            router_of(stack)

    # A stack is assembled in an event loop, and the caller may have one.
    with start_blocking_portal() as portal:
        portal.call(look)


def router_of(stack: Stack) -> Router:
    """The routes of all plugins, and the server's own."""
    groups = stack.hooks.collect("llamastack_routes", stack, required=True)
    fragments = [group.openapi for _, group in groups if group.openapi is not None]
    return Router([(SERVER, documentation_routes(fragments)), *groups])

"""What endpoints and middleware find of the server in the scope of a request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from llamastack.provider.routes import ErrorFormat, Scope
from llamastack_server.process_limits import ProcessLimits

STATE = "llamastack.server"
"""The key in the scope."""


@dataclass(frozen=True, slots=True)
class ServerState:
    """limits: what all requests of this process share. format_for: gives the form of errors for a path.
    loopback: whether only this machine can reach the server.
    """

    limits: ProcessLimits
    format_for: Callable[[str], ErrorFormat]
    loopback: bool = False


def state_of(scope: Scope) -> ServerState:
    """Raises LookupError for a request that did not come through this server."""
    state: ServerState = scope[STATE]
    return state

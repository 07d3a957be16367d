"""The one-to-many extension points (pluggy; entry-point group `llamastack.plugins`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    import click

    from llamastack.api.definition import ApiDefinition

PROJECT = "llamastack"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class FinishedRequest:
    """One request over HTTP, after its last byte.

    status: HTTP status. duration_s: seconds from the request's head to the reply's last byte.
    """

    request_id: str
    method: str
    path: str
    status: int
    duration_s: float


@hookspec
def llamastack_apis() -> Sequence[ApiDefinition]:  # type: ignore[empty-body]
    """APIs to add to the built-in ones."""


@hookspec
def llamastack_cli_commands() -> Sequence[click.Command]:  # type: ignore[empty-body]
    """Commands to add to `llamastack`."""


@hookspec
def llamastack_middleware() -> Sequence[Any]:  # type: ignore[empty-body]
    """ASGI middleware to put around the server, each a callable that takes an app and gives an app."""


@hookspec
def llamastack_stack_started(stack: Any) -> None:
    """The stack has started and is about to be used."""


@hookspec
def llamastack_stack_stopping(stack: Any) -> None:
    """The stack is about to stop; everything in it still works."""


@hookspec
def llamastack_object_registered(api: str, object: Any) -> None:
    """A model, shield or memory bank was registered by a user."""


@hookspec
def llamastack_object_unregistered(api: str, object: Any) -> None:
    """A registration was undone."""


@hookspec
def llamastack_request_finished(request: FinishedRequest) -> None:
    """A request over HTTP is done. Called on the event loop: must not block."""

"""The hooks of the plugin `openai-api`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl

if TYPE_CHECKING:
    from llamastack.provider.routes import RouteGroup
    from llamastack.stack import Stack


@hookimpl
def llamastack_routes(stack: Stack) -> Sequence[RouteGroup]:
    from llamastack_openai_api.routes import openai_routes

    return [openai_routes(stack)]

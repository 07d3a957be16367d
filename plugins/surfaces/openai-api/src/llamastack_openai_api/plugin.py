"""The hooks of the plugin `openai-api`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.routes import RouteGroup
    from llamastack.stack import Stack


@hookimpl
def llamastack_check_apis(apis: Mapping[str, ApiDefinition], added: Mapping[str, str]) -> None:
    from llamastack_openai_api.api_checks import check_apis

    check_apis(apis, added)


@hookimpl
def llamastack_routes(stack: Stack) -> Sequence[RouteGroup]:
    from llamastack_openai_api.routes import openai_routes

    return [openai_routes(stack)]

"""The hooks of the server. Slow imports happen when a hook needs them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from llamastack.provider import hookimpl
from llamastack.provider.commands import CliCommand

if TYPE_CHECKING:
    from llamastack.api.definition import ApiDefinition
    from llamastack.provider.config_sections import ConfigSection
    from llamastack.provider.routes import Middleware, RouteGroup
    from llamastack.stack import Stack


@hookimpl
def llamastack_check_apis(apis: Mapping[str, ApiDefinition], added: Mapping[str, str]) -> None:
    from llamastack_server.api_checks import check_apis

    check_apis(apis, added)


@hookimpl
def llamastack_cli_commands() -> Sequence[CliCommand]:
    return [CliCommand("run", "Start a stack and serve it over HTTP.", "llamastack_server.commands.run:run")]


@hookimpl
def llamastack_config_sections() -> Sequence[ConfigSection]:
    from llamastack.provider.config_sections import ConfigSection
    from llamastack_server.settings import ServerConfig

    return [ConfigSection("server", ServerConfig, "The HTTP server", check=_check)]


def _check(stack: Stack) -> None:
    from llamastack_server.collected_routes import check_routes
    from llamastack_server.settings import ServerConfig
    from llamastack_server.worker_checks import check_workers

    check_workers(stack, stack.config.section("server", ServerConfig).workers)
    check_routes(stack)


@hookimpl
def llamastack_routes(stack: Stack) -> Sequence[RouteGroup]:
    from llamastack_server.native_routes import native_routes

    return native_routes(stack)


@hookimpl(tryfirst=True)
def llamastack_middleware(stack: Stack) -> Sequence[Middleware]:
    from functools import partial

    from llamastack.provider.routes import ACCESS_ORDER, HOST_CHECK_ORDER, Middleware
    from llamastack_server.access_check import AccessCheck
    from llamastack_server.origins import OriginPolicy
    from llamastack_server.settings import ServerConfig

    origins = partial(OriginPolicy, settings=stack.config.section("server", ServerConfig))
    return [
        Middleware(origins, HOST_CHECK_ORDER),
        Middleware(partial(AccessCheck, access=stack.access), ACCESS_ORDER),
    ]

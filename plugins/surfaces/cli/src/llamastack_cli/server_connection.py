"""What the commands that talk to a running server share: its address, and the calls."""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llamastack.provider.commands import CliError

if TYPE_CHECKING:
    from llamastack.client import LlamaStackClient
    from llamastack.stack.discovery import Discovery
    from llamastack.stack.plugins import Plugins

_T = TypeVar("_T")
_F = TypeVar("_F", bound=Callable[..., Any])

API_KEY_VARIABLE = "LLAMASTACK_API_KEY"
"""Key for a server that asks for one. It is not an option, because every user of the machine can see the arguments."""
DEFAULT_URL = "http://127.0.0.1:8321"


def installed_plugins() -> Plugins:
    """The installed plugins, loaded once, so that an error in one is reported once."""
    from llamastack.stack.discovery import default_discovery

    return _hooks_of(default_discovery())


@functools.cache
def _hooks_of(discovery: Discovery) -> Plugins:
    from llamastack.stack.plugins import Plugins

    return Plugins(discovery)


@dataclass(frozen=True)
class Server:
    """The server that a command talks to."""

    url: str
    provider_data: dict[str, Any] | None

    def run(self, talk: Callable[[LlamaStackClient], Awaitable[_T]], *, timeout_s: float = 600.0) -> _T:
        """Run `talk` with a client that waits `timeout_s` seconds for each answer.

        Raises the server's error, and CliError if the server cannot be reached.
        """
        import anyio
        import httpx

        from llamastack.client import LlamaStackClient
        from llamastack.provider.connection_errors import tls_failure_of
        from llamastack.provider.errors import ProviderUnavailableError

        async def connected() -> _T:
            apis = installed_plugins().apis().values()
            async with LlamaStackClient(
                self.url,
                provider_data=self.provider_data,
                api_key=os.environ.get(API_KEY_VARIABLE) or None,
                apis=apis,
                timeout_s=timeout_s,
            ) as client:
                return await talk(client)

        try:
            return anyio.run(connected)
        except ProviderUnavailableError as error:
            cause = error.__cause__
            if not isinstance(cause, httpx.ConnectError | httpx.ConnectTimeout) or tls_failure_of(cause) is not None:
                raise
            raise CliError(f"no server answers at {self.url}: {_why(error)} (`llamastack run` starts one)") from error


def _why(error: BaseException) -> str:
    """The operating system's message, taken from inside the errors of the HTTP clients."""
    at: BaseException | None = error
    while at is not None:
        if isinstance(at, OSError) and at.errno:
            return os.strerror(at.errno) if at.errno > 0 else str(at.strerror)
        at = at.__cause__ or at.__context__
    return str(error.__cause__)


def server_options(command: _F) -> _F:
    """Add `--url` and `--provider-data`; the command gets a `server`."""

    @functools.wraps(command)
    def with_server(*args: Any, url: str, provider_data: dict[str, Any] | None, **kwargs: Any) -> Any:
        return command(*args, server=Server(url, provider_data), **kwargs)

    decorated: _F = _with_options(with_server)
    return decorated


def connected(command: click.Command) -> click.Command:
    """A command of a plugin with the same options; `call_server` of the output in `ctx.obj` uses them."""
    callback = command.callback

    def with_server(*args: Any, url: str, provider_data: dict[str, Any] | None, **kwargs: Any) -> Any:
        ctx = click.get_current_context()
        ctx.obj = replace(ctx.obj, server=Server(url, provider_data))
        return None if callback is None else callback(*args, **kwargs)

    command = copy.copy(command)
    command.params = [*command.params]
    command.callback = with_server
    _with_options(command)
    return command


def _with_options(command: Any) -> Any:
    """The function or command, with the options."""
    command = click.option(
        "--provider-data",
        envvar="LLAMASTACK_PROVIDER_DATA",
        metavar="JSON",
        callback=_json_object,
        help="Provider data, such as keys, sent as X-LlamaStack-ProviderData.",
    )(command)
    return click.option(
        "--url",
        envvar="LLAMASTACK_URL",
        default=DEFAULT_URL,
        show_default=True,
        callback=_http_url,
        help="URL of the server.",
    )(command)


def _http_url(ctx: click.Context, parameter: click.Parameter, value: str) -> str:
    import httpx

    try:
        url = httpx.URL(value)
    except httpx.InvalidURL as error:
        raise click.BadParameter(f"'{value}' is not a URL: {error}", ctx, parameter) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise click.BadParameter(f"'{value}' is not of the form http://HOST:PORT", ctx, parameter)
    return value


def _json_object(ctx: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, Any] | None:
    if value is None:
        return None
    try:
        data = json.loads(value)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        # The value is not repeated: it may hold keys.
        raise click.BadParameter("must be a JSON object", ctx, parameter)
    return data

"""The routes of a running stack: which endpoint answers a request, and how errors look for its path."""

from __future__ import annotations

from collections.abc import Iterable

from starlette.exceptions import HTTPException

from llamastack.provider.errors import MethodNotAllowedError, NotFoundError
from llamastack.provider.routes import AsgiApp, ErrorFormat, Receive, RouteGroup, Scope, Send
from llamastack.stack.discovery import DiscoveryError
from llamastack_server.error_replies import send_error
from llamastack_server.errors import NATIVE_ERRORS
from llamastack_server.requests import ClientGoneError
from llamastack_server.route_table import RouteTable
from llamastack_server.sender import Sender


class Router:
    """Sends each request to the endpoint of its path, and answers errors in the form for its path.

    groups: (plugin, what it gives). Raises DiscoveryError where two plugins claim the same path and method, or the form
    of errors below the same prefix.
    """

    def __init__(self, groups: Iterable[tuple[str, RouteGroup]]) -> None:
        self._table = RouteTable()
        self._files: dict[str, AsgiApp] = {}
        formats: dict[str, ErrorFormat] = {}
        claims: dict[tuple[str, str], str] = {}
        for plugin, group in groups:
            owner = f"plugin {plugin}" + (f" ({group.label})" if group.label else "")
            for route in group.routes:
                self._table.add(route.path, route.methods, route.endpoint, owner=owner)
            for path, folder in group.files.items():
                _claim(claims, ("files below", path), plugin)
                self._files[path.rstrip("/")] = _static_files(path.rstrip("/"), str(folder))
            if group.errors is not None:
                _claim(claims, ("errors below", group.prefix), plugin)
                formats[group.prefix] = group.errors
        self._formats = sorted(formats.items(), key=lambda item: len(item[0]), reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sender = Sender.around(send)
        try:
            await self._endpoint_for(scope)(scope, receive, sender)
        except ClientGoneError:
            raise
        except Exception as error:
            if sender.status:
                raise  # the head is out: the connection can only be broken off
            await send_error(error, scope, receive, sender)

    def format_for(self, path: str) -> ErrorFormat:
        """How errors look for a path."""
        path = f"{path}/"
        return next((errors for prefix, errors in self._formats if path.startswith(prefix)), NATIVE_ERRORS)

    def _endpoint_for(self, scope: Scope) -> AsgiApp:
        """Raises NotFoundError, MethodNotAllowedError."""
        try:
            return self._table.find(scope)
        except NotFoundError:
            path = f"{scope['path']}/"
            for start in sorted(self._files, key=len, reverse=True):
                if path.startswith(f"{start}/"):
                    return self._files[start]
            raise


def _claim(claims: dict[tuple[str, str], str], what: tuple[str, str], plugin: str) -> None:
    if what in claims:
        raise DiscoveryError(f"{' '.join(what)} is claimed by plugin {claims[what]} and by plugin {plugin}")
    claims[what] = plugin


def _static_files(path: str, folder: str) -> AsgiApp:
    """The files of a folder below a path; `index.html` answers for the folder itself."""
    from starlette.staticfiles import StaticFiles

    app = StaticFiles(directory=folder, html=True)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app({**scope, "root_path": scope.get("root_path", "") + path}, receive, send)
        except HTTPException as error:
            if error.status_code == 405:
                raise MethodNotAllowedError(
                    f"{scope['path']} does not take {scope['method']}; allowed: GET", allowed=("GET",)
                ) from None
            raise NotFoundError(f"there is no file at {scope['path']!r}") from None

    return answer

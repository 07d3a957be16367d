"""The routes of the server: fixed paths in one dict, paths with parameters in a tree that is asked when that fails."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from urllib.parse import unquote

from llamastack.provider.errors import MethodNotAllowedError, NotFoundError
from llamastack.provider.routes import AsgiApp, Scope
from llamastack.stack.discovery import DiscoveryError

ROUTE = "llamastack.route"
"""Where a scope has the path of its route."""
_REST = ":path"
_PARAMETER = "{}"


class RouteConflictError(DiscoveryError):
    """Two plugins claim one path and verb."""


@dataclass(slots=True)
class _Route:
    """One verb of one path. names: of its path parameters, in order."""

    path: str
    endpoint: AsgiApp
    owner: str
    names: tuple[str, ...] = ()


@dataclass(slots=True)
class _Node:
    """The routes that end after some segments, and what may follow. rest: routes whose last parameter takes all."""

    routes: dict[str, _Route] = field(default_factory=dict)
    following: dict[str, _Node] = field(default_factory=dict)
    rest: dict[str, _Route] = field(default_factory=dict)


class RouteTable:
    """Paths and verbs to endpoints.

    A path is fixed (`/models/list`) or has parameters, each a whole segment (`/files/{file_id}`). A value may hold
    every character; `/` in it comes percent-encoded. The last parameter may be `{name:path}`: it takes the rest of the
    path, slashes included. A fixed segment goes before a parameter, at each segment from the left.
    """

    def __init__(self) -> None:
        self._fixed: dict[str, dict[str, _Route]] = {}
        self._tree = _Node()

    def add(self, path: str, verbs: Iterable[str], endpoint: AsgiApp, *, owner: str) -> None:
        """Serve `verbs` of `path` by `endpoint`; HEAD comes with GET.

        owner: named where two claim the same. Raises RouteConflictError.
        """
        names: list[str] = []
        node, at_rest = self._tree, False
        for segment in path.split("/")[1:]:
            if segment.startswith("{") and segment.endswith("}"):
                name = segment[1:-1]
                at_rest = name.endswith(_REST)
                names.append(name.removesuffix(_REST))
                segment = _PARAMETER
            if not at_rest:
                node = node.following.setdefault(segment, _Node())
        found = self._fixed.setdefault(path, {}) if not names else node.rest if at_rest else node.routes
        for verb in verbs:
            other = found.setdefault(verb, _Route(path, endpoint, owner, tuple(names)))
            if other.endpoint is not endpoint:
                raise RouteConflictError(f"{verb} {path} is claimed by {other.owner} and by {owner}")

    def find(self, scope: Scope) -> AsgiApp:
        """The endpoint of a request; the values of its path parameters are put into `scope["path_params"]`.

        Raises NotFoundError, and MethodNotAllowedError with the verbs that the path takes.
        """
        verb = "GET" if scope["method"] == "HEAD" else scope["method"]
        fixed = self._fixed.get(scope["path"])
        if fixed is not None:
            route = fixed.get(verb)
            if route is not None:
                scope[ROUTE] = route.path
                return route.endpoint
        return self._with_parameters(scope, verb, dict.fromkeys(fixed or ()))

    def _with_parameters(self, scope: Scope, verb: str, allowed: dict[str, None]) -> AsgiApp:
        # As it came, so that a percent-encoded slash is a part of a value; without a query, as ASGI has it.
        raw: bytes | None = scope.get("raw_path")
        parts = map(unquote, raw.decode("latin-1").split("/")) if raw else iter(scope["path"].split("/"))
        segments = list(parts)[1:]
        for routes, values in _matches(self._tree, segments, ()):
            route = routes.get(verb)
            if route is not None:
                scope["path_params"] = dict(zip(route.names, values, strict=True))
                scope[ROUTE] = route.path
                return route.endpoint
            allowed |= dict.fromkeys(routes)
        path = scope["path"]
        if not allowed:
            raise NotFoundError(f"there is nothing at {path!r}; the routes are listed at /routes/list and /docs")
        raise MethodNotAllowedError(
            f"{path} does not take {verb}; allowed: {', '.join(allowed)}", allowed=tuple(allowed)
        )


def _matches(
    node: _Node, segments: Sequence[str], values: tuple[str, ...]
) -> Iterator[tuple[dict[str, _Route], tuple[str, ...]]]:
    """The routes of each way through the tree and the values of their parameters, fixed segments first."""
    if not segments:
        yield node.routes, values
        return
    first, rest = segments[0], segments[1:]
    # A name of a parameter is no segment that a client can mean.
    if first != _PARAMETER and first in node.following:
        yield from _matches(node.following[first], rest, values)
    if first and _PARAMETER in node.following:
        yield from _matches(node.following[_PARAMETER], rest, (*values, first))
    if any(segments) and node.rest:
        yield node.rest, (*values, "/".join(segments))

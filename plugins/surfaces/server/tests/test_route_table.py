"""Which endpoint a path and a verb reach."""

from __future__ import annotations

from typing import Any

import pytest

from llamastack.provider.errors import MethodNotAllowedError, NotFoundError
from llamastack_server.route_table import RouteConflictError, RouteTable


def endpoint(name: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None: ...

    app.__name__ = name
    return app


@pytest.fixture
def table() -> RouteTable:
    made = RouteTable()
    for path, verbs in (
        ("/", "GET"),
        ("/a/list", "GET"),
        ("/a/{x}", "GET DELETE"),
        ("/a/{x}/b", "PUT"),
        ("/a/{x}/{y}", "GET"),
        ("/a/c/{y}", "POST"),
        ("/names/{name:path}", "GET"),
        ("/names/{name:path}", "DELETE"),
        ("/names/one", "POST"),
    ):
        made.add(path, verbs.split(), endpoint(path), owner="test")
    return made


def found(table: RouteTable, verb: str, raw: str) -> tuple[str, dict[str, str]]:
    from urllib.parse import unquote

    scope: dict[str, Any] = {"method": verb, "path": unquote(raw), "raw_path": raw.encode()}
    app: Any = table.find(scope)
    return app.__name__, scope.get("path_params", {})


@pytest.mark.parametrize(
    ("verb", "raw", "path", "values"),
    [
        ("GET", "/", "/", {}),
        ("HEAD", "/a/list", "/a/list", {}),
        ("GET", "/a/1", "/a/{x}", {"x": "1"}),
        ("DELETE", "/a/list", "/a/{x}", {"x": "list"}),
        ("GET", "/a/x%2Fy%20%C3%A9%25", "/a/{x}", {"x": "x/y \u00e9%"}),
        ("PUT", "/a/1/b", "/a/{x}/b", {"x": "1"}),
        ("GET", "/a/1/b", "/a/{x}/{y}", {"x": "1", "y": "b"}),
        ("GET", "/a/c/d", "/a/{x}/{y}", {"x": "c", "y": "d"}),
        ("POST", "/a/c/d", "/a/c/{y}", {"y": "d"}),
        ("GET", "/a/%7B%7D", "/a/{x}", {"x": "{}"}),
        ("GET", "/names/a/b%2Fc/d", "/names/{name:path}", {"name": "a/b/c/d"}),
        ("DELETE", "/names/one", "/names/{name:path}", {"name": "one"}),
        ("POST", "/names/one", "/names/one", {}),
    ],
)
def test_a_path_reaches_its_endpoint(table: RouteTable, verb: str, raw: str, path: str, values: dict[str, str]) -> None:
    assert found(table, verb, raw) == (path, values)


@pytest.mark.parametrize("raw", ["/nothing", "/a", "/a/", "/a/1/", "/a//b", "/a/1/b/c", "/names/", "/names", "//", ""])
def test_what_is_not_there_is_not_found(table: RouteTable, raw: str) -> None:
    with pytest.raises(NotFoundError):
        found(table, "GET", raw)


@pytest.mark.parametrize(
    ("raw", "allowed"),
    [
        ("/", ("GET",)),
        ("/a/list", ("GET", "DELETE")),
        ("/a/1/b", ("PUT", "GET")),
        ("/a/c/b", ("POST", "PUT", "GET")),
        ("/names/one", ("POST", "GET", "DELETE")),
    ],
)
def test_a_verb_that_is_not_there_is_told_those_that_are(table: RouteTable, raw: str, allowed: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowedError) as refused:
        found(table, "PATCH", raw)
    assert refused.value.allowed == allowed


@pytest.mark.parametrize("path", ["/a/list", "/a/{z}", "/a/{z}/{w}", "/names/{other:path}"])
def test_two_endpoints_of_one_route_are_refused(table: RouteTable, path: str) -> None:
    with pytest.raises(RouteConflictError, match=r"GET \S+ is claimed by test and by acme"):
        table.add(path, ("GET",), endpoint("other"), owner="acme")


def test_without_a_raw_path_the_decoded_one_counts(table: RouteTable) -> None:
    scope: dict[str, Any] = {"method": "GET", "path": "/a/\u00e9%41"}
    table.find(scope)
    assert scope["path_params"] == {"x": "\u00e9%41"}

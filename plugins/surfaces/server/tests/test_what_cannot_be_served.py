"""An API that cannot be served is refused when it is loaded: the error says what is wrong and what is allowed."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol
from uuid import UUID

import pytest
from installed_fakes import entry_points_in, install
from pydantic import BaseModel, Field

from llamastack.api.base import RoutedObject, WireModel
from llamastack.api.definition import ApiDefinition, ResourceKind
from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider import hookimpl
from llamastack.provider.builtin_apis import BUILTIN_APIS, routed_apis
from llamastack.stack.discovery import Discovery
from llamastack.stack.plugins import Plugins
from llamastack_server.api_checks import conflicts_of, issues_of


class Thing(RoutedObject):
    colour: str = "red"


class Piece(WireModel):
    type: str


class Other(WireModel):
    size: int


def definition(method: Callable[..., Any]) -> ApiDefinition:
    return ApiDefinition("things", type("Things", (Protocol,), {"do": method}))  # type: ignore[arg-type]


def made(route: str = "/a", **options: Any) -> Callable[[Callable[..., Any]], list[str]]:
    return lambda function: issues_of(definition(webmethod(route, **options)(function)))


async def nothing(self: Any) -> None: ...
async def one(self: Any, x: str) -> None: ...
async def optional(self: Any, x: str = "") -> None: ...
async def or_none(self: Any, x: str | None) -> None: ...
async def a_list(self: Any, x: list[str]) -> None: ...
async def a_model(self: Any, x: Thing) -> None: ...
async def a_dict(self: Any, x: dict[str, str] | None = None) -> None: ...
async def a_file(self: Any, x: File) -> None: ...
async def some_bytes(self: Any, x: bytes) -> None: ...
async def two_bytes(self: Any, x: bytes, y: bytes) -> None: ...
async def bytes_and_file(self: Any, x: bytes, y: File) -> None: ...
async def bytes_and_model(self: Any, x: bytes, y: Thing) -> None: ...
async def bytes_or_text(self: Any, x: bytes | str) -> None: ...
async def bytes_or_file(self: Any, x: bytes | File | None = None) -> None: ...
async def bytes_inside(self: Any, x: list[bytes]) -> None: ...
async def files_inside(self: Any, x: dict[str, File]) -> None: ...
async def a_stream(self: Any, x: AsyncIterator[bytes]) -> None: ...
async def untyped(self: Any, x) -> None: ...  # type: ignore[no-untyped-def]
async def untold(self: Any, x: str): ...  # type: ignore[no-untyped-def]
async def positional(self: Any, x: str, /) -> None: ...
async def any_number(self: Any, *x: str) -> None: ...
async def private(self: Any, _x: str) -> None: ...
async def shadows(self: Any, given_arguments: str) -> None: ...
async def unknown_type(self: Any, x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
async def no_type_of_pydantic(self: Any, x: Plugins) -> None: ...
async def gives_bytes_or_model(self: Any) -> bytes | Thing: ...  # type: ignore[empty-body]
async def gives_model_or_bytes(self: Any, stream: bool = False) -> Thing | AsyncIterator[bytes]: ...  # type: ignore[empty-body]
async def gives_files(self: Any) -> list[File]: ...  # type: ignore[empty-body]
async def gives_both(self: Any) -> Thing | AsyncIterator[Piece]: ...  # type: ignore[empty-body]
async def gives_two(self: Any, stream: bool) -> AsyncIterator[Thing] | AsyncIterator[Piece]: ...  # type: ignore[empty-body]
async def gives_a_bare_stream(self: Any) -> AsyncIterator: ...  # type: ignore[type-arg, empty-body]
async def gives_a_plugin(self: Any) -> Plugins: ...  # type: ignore[empty-body]
async def gives_pieces(self: Any) -> AsyncIterator[Piece | Other]: ...  # type: ignore[empty-body]
async def gives_a_page(self: Any, limit: int | None = None) -> Page[Thing]: ...  # type: ignore[empty-body]
async def gives_a_page_of_must(self: Any, limit: int, after: str | None = None) -> Page[Thing]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("method", "options", "issue"),
    [
        (nothing, {"methods": ("FETCH",)}, "do: methods is FETCH; allowed: GET, POST, PUT, PATCH, DELETE"),
        (nothing, {"methods": ()}, "do: methods is none; allowed: GET, POST, PUT, PATCH, DELETE"),
        (nothing, {"route": "a"}, "do: route 'a' is not of the form /a/{argument}/b, each argument a whole segment"),
        (nothing, {"route": "/a/"}, "do: route '/a/' is not of the form"),
        (nothing, {"route": "/a?b"}, "do: route '/a?b' is not of the form"),
        (one, {"route": "/a/{x"}, "do: route '/a/{x' is not of the form"),
        (one, {"route": "/a/b{x}"}, "do: route '/a/b{x}' is not of the form"),
        (one, {"route": "/a/{x:path}"}, "do: route '/a/{x:path}' is not of the form"),
        (one, {"route": "/a/{y}"}, "do: path parameter '{y}' is no argument; arguments: x"),
        (one, {"route": "/a/{x}/{x}"}, "do: path parameter '{x}' stands in the route twice"),
        (one, {"route": "/a/{x}", "query": ("x",)}, "do: 'x' stands in the path and in the query"),
        (optional, {"route": "/a/{x}"}, "do: path parameter '{x}' is optional; a path has all of its parameters"),
        (or_none, {"route": "/a/{x}"}, "do: path parameter '{x}' is optional"),
        (a_list, {"route": "/a/{x}"}, "do: path parameter '{x}' is 'list[str]'; allowed: text, a number, a boolean"),
        (a_model, {"route": "/a/{x}"}, "do: path parameter '{x}' is 'Thing'; allowed: text"),
        (a_model, {"methods": ("GET",)}, "do: argument 'x' is 'Thing', and GET has no body; allowed there: texts"),
        (a_dict, {"methods": ("DELETE",)}, "do: argument 'x' is 'dict[str, str] | None', and DELETE has no body"),
        (a_dict, {"query": ("x",)}, "do: argument 'x' is 'dict[str, str] | None', and it stands in the query"),
        (a_file, {"methods": ("GET",)}, "do: argument 'x' is 'File', and GET has no body"),
        (some_bytes, {"methods": ("POST", "GET")}, "do: argument 'x' is 'bytes', and GET has no body"),
        (two_bytes, {}, "do: x, y cannot all be the body; allowed is one bytes argument, or several of File"),
        (bytes_and_file, {}, "do: x, y cannot all be the body"),
        (bytes_and_model, {}, "do: argument 'y' is 'Thing', and it stands in the query"),
        (bytes_or_text, {}, "do: argument 'x' is bytes or something else; allowed is one of bytes, File"),
        (bytes_or_file, {}, "do: argument 'x' is bytes or something else; allowed is one of bytes, File, list[File]"),
        (bytes_inside, {}, "do: argument 'x' has bytes inside; allowed are the arguments themselves"),
        (files_inside, {}, "do: argument 'x' has bytes inside"),
        (a_stream, {}, "do: argument 'x' is a stream; allowed is a File, which is read block by block"),
        (untyped, {}, "do: argument 'x' has no type"),
        (untold, {}, "do: the return type is missing; for no result write '-> None'"),
        (positional, {}, "do: argument 'x' cannot be passed by name"),
        (any_number, {}, "do: argument 'x' cannot be passed by name"),
        (private, {}, "do: argument '_x' needs another name"),
        (shadows, {}, "do: argument 'given_arguments' needs another name"),
        (unknown_type, {}, "its methods cannot be read: name 'Nowhere' is not defined"),
        (no_type_of_pydantic, {}, "do: its arguments cannot be read: Unable to generate pydantic-core schema"),
        (one, {"routed_by": "y"}, "do: routed_by names 'y', which is no argument; arguments: x"),
        (one, {"query": ("y",)}, "do: query names 'y', which is no argument; arguments: x"),
        (one, {"argument_capabilities": {"y": "z"}}, "do: argument_capabilities names 'y', which is no argument"),
        (one, {"image_arguments": ("y",)}, "do: image_arguments names 'y', which is no argument"),
        (
            gives_bytes_or_model,
            {},
            "do: bytes are mixed with JSON in what it returns; allowed alone: bytes, File, Async",
        ),
        (gives_model_or_bytes, {}, "do: bytes are mixed with JSON"),
        (gives_files, {}, "do: bytes are mixed with JSON"),
        (gives_both, {}, "do: it returns a reply or a stream, and has no argument 'stream' that says which"),
        (gives_two, {}, "do: it returns 2 kinds of streams; allowed is one"),
        (gives_a_bare_stream, {}, "do: it does not say what its stream holds; allowed: AsyncIterator[X]"),
        (gives_a_plugin, {}, "do: what it returns cannot be written as JSON"),
        (nothing, {"status": 404}, "do: status is 404; allowed: 200 to 299"),
        (gives_pieces, {"status": 204}, "do: status is 204, which has no body; it must return None"),
        (
            nothing,
            {"media_type": "a/b"},
            "do: media_type is 'a/b'; allowed: type/subtype, for a method that returns by",
        ),
        (gives_pieces, {"event_field": "type"}, "do: event_field is 'type'; allowed: a field that every piece of its"),
        (nothing, {"event_field": "type"}, "do: event_field is 'type'; allowed: a field that every piece of its"),
        (gives_a_page, {"methods": ("GET",)}, "do: it returns pages and must take 'after': limit: int | None = None"),
        (gives_a_page_of_must, {"methods": ("GET",)}, "do: it returns pages and must take 'limit'"),
    ],
)
def test_a_method_that_cannot_be_served(method: Any, options: dict[str, Any], issue: str) -> None:
    issues = made(**options)(method)
    assert len(issues) >= 1
    assert issues[0].startswith(issue), issues


async def with_everything(
    self: Any, a: str, b: int, c: UUID, d: Annotated[str, Field(min_length=1)], e: list[Literal["x"]] | None = None
) -> Piece: ...  # type: ignore[empty-body]


async def with_body(self: Any, a: str, content: bytes | None = None, more: int = 1) -> bytes: ...  # type: ignore[empty-body]


async def with_stream(self: Any, stream: bool = False) -> Piece | AsyncIterator[Piece]: ...  # type: ignore[empty-body]


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (with_everything, {"route": "/x/{a}/{b}/{c}/{d}", "methods": ("GET", "DELETE")}),
        (with_body, {"route": "/x/{a}", "methods": ("PUT", "PATCH"), "media_type": "audio/wav"}),
        (with_stream, {"event_field": "type", "status": 202}),
        (nothing, {"status": 204}),
    ],
)
def test_a_method_that_can_be_served(method: Any, options: dict[str, Any]) -> None:
    assert made(**options)(method) == []


def resource(list_things: Any = None, get_thing: Any = None, register: Any = None, do: Any = None) -> list[str]:
    """The issues of the two APIs of a pair with these methods."""

    async def listed(self: Any) -> list[Thing]: ...  # type: ignore[empty-body]
    async def use(self: Any, thing: str) -> None: ...

    table: dict[str, Any] = {
        "list_things": webmethod("/t", methods=("GET",), resource_action=ResourceAction.LIST)(list_things or listed)
    }
    if get_thing is not None:
        table["get_thing"] = webmethod("/t/get", methods=("GET",), resource_action=ResourceAction.GET)(get_thing)
    if register is not None:
        table["register_thing"] = register
    apis = routed_apis(
        type("Use", (Protocol,), {"do": do or webmethod("/t/use", routed_by="thing")(use)}),  # type: ignore[arg-type]
        type("Things", (Protocol,), table),  # type: ignore[arg-type]
        ResourceKind("use", "things", "thing", Thing, object),
    )
    return [issue for api in apis for issue in issues_of(api)]


async def list_with(self: Any, size: int | None = None) -> list[Thing]: ...  # type: ignore[empty-body]
async def list_of(self: Any, colour: str) -> list[Thing]: ...  # type: ignore[empty-body]
async def list_of_one(self: Any, colour: str | None = None) -> list[Thing]: ...  # type: ignore[empty-body]
async def list_pages(self: Any, limit: int | None = None, after: str | None = None) -> Page[Thing]: ...  # type: ignore[empty-body]
async def list_limited(self: Any, limit: int | None = None) -> list[Thing]: ...  # type: ignore[empty-body]
async def get_two(self: Any, identifier: str, more: str = "") -> Thing | None: ...


def test_a_resource_api_that_cannot_be_served() -> None:
    assert resource() == resource(list_of_one) == resource(list_pages) == []
    assert resource(list_with)[0].startswith(
        "list_things: 'size' is no field of a thing to choose by; allowed: colour, identifier, provider_id, "
    )
    assert resource(list_of)[0].startswith(
        "list_things: a list of objects needs no argument to be made; required: colour; allowed: optional ones"
    )
    assert resource(list_limited)[0].startswith("list_things: 'limit' is no field of a thing to choose by")
    assert resource(get_thing=get_two) == [
        "get_thing: it must take one argument, the identifier of the thing; it takes identifier, more"
    ]
    no_action = webmethod("/t/register")(one)
    assert resource(register=no_action) == [
        "register_thing: resource_action is missing; allowed: list, get, register, unregister"
    ]
    assert resource(do=webmethod("/t/use")(one)) == [
        "do: routed_by must name a required argument, the thing; there are x"
    ]


def test_the_built_in_apis_can_be_served() -> None:
    assert [issue for api in BUILTIN_APIS for issue in issues_of(api)] == []
    assert list(conflicts_of(BUILTIN_APIS)) == []


class First(Protocol):
    @webmethod("/first/{x}", methods=("GET",))
    async def get(self, x: str) -> None: ...

    @webmethod("/first/{y}", methods=("GET", "POST"))
    async def same(self, y: str) -> None: ...

    @webmethod("/first/fixed", methods=("GET",))
    async def fixed(self) -> None: ...


class Second(Protocol):
    @webmethod("/second/{x}")
    async def do(self, y: BaseModel) -> None: ...


class Adds:
    def __init__(self, *apis: ApiDefinition) -> None:
        self._apis = apis

    @hookimpl
    def llamastack_apis(self) -> Any:
        return self._apis


WRONG = Adds(ApiDefinition("second", Second))


def test_the_cause_names_plugin_api_method_and_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, __name__, sys.modules[First.__module__])
    install(tmp_path, "acme", {"llamastack.plugins": {"acme": f"{__name__}:WRONG"}})
    hooks = Plugins(Discovery(entry_points_in(tmp_path)))
    assert "second" not in hooks.apis()
    assert [broken.cause for broken in hooks.broken] == [
        f"'acme' (acme 1.2.3, entry point {__name__}:WRONG) adds APIs that cannot be used: plugin "
        "llamastack-server:server refuses it: second.do: path parameter '{x}' is no argument; arguments: y"
    ]


def test_one_route_of_two_methods_is_refused_whatever_its_parameters_are_called() -> None:
    assert list(conflicts_of([ApiDefinition("first", First)])) == [
        "GET /first/{y} is claimed by first.get and by first.same"
    ]

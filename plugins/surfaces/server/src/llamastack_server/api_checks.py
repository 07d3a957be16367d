"""Checks, when an API is loaded, that the server can serve it."""

from __future__ import annotations

import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from llamastack.api.definition import ApiDefinition, BodyKind, MethodDefinition, ReplyKind, Request, members_of
from llamastack.api.files import File, is_media_type
from llamastack.api.pagination import Page
from llamastack.api.webmethod import HttpMethod, ResourceAction
from llamastack.stack.discovery import DiscoveryError
from llamastack_server.sender import NO_BODY_STATUS

DOCUMENTATION_PATHS = ("/", "/docs", "/openapi.json")
"""Of the server's own routes: the page, twice, and the document."""
_VERBS: tuple[str, ...] = get_args(HttpMethod)
_SEGMENT = re.compile(r"[^/{}?#%\s]+|{[A-Za-z]\w*}")
_PAGING = ("limit", "after")


def check_apis(apis: Mapping[str, ApiDefinition], added: Iterable[str]) -> None:
    """Raises DiscoveryError that names API, method and fault if one of the added APIs cannot be served."""
    issues = [f"{name}.{issue}" for name in added for issue in issues_of(apis[name])]
    # Their routes are read only when nothing else is wrong with them.
    issues = issues or [*conflicts_of(apis.values())]
    if issues:
        raise DiscoveryError("\n".join(issues))
    refuse_routes(apis, added, [("GET", path) for path in DOCUMENTATION_PATHS], "llamastack-server")


def refuse_routes(
    apis: Mapping[str, ApiDefinition], added: Iterable[str], taken: Iterable[tuple[str, str]], owner: str
) -> None:
    """For `llamastack_check_apis`: raises DiscoveryError if one of the added APIs claims a route that a surface has.

    taken: verbs and paths of the surface. owner: the surface, for the error. Path parameters of different names are
    the same route.
    """
    routes = {(verb, _shape(path)) for verb, path in taken}
    issues = [
        f"{name}.{method.name}: {verb} {method.web.route} is a route of {owner}"
        for name in added
        for method in apis[name].methods.values()
        for verb in method.web.methods
        if (verb, _shape(method.web.route)) in routes
    ]
    if issues:
        raise DiscoveryError("\n".join(issues))


def issues_of(api: ApiDefinition) -> list[str]:
    """The faults of an API, each as `method: what is wrong; what is allowed`."""
    try:
        methods = api.methods
    except Exception as error:  # this evaluates the annotations
        return [f"its methods cannot be read: {error}"]
    found: list[str] = []
    for name, method in methods.items():
        # Each check assumes that the checks before it found nothing.
        for check in (_of_signature, _of_route, _of_arguments, _of_reply, _of_pages, _of_resource(api)):
            issues = [f"{name}: {issue}" for issue in check(method)]
            found += issues
            if issues:
                break
    return found


def conflicts_of(apis: Iterable[ApiDefinition]) -> Iterator[str]:
    """Routes that two methods claim. Path parameters of different names are the same route."""
    claimed: dict[tuple[str, str], str] = {}
    for api in apis:
        for method in api.methods.values():
            shape = _shape(method.web.route)
            for verb in method.web.methods:
                own = f"{api.name}.{method.name}"
                other = claimed.setdefault((shape, verb), own)
                if other != own:
                    yield f"{verb} {method.web.route} is claimed by {other} and by {own}"


def _shape(path: str) -> str:
    return re.sub("{.*?}", "{}", path)


def _of_signature(method: MethodDefinition) -> Iterator[str]:
    plain = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name, parameter in method.parameters.items():
        if parameter.kind not in plain:
            yield f"argument '{name}' cannot be passed by name; allowed: arguments that can"
        elif name not in method.hints:
            yield f"argument '{name}' has no type"
        elif name.startswith("_") or name in vars(Request):
            yield f"argument '{name}' needs another name"
    if "return" not in method.hints:
        yield "the return type is missing; for no result write '-> None'"
    named = {"routed_by": (method.web.routed_by or "",), "query": method.web.query}
    named |= {"argument_capabilities": (*(name.partition(".")[0] for name in method.web.argument_capabilities),)}
    named |= {"image_arguments": method.web.image_arguments}
    for key, names in named.items():
        for unknown in sorted({*names} - {*method.parameters, ""}):
            yield f"{key} names '{unknown}', which is no argument; arguments: {_listed(method.parameters)}"


def _of_route(method: MethodDefinition) -> Iterator[str]:
    web = method.web
    unknown = [verb for verb in web.methods if verb not in _VERBS]
    if unknown or not web.methods:
        yield f"methods is {_listed(web.methods)}; allowed: {_listed(_VERBS)}"
    segments = web.route.split("/")
    if segments[0] or not segments[1:] or not all(map(_SEGMENT.fullmatch, segments[1:])):
        yield f"route '{web.route}' is not of the form /a/{{argument}}/b, each argument a whole segment"
    for name in method.path_parameters:
        parameter = method.parameters.get(name)
        if parameter is None:
            yield f"path parameter '{{{name}}}' is no argument; arguments: {_listed(method.parameters)}"
        elif method.path_parameters.count(name) > 1:
            yield f"path parameter '{{{name}}}' stands in the route twice"
        elif parameter.default is not parameter.empty or type(None) in members_of(method.hints[name]):
            yield f"path parameter '{{{name}}}' is optional; a path has all of its parameters"
        elif name in method.web.query:
            yield f"'{name}' stands in the path and in the query"


def _of_arguments(method: MethodDefinition) -> Iterator[str]:
    kinds = {name: [*members_of(method.hints[name])] for name in method.parameters}
    binary = [name for name, members in kinds.items() if bytes in members or name in method.file_parameters]
    for name, members in kinds.items():
        if any(_holds(member, AsyncIterator) for member in members):
            yield f"argument '{name}' is a stream; allowed is a File, which is read block by block"
        elif name in binary and len([member for member in members if member is not type(None)]) > 1:
            yield f"argument '{name}' is bytes or something else; allowed is one of bytes, File, list[File], or None"
        elif name not in binary and any(_holds(member, bytes, File) for member in members):
            yield f"argument '{name}' has bytes inside; allowed are the arguments themselves: bytes, File, list[File]"
    bodies = [name for name in binary if name not in method.file_parameters]
    if bodies and len(binary) > 1:
        yield f"{_listed(binary)} cannot all be the body; allowed is one bytes argument, or several of File"
    try:
        texts = {name for name, field in method.fields.items() if name not in binary and field.is_text(lists=True)}
    except Exception as error:
        yield f"its arguments cannot be read: {error}"
        return
    for name in method.path_parameters:
        if name not in texts or name in method.list_parameters:
            yield f"path parameter '{{{name}}}' is {_shown(method, name)}; allowed: text, a number, a boolean, an enum"
    for verb in method.web.methods:
        for name in method.query_parameters(verb):
            if name not in texts:
                why = f"{verb} has no body" if method.body_kind(verb) is BodyKind.NONE else "it stands in the query"
                yield (
                    f"argument '{name}' is {_shown(method, name)}, and {why}; allowed there: texts, numbers, booleans, "
                    "enums, and lists of them"
                )


def _of_reply(method: MethodDefinition) -> Iterator[str]:
    web = method.web
    members = [*members_of(method.hints["return"])]
    streams = [get_args(member)[0] for member in members if get_origin(member) is AsyncIterator]
    if AsyncIterator in members:
        yield "it does not say what its stream holds; allowed: AsyncIterator[X]"
        return
    if len(streams) > 1:
        yield f"it returns {len(streams)} kinds of streams; allowed is one, of a union where pieces differ"
    binary = any(_holds(member, bytes, File) for member in members)
    if binary and (len(members) > 1 or not (members[0] in (bytes, File) or streams == [bytes])):
        yield "bytes are mixed with JSON in what it returns; allowed alone: bytes, File, AsyncIterator[bytes]"
        return
    if streams and len(members) > 1 and "stream" not in method.parameters:
        yield "it returns a reply or a stream, and has no argument 'stream' that says which"
    try:
        if not binary:
            method.result.json_schema(mode="serialization")
            _ = method.piece and method.piece.json_schema(mode="serialization")
    except Exception as error:
        yield f"what it returns cannot be written as JSON: {error}"
        return
    if not 200 <= web.status <= 299:
        yield f"status is {web.status}; allowed: 200 to 299"
    if web.status in NO_BODY_STATUS and members != [type(None)]:
        yield f"status is {web.status}, which has no body; it must return None"
    if web.media_type is not None and (method.reply_kind is ReplyKind.JSON or not is_media_type(web.media_type)):
        yield f"media_type is '{web.media_type}'; allowed: type/subtype, for a method that returns bytes"
    if web.event_field is not None:
        pieces = [] if binary else [piece for stream in streams for piece in members_of(stream)]
        lacking = [p for p in pieces if not _is_model(p) or web.event_field not in p.model_fields]
        if lacking or not pieces:
            yield f"event_field is '{web.event_field}'; allowed: a field that every piece of its stream has"


def _of_pages(method: MethodDefinition) -> Iterator[str]:
    if not any(_is_page(member) for member in members_of(method.hints["return"])):
        return
    for name in _PAGING:
        parameter = method.parameters.get(name)
        if parameter is None or parameter.default is parameter.empty:
            yield f"it returns pages and must take '{name}': limit: int | None = None, after: str | None = None"


def _of_resource(api: ApiDefinition) -> Callable[[MethodDefinition], Iterator[str]]:
    """What the stack needs of the APIs of a pair, whose methods it implements or routes itself."""

    def check(method: MethodDefinition) -> Iterator[str]:
        if api.pair is None:
            return
        required = [name for name, p in method.parameters.items() if p.default is p.empty]
        if not api.implemented_by_stack:
            if method.web.routed_by not in required:
                yield f"routed_by must name a required argument, the {api.pair.label}; there are {_listed(required)}"
            return
        action = method.web.resource_action
        if action is None:
            yield f"resource_action is missing; allowed: {_listed(ResourceAction)}"
        elif action is ResourceAction.LIST:
            yield from _of_list(api, method, required)
        elif len(method.parameters) != 1 or not required:
            what = api.pair.label if action is ResourceAction.REGISTER else f"identifier of the {api.pair.label}"
            yield f"it must take one argument, the {what}; it takes {_listed(method.parameters)}"

    return check


def _of_list(api: ApiDefinition, method: MethodDefinition, required: list[str]) -> Iterator[str]:
    if api.pair is None:
        return
    if required:
        yield f"a list of objects needs no argument to be made; required: {_listed(required)}; allowed: optional ones"
    kinds = [kind for kind in members_of(api.pair.object_type) if _is_model(kind)]
    fields = {name for kind in kinds for name in kind.model_fields}
    paged = any(_is_page(member) for member in members_of(method.hints["return"]))
    allowed = {*fields, *_PAGING} if paged else fields
    for name in method.parameters:
        if name not in allowed:
            yield (
                f"'{name}' is no field of a {api.pair.label} to choose by; allowed: {_listed(sorted(fields))}, and "
                "limit and after for a method that returns Page"
            )


def _is_model(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _is_page(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Page)


def _holds(hint: Any, *kinds: object) -> bool:
    """Whether one of these types is this type, or an argument of it."""
    return hint in kinds or get_origin(hint) in kinds or any(_holds(inner, *kinds) for inner in get_args(hint))


def _shown(method: MethodDefinition, name: str) -> str:
    return f"'{method.parameters[name].annotation}'"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"

"""What an API is, as data: read once from its Protocol, used by every surface."""

from __future__ import annotations

import functools
import inspect
import operator
import re
import types
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import ConfigDict, TypeAdapter, create_model

from llamastack.api.fail_fast_validation import FailFast
from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.api.schema import Schema
from llamastack.api.webmethod import ResourceAction, WebMethod, webmethod_of

API_VERSION = (1, 0)
"""Version of the vocabulary and the provider hooks, (major, minor); a provider names the range it was made for."""


IMAGES = "images"
"""The capability that `WebMethod.image_arguments` needs."""
REGISTRATION = "registration"
"""The capability of every routed API: a provider takes objects that it does not list yet."""
UNREGISTER = "unregister"
"""The capability of every routed API: a provider takes registered objects away."""


_PATH_PARAMETER = re.compile(r"{(\w+)}")


class BodyKind(StrEnum):
    """What the body of a request is."""

    NONE = "none"
    JSON = "json"
    FORM = "form"
    BYTES = "bytes"


class ReplyKind(StrEnum):
    """What the body of a reply is. JSON: or server-sent events, where the method streams."""

    JSON = "json"
    BYTES = "bytes"
    FILE = "file"
    BYTE_STREAM = "byte stream"


def members_of(hint: object) -> Iterator[Any]:
    """The types that a value may have: the members of a union, without what `Annotated` adds."""
    if get_origin(hint) is Annotated:
        yield from members_of(get_args(hint)[0])
    elif get_origin(hint) in (Union, types.UnionType):
        for member in get_args(hint):
            yield from members_of(member)
    else:
        yield hint


class Request(FailFast):
    """Base of the request objects made from the parameters of a method."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    def given_arguments(self) -> dict[str, object]:
        """The arguments that were given, ready to be passed on."""
        given = self.__dict__
        return {name: given[name] for name in self.model_fields_set}


@dataclass(frozen=True)
class MethodDefinition:
    """One method of an API: its name, route, parameters and what it returns.

    api: name of the API. name: of the method. web: what its decorator says. signature: of the function, with `self`.
    hints: the types of the parameters by name, and that of the result as `return`. doc: its docstring.
    """

    api: str
    name: str
    web: WebMethod
    signature: inspect.Signature
    hints: Mapping[str, object]
    doc: str

    @property
    def parameters(self) -> dict[str, inspect.Parameter]:
        """Parameters by name, `self` left out."""
        return {name: p for name, p in self.signature.parameters.items() if name != "self"}

    @functools.cached_property
    def list_parameters(self) -> frozenset[str]:
        """Parameters that take a list; in a query and in a form their name is repeated."""
        return frozenset(n for n in self.parameters if any(get_origin(m) is list for m in members_of(self.hints[n])))

    # ---- where arguments stand ---------------------------------------------------------------------------------------

    @functools.cached_property
    def path_parameters(self) -> tuple[str, ...]:
        """The parameters in the route, in its order."""
        return tuple(_PATH_PARAMETER.findall(self.web.route))

    @functools.cached_property
    def file_parameters(self) -> frozenset[str]:
        """Parameters that take a `File`, or a list of them."""
        kinds = (File, list[File])
        return frozenset(n for n in self.parameters if any(m in kinds for m in members_of(self.hints[n])))

    @functools.cached_property
    def bytes_parameter(self) -> str | None:
        """The parameter that is the body."""
        return next((n for n in self.parameters if any(m is bytes for m in members_of(self.hints[n]))), None)

    def body_kind(self, verb: str) -> BodyKind:
        """What the body of a request with this verb is."""
        if verb in ("GET", "DELETE"):
            return BodyKind.NONE
        if self.file_parameters:
            return BodyKind.FORM
        return BodyKind.JSON if self.bytes_parameter is None else BodyKind.BYTES

    def body_parameters(self, verb: str) -> tuple[str, ...]:
        """The parameters in the body of a request with this verb."""
        kind = self.body_kind(verb)
        if kind is BodyKind.NONE:
            return ()
        elsewhere = {*self.path_parameters, *self.web.query}
        return tuple(
            name
            for name in self.parameters
            if name == self.bytes_parameter or (name not in elsewhere and kind is not BodyKind.BYTES)
        )

    def query_parameters(self, verb: str) -> tuple[str, ...]:
        """The parameters in the query of a request with this verb."""
        elsewhere = {*self.path_parameters, *self.body_parameters(verb)}
        return tuple(name for name in self.parameters if name not in elsewhere)

    @functools.cached_property
    def json_parameters(self) -> frozenset[str]:
        """Parameters whose values are more than texts and lists of texts; in a form they are JSON."""
        return frozenset(
            name
            for name, field in self.fields.items()
            if name not in self.file_parameters and not field.is_text(lists=True)
        )

    @functools.cached_property
    def request_model(self) -> type[Request]:
        """A pydantic model with one field per parameter."""
        fields: dict[str, Any] = {
            name: (self.hints[name], ... if p.default is inspect.Parameter.empty else p.default)
            for name, p in self.parameters.items()
        }
        camel = "".join(part.capitalize() for part in self.name.split("_"))
        return create_model(f"{camel}Request", __base__=Request, __module__=__name__, **fields)

    @functools.cached_property
    def fields(self) -> Mapping[str, Schema]:
        """The parameters by name, as their JSON schema describes them."""
        return Schema.of(self.request_model).fields

    # ---- what comes back ---------------------------------------------------------------------------------------------

    @functools.cached_property
    def result_types(self) -> tuple[Any, Any]:
        """(plain result type, type of a streamed piece or None)."""
        returned = self.hints.get("return", Any)
        members = get_args(returned) if get_origin(returned) in (Union, types.UnionType) else (returned,)
        pieces = [get_args(m)[0] for m in members if get_origin(m) is AsyncIterator]
        plain = [m for m in members if get_origin(m) is not AsyncIterator]
        return (functools.reduce(operator.or_, plain) if plain else None), (pieces[0] if pieces else None)

    @functools.cached_property
    def page_type(self) -> type[Page[object]] | None:
        """The type of a page, for a list that has pages."""
        plain = self.result_types[0]
        return plain if isinstance(plain, type) and issubclass(plain, Page) else None

    @property
    def gives_list(self) -> bool:
        """Whether it returns a list, with or without pages."""
        return self.page_type is not None or get_origin(self.result_types[0]) is list

    @functools.cached_property
    def reply_kind(self) -> ReplyKind:
        """What the reply is on the wire."""
        plain, piece = self.result_types
        if piece is bytes:
            return ReplyKind.BYTE_STREAM
        return ReplyKind.BYTES if plain is bytes else ReplyKind.FILE if plain is File else ReplyKind.JSON

    def gives_pieces(self, arguments: Mapping[str, object]) -> bool:
        """Whether a call with these arguments is answered in pieces: events, or blocks of bytes."""
        plain, piece = self.result_types
        return piece is not None and (plain is None or bool(arguments.get("stream")))

    @functools.cached_property
    def result(self) -> TypeAdapter[object]:
        """Reads and writes the plain result."""
        return TypeAdapter(self.result_types[0])

    @functools.cached_property
    def piece(self) -> TypeAdapter[object] | None:
        """Reads and writes a streamed piece; None for a method that never streams."""
        streamed = self.result_types[1]
        return None if streamed is None else TypeAdapter(streamed)


@dataclass(frozen=True)
class ResourceKind:
    """The objects that decide where a request of an API goes, and the API they are registered through.

    routed_api, resource_api: names of the two APIs, such as `inference` and `models`.
    object_name: singular and snake case; the private protocol's methods are named after it
        (`list_<object_name>s`, `register_<object_name>`, `unregister_<object_name>`, `forget_<object_name>`).
    object_type: the pydantic type, a `RoutedObject` or a union of such types.
    private_protocol: what every provider implements: `list_<object_name>s` and `register_<object_name>`.
    optional_protocol: what its providers may implement beside that.
    """

    routed_api: str
    resource_api: str
    object_name: str
    object_type: Any
    private_protocol: type
    optional_protocol: type | None = None

    @property
    def list_hook(self) -> str:
        """The method by which a provider lists its objects, such as `list_models`."""
        return f"list_{self.object_name}s"

    @property
    def register_hook(self) -> str:
        """The method by which it takes an object."""
        return f"register_{self.object_name}"

    @property
    def unregister_hook(self) -> str:
        """The method, if it has it, by which it undoes that."""
        return f"unregister_{self.object_name}"

    @property
    def forget_hook(self) -> str:
        """The method, if it has it, that is called when another process of the stack has unregistered an object."""
        return f"forget_{self.object_name}"

    @property
    def optional_hooks(self) -> tuple[str, ...]:
        """The methods of the optional protocol."""
        methods = {} if self.optional_protocol is None else vars(self.optional_protocol)
        return tuple(name for name, value in methods.items() if inspect.iscoroutinefunction(value))

    @property
    def label(self) -> str:
        """For people: `memory bank`."""
        return self.object_name.replace("_", " ")

    @functools.cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """Reads and writes an object."""
        return TypeAdapter(self.object_type)


@dataclass(frozen=True)
class ApiDefinition:
    """An API: its name, its Protocol and, where requests are routed by object, the pair it belongs to.

    name: a Python identifier; it is the attribute of a client, and a key of the run config.
    protocol: the Protocol; its methods with `@webmethod` are the API.
    """

    name: str
    protocol: type
    pair: ResourceKind | None = field(default=None)
    """Set on both APIs of a pair."""
    implemented_by_stack: bool = False
    """True for the resource APIs and inspect: no provider implements them."""

    @functools.cached_property
    def methods(self) -> Mapping[str, MethodDefinition]:
        """The web methods in the order of the Protocol."""
        found: dict[str, MethodDefinition] = {}
        for owner in reversed(self.protocol.__mro__):
            for name, function in vars(owner).items():
                web = webmethod_of(function)
                if web is not None:
                    found[name] = MethodDefinition(
                        api=self.name,
                        name=name,
                        web=web,
                        signature=inspect.signature(function),
                        hints=get_type_hints(function, include_extras=True),
                        doc=inspect.getdoc(function) or "",
                    )
        return types.MappingProxyType(found)

    @functools.cached_property
    def created_ids(self) -> frozenset[str]:
        """The names of the ids that its methods create."""
        return frozenset(method.web.creates for method in self.methods.values() if method.web.creates)

    @functools.cached_property
    def capabilities(self) -> Mapping[str, tuple[str, ...]]:
        """Every capability of this API that a provider says whether it has, and what each stands for, in Markdown."""
        found: dict[str, list[str]] = {}
        for method in self.methods.values():
            web = method.web
            if web.capability:
                found.setdefault(web.capability, []).append(f"`{method.name}`")
            for parameter, name in web.argument_capabilities.items():
                found.setdefault(name, []).append(f"`{parameter}` of `{method.name}`")
            for parameter in web.image_arguments:
                found.setdefault(IMAGES, []).append(f"images in `{parameter}` of `{method.name}`")
        if self.pair is not None and not self.implemented_by_stack:
            label = self.pair.label
            found[REGISTRATION] = [f"`{self.pair.register_hook}` takes a {label} that the provider does not list yet"]
            found[UNREGISTER] = [f"`{self.pair.unregister_hook}` takes a registered {label} away"]
        return types.MappingProxyType({name: tuple(what) for name, what in found.items()})

    def method_for(self, action: ResourceAction) -> MethodDefinition:
        """The method of a resource API that does `action`.

        Raises LookupError when the Protocol has none.
        """
        for method in self.methods.values():
            if method.web.resource_action is action:
                return method
        raise LookupError(f"API '{self.name}' has no method for '{action}'")

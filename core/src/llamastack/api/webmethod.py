"""`@webmethod`: the one decorator that turns a Protocol method into a route, a client call and a dispatch rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field
from enum import StrEnum
from typing import Literal, TypeVar

HttpMethod = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
"""A verb that a method can be reached by."""

_F = TypeVar("_F", bound=Callable[..., object])

_ATTRIBUTE = "__webmethod__"


class ResourceAction(StrEnum):
    """What a method of a resource API (models, shields, memory_banks) does with the objects of its kind.

    - `LIST` takes optional arguments, which choose objects by their fields; with `Page`, `limit` and `after`, too.
    - `GET` takes the `identifier`, and returns the object or None.
    - `REGISTER` takes the object, in an argument that is named after its kind.
    - `UNREGISTER` takes the `identifier`.
    """

    LIST = "list"
    GET = "get"
    REGISTER = "register"
    UNREGISTER = "unregister"


@dataclass(frozen=True, slots=True)
class WebMethod:
    """How one Protocol method is reached; it marks the method as a decorator, `@webmethod`.

    What the arguments and the reply are on the wire follows from their types: an argument that the route names
    (`/files/{file_id}`) stands in the path. GET and DELETE have all others in the query. The other verbs have them in
    a JSON object; in a multipart form where one is a `File`; and where one is `bytes`, it is the body, and the others
    stand in the query. A reply of `bytes`, `File` or `AsyncIterator[bytes]` is sent as it is, one of `AsyncIterator` of
    something else as server-sent events, everything else as JSON. A method that returns both a reply and a stream
    takes `stream`, which says which is wanted. A list with pages returns `Page` and takes `limit` and `after`.

    route: absolute path of the HTTP route.
    methods: HTTP methods that reach it; the first is what our own client uses.
    query: arguments of POST, PUT and PATCH that stand in the query although there is a JSON body or a form.
    status: of a successful reply, 200 to 299; 204 has no body.
    media_type: of a reply of bytes; a `File` has its own.
    event_field: the field of a streamed piece that names the event, as in `event: message_start`.
    routed_by: the parameter that names the object (model, shield, memory bank) which decides the provider.
    instances: where an API without resources has several providers, which of them a call that names none goes to:
        `named`: none, such a call is refused; `all` that can serve it; `first`: the first healthy one that can.
    creates: the id in the reply that belongs to the instance which made it; see `llamastack.api.created_ids`.
    resource_action: set on the methods of a resource API.
    capability: the capability that a provider needs to serve this method at all.
    argument_capabilities: parameter name -> capability needed when that parameter is given a truthy value. The name may
        go on with a key of the parameter's object and with one value of it: `params.filters`, `params.mode=hybrid`.
    image_arguments: parameters whose content may hold images; then the capability `images` is needed.
    """

    route: str
    _: KW_ONLY
    methods: tuple[HttpMethod, ...] = ("POST",)
    query: tuple[str, ...] = ()
    status: int = 200
    media_type: str | None = None
    event_field: str | None = None
    routed_by: str | None = None
    creates: str | None = None
    instances: Literal["named", "all", "first"] = "named"
    resource_action: ResourceAction | None = None
    capability: str | None = None
    argument_capabilities: Mapping[str, str] = field(default_factory=dict)
    image_arguments: tuple[str, ...] = ()

    def __call__(self, function: _F) -> _F:
        """Mark `function`."""
        setattr(function, _ATTRIBUTE, self)
        return function


webmethod = WebMethod
"""Marks a method of an API Protocol as callable from outside: `@webmethod("/files/list", methods=("GET",))`."""


def webmethod_of(function: object) -> WebMethod | None:
    """The `WebMethod` that `function` was marked with, or None."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, WebMethod) else None


def not_served() -> NotImplementedError:
    """The body of a method that a provider may leave out when its spec declares it unsupported.

    The stack refuses such calls by the spec and never runs this; a provider that leaves out more is refused at start.
    """
    return NotImplementedError("this provider does not implement the method and its spec does not say so")

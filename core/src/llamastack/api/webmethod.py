"""`@webmethod`: the one decorator that turns a Protocol method into a route, a client call and a dispatch rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar

HttpMethod = Literal["GET", "POST"]

_F = TypeVar("_F", bound=Callable[..., Any])

_ATTRIBUTE = "__webmethod__"


class ResourceAction(StrEnum):
    """What a method of a registry API (models, shields, memory_banks) does with the objects of its kind."""

    LIST = "list"
    GET = "get"
    REGISTER = "register"
    UNREGISTER = "unregister"


@dataclass(frozen=True, slots=True)
class WebMethod:
    """How one Protocol method is reached.

    route: absolute path of the HTTP route.
    methods: HTTP methods that reach it; the first is what our own client uses.
    routed_by: the parameter that names the object (model, shield, memory bank) which decides the provider.
    resource_action: set on the methods of a registry API.
    capability: the capability that a provider needs to serve this method at all.
    argument_capabilities: parameter name -> capability needed when that parameter is given a truthy value.
    image_arguments: parameters whose content may hold images; then the capability `images` is needed.
    """

    route: str
    methods: tuple[HttpMethod, ...] = ("POST",)
    routed_by: str | None = None
    resource_action: ResourceAction | None = None
    capability: str | None = None
    argument_capabilities: Mapping[str, str] = field(default_factory=dict)
    image_arguments: tuple[str, ...] = ()


def webmethod(
    route: str,
    *,
    methods: tuple[HttpMethod, ...] = ("POST",),
    routed_by: str | None = None,
    resource_action: ResourceAction | None = None,
    capability: str | None = None,
    argument_capabilities: Mapping[str, str] | None = None,
    image_arguments: tuple[str, ...] = (),
) -> Callable[[_F], _F]:
    """Mark a method of an API Protocol as callable from outside. See `WebMethod` for the arguments."""

    def mark(function: _F) -> _F:
        described = WebMethod(
            route=route,
            methods=methods,
            routed_by=routed_by,
            resource_action=resource_action,
            capability=capability,
            argument_capabilities=argument_capabilities or {},
            image_arguments=image_arguments,
        )
        setattr(function, _ATTRIBUTE, described)
        return function

    return mark


def webmethod_of(function: object) -> WebMethod | None:
    """The `WebMethod` that `function` was marked with, or None."""
    found = getattr(function, _ATTRIBUTE, None)
    return found if isinstance(found, WebMethod) else None


def not_served() -> NotImplementedError:
    """The body of a method that a provider may leave out when its spec declares it unsupported.

    The stack refuses such calls by the spec and never runs this; a provider that leaves out more is refused at start.
    """
    return NotImplementedError("this provider does not implement the method and its spec does not say so")

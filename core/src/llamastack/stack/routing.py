"""From a call of an API to a call of the provider that serves it; made from the Protocols, no method by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from typing import Any

from llamastack.api.definition import MethodDefinition
from llamastack.api.files import File
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import NotSupportedError, raise_translated
from llamastack.provider.protocols import OpenAIRequest
from llamastack.provider.streams import Stream
from llamastack.stack.object_lists import chosen_objects
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.supervisor import SupervisedProvider, UnsupportedUse


async def _call(instance: SupervisedProvider, name: str, arguments: dict[str, Any]) -> Any:
    refused = instance.refused[name]
    if refused:
        _refuse(instance, name, refused, arguments)
    if instance.provider is None:
        raise instance.unavailable()
    return await _answer(instance, getattr(instance.provider, name)(**arguments))


async def _answer(instance: SupervisedProvider, call: Awaitable[Any]) -> Any:
    try:
        result = await call
    except BaseException as raised:
        raise_translated(raised, instance.failed(raised))
    if isinstance(result, AsyncIterator):
        return instance.guarded(result)
    if isinstance(result, File) and not isinstance(result.content, bytes):
        return result.with_content(instance.guarded(result.content))
    return result


def _refuse(
    instance: SupervisedProvider, name: str, refused: list[UnsupportedUse], arguments: Mapping[str, Any]
) -> None:
    for use in refused:
        param = use.parameter
        if param and not use.is_asked_by(arguments.get(param)):
            continue
        support = instance.plan.spec.capabilities[use.capability]
        what = f"'{param}' of {name}" if param else name
        raise NotSupportedError(
            f"provider '{instance.provider_id}' ({instance.provider_type}) does not support {what} "
            f"({use.capability}: {support})",
            provider_id=instance.provider_id,
            param=param or None,
        )


def routed_dispatch(table: ResourceCatalogue, method: MethodDefinition) -> Dispatch:
    """Choose the provider by the object that one of the arguments names."""
    key = method.web.routed_by
    if key is None:
        raise TypeError(f"{method.api}.{method.name} must say by which parameter it is routed")
    name = method.name

    async def dispatch(arguments: dict[str, Any]) -> Any:
        wanted = arguments[key]
        found = table.resolve(wanted) or await table.find(wanted, key)
        item, instance = found
        arguments[key] = item.identifier
        return await _call(instance, name, arguments)

    return dispatch


class OpenAIForwarder:
    """The way of requests in OpenAI's own words to providers whose backends speak its API."""

    def __init__(self, table: ResourceCatalogue) -> None:
        self._table = table

    async def forward(
        self,
        method: str,
        route: str,
        name: str,
        body: bytes,
        *,
        given: Collection[str],
        stream: bool,
        uses: Callable[[], Mapping[str, Any]],
    ) -> bytes | Stream[bytes] | None:
        """The backend's answer, or None where the request must be translated.

        method: the native method that does the same; what a provider declares of it counts here, too.
        route: below `/v1/`.
        name: the model that the body names.
        given: names of the fields in the body.
        stream: whether the client wants events.
        uses: what of the native method's parameters it asks for, in native values.

        Raises ObjectNotFoundError, NotSupportedError, or what the provider raises.
        """
        item, instance = self._table.resolve(name) or await self._table.find(name, "model")
        if instance.provider is None:
            raise instance.unavailable()
        forward = getattr(instance.provider, "forward_openai", None)
        if forward is None:
            return None
        refused = instance.refused[method]
        if refused:
            _refuse(instance, method, refused, uses())
        request = OpenAIRequest(route, item.identifier, body, given, stream, named=name)
        answer: bytes | Stream[bytes] | None = await _answer(instance, forward(request))
        return answer


def direct_dispatch(instance: SupervisedProvider, method: MethodDefinition) -> Dispatch:
    """The only provider of an API."""
    name = method.name

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await _call(instance, name, arguments)

    return dispatch


def resource_dispatch(table: ResourceCatalogue, method: MethodDefinition) -> Dispatch:
    """A method of a registry API."""
    actions: dict[ResourceAction, Callable[..., Awaitable[Any]]] = {
        ResourceAction.LIST: table.list_all,
        ResourceAction.GET: table.get,
        ResourceAction.REGISTER: table.register,
        ResourceAction.UNREGISTER: table.unregister,
    }
    if method.web.resource_action is None:
        raise TypeError(f"{method.api}.{method.name} must say what it does with the objects")
    action = actions[method.web.resource_action]
    if action == table.list_all and method.parameters:

        async def choose(arguments: dict[str, Any]) -> Any:
            return chosen_objects(method, await table.list_all(), arguments)

        return choose

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await action(*arguments.values())

    return dispatch


def implemented_dispatch(implementation: object, method: MethodDefinition) -> Dispatch:
    """An API that the stack itself implements."""
    function = getattr(implementation, method.name)

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await function(**arguments)

    return dispatch

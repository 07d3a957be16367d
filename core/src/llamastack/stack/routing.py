"""From a call of an API to a call of the provider that serves it; made from the Protocols, no method by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from llamastack.api.definition import MethodDefinition
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import NotFoundError, ObjectNotFoundError
from llamastack.provider.hookspecs import OPEN_ROUTE, Action, Resource
from llamastack.provider.protocols import OpenAIRequest
from llamastack.provider.provider_call import ProviderCall
from llamastack.provider.streams import Stream
from llamastack.stack.access import AccessControl
from llamastack.stack.call_chain import CallChain, Target
from llamastack.stack.object_lists import chosen_objects
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.supervisor import SupervisedProvider


def routed_dispatch(table: ResourceCatalogue, method: MethodDefinition, calls: CallChain) -> Dispatch:
    """Choose the provider by the object that one of the arguments names."""
    key = method.web.routed_by
    if key is None:
        raise TypeError(f"{method.api}.{method.name} must say by which parameter it is routed")
    name, streams = method.name, method.piece is not None

    async def make(call: ProviderCall, instance: SupervisedProvider) -> Any:
        return await getattr(instance.provider, name)(**{**call.request, key: call.identifier})

    async def choose(call: ProviderCall) -> tuple[ProviderCall, SupervisedProvider]:
        return await _chosen(table, call, key)

    async def dispatch(arguments: dict[str, Any]) -> Any:
        item, instance = table.resolve(arguments[key]) or await _find(table, arguments[key], key, calls.access)
        arguments[key] = item.identifier
        if calls.is_empty(instance, name):
            return await _call(instance, name, arguments)
        stream = streams and bool(arguments.get("stream"))
        call = ProviderCall(method.api, name, item.identifier, instance.provider_id, stream, arguments)
        return await calls.run(call, Target(item.identifier, instance, make, choose))

    return dispatch


async def _call(instance: SupervisedProvider, name: str, arguments: dict[str, Any]) -> Any:
    if instance.provider is None:
        raise instance.unavailable()
    return await instance.answered(getattr(instance.provider, name)(**arguments))


async def _chosen(table: ResourceCatalogue, call: ProviderCall, key: str) -> tuple[ProviderCall, SupervisedProvider]:
    item, instance = await table.find(f"{call.provider_id}/{call.identifier}", key)
    return call.replaced(identifier=item.identifier), instance


async def _find(table: ResourceCatalogue, name: str, key: str, access: AccessControl) -> tuple[Any, SupervisedProvider]:
    """As the table does it, but an error names only what the principal may see."""
    try:
        return await table.find(name, key)
    except ObjectNotFoundError:
        if not access.authorizes:
            raise
    seen = await _readable(await table.list_all(), table.pair.resource_api, "", access)
    raise ObjectNotFoundError(table.pair.label, name, available=[item.identifier for item in seen], param=key)


class _NotForwarded(BaseException):
    """A hook chose an instance that does not take the request as it is. No error, so that no hook takes it for one."""


class OpenAIForwarder:
    """The way of requests in OpenAI's own words to providers whose backends speak its API."""

    def __init__(self, table: ResourceCatalogue, calls: CallChain) -> None:
        self._table = table
        self._calls = calls

    async def forward(
        self,
        method: str,
        route: str,
        name: str,
        body: bytes,
        *,
        given: Mapping[str, Any],
        stream: bool,
        uses: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> bytes | Stream[bytes] | None:
        """The backend's answer, or None where the request must be translated.

        method: the native method that does the same; what a provider declares of it counts here, too.
        route: below `/v1/`.
        name: the model that the body names.
        given: the fields in the body that have a value.
        stream: whether the client wants events.
        uses: from those fields to the native method's parameters that need a capability, in native values.

        Raises ObjectNotFoundError, NotSupportedError, or what the provider raises.
        """
        found = self._table.resolve(name) or await _find(self._table, name, "model", self._calls.access)
        item, instance = found
        empty = self._calls.is_empty(instance, method)
        if instance.provider is None and empty:
            raise instance.unavailable()
        request = OpenAIRequest(route, item.identifier, body, given, stream, named=name)
        if not await _forwards(instance, request):
            return None  # nor where it is down: a hook may choose another one for the native call
        if empty:
            answer: bytes | Stream[bytes] = await instance.answered(instance.provider.forward_openai(request))
            return answer
        return await self._run(method, request, instance, given, uses)

    async def _run(
        self,
        method: str,
        request: OpenAIRequest,
        instance: SupervisedProvider,
        given: Mapping[str, Any],
        uses: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    ) -> bytes | Stream[bytes] | None:
        def changed(call: ProviderCall) -> OpenAIRequest:
            if call.body is request.body:
                return request if call.identifier == request.model else replace(request, model=call.identifier)
            fields = {name: value for name, value in call.request.items() if value is not None}
            body, named = call.body or b"", str(fields.get("model"))
            return replace(request, model=call.identifier, body=body, given=fields, named=named)

        async def make(call: ProviderCall, instance: SupervisedProvider) -> Any:
            return await instance.provider.forward_openai(changed(call))

        async def choose(call: ProviderCall) -> tuple[ProviderCall, SupervisedProvider]:
            call, instance = await _chosen(self._table, call, "model")
            if instance.provider is not None and not await _forwards(instance, changed(call)):
                raise _NotForwarded
            return call, instance

        call = ProviderCall(
            "inference", method, request.model, instance.provider_id, request.stream, given, request.body, uses
        )
        try:
            answer: bytes | Stream[bytes] = await self._calls.run(call, Target(request.model, instance, make, choose))
        except _NotForwarded:
            return None
        return answer


async def _forwards(instance: SupervisedProvider, request: OpenAIRequest) -> bool:
    if getattr(instance.provider, "forward_openai", None) is None:
        return False
    takes = getattr(instance.provider, "takes_openai", None)
    return takes is None or await takes(request)


def direct_dispatch(instance: SupervisedProvider, method: MethodDefinition, calls: CallChain) -> Dispatch:
    """The only provider of an API."""
    name, streams = method.name, method.piece is not None

    async def make(call: ProviderCall, instance: SupervisedProvider) -> Any:
        return await getattr(instance.provider, name)(**call.request)

    async def choose(call: ProviderCall) -> tuple[ProviderCall, SupervisedProvider]:
        raise NotFoundError(f"API '{call.api}' has no provider '{call.provider_id}' beside '{instance.provider_id}'")

    async def dispatch(arguments: dict[str, Any]) -> Any:
        if calls.is_empty(instance, name):
            return await _call(instance, name, arguments)
        stream = streams and bool(arguments.get("stream"))
        call = ProviderCall(method.api, name, "", instance.provider_id, stream, arguments)
        return await calls.run(call, Target("", instance, make, choose))

    return dispatch


def resource_dispatch(table: ResourceCatalogue, method: MethodDefinition, access: AccessControl) -> Dispatch:
    """A method of a registry API; what the principal may not see is not there."""
    web, kind = method.web, table.pair.resource_api
    if web.resource_action is None:
        raise TypeError(f"{method.api}.{method.name} must say what it does with the objects")

    async def list_all() -> list[Any]:
        return await _readable(await table.list_all(), kind, method.name, access)

    async def get(name: str) -> Any:
        item = await table.get(name)
        return item if item is None or await _readable([item], kind, method.name, access) else None

    async def register(item: Any) -> None:
        resource = Resource(kind, method.name, item.identifier, item.provider_id or None)
        await access.check(Action.REGISTER, resource)
        await table.register(item)

    async def unregister(name: str) -> None:
        if access.authorizes:
            item = await table.get(name)  # a name may be `provider_id/identifier`
            own = (name, None) if item is None else (item.identifier, item.provider_id)
            await access.check(Action.UNREGISTER, Resource(kind, method.name, *own))
        await table.unregister(name)

    actions: dict[ResourceAction, Callable[..., Awaitable[Any]]] = {
        ResourceAction.LIST: list_all,
        ResourceAction.GET: get,
        ResourceAction.REGISTER: register,
        ResourceAction.UNREGISTER: unregister,
    }
    action = actions[web.resource_action]
    if web.resource_action is ResourceAction.LIST and method.parameters:

        async def choose(arguments: dict[str, Any]) -> Any:
            return chosen_objects(method, await list_all(), arguments)

        return choose

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await action(*arguments.values())

    return dispatch


async def _readable(items: list[Any], kind: str, method: str, access: AccessControl) -> list[Any]:
    """Those that the current principal may see."""
    if not access.authorizes:
        return items
    return [
        item
        for item in items
        if await access.may(Action.READ, Resource(kind, method, item.identifier, item.provider_id))
    ]


def implemented_dispatch(implementation: object, method: MethodDefinition, access: AccessControl) -> Dispatch:
    """An API that the stack itself implements; how it is, is open to everybody."""
    function = getattr(implementation, method.name)
    is_open = method.web.route == OPEN_ROUTE

    async def dispatch(arguments: dict[str, Any]) -> Any:
        if not is_open:
            await access.check(Action.READ, Resource(method.api, method.name))
        return await function(**arguments)

    return dispatch

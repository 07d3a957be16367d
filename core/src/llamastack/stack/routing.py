"""From a call of an API to a call of the provider that serves it; made from the Protocols, no method by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llamastack.api.definition import MethodDefinition
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import NotFoundError, ObjectNotFoundError
from llamastack.provider.hookspecs import OPEN_ROUTE, Action, Resource
from llamastack.provider.provider_call import ProviderCall
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


class _NotTaken(BaseException):
    """A hook chose an instance that does not take the request as it is. No error, so that no hook takes it for one."""


# perf: llamastack-v1. Not frozen, as that makes each take three times as long; nobody changes one.
@dataclass(slots=True)
class OptionalCall:
    """A call of a method that a provider may have beside those of its API's Protocol.

    optional: its name. takes: name of a method that says whether it takes a request, asked before where it is there.
    method: the method of the API that does the same; what a provider declares of that counts here, too.
    name: the object that is asked for, by any of its names. given: the fields of the request that have a value.
    body: the request as JSON. stream: whether pieces are wanted.
    make: makes the argument, out of the object's identifier and, where a hook has changed the request, that call.
    uses: from the fields to the parameters of `method` that need a capability, in their own values.
    """

    optional: str
    method: str
    name: str
    given: Mapping[str, Any]
    body: bytes
    stream: bool
    make: Callable[[str, ProviderCall | None], object]
    uses: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    takes: str = ""

    async def is_taken(self, provider: object, request: object) -> bool:
        if getattr(provider, self.optional, None) is None:
            return False
        takes = getattr(provider, self.takes, None) if self.takes else None
        return takes is None or bool(await takes(request))

    def changed(self, call: ProviderCall) -> object:
        """The argument for a call that has passed the hooks."""
        return self.make(call.identifier, None if call.body is self.body else call)


class OptionalCalls:
    """Makes calls of optional methods, for the objects of one API.

    A surface declares such methods by a protocol of its own, and gets this from `Stack.optional_calls`.
    """

    def __init__(self, table: ResourceCatalogue, methods: Mapping[str, MethodDefinition], calls: CallChain) -> None:
        self._table = table
        self._keys = {name: method.web.routed_by or "" for name, method in methods.items()}
        self._calls = calls

    async def call(self, asked: OptionalCall) -> Any:
        """What the provider of the object answers; None if it lacks the method, or does not take the request.

        Raises ObjectNotFoundError, NotSupportedError, or what the provider raises.
        """
        key = self._keys[asked.method]
        item, instance = self._table.resolve(asked.name) or await _find(
            self._table, asked.name, key, self._calls.access
        )
        empty = self._calls.is_empty(instance, asked.method)
        if instance.provider is None and empty:
            raise instance.unavailable()
        request = asked.make(item.identifier, None)
        if not await asked.is_taken(instance.provider, request):
            return None  # nor where it is down: a hook may choose another one for the native call
        if empty:
            return await instance.answered(getattr(instance.provider, asked.optional)(request))
        return await self._run(asked, key, item.identifier, instance)

    async def _run(self, asked: OptionalCall, key: str, identifier: str, instance: SupervisedProvider) -> Any:
        async def make(call: ProviderCall, instance: SupervisedProvider) -> Any:
            return await getattr(instance.provider, asked.optional)(asked.changed(call))

        async def choose(call: ProviderCall) -> tuple[ProviderCall, SupervisedProvider]:
            call, instance = await _chosen(self._table, call, key)
            if instance.provider is not None and not await asked.is_taken(instance.provider, asked.changed(call)):
                raise _NotTaken
            return call, instance

        api = self._table.pair.routed_api
        call = ProviderCall(
            api, asked.method, identifier, instance.provider_id, asked.stream, asked.given, asked.body, asked.uses
        )
        try:
            return await self._calls.run(call, Target(identifier, instance, make, choose))
        except _NotTaken:
            return None


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

"""Sends calls, as the Protocols say, to the providers that serve them, and refuses an unknown model, shield or bank."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from llamastack.api.base import RoutedObject
from llamastack.api.definition import MethodDefinition
from llamastack.api.webmethod import ResourceAction
from llamastack.provider.api_handle import Dispatch
from llamastack.provider.errors import ObjectNotFoundError
from llamastack.provider.hookspecs import OPEN_ROUTES, Action, Resource
from llamastack.provider.provider_call import ProviderCall, ProviderMethod
from llamastack.stack.access import AccessControl
from llamastack.stack.call_chain import CallChain
from llamastack.stack.object_lists import chosen_objects
from llamastack.stack.resources.catalogue import ResourceCatalogue
from llamastack.stack.supervisor import SupervisedProvider

_MOST_NAMES = 1000


class _NotTakenError(BaseException):
    """A hook chose an instance that does not take the call in this form. No Exception, so that no hook handles it."""


class RoutedCalls:
    """The calls of one API; the object that a call names decides which instance serves it."""

    def __init__(self, table: ResourceCatalogue, methods: Mapping[str, MethodDefinition], calls: CallChain) -> None:
        self._table = table
        self._objects = VisibleObjects(table, calls.access)
        self._keys = {name: _routed_by(method) for name, method in methods.items()}
        self._send = calls.compose(self._find_target)
        self._check = calls.compose_check()

    def dispatch_of(self, method: MethodDefinition, *, only_checked: bool = False) -> Dispatch:
        """Calls of a method of the API's Protocol; or only the checks before the call."""
        send = self._check if only_checked else self._send
        key = self._keys[method.name]
        by = ProviderMethod(
            method.name,
            method.name,
            lambda call: {**call.request, key: call.identifier},
            lambda request: request,
            by_name=True,
        )

        async def dispatch(arguments: dict[str, Any]) -> Any:
            name = arguments[key]
            item, instance = self._table.resolve(name) or await self._objects.find(name, key)
            arguments[key] = item.identifier
            found, to, stream = item.identifier, instance.provider_id, method.gives_pieces(arguments)
            return await send(ProviderCall(method.api, method.name, found, to, stream, arguments, None, by, instance))

        return dispatch

    async def call(
        self, by: ProviderMethod, name: str, request: Mapping[str, Any], body: bytes, *, stream: bool
    ) -> Any:
        """What the provider of an object replies to a call by an optional method; None if it does not take the call.

        name: the object, by any of its names. The other arguments are those of `ProviderCall`.
        Raises ObjectNotFoundError, NotSupportedError, or what hooks and the provider raise.
        """
        item, instance = self._table.resolve(name) or await self._objects.find(name, self._keys[by.native])
        api, provider_id = self._table.pair.routed_api, instance.provider_id
        call = ProviderCall(api, by.native, item.identifier, provider_id, stream, request, body, by, instance)
        # A provider that is down is called, too: a hook may choose another one.
        if instance.provider is not None and not await by.is_taken(instance.provider, call):
            return None
        try:
            return await self._send(call)
        except _NotTakenError:
            return None

    async def _find_target(self, call: ProviderCall) -> ProviderCall:
        item, instance = await self._objects.find(f"{call.provider_id}/{call.identifier}", self._keys[call.method])
        call = replace(call, identifier=item.identifier, target=instance)
        if instance.provider is not None and not await call.by.is_taken(instance.provider, call):
            raise _NotTakenError
        return call


def _routed_by(method: MethodDefinition) -> str:
    if method.web.routed_by is None:
        raise TypeError(f"{method.api}.{method.name} must say by which parameter it is routed")
    return method.web.routed_by


class VisibleObjects:
    """The objects of one kind that the current principal may see or change; the others do not exist for it."""

    def __init__(self, table: ResourceCatalogue, access: AccessControl) -> None:
        self._table = table
        self._kind = table.pair.resource_api
        self._access = access

    async def find(self, name: str, param: str) -> tuple[RoutedObject, SupervisedProvider]:
        """(object, its instance). A name that nobody serves is refused here.

        Raises ProviderUnavailableError for what a provider that is down is known to serve, ObjectNotFoundError for
        anything else, naming what is served and visible.
        """
        found = await self._table.find(name)
        if found is not None:
            return found
        names = [item.identifier for item in islice(await self._readable(self._table.usable(), ""), _MOST_NAMES)]
        note = self._table.why_incomplete()
        raise ObjectNotFoundError(self._table.pair.label, name, available=names, note=note, param=param)

    async def list(self, method: str) -> Sequence[RoutedObject]:
        """All of them."""
        return [*await self._readable(await self._table.list_all(), method)]

    async def get(self, method: str, name: str) -> RoutedObject | None:
        """One of them, or None."""
        item = await self._table.get(name)
        return next(iter(await self._readable([] if item is None else [item], method)), None)

    async def register(self, method: str, item: RoutedObject) -> None:
        """Raises PermissionDeniedError, or what the catalogue raises."""
        resource = Resource(self._kind, method, item.identifier, item.provider_id or None)
        await self._access.check(Action.REGISTER, resource)
        if item.provider_resource_id is not None and self._access.authorizes:
            # An alias shows fields of what it stands for.
            target = Resource(self._kind, method, item.provider_resource_id, item.provider_id or None)
            await self._access.check(Action.READ, target)
        await self._table.register(item)

    async def unregister(self, method: str, name: str) -> None:
        """Raises PermissionDeniedError, or what the catalogue raises."""
        if self._access.authorizes:
            item = await self._table.get(name)  # a name may be `provider_id/identifier`
            own = (name, None) if item is None else (item.identifier, item.provider_id)
            await self._access.check(Action.UNREGISTER, Resource(self._kind, method, *own))
        await self._table.unregister(name)

    async def _readable(self, items: Iterable[RoutedObject], method: str) -> Iterable[RoutedObject]:
        if not self._access.authorizes:
            return items
        resources = ((item, Resource(self._kind, method, item.identifier, item.provider_id)) for item in items)
        return [item for item, resource in resources if await self._access.may(Action.READ, resource)]


def resource_dispatch(table: ResourceCatalogue, method: MethodDefinition, access: AccessControl) -> Dispatch:
    """A method of a resource API."""
    if method.web.resource_action is None:
        raise TypeError(f"{method.api}.{method.name} must say what it does with the objects")
    objects = VisibleObjects(table, access)
    action: Callable[..., Awaitable[Any]] = getattr(objects, method.web.resource_action)
    is_choice = method.web.resource_action is ResourceAction.LIST and bool(method.parameters)

    async def dispatch(arguments: dict[str, Any]) -> Any:
        if is_choice:
            return chosen_objects(method, await objects.list(method.name), arguments)
        return await action(method.name, *arguments.values())

    return dispatch


def implemented_dispatch(implementation: object, method: MethodDefinition, access: AccessControl) -> Dispatch:
    """A method of an API that the stack itself implements. Everybody may see whether the stack is healthy and ready."""
    function = getattr(implementation, method.name)
    is_open = method.web.route in OPEN_ROUTES

    async def dispatch(arguments: dict[str, Any]) -> Any:
        if not is_open:
            await access.check(Action.READ, Resource(method.api, method.name))
        return await function(**arguments)

    return dispatch

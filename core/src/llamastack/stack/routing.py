"""From a call of an API to a call of the provider that serves it; made from the Protocols, no method by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from llamastack.api.definition import MethodDefinition
from llamastack.api.webmethod import TableAction
from llamastack.provider.errors import NotSupportedError
from llamastack.provider.handles import Dispatch
from llamastack.stack.instance import Instance, RefusedUse
from llamastack.stack.registry import ObjectTable


async def _call(instance: Instance, name: str, arguments: dict[str, Any]) -> Any:
    refused = instance.refused[name]
    if refused:
        _refuse(instance, name, refused, arguments)
    if instance.provider is None:
        raise instance.unavailable()
    try:
        result = await getattr(instance.provider, name)(**arguments)
    except Exception as error:
        told = instance.failed(error)
        raise told from (None if told is error else error)
    return instance.guarded(result) if isinstance(result, AsyncIterator) else result


def _refuse(instance: Instance, name: str, refused: list[RefusedUse], arguments: dict[str, Any]) -> None:
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


def routed_dispatch(table: ObjectTable, method: MethodDefinition) -> Dispatch:
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


def direct_dispatch(instance: Instance, method: MethodDefinition) -> Dispatch:
    """The only provider of an API."""
    name = method.name

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await _call(instance, name, arguments)

    return dispatch


def table_dispatch(table: ObjectTable, method: MethodDefinition) -> Dispatch:
    """A method of a registry API."""
    actions: dict[TableAction, Callable[..., Awaitable[Any]]] = {
        TableAction.LIST: table.list_all,
        TableAction.GET: table.get,
        TableAction.REGISTER: table.register,
        TableAction.UNREGISTER: table.unregister,
    }
    if method.web.table_action is None:
        raise TypeError(f"{method.api}.{method.name} must say what it does with the objects")
    action = actions[method.web.table_action]

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await action(*arguments.values())

    return dispatch


def implemented_dispatch(implementation: object, method: MethodDefinition) -> Dispatch:
    """An API that the stack itself implements."""
    function = getattr(implementation, method.name)

    async def dispatch(arguments: dict[str, Any]) -> Any:
        return await function(**arguments)

    return dispatch

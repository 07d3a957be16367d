"""From a call of an API to a call of the provider that serves it; made from the Protocols, no method by hand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import ValidationError

from llamastack.api.definition import ApiDefinition, MethodDefinition
from llamastack.api.webmethod import TableAction
from llamastack.provider.errors import NotSupportedError
from llamastack.provider.validation import invalid_request
from llamastack.stack.instance import Instance
from llamastack.stack.registry import ObjectTable

Dispatch = Callable[[dict[str, Any]], Awaitable[Any]]


class ApiMethod:
    """One callable method of a running stack.

    Calling it validates the arguments; `dispatch` takes a dict of arguments that are valid already.
    """

    def __init__(self, definition: MethodDefinition, dispatch: Dispatch) -> None:
        self.definition = definition
        self.dispatch = dispatch
        self._request = definition.request_model
        self._names = tuple(definition.parameters)

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises InvalidRequestError for arguments that do not fit, and whatever the provider raises."""
        if args:
            if len(args) > len(self._names):
                raise TypeError(f"{self.definition.name}() takes at most {len(self._names)} arguments")
            for name, value in zip(self._names, args, strict=False):
                if name in kwargs:
                    raise TypeError(f"{self.definition.name}() got several values for argument {name!r}")
                kwargs[name] = value
        try:
            request = self._request.model_validate(kwargs)
        except ValidationError as error:
            raise invalid_request(error, kwargs) from None
        return await self.dispatch(request.arguments())

    def __repr__(self) -> str:
        return f"<{self.definition.api}.{self.definition.name}>"


class ApiHandle:
    """A running API: one `ApiMethod` per method of its Protocol."""

    def __init__(self, definition: ApiDefinition, dispatch_of: Callable[[MethodDefinition], Dispatch]) -> None:
        self.definition = definition
        self.methods = {name: ApiMethod(method, dispatch_of(method)) for name, method in definition.methods.items()}

    def __getattr__(self, name: str) -> ApiMethod:
        methods: dict[str, ApiMethod] = self.__dict__.get("methods", {})
        try:
            return methods[name]
        except KeyError:
            raise AttributeError(f"API '{self.definition.name}' has no method {name!r}") from None

    def __repr__(self) -> str:
        return f"<API {self.definition.name}>"


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
    return instance.guarded(result) if hasattr(result, "__aiter__") else result


def _refuse(instance: Instance, name: str, refused: dict[str, str], arguments: dict[str, Any]) -> None:
    for param, capability in refused.items():
        if param and not arguments.get(param):
            continue
        support = instance.plan.spec.capabilities[capability]
        what = f"'{param}' of {name}" if param else name
        raise NotSupportedError(
            f"provider '{instance.provider_id}' ({instance.provider_type}) does not support {what} "
            f"({capability}: {support})",
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

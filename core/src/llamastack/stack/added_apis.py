"""Checks of the APIs that a plugin adds, whatever serves them; surfaces have the hook `llamastack_check_apis`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence

from llamastack.api.base import RoutedObject
from llamastack.api.definition import ApiDefinition, MethodDefinition, ResourceKind, members_of
from llamastack.api.id_fields import id_faults
from llamastack.api.webmethod import ResourceAction
from llamastack.stack.config import reserved_keys
from llamastack.stack.discovery import DiscoveryError


def with_added(
    there: Mapping[str, ApiDefinition], added: Sequence[ApiDefinition], owners: Mapping[str, str], sections: set[str]
) -> dict[str, ApiDefinition]:
    """The APIs that are there, and all that one plugin adds.

    owners: API -> plugin, of those that are not built in. sections: the run config's, of plugins.
    Raises DiscoveryError with the faults, each as `API.method: what is wrong; what is allowed`.
    """
    apis, faults = dict(there), []
    for api in added:
        if not isinstance(api.name, str) or not api.name.isidentifier() or api.name.startswith("_"):
            faults.append(f"{api.name!r} is no name of an API; allowed: a Python identifier that begins with a letter")
        elif api.name in apis:
            by = f"plugin {owners[api.name]} adds it" if api.name in owners else "it is built in"
            faults.append(f"API '{api.name}' is there already: {by if api.name in there else 'it is added twice'}")
        else:
            apis[api.name] = api
    if not faults:
        faults = [f"{api.name}{fault}" for api in added for fault in _faults_of(api, apis, sections)]
    if faults:
        raise DiscoveryError("\n".join(faults))
    return apis


def _faults_of(api: ApiDefinition, apis: Mapping[str, ApiDefinition], sections: set[str]) -> Iterator[str]:
    if api.pair is not None:
        yield from (f": {fault}" for fault in _faults_of_pair(api, api.pair, apis, sections))
    elif api.implemented_by_stack:
        yield ": nobody implements it: implemented_by_stack is for the resource API of a pair"
    try:
        for name, method in api.methods.items():
            yield from (f".{name}: {fault}" for fault in _faults_of_method(api, method))
    except Exception as error:  # this evaluates the annotations
        yield f": its methods cannot be read: {type(error).__name__}: {error}"


def _faults_of_pair(
    api: ApiDefinition, pair: ResourceKind, apis: Mapping[str, ApiDefinition], sections: set[str]
) -> Iterator[str]:
    own, other = pair.routed_api, pair.resource_api
    if api.implemented_by_stack:
        own, other = other, own
        if api.name in reserved_keys(sections):
            yield "the run config has a key of this name already"
        if not any(method.web.resource_action is ResourceAction.LIST for method in api.methods.values()):
            yield f"no method lists the {pair.label}s; one needs resource_action=ResourceAction.LIST"
    if api.name != own or other not in apis or apis[other].pair != pair:
        yield f"it needs its pair, '{pair.routed_api}' and '{pair.resource_api}', as `routed_apis` makes them"
    kinds = [*members_of(pair.object_type)]
    if not all(isinstance(kind, type) and issubclass(kind, RoutedObject) for kind in kinds):
        yield f"object_type is {pair.object_type!r}; allowed: subclasses of RoutedObject"


def _faults_of_method(api: ApiDefinition, method: MethodDefinition) -> Iterator[str]:
    if not inspect.iscoroutinefunction(getattr(api.protocol, method.name)):
        yield "it is not async; allowed: `async def`"  # a provider that follows it could not be called
        return
    untyped = [name for name in method.parameters if name not in method.hints]
    if untyped:
        yield f"argument '{untyped[0]}' has no type"
        return
    if api.pair is not None and api.implemented_by_stack and method.web.resource_action is None:
        yield f"resource_action is missing; allowed: {', '.join(ResourceAction)}"
    elif api.pair is not None and not api.implemented_by_stack and method.web.routed_by not in method.parameters:
        yield f"routed_by must name the argument that is the {api.pair.label}; there are {', '.join(method.parameters)}"
    yield from id_faults(api, method)
    _ = method.fields, method.result, method.piece  # each raises for a type that pydantic does not know

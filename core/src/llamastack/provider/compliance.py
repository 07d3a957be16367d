"""Is this object a provider? The list of what is wrong, all of it at once."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

from llamastack.api.created_ids import PROVIDER_ID
from llamastack.api.definition import ApiDefinition
from llamastack.provider.capabilities import Capabilities


def check_provider(api: ApiDefinition, provider: object, capabilities: Capabilities) -> list[str]:
    """What keeps `provider` from serving `api`; empty when nothing does.

    Checks, for each method of the API's Protocol and of the private protocol: it is there, it is not the Protocol's own
    empty body, it is async, and it takes the arguments that the stack passes. A method whose capability the spec
    declares as unsupported or not implemented may be left out: the stack never calls it. So may the argument
    `provider_id` of an API without resources, which the stack keeps for itself.
    """
    found: list[str] = []
    kept = (PROVIDER_ID,) if api.pair is None else ()
    for name, method_definition in api.methods.items():
        if method_definition.web.capability and capabilities.refused(method_definition.web.capability):
            continue
        found += _faults_of_method(provider, api.protocol, name, kept)
    if api.pair is not None:
        for name in (api.pair.list_hook, api.pair.register_hook):
            found += _faults_of_method(provider, api.pair.private_protocol, name)
        for name in api.pair.optional_hooks:
            if getattr(provider, name, None) is not None:
                found += _faults_of_method(provider, api.pair.optional_protocol, name)
    optional = ["initialize", "shutdown", "health"]
    if api.pair is not None:
        optional += [api.pair.unregister_hook, api.pair.forget_hook]
    for name in optional:
        method = getattr(provider, name, None)
        if method is not None and not _is_async(method):
            found.append(f"{name}: must be 'async def'")
    return found


def _faults_of_method(provider: object, protocol: object, name: str, kept: tuple[str, ...] = ()) -> Iterator[str]:
    wanted = inspect.signature(getattr(protocol, name))
    method = getattr(provider, name, None)
    if method is None or getattr(type(provider), name, None) is getattr(protocol, name):
        yield f"{name}: is missing (wanted: async def {name}{wanted})"
        return
    if not callable(method) or not _is_async(method):
        yield f"{name}: must be 'async def'"
        return
    has = inspect.signature(method)
    missing = [
        parameter.name
        for parameter in wanted.parameters.values()
        if parameter.name not in ("self", *kept) and not _takes(has, parameter.name)
    ]
    if missing:
        yield f"{name}: does not take {', '.join(repr(m) for m in missing)} (has: {has}, wanted: {wanted})"
    required = [
        parameter.name
        for parameter in has.parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind not in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        and (
            parameter.name not in wanted.parameters
            or wanted.parameters[parameter.name].default is not inspect.Parameter.empty
        )
    ]
    if required:
        names = ", ".join(repr(r) for r in required)
        yield f"{name}: requires {names}, which the stack need not pass (wanted: {wanted})"


def _takes(signature: inspect.Signature, name: str) -> bool:
    parameter = signature.parameters.get(name)
    if parameter is not None:
        return parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return any(p.kind is inspect.Parameter.VAR_KEYWORD for p in signature.parameters.values())


def _is_async(method: object) -> bool:
    called = vars(type(method)).get("__call__")
    return inspect.iscoroutinefunction(method) or inspect.iscoroutinefunction(called)

"""Makes a provider out of its plan: imports its modules, calls its factory, checks the result."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable

import anyio.to_thread
from pydantic import BaseModel

from llamastack.api.definition import ApiDefinition
from llamastack.provider.compliance import check_provider
from llamastack.provider.deps import Deps
from llamastack.provider.import_path import load_dotted
from llamastack.stack.fault_isolation import as_exception
from llamastack.stack.resolver import PlannedProvider

Factory = Callable[[Deps], Awaitable[object]]


class PermanentError(Exception):
    """Trying again will not help: the provider is not installed as it should be, or is no provider."""


async def load_factory(plan: PlannedProvider) -> tuple[Factory, type[BaseModel] | None]:
    """(factory, model of its provider data). Raises PermanentError where the config or a module is not there."""
    config, validator = plan.config, plan.spec.provider_data_validator
    if isinstance(config, Exception):
        raise PermanentError(str(config)) from config
    try:
        # The provider's modules may bring a large SDK: importing them must not stop the loop.
        data_model = None if validator is None else await anyio.to_thread.run_sync(load_dotted, validator)
        factory = await anyio.to_thread.run_sync(plan.spec.load_factory)
    except BaseException as raised:
        error = as_exception(raised)
        raise PermanentError(str(error)) from error
    return functools.partial(factory, config), data_model


async def make_provider(plan: PlannedProvider, definition: ApiDefinition, factory: Factory, deps: Deps) -> object:
    """Raises PermanentError where a module is missing, or the result is no provider; else what the factory raises."""
    try:
        provider = await factory(deps)
    except ImportError as error:
        raise PermanentError(str(error)) from error
    faults = check_provider(definition, provider, plan.spec.capabilities)
    if faults:
        raise PermanentError(f"{plan.spec.factory} made no provider of API '{plan.api}': {'; '.join(faults)}")
    return provider

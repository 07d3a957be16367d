"""Whether several processes can serve one stack together: what each of them would keep to itself."""

from __future__ import annotations

from collections.abc import Iterator

from llamastack.stack import ConfigError, Stack
from llamastack.stack.discovery import STORE_GROUP, DiscoveryError, Installed
from llamastack.stack.resolver import PlannedProvider
from llamastack.stack.stores import Store
from llamastack.stack.yaml_source import ConfigIssue


def check_workers(stack: Stack, workers: int) -> None:
    """Raises ConfigError when so many processes could not serve this stack together, with every reason."""
    faults = list(_faults(stack, workers)) if workers > 1 else []
    if faults:
        raise ConfigError(stack.config.source, faults)


def _faults(stack: Stack, workers: int) -> Iterator[ConfigIssue]:
    config = stack.config
    if not is_shared(type(stack.store)):
        names = ", ".join(
            installed.name for installed in stack.discovery.group(STORE_GROUP) if _brings_shared_store(installed)
        )
        chosen = config.run.store
        yield config.fault(
            () if chosen is None else ("store", "type"),
            f"{'the default store of a stack without a folder' if chosen is None else repr(chosen.type)} keeps what is "
            f"registered in one process, and {workers} workers must share it; allowed: {names}, or one worker",
        )
    for provider in stack.plan.providers:
        reason = _kept_apart_by(provider)
        if reason is not None:
            ids = [one.provider_id for one in config.run.providers[provider.api]]
            yield config.fault(
                ("providers", provider.api, ids.index(provider.provider_id)),
                f"'{provider.provider_id}' ({provider.provider_type}{reason}) works in one process only: each of "
                f"{workers} workers would have its own, which knows nothing of the others; allowed: one worker",
            )


def is_shared(store: type[Store]) -> bool:
    """Whether a store class keeps what all processes see. Those that say nothing do: that is what a store is for."""
    return bool(getattr(store, "shared", True))


def _brings_shared_store(installed: Installed) -> bool:
    try:
        return not installed.disabled and is_shared(installed.load())
    except DiscoveryError:
        return False


def _kept_apart_by(provider: PlannedProvider) -> str | None:
    """None if instances in several processes work as one; else a remark to show after the provider's type."""
    single = provider.spec.single_process
    if single is True:
        return ""
    for name in single or ():
        if getattr(provider.config, name, None) is not None:
            return f" with '{name}'"
    return None

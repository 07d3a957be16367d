"""Whether several processes can serve one stack together."""

from __future__ import annotations

from collections.abc import Iterator

from llamastack.provider.spec import ProviderSpec
from llamastack.provider.store import Store
from llamastack.stack import ConfigError, Stack
from llamastack.stack.discovery import STORE_GROUP, DiscoveryError, Installed
from llamastack.stack.yaml_source import ConfigIssue


def check_workers(stack: Stack, workers: int) -> None:
    """Raises ConfigError with every reason why `workers` processes cannot serve this stack together."""
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
            f"{'the default store of a stack without a folder' if chosen is None else repr(chosen.type)} keeps "
            f"registrations in one process, and {workers} workers must share them; allowed: {names}, or one worker",
        )
    for provider in stack.plan.providers:
        reason = _kept_apart_by(provider.spec, provider.config)
        if reason is not None:
            yield config.fault(
                provider.path,
                f"'{provider.provider_id}' ({provider.provider_type}{reason}) works in one process only: each of "
                f"{workers} workers would have its own state; allowed: one worker",
            )


def is_shared(store: type[Store]) -> bool:
    """Whether all processes see what a store class keeps; true by default."""
    return bool(getattr(store, "shared", True))


def _brings_shared_store(installed: Installed) -> bool:
    try:
        return not installed.disabled and is_shared(installed.load())
    except DiscoveryError:
        return False


def _kept_apart_by(spec: ProviderSpec, settings: object) -> str | None:
    """None if instances in several processes share their state; else a remark to show after the provider's type."""
    single = spec.single_process
    if single is True:
        return ""
    for name in single or ():
        if getattr(settings, name, None) is not None:
            return f" with '{name}'"
    return None

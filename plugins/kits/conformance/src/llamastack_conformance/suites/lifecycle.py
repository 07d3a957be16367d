"""Checks of how a provider starts, and that its instances share no state."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.suite import Suite

_CONTAINERS = (list, dict, set)


class LifeChecks(Suite):
    """Checks of every provider."""

    @check("life.starts", tier=Tier.live, mend="see the reason; the run config must name a running backend")
    async def test_life_starts(self, subject: Subject) -> None:
        """the provider starts with this run config and answers a call"""
        async with subject.start() as running:
            await self.prepare(running)
            await self.call(running)

    @check("life.two-instances", tier=Tier.live, mend="keep state in the instance; close only what it opened itself")
    async def test_life_two_instances(self, subject: Subject) -> None:
        """two instances with two provider_ids work side by side, and one still works after the other is shut down"""
        async with subject.start(second=True) as second:
            async with subject.start() as first:
                for one in (first, second):
                    await self.prepare(one)
                    await self.call(one)
            await self.call(second)

    @check("life.no-shared-state", tier=Tier.live, mend="make lists and dicts in __init__, not in the class or module")
    async def test_life_no_shared_state(self, subject: Subject) -> None:
        """no list, dict or set of the class, of its modules, or of another instance changes when an instance is used"""
        async with subject.start() as first, subject.start(second=True) as second:
            mine = {id(v) for v in _vars(first.provider).values() if isinstance(v, _CONTAINERS)}
            both = [name for name, v in _vars(second.provider).items() if id(v) in mine]
            if both:
                raise CheckFailure(f"both instances hold the same object as {', '.join(both)}")
            before = _global_state(first.provider, subject)
            for one in (first, second):
                await self.prepare(one)
                await self.call(one)
            after = _global_state(first.provider, subject)
        changed = [name for name, content in after.items() if name in before and before[name] != content]
        if changed:
            raise CheckFailure(f"changed by use: {', '.join(changed)}")


def _vars(provider: Any) -> dict[str, Any]:
    return dict(getattr(provider, "__dict__", {}))


def _global_state(provider: Any, subject: Subject) -> dict[str, str]:
    """Contents of the containers in the provider's classes and in its package's modules, by name."""
    own = {subject.installed.value.partition(":")[0].partition(".")[0], type(provider).__module__.partition(".")[0]}
    modules: list[ModuleType] = [m for name, m in sys.modules.items() if name.partition(".")[0] in own]
    holders: list[Any] = [cls for cls in type(provider).__mro__ if cls.__module__.partition(".")[0] in own]
    return {
        f"{holder.__name__}.{name}": repr(value)
        for holder in (*holders, *modules)
        for name, value in list(vars(holder).items())
        if isinstance(value, _CONTAINERS) and not name.startswith("__") and not name.startswith("_abc_")
    }

"""Which checks of a suite run, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from llamastack_conformance.options import TIERS
from llamastack_conformance.run_state import STATE, check_of_item, configured

if TYPE_CHECKING:
    from llamastack_conformance.checks import Check

_FIRST = ("static.entry-point", "life.starts")
"""By these a provider fails that cannot be tried at all, so they come first in their tiers."""


def select(items: list[pytest.Item], config: pytest.Config) -> list[pytest.Item]:
    """Leave in `items` the checks that run, each suite in the order of its tiers; return those that were dropped.

    Raises UsageError for a suite to which no check applies, or that overrides a check with something else.
    """
    tiers = config.stash[STATE].asked.tiers
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    suites: dict[type, int] = {}
    for item in items:
        check = check_of_item(item)
        suite = getattr(item, "cls", None)
        if check is None or suite is None:
            kept.append(item)
            continue
        applies = _applies(check, suite, config)
        suites[suite] = suites.get(suite, 0) + applies
        (kept if applies and check.tier.value in tiers else dropped).append(item)
        if config.pluginmanager.hasplugin("xdist"):
            # its checks share a stack that one process has started
            item.add_marker(pytest.mark.xdist_group(suite.__name__))
    for suite, count in suites.items():
        _require_whole(suite)
        if not count:
            raise pytest.UsageError(f"{suite.__name__}: no check applies to it")
        _put_in_order(kept, suite)
    items[:] = kept
    return dropped


def _put_in_order(items: list[pytest.Item], suite: type) -> None:
    """Put the checks of a suite in the order of their tiers. All other tests stay where they are."""
    mine = {at: item for at, item in enumerate(items) if _is_of(item, suite)}
    for at, item in zip(mine, sorted(mine.values(), key=_order), strict=True):
        items[at] = item


def _is_of(item: pytest.Item, suite: type) -> bool:
    return getattr(item, "cls", None) is suite and check_of_item(item) is not None


def _order(item: pytest.Item) -> tuple[int, bool]:
    check: Any = check_of_item(item)
    return TIERS.index(check.tier.value), check.id not in _FIRST


def _applies(check: Check, suite: type, config: pytest.Config) -> bool:
    """Whether a check applies to this provider, by its installed spec."""
    from llamastack_conformance.checks import CheckFailure

    if check.capability is None:
        return True
    try:
        support = configured(suite, config).spec.capabilities
    except CheckFailure:
        return False  # the check static.entry-point says why
    return support.holds(check.capability) is check.declared


def _require_whole(suite: type) -> None:
    """Raise UsageError if a suite overrides a check with something that is no check."""
    from llamastack_conformance.checks import check_of

    for base in suite.__mro__[1:]:
        for name, value in vars(base).items():
            if check_of(value) is not None and check_of(getattr(suite, name, None)) is None:
                raise pytest.UsageError(
                    f"{suite.__name__}.{name} overrides a check but is no check; waive the check, or override the "
                    "methods that it uses (call, stream, prepare, ...)"
                )

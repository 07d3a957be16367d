"""The checks of all suites."""

from __future__ import annotations

import functools

from llamastack_conformance.checks import Check, checks_of
from llamastack_conformance.installed_suites import derived_suites, suites
from llamastack_conformance.suites.store import StoreConformance


@functools.cache
def catalogue() -> tuple[tuple[Check, tuple[str, ...]], ...]:
    """(check, the APIs whose suites have it; `store` for those of stores), in the order of a run."""
    found: dict[tuple[str, str], tuple[Check, list[str]]] = {}
    for api, suite in (*suites(), (StoreConformance.api, StoreConformance)):
        for _, check in checks_of(suite):
            found.setdefault((check.id, check.wanted), (check, []))[1].append(api)
    return tuple((check, tuple(apis)) for check, apis in found.values())


@functools.cache
def check_ids() -> frozenset[str]:
    """The ids of all checks, also of those that follow from the definition of an installed API without a suite."""
    derived = (check.id for _, suite in derived_suites() for _, check in checks_of(suite))
    return frozenset((*(check.id for check, _ in catalogue()), *derived))

"""The suites that there are: those of the built-in APIs, and those that packages bring for APIs of their own."""

from __future__ import annotations

from collections.abc import Iterator

import llamastack_conformance
from llamastack.stack.discovery import DiscoveryError, default_discovery
from llamastack.stack.plugins import Plugins
from llamastack_conformance.suites.derived import derived_suite
from llamastack_conformance.suites.provider import ProviderConformance

SUITE_GROUP = "llamastack.conformance"
"""Entry-point group: the name is that of the API, the value its suite."""


class NoSuiteError(LookupError):
    """There is no suite of an API, or it cannot be used."""


def suite_of(api: str) -> type:
    """The suite of an API; one that follows from its definition if no package brings one.

    Raises NoSuiteError for an API that no plugin adds, naming those that have suites.
    """
    name = llamastack_conformance.SUITES.get(api)
    if name is not None:
        suite: type = getattr(llamastack_conformance, name)
        return suite
    discovery = default_discovery()
    if all(installed.name != api for installed in discovery.group(SUITE_GROUP)):
        definition = Plugins(discovery).apis().get(api)
        if definition is not None and not definition.implemented_by_stack:
            return derived_suite(definition)
        known = ", ".join([*llamastack_conformance.SUITES, *(each.name for each in discovery.group(SUITE_GROUP))])
        raise NoSuiteError(
            f"there is no suite of API '{api}'; there are {known}; a package adds one in the entry-point group "
            f"'{SUITE_GROUP}'"
        )
    try:
        found = discovery.find(SUITE_GROUP, api).load()
    except DiscoveryError as error:
        raise NoSuiteError(str(error)) from None
    if not (isinstance(found, type) and issubclass(found, ProviderConformance)):
        raise NoSuiteError(f"the suite of API '{api}' in the group '{SUITE_GROUP}' is no ProviderConformance")
    return found


def suites() -> Iterator[tuple[str, type]]:
    """(API, suite) of each. Raises NoSuiteError for one that cannot be used."""
    added = (installed.name for installed in default_discovery().group(SUITE_GROUP) if not installed.disabled)
    for api in dict.fromkeys((*llamastack_conformance.SUITES, *added)):
        yield api, suite_of(api)


def derived_suites() -> Iterator[tuple[str, type]]:
    """(API, suite) of the installed APIs for which no package brings a suite."""
    discovery = default_discovery()
    brought = {*llamastack_conformance.SUITES, *(installed.name for installed in discovery.group(SUITE_GROUP))}
    for api, definition in Plugins(discovery).apis().items():
        if api not in brought and not definition.implemented_by_stack:
            yield api, derived_suite(definition)

"""The static checks of a suite, run without pytest and without a run config."""

from __future__ import annotations

from typing import Any

import anyio

from llamastack_conformance.checks import Body, Check, CheckFailure, NotApplicable, NotUsable, Tier, checks_of
from llamastack_conformance.configured import ConfiguredProvider
from llamastack_conformance.installed_suites import NoSuiteError, suite_of
from llamastack_conformance.stray_exits import contained
from llamastack_conformance.suites.provider import ProviderConformance
from llamastack_conformance.verify.findings import Finding


class _Described(ConfiguredProvider):
    """An installed provider, for checks that start nothing."""

    def run(self, described: Check, body: Body[Any], suite: Any) -> None:
        """Run a check to its end. Raises what it raises; what is no `Exception`, such as SystemExit, as one."""
        anyio.run(lambda: contained(body(suite, self)))


def static_findings(api: str, provider_type: str) -> list[Finding]:
    """The findings of the static checks about an installed provider. Raises SubjectError for an unknown API."""
    described = _Described(api, provider_type, {})
    try:
        made = suite_of(api)
    except NoSuiteError:
        made = ProviderConformance  # an API of another package has the checks that every API has
    suite, causes = made(), dict[str, str]()
    found = []
    for name, check in checks_of(made):
        if check.tier is Tier.static and _applies(check, described):
            found.append(_finding(check, getattr(suite, name), described, causes))
    return found


def _applies(check: Check, described: ConfiguredProvider) -> bool:
    if check.capability is None:
        return True
    try:
        return described.spec.capabilities.holds(check.capability) is check.declared
    except CheckFailure:
        return False  # the check static.entry-point says why


def _finding(check: Check, test: Any, described: _Described, causes: dict[str, str]) -> Finding:
    """causes: why the provider cannot be checked, each with the check that says so. It is said once."""
    try:
        test(described)
    except NotApplicable as error:
        return Finding(check.id, "not checked", check.wanted, str(error))
    except CheckFailure as failure:
        if isinstance(failure, NotUsable) and causes.setdefault(failure.got, check.id) != check.id:
            return Finding(check.id, "not checked", check.wanted, f"see {causes[failure.got]}")
        return Finding(check.id, "fault", failure.wanted or check.wanted, failure.got, failure.mend or check.mend)
    except Exception as error:  # a spec may raise anything; it is what is under test
        return Finding(check.id, "fault", check.wanted, f"{type(error).__name__}: {error}", check.mend)
    return Finding(check.id, "ok", check.wanted)

"""What becomes of a check: its result, and what pytest is told of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from llamastack_conformance.checks import Check, CheckFailure, NotApplicable
from llamastack_conformance.configured import ConfiguredProvider
from llamastack_conformance.report import (
    FAILED,
    NOT_APPLICABLE,
    PASSED,
    WAIVED,
    WARNED,
    ProviderResults,
    Result,
)
from llamastack_conformance.waivers import Waiver


def result_of(
    check: Check,
    report: pytest.TestReport,
    error: BaseException | None,
    *,
    waiver: Waiver | None,
    ran: bool,
    pinned: str,
    redact: Callable[[str], str],
) -> Result:
    """The result of a check that came to an end.

    report: what pytest makes of it. error: what it raised. waiver: the one for it. ran: whether its body was entered.
    pinned: version that the suite is pinned to, or "".
    """

    def result(status: str, told: str = "") -> Result:
        return Result(check.id, check.tier.value, check.since, check.capability, status, told)

    if isinstance(error, NotApplicable):
        if waiver is not None:
            return result(FAILED, f"the waiver is not needed: {error}")
        return result(NOT_APPLICABLE, redact(str(error)))
    if report.passed:
        if not ran:
            return result(FAILED, "it was called, and did not run")
        if waiver is not None:
            return result(FAILED, "the waiver is not needed: the check passes. Take the waiver out")
        return result(PASSED)
    if report.skipped:
        return result(FAILED, f"it was skipped, which is no outcome of a check; waive it instead: {error}")
    told = redact(_told(error, check))
    if not isinstance(error, CheckFailure):
        return result(FAILED, told)
    if waiver is not None:
        if waiver.expired():
            return result(FAILED, f"its waiver expired on {waiver.expires}\n{told}")
        return result(WAIVED, f"{waiver.kind}: {waiver.reason}{f' ({waiver.link})' if waiver.link else ''}")
    if pinned and check.newer_than(pinned):
        return result(WARNED, f"(since {check.since}, pinned to {pinned})\n{told}")
    return result(FAILED, told)


def _told(error: BaseException | None, check: Check) -> str:
    if isinstance(error, CheckFailure):
        return f"wanted: {error.wanted or check.wanted}\ngot:    {error.got}\nmend:   {error.mend or check.mend}"
    if isinstance(error, pytest.UsageError):
        return str(error)
    # Of a fixture. Not as pytest has it: it shows the arguments, and the run config with its keys is one.
    return "".join(traceback.format_exception(error)) if error is not None else "it failed before it began"


def settle(report: pytest.TestReport, result: Result, title: str) -> None:
    """Make of the test what became of the check."""
    if result.status in (WAIVED, WARNED):
        report.outcome = "skipped"
        report.wasxfail = f"{result.status}: {result.told.splitlines()[0]}"
        report.longrepr = f"{title}\n{result.told}"
    elif result.status == NOT_APPLICABLE:
        report.outcome = "skipped"
        report.longrepr = (str(report.location[0]), report.location[1] or 0, f"not applicable: {result.told}")
    elif result.status == FAILED:
        report.outcome = "failed"
        report.longrepr = f"{title}\n{result.told}"


def as_property(suite: str, provider: ConfiguredProvider, result: Result) -> dict[str, Any]:
    """The result as what goes from a worker of pytest-xdist to the controller: of plain types."""
    try:
        origin = (provider.installed.distribution, provider.installed.version, dict(provider.spec.capabilities))
    except CheckFailure:
        origin = ("?", "?", {})
    return {"provider": [suite, provider.api, provider.provider_type, *origin], "result": list(vars(result).values())}


def from_property(value: dict[str, Any]) -> tuple[ProviderResults, Result]:
    """The provider, without results, and the result."""
    return ProviderResults(*value["provider"]), Result(*value["result"])

"""The outcome of a check: its result, and the report that pytest gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from typing import Any

import pytest

from llamastack_conformance.checks import Check, CheckFailure, NotApplicable
from llamastack_conformance.configured import Origin
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
    """The result of a check that has ended.

    report: pytest's report. error: what the check raised. waiver: its waiver. ran: whether its body was entered.
    pinned: version that the suite is pinned to, or "".
    """

    def result(status: str, detail: str = "") -> Result:
        return Result(check.id, check.tier.value, check.since, check.capability, status, detail)

    if isinstance(error, NotApplicable):
        if waiver is not None:
            return result(FAILED, f"the waiver is not needed: {error}")
        return result(NOT_APPLICABLE, redact(str(error)))
    if report.passed:
        if not ran:
            return result(FAILED, "it was called but did not run")
        if waiver is not None:
            return result(FAILED, "the waiver is not needed: the check passes. Remove the waiver")
        return result(PASSED)
    if report.skipped:
        return result(FAILED, f"a check must not be skipped; waive it instead: {error}")
    explanation = redact(_explanation(error, check))
    if not isinstance(error, CheckFailure):
        return result(FAILED, explanation)
    if waiver is not None:
        if waiver.expired():
            return result(FAILED, f"its waiver expired on {waiver.expires}\n{explanation}")
        return result(WAIVED, f"{waiver.kind}: {waiver.reason}{f' ({waiver.link})' if waiver.link else ''}")
    if pinned and check.newer_than(pinned):
        return result(WARNED, f"(since {check.since}, pinned to {pinned})\n{explanation}")
    return result(FAILED, explanation)


def _explanation(error: BaseException | None, check: Check) -> str:
    if isinstance(error, CheckFailure):
        return f"wanted: {error.wanted or check.wanted}\ngot:    {error.got}\nmend:   {error.mend or check.mend}"
    if isinstance(error, pytest.UsageError):
        return str(error)
    # The error of a fixture. pytest's own form shows the arguments, and one of them is the run config with its keys.
    return "".join(traceback.format_exception(error)) if error is not None else "it failed before it started"


def settle(report: pytest.TestReport, result: Result, title: str) -> None:
    """Set the outcome of the test to that of the check."""
    if result.status in (WAIVED, WARNED):
        report.outcome = "skipped"
        report.wasxfail = f"{result.status}: {result.detail.splitlines()[0]}"
        report.longrepr = f"{title}\n{result.detail}"
    elif result.status == NOT_APPLICABLE:
        report.outcome = "skipped"
        report.longrepr = (str(report.location[0]), report.location[1] or 0, f"not applicable: {result.detail}")
    elif result.status == FAILED:
        report.outcome = "failed"
        report.longrepr = f"{title}\n{result.detail}"


def as_property(suite: str, origin: Origin, result: Result) -> dict[str, Any]:
    """The result in plain types, to go from a worker of pytest-xdist to the controller."""
    return {"provider": [suite, *origin], "result": list(vars(result).values())}


def from_property(value: dict[str, Any]) -> tuple[ProviderResults, Result]:
    """The provider, without results, and the result."""
    return ProviderResults(*value["provider"]), Result(*value["result"])

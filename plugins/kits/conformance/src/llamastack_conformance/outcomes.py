"""The outcome of a check: its result, and the report that pytest gets."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pytest

from llamastack_conformance.checks import Check, CheckFailure, NotApplicable, NotUsable
from llamastack_conformance.configured import Origin
from llamastack_conformance.report import (
    FAILED,
    NOT_APPLICABLE,
    NOT_TRIED,
    PASSED,
    WAIVED,
    WARNED,
    ProviderResults,
    Result,
)
from llamastack_conformance.waivers import Waiver


@dataclass
class Causes:
    """What keeps a provider from being tried at all, as far as checks of its suite have met it."""

    met: set[str] = field(default_factory=set)

    def is_again(self, error: BaseException | None, *, in_fixture: bool) -> str | None:
        """The reason in one line, if an earlier check has failed by it.

        in_fixture: the error was raised before the check began, where no check can run.
        """
        if isinstance(error, NotUsable):
            reason, again = error.got, error.again
        elif in_fixture and error is not None and not isinstance(error, CheckFailure | NotApplicable):
            reason, again = f"{type(error).__name__}: {error}", False
        else:
            return None
        again = again or reason in self.met
        self.met.add(reason)
        return reason.partition("\n")[0] if again else None


def result_of(
    check: Check,
    report: pytest.TestReport,
    error: BaseException | None,
    *,
    waiver: Waiver | None,
    causes: Causes,
    ran: bool,
    pinned: str,
    redact: Callable[[str], str],
) -> Result:
    """The result of a check that has ended.

    report: pytest's report. error: what the check raised. waiver: its waiver. causes: of its suite. ran: whether its
    body was entered. pinned: version that the suite is pinned to, or "".
    """
    common = Result(
        check.id,
        check.tier.value,
        check.since,
        check.capability,
        PASSED,
        duration_s=round(report.duration, 3),
        waiver={} if waiver is None else waiver.described(),
    )

    def result(status: str, detail: str = "", wanted: str = "", got: str = "", mend: str = "") -> Result:
        return replace(common, status=status, detail=detail, wanted=wanted, got=got, mend=mend)

    needed = waiver is not None and waiver.must_be_needed
    if isinstance(error, NotApplicable):
        if needed:
            return result(FAILED, f"the waiver is not needed: {error}")
        return result(NOT_APPLICABLE, redact(str(error)))
    if report.passed:
        if not ran:
            return result(FAILED, "it was called but did not run")
        if needed:
            return result(FAILED, "the waiver is not needed: the check passes. Remove the waiver")
        return result(PASSED)
    if report.skipped:
        return result(FAILED, f"a check must not be skipped; waive it instead: {error}")
    reason = causes.is_again(error, in_fixture=report.when == "setup")
    if reason is not None:
        status, detail = _status_of_failure(check, redact(reason), waiver, pinned)
        return result(NOT_TRIED if status == FAILED else status, detail)
    explanation = redact(_explanation(error, check))
    if not isinstance(error, CheckFailure):
        return result(FAILED, explanation, got=explanation)
    parts = {name: redact(text) for name, text in _parts(error, check).items()}
    status, detail = _status_of_failure(check, explanation, waiver, pinned)
    return result(status, detail, **parts)


def _status_of_failure(check: Check, explanation: str, waiver: Waiver | None, pinned: str) -> tuple[str, str]:
    """The status of a check that does not get what it wants, and the detail."""
    if waiver is not None:
        if waiver.expired():
            return FAILED, f"its waiver expired on {waiver.expires}\n{explanation}"
        detail = f"{waiver.kind}: {waiver.reason}{f' ({waiver.link})' if waiver.link else ''}"
        return (WAIVED, detail) if waiver.must_be_needed else (WARNED, f"{detail}\n{explanation}")
    if pinned and check.newer_than(pinned):
        return WARNED, f"(since {check.since}, pinned to {pinned})\n{explanation}"
    return FAILED, explanation


def _parts(error: CheckFailure, check: Check) -> dict[str, str]:
    return {"wanted": error.wanted or check.wanted, "got": error.got, "mend": error.mend or check.mend}


def _explanation(error: BaseException | None, check: Check) -> str:
    if isinstance(error, CheckFailure):
        parts = _parts(error, check)
        return f"wanted: {parts['wanted']}\ngot:    {parts['got']}\nmend:   {parts['mend']}"
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
    elif result.status in (NOT_APPLICABLE, NOT_TRIED):
        report.outcome = "skipped"
        report.longrepr = (str(report.location[0]), report.location[1] or 0, f"{result.status}: {result.detail}")
    elif result.status == FAILED:
        report.outcome = "failed"
        report.longrepr = f"{title}\n{result.detail}"


def as_plain(suite: str, origin: Origin, result: Result) -> dict[str, Any]:
    """The result in plain types, to go from a worker of pytest-xdist to the controller."""
    return {"provider": [suite, *origin], "result": asdict(result)}


def from_plain(value: dict[str, Any]) -> tuple[ProviderResults, Result]:
    """The provider, without results, and the result."""
    return ProviderResults(*value["provider"]), Result(**value["result"])

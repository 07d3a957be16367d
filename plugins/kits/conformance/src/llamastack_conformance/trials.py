"""Trials: something is done again and again, and each time another one of its requests to the backend goes wrong."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from llamastack.provider.errors import (
    BackendError,
    LlamaStackError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from llamastack_conformance.backend_tap import Injected, Request
from llamastack_conformance.breakage import Breakage, Fault
from llamastack_conformance.checks import CheckFailure, NotApplicable
from llamastack_conformance.replaying import KeptExchanges, repeated
from llamastack_conformance.running import Running

WRITES = (Fault.error, Fault.lost)
READS = (Fault.error, Fault.closed, Fault.missing)
KEPT = KeptExchanges()
_ALL_OF = 6
"""Of a trial with more requests than that, the first two, one in the middle and the last go wrong."""
_HEALTHY_BY_S = 20.0
_OF_THE_BACKEND = (BackendError, ProviderUnavailableError, ProviderTimeoutError)


class Breakable(Protocol):
    """Where requests go wrong: the tap before the backend, or the calls of another API."""

    @property
    def sent(self) -> int:
        """How many requests there were so far."""

    def break_request(self, number: int, fault: Fault) -> Breakage:
        """Let one request go wrong, the `number`th from now."""

    def clear(self) -> None:
        """Let none go wrong."""


async def _nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Trial:
    """Something that a provider does with requests to its backend.

    name: of it, for reports. act: does it. good: whether a result is one of an undisturbed backend. before: is awaited
    before each time. after: is awaited after it, with the error if it failed, and raises CheckFailure for what is left
    half done. repeats: the act sends the same requests each time, and gets the same answers: the tap gives those of
    the first time again, so that no model computes for them.
    """

    name: str
    act: Callable[[], Awaitable[Any]]
    good: Callable[[Any], bool | Awaitable[bool]] = lambda _: True
    before: Callable[[], Awaitable[None]] = _nothing
    after: Callable[[LlamaStackError | None], Awaitable[None]] | None = None
    faults: Sequence[Fault] = WRITES
    repeats: bool = False


async def break_each_request(running: Running, *trials: Trial, at: Breakable | None = None) -> None:
    """Make each trial once for each of its requests and each fault.

    at: where requests go wrong; the tap by default. Raises CheckFailure where a failure is not reported, and
    NotApplicable if no trial sends a request.
    """
    place = at or running.tap
    tried = 0
    for trial in trials:
        before = len(running.tap.exchanges) if trial.repeats else 0
        if trial.repeats:
            running.tap.answer_by(await repeated(KEPT.of(running.subject)))
        count = await _requests_of(place, trial)
        tried += bool(count)
        known = None
        if trial.repeats:
            known = await repeated([*KEPT.of(running.subject), *running.tap.exchanges[before:]])
        for number in _numbers(count):
            for fault in trial.faults:
                await _once(running, place, trial, number, fault, known)
    if not tried:
        raise NotApplicable(f"no request reaches the backend: {', '.join(trial.name for trial in trials)}")


def _numbers(count: int) -> list[int]:
    """Which of so many requests go wrong."""
    return list(range(1, count + 1)) if count <= _ALL_OF else [1, 2, count // 2, count]


async def _requests_of(place: Breakable, trial: Trial) -> int:
    """How many requests it takes when nothing goes wrong. Raises CheckFailure if it does not work then."""
    await trial.before()
    sent = place.sent
    result = await trial.act()
    used = place.sent - sent
    if not await _is_good(trial, result):
        raise CheckFailure(f"{trial.name}, with nothing wrong, gives {str(result)[:200]}")
    if trial.after is not None:
        await trial.after(None)
    return used


async def _is_good(trial: Trial, result: Any) -> bool:
    good = trial.good(result)
    return good if isinstance(good, bool) else await good


async def _once(
    running: Running,
    place: Breakable,
    trial: Trial,
    number: int,
    fault: Fault,
    known: Callable[[Request], Injected] | None,
) -> None:
    await trial.before()
    what = f"{trial.name}: request {number} was {fault}"
    # The first error of each trial comes twice: a provider must not report a failure only once.
    for _ in range(2 if number == 1 and fault is Fault.error else 1):
        breakage = place.break_request(number, fault)
        if known is not None:
            running.tap.answer_by(known)
        failure: LlamaStackError | None = None
        result: Any = None
        try:
            result = await trial.act()
        except LlamaStackError as error:
            failure = error
        finally:
            place.clear()
        if failure is None:
            break
    if not await running.becomes_healthy(_HEALTHY_BY_S):
        raise CheckFailure(f"{what}, and {_HEALTHY_BY_S:g} s later the provider is {running.instance.status}")
    if failure is not None:
        _require_blame(failure, fault, what)
    elif not await _is_good(trial, result) or _cannot_know(breakage):
        raise CheckFailure(f"{what}, and it returned {str(result)[:200]}", wanted="an error of the backend (502, 503)")
    if trial.after is not None:
        try:
            await trial.after(failure)
        except CheckFailure as half:
            raise CheckFailure(f"{what}; {half.got}", wanted=half.wanted, mend=half.mend) from None
        except LlamaStackError as error:
            raise CheckFailure(f"{what}; afterwards: {type(error).__name__}: {error.message}") from None


def _cannot_know(breakage: Breakage) -> bool:
    """Whether the only request failed, so that a result can only be made up."""
    return breakage.number == 1 and breakage.happened and not breakage.later


def _require_blame(failure: LlamaStackError, fault: Fault, what: str) -> None:
    if fault is not Fault.missing and not isinstance(failure, _OF_THE_BACKEND):
        raise CheckFailure(
            f"{what}, and the error is {type(failure).__name__} ({failure.status}): {failure.message}",
            wanted="an error of the backend (502, 503, 504)",
        )

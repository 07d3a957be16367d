"""The job that a call runs as, for providers that say how far they are and go on where an earlier attempt ended."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from llamastack.provider.context import current_context, use_context
from llamastack.provider.errors import LlamaStackError


class CurrentJob(Protocol):
    """A call that runs in the background. The provider of jobs keeps all of this each half second, and at the end.

    id: of the job. attempt: 1 for the first.
    checkpoint: any JSON value, at most 64 KiB; the next attempt finds what an earlier one set. None at first. Set a
        new value: a change inside it is not noticed.
    """

    id: str
    attempt: int
    checkpoint: object

    def report(self, done: float, total: float | None = None, *, unit: str = "", message: str = "") -> None:
        """Tell how far the call is. total: None if it is not known. unit, message: for people."""

    def open_items(self, names: Sequence[str], unit: str = "items") -> list[int]:
        """Name the parts of the work, the same ones in each attempt.

        Returns the places of those that no earlier attempt has finished.
        """

    def finish_item(self, place: int, error: LlamaStackError | None = None) -> None:
        """Tell that a part is finished. error: why it failed; the job goes on without it."""


class _RunningCall(NamedTuple):
    api: str
    method: str
    job: CurrentJob


def current_job(api: str, method: str) -> CurrentJob | None:
    """The job that runs this method; None if the method was called in another way, also by another method's job."""
    running = current_context().job
    return running.job if isinstance(running, _RunningCall) and running[:2] == (api, method) else None


def use_job(api: str, method: str, job: CurrentJob) -> AbstractContextManager[object]:
    """Calls of the method inside the block run as the job; tasks that the provider starts there do not."""
    return use_context(job=_RunningCall(api, method, job))

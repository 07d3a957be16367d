"""The job that a call runs as, for providers that say how far they are and go on where an earlier attempt ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from llamastack.provider.errors import LlamaStackError


class CurrentJob(Protocol):
    """A call that runs in the background. The stack keeps all of this about every half second, and when the call ends.

    id: of the job. attempt: 1 for the first.
    checkpoint: any JSON value, at most 256 KiB; the next attempt finds what an earlier one set. None at first. Set a
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


_current: ContextVar[tuple[str, str, CurrentJob] | None] = ContextVar("llamastack_current_job", default=None)


def current_job(api: str, method: str) -> CurrentJob | None:
    """The job that runs this method; None if the method was called in another way, also by another method's job."""
    running = _current.get()
    return running[2] if running is not None and running[:2] == (api, method) else None


@contextmanager
def use_job(api: str, method: str, job: CurrentJob) -> Iterator[None]:
    """Calls of the method inside the block run as the job."""
    token = _current.set((api, method, job))
    try:
        yield
    finally:
        _current.reset(token)

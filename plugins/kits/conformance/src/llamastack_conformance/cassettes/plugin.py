"""The cassette of a suite in a run of pytest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from llamastack_conformance.cassettes.session import CassetteSession, file_of
from llamastack_conformance.check_runner import CheckRunner
from llamastack_conformance.configured import SubjectError
from llamastack_conformance.options import Asked
from llamastack_conformance.provider_under_test import Subject


def with_cassette(
    suite: str, subject: CheckRunner, asked: Asked, notes: list[str], faults: list[str]
) -> AbstractContextManager[None]:
    """A block in which the checks of `subject` record or replay, if the options ask for it.

    notes, faults: take the lines of the report. Raises SubjectError if that is impossible.
    """
    place = asked.record or asked.replay
    if place is None:
        return nullcontext()
    if not isinstance(subject, Subject):
        raise SubjectError("a store has no backend that could be recorded; run the suites of stores by themselves")
    session = CassetteSession(subject, file_of(place, suite), records=asked.record is not None)
    subject.use_cassette(session)
    return _opened(session, notes, faults)


@contextmanager
def _opened(session: CassetteSession, notes: list[str], faults: list[str]) -> Iterator[None]:
    try:
        with session.open():
            yield
    finally:
        notes += session.notes
        faults += session.faults

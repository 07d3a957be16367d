"""The suite of stores proves itself: every check finds the stores that were broken for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the broken stores are found by dotted path, by other processes, too

import broken_store_faults  # noqa: F401 - it adds to BROKEN
from breaking import entry_point
from broken_stores import BROKEN, BrokenStore
from core_stores import SqliteConformance

from llamastack.stack.discovery import STORE_GROUP, Discovery
from llamastack_conformance.checks import CheckFailure, NotApplicable, checks_of
from llamastack_conformance.store_under_test import StoreSubject
from llamastack_conformance.suites import store_faults, store_stress

SETTINGS = {"x-conformance": {"time_limit_s": 30}}


def outcome(check_id: str, store_class: type) -> str:
    """`failed: ...`, `passed` or `not applicable: ...`."""
    method = next(name for name, check in checks_of(SqliteConformance) if check.id == check_id)
    entry = entry_point("broken", f"{store_class.__module__}:{store_class.__name__}", STORE_GROUP)
    subject = StoreSubject("broken", SETTINGS, discovery=Discovery(lambda: [entry]))
    try:
        with subject.open():
            getattr(SqliteConformance(), method)(subject)
    except CheckFailure as failure:
        return f"failed: {failure.got}"
    except NotApplicable as reason:
        return f"not applicable: {reason}"
    return "passed"


@pytest.mark.parametrize("broken", BROKEN, ids=lambda b: f"{b.check_id}-{b.store_class.__name__}")
def test_what_is_broken_is_found(
    broken: BrokenStore, record_property: pytest.RecordProperty, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_faults, "_TOLD_BY_S", 3.0)
    monkeypatch.setattr(store_stress, "_GOES_ON_S", 3.0)
    found = outcome(broken.check_id, broken.store_class)
    record_property("kill", f"{broken.check_id:28} {broken.store_class.__name__:42} {found.splitlines()[0][:100]}")
    assert found.startswith("failed: "), f"{broken.check_id} does not find {broken.store_class.__name__}: {found}"
    assert not found.startswith(("failed: AttributeError", "failed: TypeError", "failed: NameError"))


def test_every_check_has_something_to_find() -> None:
    assert {broken.check_id for broken in BROKEN} == {check.id for _, check in checks_of(SqliteConformance)}

"""The check `restart.killed`, on providers that another process finds: a sound one and broken ones."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from installed_fakes import install

from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_conformance import MemoryConformance, provider_under_test
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.provider_under_test import Subject

PROVIDERS = ("sound", "caches", "batches", "locks")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages, for this process and those that it starts."""
    entries = {f"remote::{name}": f"killed_memory:{name.upper()}" for name in PROVIDERS}
    install(tmp_path, "llamastack-provider-killed", {"llamastack.providers.memory": entries})
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setattr(discovery, "_default", Discovery())
    monkeypatch.setattr(provider_under_test, "_STARTED_BY_S", 5.0)
    yield tmp_path
    sys.modules.pop("killed_memory", None)


def _outcome(name: str) -> str:
    document = {
        "providers": {"memory": [{"provider_id": "killed", "provider_type": f"remote::{name}"}]},
        "x-conformance": {"objects": [{"identifier": "bank", "type": "keyword"}], "keeps_data": True},
    }
    subject = Subject("memory", f"remote::{name}", document)
    try:
        with subject.open():
            MemoryConformance().test_restart_killed(subject)
    except CheckFailure as failure:
        return failure.got
    return "passed"


@pytest.mark.usefixtures("site")
def test_a_provider_that_writes_before_it_returns_passes() -> None:
    assert _outcome("sound") == "passed"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("caches", "whose insert had returned"),
        ("batches", "whose insert had returned"),
        ("locks", "the provider is down: FileExistsError"),
    ],
)
def test_what_is_broken_is_found(name: str, got: str, record_property: pytest.RecordProperty) -> None:
    outcome = _outcome(name)
    record_property("kill", f"{'restart.killed':28} {'memory_' + name:42} failed: {outcome.splitlines()[0][:100]}")
    assert got in outcome

"""The suite of an API for which no package brings one follows from the API's definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from installed_fakes import FILES_EXAMPLE, entry_points_in, install_package
from llamastack_files_example.provider import LocalFiles
from llamastack_files_example.uploads_provider import MemoryUploads

from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_conformance.catalogue import check_ids
from llamastack_conformance.checks import Check, CheckFailure, NotApplicable, checks_of
from llamastack_conformance.installed_suites import SUITE_GROUP, suite_of
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.waivers import read_waivers

ON_DISK = ("static.import", "static.import-time", "static.typed", "static.metadata")
SETTINGS: dict[str, dict[str, Any]] = {"files": {"objects": [{"identifier": "docs"}]}, "uploads": {}}


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The example's APIs and providers, without their suites."""
    install_package(tmp_path, FILES_EXAMPLE)

    def without_suites() -> list[Any]:
        return [each for each in entry_points_in(tmp_path)() if each.group != SUITE_GROUP]

    monkeypatch.setattr(discovery, "_default", Discovery(without_suites))
    return tmp_path


def _outcomes(api: str, *topics: str) -> dict[str, str]:
    """The outcome of each check of these topics that applies; of every check without topics."""
    suite = suite_of(api)
    settings = {"parallel_calls": 8, "time_limit_s": 20, **SETTINGS[api]}
    document = {"providers": {api: [{"provider_id": "own", "provider_type": "local"}]}, "x-conformance": settings}
    subject = Subject(api, "local", document)
    return {
        check.id: _outcome(subject, suite, method)
        for method, check in checks_of(suite)
        if _applies(check, subject) and (not topics or check.topic in topics)
    }


def _applies(check: Check, subject: Subject) -> bool:
    if check.id in ON_DISK:  # the package is not really installed
        return False
    return check.capability is None or subject.declares(check.capability) is check.declared


def _outcome(subject: Subject, suite: type, method: str) -> str:
    try:
        with subject.open():
            getattr(suite(), method)(subject)
    except CheckFailure as failure:
        return f"failed: {failure.got}"
    except NotApplicable as reason:
        return f"not applicable: {reason}"
    return "passed"


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("api", ["files", "uploads"])
def test_a_sound_provider_passes(api: str) -> None:
    outcomes = _outcomes(api)
    assert not {name: outcome for name, outcome in outcomes.items() if outcome.startswith("failed")}
    passed = {name for name, outcome in outcomes.items() if outcome == "passed"}
    assert {"life.starts", "life.two-instances", "static.config-strict", "stress.event-loop"} <= passed
    if api == "files":
        assert {"listing.objects", "registration.works", "unregister.works", "restart.objects"} <= passed


@pytest.mark.usefixtures("site")
def test_an_example_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`upload_ids` do not follow from the types; the other methods are tried."""
    outcome = _outcomes("uploads", "methods")["methods.every"]
    assert outcome == "not applicable: name calls of join_uploads in x-conformance.examples"
    monkeypatch.setitem(SETTINGS, "uploads", {"examples": {"join_uploads": {"upload_ids": ["gone"]}}})
    assert _outcomes("uploads", "methods")["methods.every"].startswith("failed: join_uploads: NotFoundError (404)")


@pytest.mark.usefixtures("site")
def test_what_is_broken_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def numbers(self: MemoryUploads) -> Any:
        return [1]

    async def twice(self: LocalFiles) -> Any:
        return [*await listed(self), *await listed(self)]

    listed = LocalFiles.list_folders
    monkeypatch.setattr(MemoryUploads, "list_names", numbers)
    monkeypatch.setattr(LocalFiles, "list_folders", twice)
    assert _outcomes("uploads", "methods")["methods.every"].startswith("failed: list_names returned a list")
    assert _outcomes("files", "registration")["registration.works"].startswith("failed")


@pytest.mark.usefixtures("site")
@pytest.mark.parametrize("api", ["files", "uploads"])
def test_every_check_of_a_derived_suite_can_be_waived(api: str, tmp_path: Path) -> None:
    check_ids.cache_clear()
    try:
        known = check_ids()
    finally:
        check_ids.cache_clear()
    ids = [check.id for _, check in checks_of(suite_of(api))]
    assert api == "uploads" or any(name.endswith(".refused") for name in ids)
    file = tmp_path / "waivers.yaml"
    file.write_text("\n".join(f"- {{id: {name}, kind: unsupported, reason: none}}" for name in dict.fromkeys(ids)))
    assert {waiver.id for waiver in read_waivers(file, known)} == {*ids}


@pytest.mark.usefixtures("site")
def test_the_refusal_of_an_object_is_named_by_its_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def takes_all(*_: Any, **__: Any) -> None:
        return

    subject_of = SETTINGS["files"] | {"unserved": "no-such"}
    monkeypatch.setitem(SETTINGS, "files", subject_of)
    document = {
        "providers": {"files": [{"provider_id": "own", "provider_type": "local"}]},
        "x-conformance": {"time_limit_s": 20, **subject_of},
    }
    subject, suite = Subject("files", "local", document), suite_of("files")
    method = next(name for name, check in checks_of(suite) if check.id == "registration.unserved")
    hook = subject.pair.register_hook
    monkeypatch.setattr(LocalFiles, hook, takes_all)
    with pytest.raises(CheckFailure) as failed, subject.open():
        getattr(suite(), method)(subject)
    assert (
        failed.value.mend == f"raise UnsupportedObjectError in {hook}, with the identifier of the {subject.pair.label}"
    )

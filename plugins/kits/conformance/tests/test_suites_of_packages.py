"""Suites of APIs that packages add, and the shape of whatever a method gives."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from installed_fakes import FILES_EXAMPLE, entry_points_in, install, install_package
from llamastack_files_example.api import APIS, EventType, FileEvent, StoredFile
from llamastack_files_example.conformance import FilesConformance, UploadsConformance

from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.stack import discovery
from llamastack.stack.discovery import Discovery
from llamastack_conformance import catalogue
from llamastack_conformance.checks import CheckFailure
from llamastack_conformance.installed_suites import NoSuiteError, suite_of, suites
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.shapes import well_formed_reply

METHODS = APIS[0].methods
STORED = StoredFile(id="1", name="a", media_type="a/b", size=1)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(discovery, "_default", Discovery(entry_points_in(tmp_path)))
    return tmp_path


async def stream(*pieces: Any) -> AsyncIterator[Any]:
    for piece in pieces:
        yield piece


@pytest.mark.anyio
async def test_what_the_protocol_says_is_well_formed() -> None:
    event = FileEvent(type=EventType.stored, file_id="1")
    for name, result in {
        "get_file": STORED,
        "delete_file": None,
        "list_files": Page(data=[STORED]),
        "checksum": b"x",
        "archive": stream(b"x", b"y"),
        "download_file": File(stream(b"x", b"y"), size=2),
        "list_events": stream(event, event),
    }.items():
        await well_formed_reply(METHODS[name], result)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "result", "got"),
    [
        ("get_file", {"id": "1"}, "get_file returned a dict"),
        ("list_files", [STORED], "list_files returned a list"),
        ("list_files", Page(data=[EventType.stored]), "list_files returned a Page[StoredFile] with `data[0].id`"),
        ("checksum", "x", "checksum returned a str"),
        ("archive", b"x", "archive returned a bytes"),
        ("archive", stream("x"), "a block of archive is a str"),
        ("download_file", b"x", "download_file returned a bytes"),
        ("download_file", File(stream(b"x"), size=2), "download_file returned 1 bytes in a File of size 2"),
        ("list_events", stream(STORED), "a piece of list_events is a StoredFile"),
    ],
)
async def test_anything_else_is_not(name: str, result: Any, got: str) -> None:
    with pytest.raises(CheckFailure) as failure:
        await well_formed_reply(METHODS[name], result)
    assert failure.value.got.startswith(got)


def test_the_suite_of_a_package_is_found(site: Path) -> None:
    install_package(site, FILES_EXAMPLE)
    assert suite_of("files").__name__ == "FilesConformance"
    assert "files" in dict(suites())
    catalogue.catalogue.cache_clear()
    assert "methods.every" in catalogue.check_ids()
    catalogue.catalogue.cache_clear()


def test_a_suite_that_is_not_there_or_is_none(site: Path) -> None:
    install(site, "acme", {"llamastack.conformance": {"gone": "package_that_is_gone:X", "odd": "pathlib:Path"}})
    with pytest.raises(
        NoSuiteError, match="no suite of API 'files'; there are agents, inference, .*, gone, odd; a pac"
    ):
        suite_of("files")
    with pytest.raises(NoSuiteError, match="'gone'.*cannot be loaded"):
        suite_of("gone")
    with pytest.raises(NoSuiteError, match="the suite of API 'odd' .* is no ProviderConformance"):
        suite_of("odd")


class OneExample(FilesConformance):
    """A suite that forgets most methods."""

    async def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        yield "upload_file", {"folder": running.first_object(), "file": File(b"hello")}


def test_a_suite_without_an_example_of_every_method_fails(site: Path) -> None:
    install_package(site, FILES_EXAMPLE)
    document = {
        "providers": {"files": [{"provider_id": "disk", "provider_type": "local"}]},
        "x-conformance": {"objects": [{"identifier": "docs"}]},
    }
    subject = Subject("files", "local", document, discovery=Discovery(entry_points_in(site)))
    with subject.open():
        FilesConformance().test_methods_every(subject)
        with pytest.raises(CheckFailure) as failure:
            OneExample().test_methods_every(subject)
    assert failure.value.got.startswith("the suite has no example of archive, checksum, delete_file, download_file, ")


def test_a_suite_tries_the_instance_that_it_is_about(site: Path) -> None:
    install_package(site, FILES_EXAMPLE)
    down = {"provider_id": "far", "provider_type": "remote", "config": {"url": "http://127.0.0.1:1"}}
    document = {"providers": {"uploads": [{"provider_id": "a", "provider_type": "local"}, down]}}
    subject = Subject("uploads", "local", document, discovery=Discovery(entry_points_in(site)))
    with subject.open():
        UploadsConformance().test_methods_every(subject)

"""The conformance suites of the APIs `files` and `uploads`, for every provider of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from llamastack.api.files import File
from llamastack_conformance import PluginApiConformance, RoutedPluginApiConformance
from llamastack_conformance.running import Running
from llamastack_conformance.suites.suite import Probe


class FilesConformance(RoutedPluginApiConformance):
    """The checks of a provider of files."""

    api: ClassVar[str] = "files"

    async def call(self, running: Running, text: str = "hello") -> Any:
        file = File(text.encode(), filename="hello.txt", media_type="text/plain")
        stored = await running.calls.upload_file(folder=running.first_object(), file=file)
        downloaded = await running.calls.download_file(folder=running.first_object(), file_id=stored.id)
        return await downloaded.read()

    def answers(self, text: str, result: Any) -> bool:
        return bool(result == text.encode())

    async def probe(self, running: Running, capability: str) -> Probe:
        return Probe("upload_file", {"folder": running.first_object(), "file": File(b"hello")})

    async def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        folder = {"folder": running.first_object()}
        yield "upload_file", {**folder, "file": File(b"hello")}
        listed = await running.calls.list_files(**folder)
        one = {**folder, "file_id": listed.data[-1].id}
        yield "list_files", {**folder, "limit": 1}
        yield "get_file", one
        yield "update_file", {**one, "labels": {"a": "b"}}
        yield "replace_content", {**one, "content": b"other"}
        yield "download_file", one
        yield "archive", folder
        yield "checksum", folder
        yield "delete_file", one
        yield "list_events", folder


class UploadsConformance(PluginApiConformance):
    """The checks of a provider of uploads."""

    api: ClassVar[str] = "uploads"

    async def call(self, running: Running, text: str = "hello") -> Any:
        made = await running.calls.create_upload(name=text, provider_id=running.provider_id)
        return await running.calls.get_upload(upload_id=made.id)

    def answers(self, text: str, result: Any) -> bool:
        return bool(result.name == text)

    async def examples(self, running: Running) -> AsyncIterator[tuple[str, Mapping[str, Any]]]:
        mine = {"provider_id": running.provider_id}
        yield "create_upload", {"name": "a", **mine}
        made = await running.calls.create_upload(name="b", **mine)
        one = {"upload_id": made.id}
        yield "add_part", {**one, "part": b"hello"}
        yield "get_upload", one
        yield "list_uploads", {"limit": 1, **mine}
        yield "list_names", mine
        yield "list_upload_events", one
        yield "join_uploads", {"upload_ids": [made.id, made.id]}
        yield "delete_upload", one

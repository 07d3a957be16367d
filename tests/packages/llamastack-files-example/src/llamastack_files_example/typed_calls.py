"""The APIs as callers see them, for type checkers: generated from the Protocols.

Written by `python -m llamastack_conformance.typed_calls`; change the Protocols and run it again.
"""

from __future__ import annotations

from typing import Protocol

from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.provider.streams import Stream
from llamastack_files_example.api import FileEvent, Folder, Limit, StoredFile


class FilesCalls(Protocol):
    """Keep files in folders."""

    async def upload_file(self, folder: str, file: File, labels: dict[str, str] | None = None) -> StoredFile: ...

    async def list_files(
        self, folder: str, limit: Limit | None = None, after: str | None = None
    ) -> Page[StoredFile]: ...

    async def get_file(self, folder: str, file_id: str) -> StoredFile: ...

    async def update_file(self, folder: str, file_id: str, labels: dict[str, str]) -> StoredFile: ...

    async def delete_file(self, folder: str, file_id: str) -> None: ...

    async def download_file(self, folder: str, file_id: str) -> File: ...

    async def replace_content(
        self, folder: str, file_id: str, content: bytes, media_type: str = "application/octet-stream"
    ) -> StoredFile: ...

    async def archive(self, folder: str) -> Stream[bytes]: ...

    async def checksum(self, folder: str) -> bytes: ...

    async def list_events(self, folder: str) -> Stream[FileEvent]: ...


class FoldersCalls(Protocol):
    """The folders of the configured providers."""

    async def list_folders(
        self, region: str | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[Folder]: ...

    async def get_folder(self, identifier: str) -> Folder | None: ...

    async def register_folder(self, folder: Folder) -> None: ...

    async def unregister_folder(self, identifier: str) -> None: ...

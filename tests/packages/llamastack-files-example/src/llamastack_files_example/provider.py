"""Files in memory."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict, Field

from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.provider import Deps, InvalidRequestError, NotFoundError, RequestTooLargeError, UnsupportedObjectError
from llamastack_files_example.api import EventType, FileEvent, Files, Folder, FoldersProtocolPrivate, StoredFile


class LocalConfig(BaseModel):
    model_config = ConfigDict(extra="forbid")

    folders: list[str] = Field(default_factory=lambda: ["inbox"], description="Folders that exist from the start")
    max_file_bytes: int = Field(64 * 2**20, gt=0, description="Largest file, in bytes")


@dataclass(slots=True)
class _Contents:
    files: dict[str, StoredFile] = field(default_factory=dict)
    bytes: dict[str, bytes] = field(default_factory=dict)
    events: list[FileEvent] = field(default_factory=list)
    count: int = 0


class UnsupportedFolderError(UnsupportedObjectError):
    """The folder cannot be made."""

    code = "unsupported_folder"
    label = "folder"


class LocalFiles(Files, FoldersProtocolPrivate):
    """Keeps everything in memory."""

    def __init__(self, config: LocalConfig) -> None:
        self._largest = config.max_file_bytes
        self._folders = {name: Folder(identifier=name) for name in config.folders}
        self._contents = {name: _Contents() for name in config.folders}

    async def list_folders(self) -> list[Folder]:
        return list(self._folders.values())

    async def register_folder(self, folder: Folder) -> None:
        if "/" in folder.identifier:
            raise UnsupportedFolderError(folder.identifier, reason="its name has no '/'")
        self._folders[folder.identifier] = folder
        self._contents.setdefault(folder.identifier, _Contents())

    async def unregister_folder(self, folder: Folder) -> None:
        self._folders.pop(folder.identifier, None)
        self._contents.pop(folder.identifier, None)

    async def upload_file(self, folder: str, file: File, labels: dict[str, str] | None = None) -> StoredFile:
        content = bytearray()
        async with file:
            async for block in file:
                content += block
                if len(content) > self._largest:
                    raise RequestTooLargeError(f"file: has more than {self._largest} bytes")
        contents = self._contents[folder]
        contents.count += 1
        return self._store(
            folder, f"file-{contents.count}", file.filename or "", file.media_type, content, labels or {}
        )

    def _store(
        self,
        folder: str,
        file_id: str,
        name: str,
        media_type: str,
        content: bytes | bytearray,
        labels: Mapping[str, str],
    ) -> StoredFile:
        stored = StoredFile(id=file_id, name=name, media_type=media_type, size=len(content), labels=dict(labels))
        contents = self._contents[folder]
        contents.files[file_id], contents.bytes[file_id] = stored, bytes(content)
        contents.events.append(FileEvent(type=EventType.stored, file_id=file_id))
        return stored

    async def list_files(self, folder: str, limit: int | None = None, after: str | None = None) -> Page[StoredFile]:
        files = list(self._contents[folder].files.values())
        ids = [file.id for file in files]
        if after is not None and after not in ids:
            raise InvalidRequestError(f"after: no file '{after}' in folder '{folder}'", param="after")
        start = 0 if after is None else ids.index(after) + 1
        end = start + (limit or 20)
        page = files[start:end]
        return Page(data=page, has_more=end < len(files), last_id=page[-1].id if page else None)

    async def get_file(self, folder: str, file_id: str) -> StoredFile:
        found = self._contents[folder].files.get(file_id)
        if found is None:
            raise NotFoundError(f"no file '{file_id}' in folder '{folder}'")
        return found

    async def update_file(self, folder: str, file_id: str, labels: dict[str, str]) -> StoredFile:
        changed = (await self.get_file(folder, file_id)).model_copy(update={"labels": labels})
        self._contents[folder].files[file_id] = changed
        return changed

    async def delete_file(self, folder: str, file_id: str) -> None:
        await self.get_file(folder, file_id)
        contents = self._contents[folder]
        del contents.files[file_id], contents.bytes[file_id]
        contents.events.append(FileEvent(type=EventType.deleted, file_id=file_id))

    async def download_file(self, folder: str, file_id: str) -> File:
        stored = await self.get_file(folder, file_id)
        content = self._contents[folder].bytes[file_id]
        return File(_in_blocks(content), filename=stored.name, media_type=stored.media_type, size=stored.size)

    async def replace_content(
        self, folder: str, file_id: str, content: bytes, media_type: str = "application/octet-stream"
    ) -> StoredFile:
        stored = await self.get_file(folder, file_id)
        return self._store(folder, file_id, stored.name, media_type, content, stored.labels)

    async def archive(self, folder: str) -> AsyncIterator[bytes]:
        return _in_blocks(b"".join(self._contents[folder].bytes.values()))

    async def checksum(self, folder: str) -> bytes:
        whole = b"".join(self._contents[folder].bytes.values())
        return hashlib.sha256(whole).hexdigest().encode()

    async def list_events(self, folder: str) -> AsyncIterator[FileEvent]:
        return _each(list(self._contents[folder].events))


async def _in_blocks(content: bytes, size: int = 2**16) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def _each(events: list[FileEvent]) -> AsyncIterator[FileEvent]:
    for event in events:
        yield event


async def get_adapter_impl(config: LocalConfig, deps: Deps) -> LocalFiles:
    return LocalFiles(config)

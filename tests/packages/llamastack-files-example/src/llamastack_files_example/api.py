"""The API `files`, and its resources, the folders."""

from __future__ import annotations

from collections.abc import AsyncIterator
from enum import StrEnum
from typing import Annotated, Any, Protocol

from pydantic import Field

from llamastack.api.base import RoutedObject, WireModel
from llamastack.api.definition import ResourceKind
from llamastack.api.files import File
from llamastack.api.pagination import Page
from llamastack.api.webmethod import ResourceAction, webmethod
from llamastack.provider.builtin_apis import routed_apis

Limit = Annotated[int, Field(ge=1, le=100)]


class Folder(RoutedObject):
    """A place for files."""

    region: str = "eu"


class StoredFile(WireModel):
    id: str
    name: str
    media_type: str
    size: int
    labels: dict[str, str] = Field(default_factory=dict)


class EventType(StrEnum):
    stored = "stored"
    deleted = "deleted"


class FileEvent(WireModel):
    type: EventType
    file_id: str


class Files(Protocol):
    """Keep files in folders."""

    @webmethod("/folders/{folder}/files", status=201, routed_by="folder", capability="upload")
    async def upload_file(self, folder: str, file: File, labels: dict[str, str] | None = None) -> StoredFile:
        """Store a file."""
        ...

    @webmethod("/folders/{folder}/files", methods=("GET",), routed_by="folder")
    async def list_files(self, folder: str, limit: Limit | None = None, after: str | None = None) -> Page[StoredFile]:
        """The files of a folder, oldest first."""
        ...

    @webmethod("/folders/{folder}/files/{file_id}", methods=("GET",), routed_by="folder")
    async def get_file(self, folder: str, file_id: str) -> StoredFile:
        """The description of a file."""
        ...

    @webmethod("/folders/{folder}/files/{file_id}", methods=("PATCH",), routed_by="folder")
    async def update_file(self, folder: str, file_id: str, labels: dict[str, str]) -> StoredFile:
        """Change the labels of a file."""
        ...

    @webmethod("/folders/{folder}/files/{file_id}", methods=("DELETE",), status=204, routed_by="folder")
    async def delete_file(self, folder: str, file_id: str) -> None:
        """Delete a file."""
        ...

    @webmethod("/folders/{folder}/files/{file_id}/content", methods=("GET",), routed_by="folder")
    async def download_file(self, folder: str, file_id: str) -> File:
        """The content of a file."""
        ...

    @webmethod("/folders/{folder}/files/{file_id}/content", methods=("PUT",), routed_by="folder")
    async def replace_content(
        self, folder: str, file_id: str, content: bytes, media_type: str = "application/octet-stream"
    ) -> StoredFile:
        """Replace the content of a file."""
        ...

    @webmethod("/folders/{folder}/archive", methods=("GET",), media_type="application/x-tar", routed_by="folder")
    async def archive(self, folder: str) -> AsyncIterator[bytes]:
        """All files of a folder, one after the other."""
        ...

    @webmethod("/folders/{folder}/checksum", methods=("GET",), media_type="text/plain", routed_by="folder")
    async def checksum(self, folder: str) -> bytes:
        """A checksum over all files of a folder."""
        ...

    @webmethod("/folders/{folder}/events", methods=("GET",), event_field="type", routed_by="folder")
    async def list_events(self, folder: str) -> AsyncIterator[FileEvent]:
        """The events of a folder."""
        ...


class Folders(Protocol):
    """The folders of the configured providers."""

    @webmethod("/folders", methods=("GET",), resource_action=ResourceAction.LIST)
    async def list_folders(
        self, region: str | None = None, limit: int | None = None, after: str | None = None
    ) -> Page[Folder]:
        """The folders, or those of one region."""
        ...

    @webmethod("/folders/{identifier}", methods=("GET",), resource_action=ResourceAction.GET)
    async def get_folder(self, identifier: str) -> Folder | None:
        """One folder."""
        ...

    @webmethod("/folders", methods=("PUT",), resource_action=ResourceAction.REGISTER)
    async def register_folder(self, folder: Folder) -> None:
        """Add a folder."""
        ...

    @webmethod("/folders/{identifier}", methods=("DELETE",), status=204, resource_action=ResourceAction.UNREGISTER)
    async def unregister_folder(self, identifier: str) -> None:
        """Remove a folder."""
        ...


class FoldersProtocolPrivate(Protocol):
    """What the stack asks a provider about its folders."""

    async def list_folders(self) -> list[Folder]: ...

    async def register_folder(self, folder: Folder) -> None: ...

    async def unregister_folder(self, folder: Folder) -> None: ...


APIS: tuple[Any, ...] = routed_apis(
    Files, Folders, ResourceKind("files", "folders", "folder", Folder, FoldersProtocolPrivate)
)

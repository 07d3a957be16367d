"""The API `uploads`: its calls name ids, which say where an upload is kept."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Protocol

from llamastack.api.base import WireModel
from llamastack.api.created_ids import IdOf
from llamastack.api.definition import ApiDefinition
from llamastack.api.pagination import Page
from llamastack.api.webmethod import webmethod
from llamastack_files_example.api import Limit

UploadId = Annotated[str, IdOf("upload_id")]


class Upload(WireModel):
    id: UploadId
    name: str
    size: int
    joined_from: list[UploadId]


class UploadEvent(WireModel):
    type: str
    upload_id: str


class Uploads(Protocol):
    """Take in large files part by part."""

    @webmethod("/uploads", status=201, creates="upload_id")
    async def create_upload(self, name: str, provider_id: str | None = None) -> Upload:
        """Begin an upload, at the named provider or at the first that is healthy."""
        ...

    @webmethod("/uploads", methods=("GET",))
    async def list_uploads(
        self, limit: Limit | None = None, after: str | None = None, provider_id: str | None = None
    ) -> Page[Upload]:
        """The uploads of all providers, or those of one, oldest first."""
        ...

    @webmethod("/uploads/names", methods=("GET",))
    async def list_names(self, provider_id: str | None = None) -> list[str]:
        """The names of all uploads, or of those of one provider."""
        ...

    @webmethod("/uploads/{upload_id}", methods=("PUT",))
    async def add_part(self, upload_id: str, part: bytes) -> Upload:
        """Add bytes at the end of an upload."""
        ...

    @webmethod("/uploads/{upload_id}", methods=("GET",))
    async def get_upload(self, upload_id: str) -> Upload:
        """The description of an upload."""
        ...

    @webmethod("/uploads/events", methods=("GET",), event_field="type")
    async def list_upload_events(self, upload_id: str) -> AsyncIterator[UploadEvent]:
        """What has happened to an upload."""
        ...

    @webmethod("/uploads/join", status=201)
    async def join_uploads(self, upload_ids: list[UploadId]) -> Upload:
        """Make one upload of several, all of one provider."""
        ...

    @webmethod("/uploads/{upload_id}", methods=("DELETE",), status=204)
    async def delete_upload(self, upload_id: str) -> None:
        """Delete an upload."""
        ...


UPLOADS = ApiDefinition("uploads", Uploads)

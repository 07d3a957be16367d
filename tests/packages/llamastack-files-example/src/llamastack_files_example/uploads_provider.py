"""Uploads in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator

from pydantic import BaseModel, ConfigDict

from llamastack.api.pagination import Page
from llamastack.provider import Deps, InvalidRequestError, NotFoundError
from llamastack_files_example.uploads_api import Upload, UploadEvent, Uploads


class UploadsConfig(BaseModel):
    """It has no settings."""

    model_config = ConfigDict(extra="forbid")


class MemoryUploads(Uploads):
    """Keeps everything in memory. Its ids are `upload-1`, `upload-2` and so on: the stack tells instances apart."""

    def __init__(self) -> None:
        self._uploads: dict[str, Upload] = {}
        self._parts: dict[str, list[bytes]] = {}
        self._count = 0

    async def create_upload(self, name: str, provider_id: str | None = None) -> Upload:
        self._count += 1
        return self._store(Upload(id=f"upload-{self._count}", name=name, size=0, joined_from=[]), [])

    def _store(self, upload: Upload, parts: list[bytes]) -> Upload:
        stored = upload.model_copy(update={"size": sum(map(len, parts))})
        self._uploads[upload.id], self._parts[upload.id] = stored, parts
        return stored

    async def list_uploads(
        self, limit: int | None = None, after: str | None = None, provider_id: str | None = None
    ) -> Page[Upload]:
        ids = [*self._uploads]
        if after is not None and after not in ids:
            raise InvalidRequestError(f"after: there is no upload '{after}'", param="after")
        start = 0 if after is None else ids.index(after) + 1
        page = ids[start : start + (limit or 20)]
        return Page(
            data=[self._uploads[upload_id] for upload_id in page],
            has_more=start + len(page) < len(ids),
            last_id=page[-1] if page else None,
        )

    async def list_names(self, provider_id: str | None = None) -> list[str]:
        return [upload.name for upload in self._uploads.values()]

    async def get_upload(self, upload_id: str) -> Upload:
        found = self._uploads.get(upload_id)
        if found is None:
            raise NotFoundError(f"there is no upload '{upload_id}'", param="upload_id")
        return found

    async def add_part(self, upload_id: str, part: bytes) -> Upload:
        return self._store(await self.get_upload(upload_id), [*self._parts[upload_id], part])

    async def list_upload_events(self, upload_id: str) -> AsyncIterator[UploadEvent]:
        await self.get_upload(upload_id)
        return _events(upload_id, len(self._parts[upload_id]))

    async def join_uploads(self, upload_ids: list[str]) -> Upload:
        joined = [await self.get_upload(upload_id) for upload_id in upload_ids]
        made = await self.create_upload("+".join(upload.name for upload in joined))
        parts = [part for upload in joined for part in self._parts[upload.id]]
        return self._store(made.model_copy(update={"joined_from": [upload.id for upload in joined]}), parts)

    async def delete_upload(self, upload_id: str) -> None:
        await self.get_upload(upload_id)
        del self._uploads[upload_id], self._parts[upload_id]


async def _events(upload_id: str, parts: int) -> AsyncIterator[UploadEvent]:
    for kind in ("begun", *("part" for _ in range(parts))):
        yield UploadEvent(type=kind, upload_id=upload_id)


async def get_adapter_impl(config: UploadsConfig, deps: Deps) -> MemoryUploads:
    return MemoryUploads()

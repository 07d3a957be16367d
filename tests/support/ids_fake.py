"""Third parties' providers of uploads that keep them on disk, and an API whose ids cannot be routed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from llamastack_files_example.uploads_api import Upload
from llamastack_files_example.uploads_provider import MemoryUploads, UploadsConfig

from llamastack.api.base import WireModel
from llamastack.api.definition import ApiDefinition
from llamastack.api.webmethod import webmethod
from llamastack.provider import Capabilities, Deps, InlineProviderSpec, hookimpl


class DurableUploads(MemoryUploads):
    """Each upload is a file that every process of the stack reads."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    async def create_upload(self, name: str, provider_id: str | None = None) -> Upload:
        made = await super().create_upload(name)
        self._folder.joinpath(made.id).write_text(made.model_dump_json())
        return made

    async def get_upload(self, upload_id: str) -> Upload:
        file = self._folder / upload_id
        if not file.exists():
            return await super().get_upload(upload_id)
        return Upload.model_validate(json.loads(file.read_text()))


async def make(config: UploadsConfig, deps: Deps) -> DurableUploads:
    return DurableUploads(deps.state_dir)


DURABLE = InlineProviderSpec(
    api="uploads",
    provider_type="durable",
    description="Keeps uploads on disk",
    config_class="llamastack_files_example.uploads_provider:UploadsConfig",
    factory="ids_fake:make",
    capabilities=Capabilities(),
)


class Ticket(WireModel):
    ticket_id: int


class Tickets(Protocol):
    """Its ids are numbers, which hold no mark."""

    @webmethod("/tickets", creates="ticket_id")
    async def open_ticket(self) -> Ticket: ...


class NumberedTickets:
    """The plugin that adds them."""

    @hookimpl
    def llamastack_apis(self) -> list[ApiDefinition]:
        return [ApiDefinition("tickets", Tickets)]


NUMBERED = NumberedTickets()

"""A document store over HTTP, made for the tests of the suite, and a sound memory provider that uses it.

The store keeps banks of chunks in memory and finds the chunks that share words with a query. It has no transactions,
so the provider stages an insert before it publishes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field, SecretStr
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from llamastack.api.memory_banks import KeywordMemoryBank
from llamastack.provider import BackendError, Capabilities, Deps, NotFoundError, RemoteProviderSpec
from llamastack_adapters.backend import HttpBackend
from llamastack_adapters.remote_inference import RemoteConfig
from llamastack_memory_kit import (
    Bank,
    BankMemory,
    DocumentSettings,
    FoundChunk,
    Insert,
    Query,
    StagedStorage,
    StoredChunk,
)
from llamastack_memory_kit.records import definition_of

_WORD = re.compile(r"\w+")
_PAGE = 2


class _Store:
    """Banks by name. The chunks of a bank are dicts; one that is staged is not found."""

    def __init__(self) -> None:
        self.banks: dict[str, dict[str, Any]] = {}

    def create(self, asked: dict[str, Any]) -> dict[str, Any]:
        self.banks.setdefault(asked["name"], {"definition": asked["definition"], "chunks": []})
        return {}

    def drop(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {"dropped": self.banks.pop(asked["name"], None) is not None}

    def list(self, asked: dict[str, Any]) -> dict[str, Any]:
        """A page of definitions, so that a listing takes several requests."""
        names = sorted(self.banks)
        page = [name for name in names if name > asked.get("after", "")][:_PAGE]
        return {
            "definitions": [self.banks[name]["definition"] for name in page],
            "next": page[-1] if page and page[-1] != names[-1] else None,
        }

    def stage(self, asked: dict[str, Any]) -> dict[str, Any]:
        bank, ids = self._of(asked), {chunk["id"] for chunk in asked["chunks"]}
        kept = [c for c in bank["chunks"] if c["id"] not in ids]
        bank["chunks"] = kept + [{**chunk, "staged": True} for chunk in asked["chunks"]]
        return {}

    def publish(self, asked: dict[str, Any]) -> dict[str, Any]:
        bank, generation = self._of(asked), asked["generation"]
        gone = set(asked["documents"])
        kept = [c for c in bank["chunks"] if c["generation"] == generation or c["document"] not in gone]
        bank["chunks"] = [{**c, "staged": c["staged"] and c["generation"] != generation} for c in kept]
        return {}

    def discard(self, asked: dict[str, Any]) -> dict[str, Any]:
        bank = self._of(asked)
        bank["chunks"] = [c for c in bank["chunks"] if not (c["staged"] and c["generation"] == asked["generation"])]
        return {}

    def delete(self, asked: dict[str, Any]) -> dict[str, Any]:
        bank = self._of(asked)
        bank["chunks"] = [c for c in bank["chunks"] if c["staged"] or c["document"] not in asked["documents"]]
        return {}

    def search(self, asked: dict[str, Any]) -> dict[str, Any]:
        words = set(_WORD.findall(asked["text"].lower()))
        found = []
        for chunk in self._of(asked)["chunks"]:
            if chunk["staged"] or (chunk["expires_at"] or asked["now"] + 1) <= asked["now"]:
                continue
            mine = set(_WORD.findall(chunk["content"].lower()))
            if words & mine:
                found.append({**chunk, "score": len(words & mine) / len(words | mine)})
        found.sort(key=lambda chunk: -chunk["score"])
        return {"found": found[: asked["limit"]]}

    def _of(self, asked: dict[str, Any]) -> dict[str, Any]:
        return self.banks[asked["name"]]


async def _answer(request: Request) -> Response:
    stores: dict[str, _Store] = request.app.state.memory_stores
    store = stores.setdefault(request.path_params["store"], _Store())
    try:
        return JSONResponse(getattr(store, request.path_params["call"])(await request.json()))
    except KeyError as error:
        return JSONResponse({"error": f"there is no bank {error}"}, 404)


MEMORY_ROUTE = Route("/{store}/{call:str}", _answer, methods=["POST"])
"""Each path before the call has a store of its own. The state of the app has `memory_stores`, a dict."""


# ---- the provider ----------------------------------------------------------------------------------------------------


class RestConfig(RemoteConfig, DocumentSettings):
    url: str = Field(description="URL of the store")
    api_key: SecretStr | None = Field(None, description="Key of the store")
    place: str = Field("", description="Path of the store below the URL")


class RestMemory(StagedStorage, BankMemory):
    """Keyword banks in the store."""

    bank_types: ClassVar[tuple[str, ...]] = ("keyword",)
    chunks_per_write = 2

    def __init__(self, config: RestConfig, deps: Deps) -> None:
        super().__init__(config, deps)
        key = config.api_key
        headers = {} if key is None else {"authorization": f"Bearer {key.get_secret_value()}"}
        self.place = config.place
        self.backend = HttpBackend(config.url, config, headers=lambda: headers)

    async def close(self) -> None:
        await self.backend.aclose()

    async def health(self) -> None:
        await self.ask("list")

    async def ask(self, call: str, **asked: Any) -> dict[str, Any]:
        answer: dict[str, Any] = await self.backend.post(f"{self.place}/{call}", asked)
        return answer

    async def field(self, call: str, wanted: str, /, **asked: Any) -> Any:
        """A field of the answer."""
        answer = await self.ask(call, **asked)
        if not isinstance(answer, dict) or wanted not in answer:
            raise BackendError(f"the store answered '{call}' without '{wanted}'")
        return answer[wanted]

    async def list_banks(self) -> list[Bank]:
        found: list[Bank] = []
        after = ""
        while True:
            page = await self.ask("list", after=after)
            if not isinstance(page, dict) or not {"definitions", "next"} <= page.keys():
                raise BackendError("the store answered 'list' without 'definitions' and 'next'")
            found += [Bank(KeywordMemoryBank.model_validate(each)) for each in page["definitions"]]
            if page["next"] is None:
                return found
            after = page["next"]

    async def create_bank(self, bank: Bank) -> None:
        await self.ask("create", name=bank.identifier, definition=definition_of(bank.definition))

    async def drop_bank(self, bank: Bank) -> None:
        if not await self.field("drop", "dropped", name=bank.identifier):
            raise NotFoundError(f"there is no bank '{bank.identifier}'")

    async def stage(self, bank: Bank, insert: Insert, chunks: Sequence[StoredChunk]) -> None:
        await self.ask("stage", name=bank.identifier, chunks=[self.to_wire(insert, chunk) for chunk in chunks])

    async def publish(self, bank: Bank, insert: Insert) -> None:
        await self.ask(
            "publish", name=bank.identifier, generation=insert.generation, documents=list(insert.document_ids)
        )

    async def discard(self, bank: Bank, insert: Insert) -> None:
        await self.ask("discard", name=bank.identifier, generation=insert.generation)

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        await self.ask("delete", name=bank.identifier, documents=list(document_ids))

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        asked = {"name": bank.identifier, "text": query.text, "limit": query.max_chunks, "now": query.now}
        found = await self.field("search", "found", **asked)
        return [FoundChunk(self.to_chunk(each), each["score"]) for each in found]

    def to_wire(self, insert: Insert, chunk: StoredChunk) -> dict[str, Any]:
        return {
            "id": f"{chunk.document_id}/{chunk.index}/{insert.generation}",  # a repeated request changes nothing
            "document": chunk.document_id,
            "content": chunk.content,
            "tokens": chunk.token_count,
            "metadata": json.dumps(chunk.metadata),
            "generation": insert.generation,
            "expires_at": insert.expires_at,
        }

    def to_chunk(self, each: dict[str, Any]) -> StoredChunk:
        return StoredChunk(each["document"], each["content"], each["tokens"], json.loads(each["metadata"]))


REST_MEMORY = RemoteProviderSpec(
    api="memory",
    provider_type="remote::scripted-memory",
    description="Keyword banks in a store over HTTP, for tests",
    config_class=f"{__name__}:RestConfig",
    factory=f"{__name__}:make_rest_memory",
    capabilities=Capabilities(
        insert_documents="supported",
        query_documents="supported",
        vector_search="unsupported",
        keyword_search="supported",
        hybrid_search="unsupported",
        filters="unsupported",
        delete_documents="supported",
        ttl="supported",
        registration="supported",
        unregister="supported",
    ),
)


async def make_rest_memory(config: RestConfig, deps: Deps) -> RestMemory:
    return RestMemory(config, deps)

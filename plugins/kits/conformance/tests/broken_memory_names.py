"""Memory providers that are each broken in one way: ids and names that are alike, replaced documents, metadata."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from broken_memory import unlike
from broken_others import forgetful
from vectors_in_memory import VectorsInMemory

from llamastack_memory_kit import Bank, FoundChunk, Insert, Query
from llamastack_provider_sample.memory import SampleMemory

# ---- ids of documents ------------------------------------------------------------------------------------------------


class _Names(SampleMemory):
    """Keeps documents under other names than those that it gets."""

    def named(self, document_id: str) -> str:
        raise NotImplementedError

    async def store(self, bank: Bank, insert: Insert) -> None:
        ids = [self.named(document_id) for document_id in insert.document_ids]
        chunks = [replace(chunk, document_id=self.named(chunk.document_id)) for chunk in insert.chunks]
        await super().store(bank, replace(insert, document_ids=ids, chunks=chunks))

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        await super().delete(bank, [self.named(document_id) for document_id in document_ids])


def _keeps_as(name: str, named: Callable[[str], str]) -> None:
    cls = type(name, (_Names,), {"named": lambda self, document_id: named(document_id)})
    forgetful("insert_documents.ids")(cls)


_keeps_as("KeepsIdsInLowerCase", str.lower)
_keeps_as("CutsIds", lambda text: text[:128])
_keeps_as("StripsIds", str.strip)
_keeps_as("ReplacesSlashes", lambda text: text.replace("/", "-"))
_keeps_as("KeepsIdsInAscii", lambda text: text.encode("ascii", "replace").decode())
_keeps_as("MakesNumbersOfIds", lambda text: str(int(text)) if text.isdigit() else text)


@forgetful("insert_documents.chunk-ids")
class JoinsIdAndPlace(SampleMemory):
    """It keeps a chunk under the id of its document and its place."""

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, replace(query, max_chunks=1000))
        ids = {
            f"{k.chunk.document_id}{k.chunk.index}": k.chunk for d in self._kept[bank.identifier].values() for k in d
        }
        return [each for each in found if ids[f"{each.chunk.document_id}{each.chunk.index}"] == each.chunk]


@forgetful("insert_documents.chunk-ids")
class DeletesChunksByPrefix(SampleMemory):
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        there = [*self._kept[bank.identifier]]
        await super().delete(
            bank, [name for name in there if any(name.startswith(f"{each}-") or name == each for each in document_ids)]
        )


class _Deletes(SampleMemory):
    """Also deletes documents with ids that are alike."""

    def takes(self, asked: str, there: str) -> bool:
        raise NotImplementedError

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        there = [*self._kept[bank.identifier]]
        await super().delete(bank, [name for name in there if any(self.takes(asked, name) for asked in document_ids)])


@forgetful("delete_documents.ids")
class DeletesByPrefix(_Deletes):
    def takes(self, asked: str, there: str) -> bool:
        return there.startswith(asked)


@forgetful("delete_documents.ids")
class DeletesWhateverTheCase(_Deletes):
    def takes(self, asked: str, there: str) -> bool:
        return there.lower() == asked.lower()


@forgetful("delete_documents.ids")
class DeletesByPattern(_Deletes):
    def takes(self, asked: str, there: str) -> bool:
        return there == asked or (asked.endswith("%") and there.startswith(asked[:-1]))


@forgetful("delete_documents.ids")
class SplitsIdsAtCommas(_Deletes):
    def takes(self, asked: str, there: str) -> bool:
        return there == asked or there in asked.split(",")


@forgetful("delete_documents.long")
class DeletesAHundredChunks(SampleMemory):
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        left = {name: self._kept[bank.identifier].get(name, [])[100:] for name in document_ids}
        await super().delete(bank, document_ids)
        self._kept[bank.identifier].update(left)


@forgetful("delete_documents.many")
class DeletesAHundred(SampleMemory):
    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        await super().delete(bank, document_ids[:100])


@forgetful("delete_documents.many")
class DeletesAllForNoIds(SampleMemory):
    async def delete_documents(self, bank_id: str, document_ids: Any) -> None:
        await super().delete_documents(bank_id, document_ids or [*self._kept[bank_id]])


@forgetful("delete_documents.many")
class HidesWhatItDeleted(SampleMemory):
    """It leaves them out behind the search."""

    async def delete(self, bank: Bank, document_ids: Sequence[str]) -> None:
        self.hidden = {*getattr(self, "hidden", ()), *document_ids}

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, query)
        return [each for each in found if each.chunk.document_id not in getattr(self, "hidden", ())]


# ---- banks -----------------------------------------------------------------------------------------------------------


class _SharesBanks(SampleMemory):
    """Banks whose names are alike share their documents."""

    def place(self, identifier: str) -> str:
        raise NotImplementedError

    async def create_bank(self, bank: Bank) -> None:
        same = [self._kept[name] for name in self._kept if self.place(name) == self.place(bank.identifier)]
        self._kept[bank.identifier] = same[0] if same else {}


@forgetful("query_documents.bank-names")
class SharesBanksWhateverTheCase(_SharesBanks):
    def place(self, identifier: str) -> str:
        return identifier.lower()


@forgetful("query_documents.bank-names")
class SharesBanksWithSigns(_SharesBanks):
    def place(self, identifier: str) -> str:
        return "".join(character if character.isalnum() else "_" for character in identifier)


@forgetful("query_documents.bank-names")
class SharesBanksWithLongNames(_SharesBanks):
    def place(self, identifier: str) -> str:
        return identifier[:100] if len(identifier) > 100 else identifier[:14]


@forgetful("query_documents.bank-names")
class DropsBanksByPrefix(SampleMemory):
    async def drop_bank(self, bank: Bank) -> None:
        for name in [name for name in self._kept if name.startswith(bank.identifier)]:
            await super().drop_bank(replace(bank, definition=bank.definition.model_copy(update={"identifier": name})))


@forgetful("registration.many")
class ListsOnePage(SampleMemory):
    async def list_banks(self) -> list[Bank]:
        return (await super().list_banks())[:100]

    async def find_bank(self, identifier: str) -> Bank | None:
        return next((bank for bank in await super().list_banks() if bank.identifier == identifier), None)


# ---- replaced documents ----------------------------------------------------------------------------------------------


@forgetful("insert_documents.replaced")
class ReplacesOneChunk(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = {name: self._kept[bank.identifier].get(name, []) for name in insert.document_ids}
        await super().store(bank, insert)
        for name, chunks in before.items():
            kept = self._kept[bank.identifier][name]
            kept += chunks[len(kept) :]


@unlike("insert_documents.replaced")
class ReplacesAHundredChunks(VectorsInMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = {name: self.kept[bank.identifier].get(name, ([], None)) for name in insert.document_ids}
        await super().store(bank, insert)
        for name, (chunks, _) in before.items():
            self.kept[bank.identifier][name][0].extend(chunks[100:])


@forgetful("insert_documents.replaced")
class AppendsVersions(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = {name: self._kept[bank.identifier].get(name, []) for name in insert.document_ids}
        await super().store(bank, insert)
        for name, chunks in before.items():
            words = {kept.chunk.content for kept in chunks}
            if words == {kept.chunk.content for kept in self._kept[bank.identifier][name]}:
                self._kept[bank.identifier][name] += chunks


@forgetful("insert_documents.same-id")
class StoresBothOfAnId(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        texts: dict[str, Any] = {}
        for each in documents:
            earlier = texts.get(each.document_id)
            joined = (
                each if earlier is None else each.model_copy(update={"content": f"{earlier.content} {each.content}"})
            )
            texts[each.document_id] = joined
        await super().insert_documents(bank_id, [*texts.values()], ttl_seconds)


@forgetful("insert_documents.same-id")
class StoresTheFirstOfAnId(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        firsts = {each.document_id: each for each in reversed(documents)}
        await super().insert_documents(bank_id, [*firsts.values()], ttl_seconds)


@forgetful("insert_documents.same-id")
class EmptiesTheBankForNoDocuments(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        if not documents:
            self._kept[bank_id].clear()
        await super().insert_documents(bank_id, documents, ttl_seconds)


# ---- metadata --------------------------------------------------------------------------------------------------------


class _Metadata(SampleMemory):
    """Keeps other metadata than that which it gets."""

    def kept_as(self, metadata: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    async def store(self, bank: Bank, insert: Insert) -> None:
        chunks = [replace(chunk, metadata=self.kept_as(chunk.metadata)) for chunk in insert.chunks]
        await super().store(bank, replace(insert, chunks=chunks))


def _keeps_metadata_as(name: str, kept_as: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    cls = type(name, (_Metadata,), {"kept_as": lambda self, metadata: kept_as(metadata)})
    forgetful("insert_documents.metadata")(cls)


def _as_float(value: Any) -> Any:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


_keeps_metadata_as("MakesTextOfMetadata", lambda metadata: {name: str(value) for name, value in metadata.items()})
_keeps_metadata_as("MakesFloatsOfNumbers", lambda metadata: {name: _as_float(v) for name, v in metadata.items()})
_keeps_metadata_as("MakesNumbersOfBooleans", lambda m: {k: int(v) if isinstance(v, bool) else v for k, v in m.items()})
_keeps_metadata_as("DropsNull", lambda metadata: {k: value for k, value in metadata.items() if value is not None})
_keeps_metadata_as(
    "MakesTextOfNested",
    lambda metadata: {k: json.dumps(v) if isinstance(v, list | dict) else v for k, v in metadata.items()},
)
_keeps_metadata_as("PutsTheIdAmongIt", lambda metadata: {**metadata, "document_id": "own"})


@forgetful("insert_documents.metadata")
class MarksTheCallersMetadata(SampleMemory):
    async def insert_documents(self, bank_id: str, documents: Any, ttl_seconds: int | None = None) -> None:
        await super().insert_documents(bank_id, documents, ttl_seconds)
        for document in documents:
            document.metadata["bank_id"] = bank_id


@forgetful("insert_documents.metadata")
class MergesMetadata(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        before = {name: kept[0].chunk.metadata for name, kept in self._kept[bank.identifier].items() if kept}
        chunks = [replace(c, metadata={**before.get(c.document_id, {}), **c.metadata}) for c in insert.chunks]
        await super().store(bank, replace(insert, chunks=chunks))


@forgetful("insert_documents.metadata")
class HandsOutItsOwnMetadata(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        found = await super().search(bank, query)
        own = {k.chunk.content: k.chunk for chunks in self._kept[bank.identifier].values() for k in chunks}
        return [FoundChunk(own[each.chunk.content], each.score) for each in found]


# ---- equal and empty texts -------------------------------------------------------------------------------------------


@forgetful("insert_documents.same-text")
class FindsEqualTextsOnce(SampleMemory):
    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        best: dict[str, FoundChunk] = {}
        for each in await super().search(bank, query):
            best.setdefault(each.chunk.content, each)
        return list(best.values())


@forgetful("insert_documents.emptied")
class KeepsWhatBecomesEmpty(SampleMemory):
    async def store(self, bank: Bank, insert: Insert) -> None:
        if insert.chunks:
            await super().store(bank, insert)


@forgetful("insert_documents.metadata")
class HidesDocumentsByTheirMetadata(SampleMemory):
    """As if the metadata were beside its own fields."""

    async def search(self, bank: Bank, query: Query) -> list[FoundChunk]:
        return [each for each in await super().search(bank, query) if "expires_at" not in each.chunk.metadata]

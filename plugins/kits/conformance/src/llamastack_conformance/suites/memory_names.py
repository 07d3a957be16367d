"""Checks of the names of documents and banks: no two that differ are mixed up, however alike they are."""

from __future__ import annotations

import uuid
from contextlib import AsyncExitStack

from llamastack.provider.errors import InvalidRequestError, UnsupportedObjectError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_contents import check_contents, whole_version
from llamastack_conformance.suites.memory_own_bank import OwnBank, own_bank, require
from llamastack_conformance.suites.memory_texts import Ledger, batches, plain, word
from llamastack_conformance.suites.registration import names

_IDS = (
    *("note", "note-1", "note-10", "note_1", "Note", "NOTE", "notes", "note/1", "note/1/a", "note.1", "note 1"),
    *(" note", "note ", "n\u00f6te", "no\u0308te", "it's", 'the "note"', "100%", "note%", "%6eote", "note*", "note?"),
    *("note:1", "a,b", "a", "b", "note#1", "note\\1", "../note", "$note", "{note}", "[note]", "<note>", "note&x=1"),
    *("42", "042", "4.2e1", "-1", "null", "true", "🦙", "шум", "l" * 200, "l" * 199 + "m"),
    *("0b8ee1f2-3a4b-4c5d-8e6f-708192a3b4c5", "0B8EE1F2-3A4B-4C5D-8E6F-708192A3B4C5"),
)
_BANKS = (
    "",
    "-1",
    "-10",
    " 1",
    "/1",
    "%31",
    ".1",
    "_1",
    "-\u00e9",
    "-e\u0301",
    "-ONE",
    "-one",
    "'1",
    '"1',
    "-🦙",
    "-" + "l" * 150,
)
_ENDS = ("", "1", "-1", "_1", "/1", ":1", "#1", ".1", "-1-1")
_CHUNKS = 13
_CHUNK_TOKENS = 16


class NameChecks(MemoryCalls):
    """The checks of names."""

    @check(
        "insert_documents.ids",
        tier=Tier.live,
        capability="insert_documents",
        mend="keep document_id as it is, as a value: no pattern, no path, no folding of case or accents",
    )
    async def test_insert_documents_ids(self, subject: Subject) -> None:
        """ids may be any text: ids that begin alike, differ only in case, or have signs, blanks or 200 characters, are
        different documents
        """
        texts = {name: f"Under {word(place)} it is kept." for place, name in enumerate(_IDS)}
        async with subject.shared() as running, own_bank(self, running, "ids") as bank:
            await bank.put(texts)
            check_contents(texts, await _contents(bank, len(_IDS)))
            await bank.put({name: text for name, text in texts.items() if name in ("note", "42", "a")})
            check_contents(texts, await _contents(bank, len(_IDS)))

    @check(
        "insert_documents.chunk-ids",
        tier=Tier.live,
        capability="insert_documents",
        mend="give each chunk an id that no other has, such as a UUID; find the chunks of a document by a field",
    )
    async def test_insert_documents_chunk_ids(self, subject: Subject) -> None:
        """documents of many chunks keep all of them, also if their ids look like those of chunks of each other; one of
        them is deleted with all its chunks, and no others
        """
        async with subject.shared() as running, own_bank(self, running, "chunk-ids", _CHUNK_TOKENS) as bank:
            tokens = _CHUNKS * (_CHUNK_TOKENS if bank.is_vector else 200)
            ledgers = {
                name: Ledger(f"ledger number {place}", tokens, place * 50_000)
                for place, name in enumerate(f"part{end}" for end in _ENDS)
            }
            await bank.put({name: ledger.text for name, ledger in ledgers.items()})
            await _check_all_whole(bank, ledgers)
            if subject.declares("delete_documents"):
                await bank.delete("part")
                if await whole_version(bank, "part", [ledgers.pop("part")]) is not None:
                    raise CheckFailure("'part' was deleted, and chunks of it are found")
                await _check_all_whole(bank, ledgers)

    @check(
        "delete_documents.ids",
        tier=Tier.live,
        capability="delete_documents",
        mend="compare document_id as a value: no pattern, no path, no folding of case or accents",
    )
    async def test_delete_documents_ids(self, subject: Subject) -> None:
        """deleting a document leaves all others, however alike their ids are"""
        async with subject.shared() as running, own_bank(self, running, "ids") as bank:
            left = {name: f"Under {word(place)} it is kept." for place, name in enumerate(_IDS)}
            await bank.put(left)
            for name in _IDS[:-1]:
                await bank.delete(name)
                del left[name]
                got = (await _contents(bank, len(_IDS))).keys()
                if name in got:
                    raise CheckFailure(f"{name!r} was deleted and is still found")
                if gone := sorted(left.keys() - got):
                    raise CheckFailure(f"{name!r} was deleted, and {gone} are gone, too")

    @check(
        "delete_documents.many",
        tier=Tier.live,
        capability="delete_documents",
        mend="delete every chunk of every id, in all batches; an empty list deletes nothing",
    )
    async def test_delete_documents_many(self, subject: Subject) -> None:
        """150 documents are deleted in one call, in which ids may be unknown or stand twice; an empty list of ids
        deletes nothing
        """
        texts = {f"doc-{n}": f"The mark {word(n)} is here." for n in range(155)}
        async with subject.shared() as running, own_bank(self, running, "many") as bank:
            await bank.put(texts)
            await bank.delete()
            before = await _contents(bank, len(texts))
            if len(before) != len(texts):
                raise CheckFailure(f"an empty list of ids leaves {len(before)} of {len(texts)} documents")
            gone = list(texts)[:150]
            await bank.delete(*gone, gone[0], "never-there")
            left = {name: texts[name] for name in texts if name not in gone}
            check_contents(left, await _contents(bank, len(texts)))
            # A filter behind the search must not use up the places of what is left.
            best = await bank.chunks(texts[gone[0]], 1)
            if len(best) != 1:
                raise CheckFailure("with max_chunks 1 a query finds nothing: the deleted ones take the places")

    @check(
        "query_documents.bank-names",
        tier=Tier.live,
        capability="registration",
        mend="give each bank a place of its own by its exact name, such as a digest of it",
    )
    async def test_query_documents_bank_names(self, subject: Subject) -> None:
        """banks whose names are alike keep their documents apart, also those with the same document_id; a name that the
        backend cannot have is refused with a 400
        """
        require(subject, "insert_documents", "query_documents", "delete_documents", "unregister")
        base = f"-{uuid.uuid4().hex[:8]}"
        async with subject.shared() as running:
            banks = [bank for suffix in _BANKS if (bank := await self._registered(running, base + suffix))]
            texts = {bank.bank_id: f"The bank of {word(place)} has this." for place, bank in enumerate(banks)}
            for bank in banks:
                await bank.put({"same": texts[bank.bank_id]})
            await _check_apart(banks, texts)
            await banks[0].delete("same")
            await _check_apart(banks[1:], texts)
            for bank in banks[::2]:
                await running.unregister(bank.bank_id)
            await _check_apart(banks[1::2], texts)
            listed = await names(running)
            for bank in banks[1::2]:
                if bank.bank_id not in listed:
                    raise CheckFailure(f"'{bank.bank_id}' is not listed any more, after another was unregistered")
                await running.unregister(bank.bank_id)

    async def _registered(self, running: Running, suffix: str) -> OwnBank | None:
        bank = self.bank(running, suffix)
        try:
            await running.register(bank)
        except (UnsupportedObjectError, InvalidRequestError):
            return None
        return OwnBank(self, running, bank)

    @check(
        "registration.many",
        tier=Tier.stress,
        capability="registration",
        mend="read every page of the backend's listing",
    )
    async def test_registration_many(self, subject: Subject) -> None:
        """a hundred banks and more are all listed, each once"""
        require(subject, "unregister")
        async with subject.shared() as running:
            base = f"-many-{uuid.uuid4().hex[:8]}-"
            made = [self.bank(running, f"{base}{place}") for place in range(subject.settings.many_objects)]
            async with AsyncExitStack() as undone:
                for bank in made:
                    await running.register_directly(bank)
                    undone.push_async_callback(running.unregister_directly, bank)
                listed = await names(running)
                wrong = [bank.identifier for bank in made if listed.count(bank.identifier) != 1]
        if wrong:
            raise CheckFailure(f"of {len(made)} banks {len(wrong)} are not listed once, such as '{wrong[0]}'")


async def _check_all_whole(bank: OwnBank, ledgers: dict[str, Ledger]) -> None:
    for name, ledger in ledgers.items():
        if await whole_version(bank, name, [ledger]) is None:
            raise CheckFailure(f"no chunk of {name!r} is found")


async def _check_apart(banks: list[OwnBank], texts: dict[str, str]) -> None:
    everything = " ".join(texts.values())
    for bank in banks:
        got = [plain(str(chunk.content)) for chunk in await bank.chunks(everything)]
        if got != [texts[bank.bank_id]]:
            raise CheckFailure(f"the bank '{bank.bank_id}' has {got}", wanted=f"{texts[bank.bank_id]!r}")


async def _contents(bank: OwnBank, count: int) -> dict[str, set[str]]:
    """What each document says, of documents with the words 0 to count - 1."""
    got: dict[str, set[str]] = {}
    for query in batches([word(number) for number in range(count)]):
        for chunk in await bank.chunks(query):
            got.setdefault(chunk.document_id, set()).add(plain(str(chunk.content)))
    return got

"""Checks of the contents of documents: long ones, many at once, and unusual text."""

from __future__ import annotations

import itertools
from typing import Any

from llamastack.api.memory import MemoryBankDocument, MemoryChunk
from llamastack.provider.errors import InvalidRequestError, NotSupportedError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.inference_calls import DOT
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_own_bank import MOST, OwnBank, own_bank
from llamastack_conformance.suites.memory_texts import Ledger, batches, plain, uncovered, word

_PIECES = 300
_CHUNK_TOKENS = 32
_USUAL_CHUNK_TOKENS = 200  # of banks that do not say it themselves
_NEEDLES = 5
_MANY = 200
_LONG_WORD = 20_000

# Each is kept as it is. Combining characters, for instance, must not be composed.
_TEXTS = {
    "accents": "Ærøskøbing naïve café ﬁn",
    "scripts": "olive 汉字 かな 한글 ไทย",
    "emoji": "llama 🦙 family 👩‍👩‍👧‍👦 flag 🏳️‍🌈 hand 👍🏽",
    "right-to-left": "peace שלום עולם مرحبا \u200fend",
    "combining": "composed \u00e9 and decomposed e\u0301",
    "white-space": "tabs\tand\nlines\r\nand  two  spaces",
    "marks": 'it\'s "quoted" \\n {braces} %s 100% <b>bold</b> &amp; $1 `x` ;-- DROP',
    "zero-width": "zero\u200bwidth and\ufeffmark",
    "astral": "fraktur 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 letters",
    "digits": "0012",
    "json": '{"zebra": [1, 2.50, null]}',
    "word-of-json": "null",
    "case": "MixedCase ÄÖÜ ß İ",
}
# A provider may refuse these, as a whole, or keep them.
_ODD_TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "nul": "before\x00after",
    "control": "bell\x07 and escape\x1b[0m",
    "long-word": "",  # made below
    "dots": "...",
}


class ContentChecks(MemoryCalls):
    """The checks of what documents say."""

    @check(
        "insert_documents.long",
        tier=Tier.live,
        capability="insert_documents",
        mend="store every chunk of a document: loop over the batches of your backend, to the end",
    )
    async def test_insert_documents_long(self, subject: Subject) -> None:
        """a document of 300 chunks is stored whole: each chunk is a part of its text, none is missing, and each part
        is found
        """
        async with subject.shared() as running, own_bank(self, running, "long", _CHUNK_TOKENS) as bank:
            tokens = _PIECES * (_CHUNK_TOKENS if bank.is_vector else _USUAL_CHUNK_TOKENS)
            ledger = Ledger("the long ledger", tokens, first=0)
            metadata = {"kind": "ledger", "pages": 300}
            await bank.insert(MemoryBankDocument(document_id="long", content=ledger.text, metadata=metadata))
            await bank.put({"other": f"Nothing of {word(50_001)} is in a ledger."})
            for needle in _spread(ledger.words, _NEEDLES):
                line = next(line for line in ledger.text.splitlines() if needle in line)
                best = await bank.chunks(line, 3)
                if not any(needle in str(chunk.content) for chunk in best if chunk.document_id == "long"):
                    raise CheckFailure(f"the line {line!r} finds {[str(c.content)[:80] for c in best]}")
            chunks = await _all_chunks(bank, ledger, "long")
        check_whole(ledger.text, [str(chunk.content) for chunk in chunks])
        for chunk in chunks:
            _check_tokens(chunk)
        other = next((chunk.metadata for chunk in chunks if chunk.metadata != metadata), None)
        if other is not None:
            raise CheckFailure(f"a chunk has the metadata {other}", wanted=f"{metadata}")

    @check(
        "insert_documents.chunks",
        tier=Tier.live,
        capability="insert_documents",
        mend="cut documents with llamastack_memory_kit.Chunker, by the fields of the bank",
    )
    async def test_insert_documents_chunks(self, subject: Subject) -> None:
        """a chunk of a vector bank has at most `chunk_size_in_tokens` tokens, neighbours share
        `overlap_size_in_tokens`, and the number of tokens fits the text
        """
        ledger = Ledger("the sliced ledger", 600, first=60_000)
        async with subject.shared() as running, own_bank(self, running, "chunks", _CHUNK_TOKENS) as bank:
            if not bank.is_vector or not subject.declares("registration"):
                raise NotApplicable("no bank of these sizes can be registered")
            await bank.put({"sliced": ledger.text})
            chunks = await bank.chunks(ledger.words[0])
        for chunk in chunks:
            words = len(str(chunk.content).split())
            if words > _CHUNK_TOKENS or chunk.token_count > _CHUNK_TOKENS:
                raise CheckFailure(f"a chunk has {words} words and {chunk.token_count} tokens: {chunk.content!r}")
            _check_tokens(chunk)
        shared = _neighbours_that_share(ledger.text, [str(chunk.content) for chunk in chunks])
        if shared * 2 < len(chunks) - 1:
            raise CheckFailure(f"of {len(chunks)} chunks {shared} share words with the one before")

    @check(
        "insert_documents.many",
        tier=Tier.live,
        capability="insert_documents",
        mend="store all documents of a call: loop over the batches of your backend, to the end",
    )
    async def test_insert_documents_many(self, subject: Subject) -> None:
        """each of 200 documents of one call is found by its own text, first, with its own content"""
        texts = {f"many-{n}": f"Mark {word(n)} belongs to number {word(n + 500)}." for n in range(_MANY)}
        async with subject.shared() as running, own_bank(self, running, "many") as bank:
            await bank.put(texts)
            got: dict[str, set[str]] = {}
            for query in batches([word(number) for number in range(_MANY)]):
                for chunk in await bank.chunks(query):
                    got.setdefault(chunk.document_id, set()).add(plain(str(chunk.content)))
            check_contents(texts, got)
            for name in _spread(list(texts), 12):
                best = await bank.chunks(texts[name], 1)
                if [chunk.document_id for chunk in best] != [name]:
                    raise CheckFailure(f"the text of '{name}' finds {[chunk.document_id for chunk in best]} first")

    @check(
        "insert_documents.text",
        tier=Tier.live,
        capability="insert_documents",
        mend="store the text as it is, in UTF-8; do not normalize, escape or convert it",
    )
    async def test_insert_documents_text(self, subject: Subject) -> None:
        """text in any script, with emoji, combining characters, quotes and white space, comes back unchanged"""
        async with subject.shared() as running, own_bank(self, running, "text") as bank:
            await bank.put(_TEXTS)
            for name, text in _TEXTS.items():
                got = await bank.texts(text, name)
                if [each.strip() for each in got] != [text]:
                    raise CheckFailure(f"{text!r} comes back as {got!r}")

    @check(
        "insert_documents.odd-text",
        tier=Tier.live,
        capability="insert_documents",
        mend="refuse the call with InvalidRequestError before anything is stored, or store the text as it is",
    )
    async def test_insert_documents_odd_text(self, subject: Subject) -> None:
        """empty and blank text, NUL, control characters and a word of 20,000 letters are stored as they are, or
        refused with InvalidRequestError (400) together with the whole call
        """
        texts = {**_ODD_TEXTS, "long-word": "".join(map(word, range(70_000, 70_000 + _LONG_WORD // 8)))}
        async with subject.shared() as running, own_bank(self, running, "odd") as bank:
            for place, (name, text) in enumerate(texts.items()):
                await _check_odd_text(bank, name, text, beside=f"Beside it {word(71_000 + place)} stands.")

    @check(
        "insert_documents.parts",
        tier=Tier.live,
        capability="insert_documents",
        mend="take content as llamastack_memory_kit.documents.document_text does",
    )
    async def test_insert_documents_parts(self, subject: Subject) -> None:
        """content may be a list of texts, or the URL of a text as `{"uri": ...}`; an image is refused, with the whole
        call
        """
        one, two, three, four = (word(72_000 + n) for n in range(4))
        encoded = f"data:text/plain;charset=utf-8,caf%C3%A9%20{three}%20house"
        async with subject.shared() as running, own_bank(self, running, "parts") as bank:
            await bank.insert(
                _document("list", [f"The first part says {one} here", f"The second part says {two} there"])
            )
            await bank.insert(_document("uri", {"uri": encoded}))
            for name, wanted in (("list", one), ("list", two), ("uri", f"café {three}")):
                if not any(wanted in text for text in await bank.texts(wanted, name)):
                    raise CheckFailure(f"{wanted!r} finds {await bank.texts(wanted, name)} of the document '{name}'")
            refused = _document("image", [f"An image of {four} here", DOT.model_dump()])
            try:
                await bank.insert(_document("beside", f"A text about {four} is fine."), refused)
            except (InvalidRequestError, NotSupportedError):
                if {"beside", "image"} & await bank.found(four):
                    raise CheckFailure("a call with an image was refused, and its text was stored") from None


def _document(document_id: str, content: Any) -> MemoryBankDocument:
    return MemoryBankDocument.model_validate({"document_id": document_id, "content": content})


def check_contents(texts: dict[str, str], got: dict[str, set[str]]) -> None:
    """Raise CheckFailure unless each document has its own text, and there is no other. got: what each id has."""
    missing = [name for name in texts if name not in got]
    if missing:
        raise CheckFailure(f"{len(missing)} of {len(texts)} documents are not found, such as {missing[0]!r}")
    for name, contents in got.items():
        if name not in texts:
            raise CheckFailure(f"a document {name!r} is found that nobody has stored")
        if contents != {plain(texts[name])}:
            raise CheckFailure(f"the document {name!r} says {sorted(contents)}", wanted=texts[name])


def _check_tokens(chunk: MemoryChunk) -> None:
    """No tokenizer makes few tokens of many words, and none makes more tokens than there are bytes."""
    words = len(str(chunk.content).split())
    if not words / 2 <= chunk.token_count <= len(str(chunk.content).encode()):
        raise CheckFailure(f"a chunk of {words} words has {chunk.token_count} tokens: {str(chunk.content)[:80]!r}")


def check_whole(text: str, pieces: list[str]) -> None:
    """Raise CheckFailure unless the pieces are parts of the text and cover it."""
    try:
        lost = uncovered(text, pieces)
    except ValueError as error:
        raise CheckFailure(f"a chunk is no part of the document: {str(error)[:200]!r}") from None
    if lost:
        raise CheckFailure(f"{len(pieces)} chunks lack a part of the document: {lost[:200]!r}")


async def whole_version(bank: OwnBank, document_id: str, versions: list[Ledger]) -> Ledger | None:
    """The version of a document that is there; None: nothing is. Raises CheckFailure for a part, and for a mixture."""
    found: dict[str, None] = {}
    for version in versions:
        for query in batches(version.words[:1] if bank.is_vector else version.words):
            found |= dict.fromkeys(await bank.texts(query, document_id))
    if not found:
        return None
    for version in versions:
        try:
            lost = uncovered(version.text, found)
        except ValueError:
            continue
        if not lost:
            return version
        raise CheckFailure(f"the document {document_id!r} lacks a part of its version: {lost[:80]!r}")
    raise CheckFailure(f"{len(found)} chunks of {document_id!r} are not of one version", wanted="one whole version")


async def _all_chunks(bank: OwnBank, ledger: Ledger, document_id: str) -> list[MemoryChunk]:
    """Every chunk of a long document. Raises CheckFailure if words of it are not found."""
    if bank.is_vector:
        return [chunk for chunk in await bank.chunks(ledger.words[0]) if chunk.document_id == document_id]
    found: dict[str, MemoryChunk] = {}
    for query in batches(ledger.words):
        chunks = [chunk for chunk in await bank.chunks(query) if chunk.document_id == document_id]
        texts = [str(chunk.content) for chunk in chunks]
        lost = [mark for mark in query.split() if not any(mark in text for text in texts)]
        if lost and len(chunks) < MOST:
            raise CheckFailure(f"a query of {len(query.split())} words finds no chunk with {lost[0]!r}")
        found |= zip(texts, chunks, strict=True)
    return list(found.values())


async def _check_odd_text(bank: OwnBank, name: str, text: str, beside: str) -> None:
    """Insert a text beside a usual one, and over an earlier one: each call has its whole effect, or none."""
    before = f"Before it {word(73_000 + len(name) + len(text) % 100)} stood."
    await bank.put({name: before})
    try:
        await bank.put({"beside": beside, name: text})
    except InvalidRequestError:
        if beside in await bank.texts(beside, "beside"):
            raise CheckFailure(f"{text[:40]!r} was refused, and the document beside it was stored") from None
        if not await bank.texts(before, name):
            raise CheckFailure(f"{text[:40]!r} was refused, and the earlier document is gone") from None
        return
    if beside not in await bank.texts(beside, "beside"):
        raise CheckFailure(f"{text[:40]!r} was taken, and the document beside it was not stored")
    kept = {*await bank.texts(text.strip() or before, name), *await bank.texts(before, name)}
    if any(before in each for each in kept):
        raise CheckFailure(f"{text[:40]!r} was taken, and the earlier document is still found")
    whole = len(text) < _LONG_WORD  # a longer one is cut
    wrong = next((each for each in kept if (each.strip() != text.strip() if whole else each not in text)), None)
    if wrong is not None:
        raise CheckFailure(f"{text[:40]!r} comes back as {wrong[:80]!r}")
    if bank.is_vector and kept and not whole:
        check_whole(text, [*kept])
    if text.strip() and bank.is_vector and not kept:
        raise CheckFailure(f"{text[:40]!r} was taken and is not found")


def _spread(items: list[str], count: int) -> list[str]:
    """`count` of the items: the first, the last, and some between them."""
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def _neighbours_that_share(text: str, pieces: list[str]) -> int:
    whole = plain(text)
    spans = sorted((whole.find(plain(piece)), len(plain(piece))) for piece in pieces)
    return sum(start < before + length for (before, length), (start, _) in itertools.pairwise(spans))

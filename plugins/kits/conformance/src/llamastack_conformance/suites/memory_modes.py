"""Checks of how a query searches: by vectors, by words or both, and which documents it looks at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from llamastack.api.memory import MemoryBankDocument, QueryDocumentsResponse
from llamastack.provider.errors import InvalidRequestError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_own_bank import MOST, OwnBank, own_bank
from llamastack_conformance.suites.suite import refused

_TEXTS = {
    "once": "The harbour has one quoll, and many other animals that sleep all day.",
    "often": "A quoll meets a quoll; every quoll hunts at night.",
    "other": "Ferries cross the bay at noon and return in the evening.",
    "rare": "A numbat and the ferries of the bay.",
}
_WORD = "quoll"
_NO_WORDS = ("", " \n", "...", '"*()"')

_METADATA: Mapping[str, Mapping[str, Any]] = {
    "a": {"year": 2020, "lang": "de", "draft": True, "tags": ["red", "blue"], "odd.key $": 1},
    "b": {"year": 2022, "lang": "en", "draft": False, "tags": [], "share": 0.5},
    "c": {"year": 2024.0, "lang": "Ende", "draft": 1, "tags": ["blue"], "share": -0.25},
    "d": {"year": "2022", "lang": "\u00e9t\u00e9", "nested": {"year": 2022}, "draft": None},
    "e": {},
}
# What each filter finds. Values of another type, null, objects and absent keys fit nothing. `ne` is "not `eq`".
_FILTERS: tuple[tuple[Mapping[str, Any], str], ...] = (
    ({"type": "eq", "key": "year", "value": 2022}, "b"),
    ({"type": "eq", "key": "year", "value": 2024}, "c"),
    ({"type": "eq", "key": "year", "value": "2022"}, "d"),
    ({"type": "ne", "key": "year", "value": 2022}, "acde"),
    ({"type": "gt", "key": "year", "value": 2020}, "bc"),
    ({"type": "gte", "key": "year", "value": 2020}, "abc"),
    ({"type": "lt", "key": "year", "value": 2022}, "a"),
    ({"type": "lte", "key": "year", "value": 2022}, "ab"),
    ({"type": "lt", "key": "share", "value": 0}, "c"),
    ({"type": "in", "key": "year", "value": [2020, "2022", 1]}, "ad"),
    ({"type": "nin", "key": "year", "value": [2020, "2022"]}, "bce"),
    ({"type": "eq", "key": "draft", "value": True}, "a"),
    ({"type": "eq", "key": "draft", "value": 1}, "c"),
    ({"type": "eq", "key": "draft", "value": False}, "b"),
    ({"type": "ne", "key": "draft", "value": True}, "bcde"),
    ({"type": "eq", "key": "lang", "value": "en"}, "b"),
    ({"type": "gt", "key": "lang", "value": "Z"}, "abd"),
    ({"type": "eq", "key": "lang", "value": "\u00e9t\u00e9"}, "d"),
    ({"type": "eq", "key": "tags", "value": "blue"}, "ac"),
    ({"type": "nin", "key": "tags", "value": ["red", "green"]}, "bcde"),
    ({"type": "eq", "key": "odd.key $", "value": 1}, "a"),
    ({"type": "eq", "key": "nested.year", "value": 2022}, ""),
    ({"type": "eq", "key": "no such key", "value": ""}, ""),
    ({"type": "and", "filters": [{"type": "gt", "key": "year", "value": 2020}]}, "bc"),
    (
        {
            "type": "or",
            "filters": [
                {"type": "eq", "key": "lang", "value": "de"},
                {
                    "type": "and",
                    "filters": [
                        {"type": "gte", "key": "year", "value": 2022},
                        {"type": "ne", "key": "lang", "value": "en"},
                    ],
                },
            ],
        },
        "ac",
    ),
)
_CROWD = 60


class ModeChecks(MemoryCalls):
    """The checks of the modes and of filters."""

    @check(
        "keyword_search.works",
        tier=Tier.live,
        capability="keyword_search",
        mend="let `mode: keyword` find the chunks with words of the query, those with more first, and name "
        "the scores in `scored_by`",
    )
    async def test_keyword_search_works(self, subject: Subject) -> None:
        """mode `keyword` finds the chunks with words of the query, those with more first, and no others; a query
        without words finds nothing or is refused
        """
        async with subject.shared() as running, own_bank(self, running, "words") as bank:
            _needs(bank, "vector", "keyword")
            await bank.put(_TEXTS)
            found = await _asked(bank, _WORD, mode="keyword")
            names = sorted(chunk.document_id for chunk in found.chunks)
            if names != ["often", "once"]:
                raise CheckFailure(f"{_WORD!r} finds {names}", wanted="['often', 'once']")
            _has_scores(found, "keyword")
            both = [chunk.document_id for chunk in (await _asked(bank, "ferries numbat", mode="keyword")).chunks]
            if both != ["rare", "other"]:
                raise CheckFailure(
                    f"'ferries numbat' finds {both}", wanted="'rare', with both words, then 'other', with one"
                )
            for text in _NO_WORDS:
                if chunks := (await _quietly(bank, text)).chunks:
                    raise CheckFailure(f"{text!r} finds {[chunk.document_id for chunk in chunks]}", wanted="nothing")

    test_keyword_search_refused = refused("keyword_search")

    @check(
        "vector_search.works",
        tier=Tier.live,
        capability="vector_search",
        mend="let `mode: vector` search by the embedding of the query, as vector banks do without a mode",
    )
    async def test_vector_search_works(self, subject: Subject) -> None:
        """mode `vector` finds what a query without a mode finds in a vector bank, with the same scores, by cosine"""
        async with subject.shared() as running, own_bank(self, running, "vectors") as bank:
            _needs(bank, "vector")
            await bank.put(_TEXTS)
            plain, named = await _asked(bank, _WORD), await _asked(bank, _WORD, mode="vector")
            if [c.document_id for c in plain.chunks] != [c.document_id for c in named.chunks]:
                raise CheckFailure("mode 'vector' finds something else than a query without a mode")
            _has_scores(named, "vector")
            if named.scored_by != "cosine_similarity":
                raise CheckFailure(f"scored_by is {named.scored_by!r}", wanted="'cosine_similarity'")

    test_vector_search_refused = refused("vector_search")

    @check(
        "hybrid_search.works",
        tier=Tier.live,
        capability="hybrid_search",
        mend="let `mode: hybrid` make one list of what both searches find, each chunk once",
    )
    async def test_hybrid_search_works(self, subject: Subject) -> None:
        """mode `hybrid` finds what the vectors and what the words find, each chunk once, with one kind of scores"""
        async with subject.shared() as running, own_bank(self, running, "both") as bank:
            _needs(bank, "vector")
            await bank.put(_TEXTS)
            found = await _asked(bank, _WORD, mode="hybrid")
            counted = Counter(chunk.document_id for chunk in found.chunks)
            if counted != Counter(_TEXTS.keys()):
                raise CheckFailure(f"it finds {dict(counted)}", wanted="each of the four chunks once")
            if found.chunks[0].document_id != "often":
                raise CheckFailure(
                    f"'{found.chunks[0].document_id}' comes first", wanted="'often', best in both searches"
                )
            _has_scores(found, "hybrid")
            if len((await _asked(bank, _WORD, mode="hybrid", max_chunks=2)).chunks) != 2:
                raise CheckFailure("max_chunks 2 does not give two chunks")

    test_hybrid_search_refused = refused("hybrid_search")

    @check(
        "filters.works",
        tier=Tier.live,
        capability="filters",
        mend="search only documents whose metadata fits `filters`; see `Memory.query_documents` for their meaning",
    )
    async def test_filters_works(self, subject: Subject) -> None:
        """a query with `filters` finds the documents whose metadata fits, and no others: numbers, texts, booleans,
        lists, absent keys, in each mode
        """
        async with subject.shared() as running, own_bank(self, running, "filters") as bank:
            await bank.insert(
                *(
                    MemoryBankDocument(document_id=n, content=f"quoll {n}", metadata=dict(m))
                    for n, m in _METADATA.items()
                )
            )
            for mode in _modes(subject, bank):
                for wanted, names in _FILTERS:
                    found = await _asked(bank, _WORD, filters=wanted, **mode)
                    got = "".join(sorted(chunk.document_id for chunk in found.chunks))
                    if got != names:
                        raise CheckFailure(f"{wanted} finds {[*got]} {mode or ''}", wanted=f"{[*names]}")

    @check(
        "filters.before-limit",
        tier=Tier.live,
        capability="filters",
        mend="apply the filter before `max_chunks`: in the backend, or by asking for more until there are enough",
    )
    async def test_filters_before_limit(self, subject: Subject) -> None:
        """documents that do not fit a filter take no place of those that do; a replaced document has new metadata"""
        async with subject.shared() as running, own_bank(self, running, "crowd") as bank:
            crowd = [
                MemoryBankDocument(document_id=f"c{n}", content=_WORD, metadata={"side": "left"}) for n in range(_CROWD)
            ]
            one = MemoryBankDocument(
                document_id="one", content="A quoll among the ferries of the bay.", metadata={"side": "left"}
            )
            await bank.insert(*crowd, one)
            await bank.insert(one.model_copy(update={"metadata": {"side": "right"}}))
            for mode in _modes(subject, bank):
                for side, least in (("right", 1), ("left", 2)):
                    wanted = {"type": "eq", "key": "side", "value": side}
                    found = await _asked(bank, _WORD, filters=wanted, max_chunks=least, **mode)
                    names = [chunk.document_id for chunk in found.chunks]
                    if len(names) != least or ("one" in names) is not (side == "right"):
                        raise CheckFailure(f"side '{side}' with max_chunks {least} finds {names} {mode or ''}")

    test_filters_refused = refused("filters")


async def _quietly(bank: OwnBank, text: str) -> QueryDocumentsResponse:
    """What a text without words finds; nothing if it is refused."""
    try:
        return await _asked(bank, text, mode="keyword")
    except InvalidRequestError:
        return QueryDocumentsResponse(chunks=[], scores=[])


async def _asked(bank: OwnBank, text: str, **params: Any) -> QueryDocumentsResponse:
    return await bank.calls.query(bank.running, text, bank_id=bank.bank_id, **{"max_chunks": MOST, **params})


def _needs(bank: OwnBank, *types: str) -> None:
    if bank.definition.type not in types:
        raise NotApplicable(f"x-conformance.objects names no bank of type {' or '.join(types)} first")


def _modes(subject: Subject, bank: OwnBank) -> list[dict[str, str]]:
    """The params of each mode that the bank has, the default first."""
    if not bank.is_vector:
        return [{}]
    more = (mode for mode in ("keyword", "hybrid") if subject.declares(f"{mode}_search"))
    return [{}, *({"mode": mode} for mode in more)]


def _has_scores(found: QueryDocumentsResponse, mode: str) -> None:
    if not found.scored_by:
        raise CheckFailure(f"a query of mode '{mode}' does not name its scores in `scored_by`")
    if mode != "vector" and found.scored_by == "cosine_similarity":
        raise CheckFailure(f"scores of mode '{mode}' are called cosine similarities")
    if found.scores != sorted(found.scores, reverse=True):
        raise CheckFailure(f"the scores are {found.scores}", wanted="the highest first")

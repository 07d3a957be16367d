"""Checks of queries: their params, their texts, and what they find."""

from __future__ import annotations

import copy
import itertools
from typing import Any

from llamastack.api.memory import QueryDocumentsResponse
from llamastack.provider.errors import InvalidRequestError, NotSupportedError, RequestTooLargeError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.inference_calls import DOT
from llamastack_conformance.suites.memory_calls import MemoryCalls
from llamastack_conformance.suites.memory_own_bank import MOST, OwnBank, own_bank
from llamastack_conformance.suites.memory_texts import word

_GRADED = {
    "four": "amber basil cedar dahlia",
    "three": "amber basil cedar willow",
    "two": "amber basil poplar maple",
    "one": "amber birch spruce larch",
    "none": "granite marble slate quartz",
}
_ALIKE = 12
_WRONG: tuple[dict[str, Any], ...] = (
    {"max_chunks": 2.5},
    {"max_chunks": [3]},
    {"max_chunks": -(10**12)},
    {"score_threshold": "high"},
    {"score_threshold": [0.5]},
)
# Each may be special in some query language. The words around it are still asked for.
_SIGNS = (
    *('"', "'", "*", "(", ")", "AND", "OR NOT", "NEAR/2", "-", "+", ":", "content:", "^", "~", "%", "_", "\\", "/"),
    *("{}", "[", "$1", "?", "#", "!", "&", "|", "<b>", "; DROP TABLE chunks; --", "🦙", "\u05e9\u05dc\u05d5\u05dd"),
)
_PREAMBLE = "This is one question among many, and what it asks for comes only when it is about to end. " * 4
_ODD_QUERIES = {"empty": "", "blank": " \n", "nul": "amber\x00basil", "signs": '"*()', "dots": "...", "emoji": "🦙"}
_WORDS_OF_A_LONG_QUERY = 2000
_CLOSE = 1e-5


class QueryChecks(MemoryCalls):
    """The checks of queries."""

    @check(
        "query_documents.score-threshold",
        tier=Tier.live,
        capability="query_documents",
        mend="leave out what has a lower score than `score_threshold`, and nothing else",
    )
    async def test_query_documents_score_threshold(self, subject: Subject) -> None:
        """a text that fits has a higher score than one that does not; `score_threshold` leaves out lower scores, and
        nothing else
        """
        query = _GRADED["four"]
        async with subject.shared() as running, own_bank(self, running, "scores") as bank:
            await bank.put(_GRADED)
            whole = await _asked(bank, query, max_chunks=MOST)
            scores = whole.scores
            if scores and whole.chunks[0].document_id != "four":
                raise CheckFailure(f"{query!r} finds '{whole.chunks[0].document_id}' first")
            if len(scores) < 4 or len(set(scores)) == 1:
                raise CheckFailure(f"{query!r} finds {len(scores)} chunks with scores {scores}")
            cuts = [(high + low) / 2 for high, low in itertools.pairwise(scores) if high > low + _CLOSE]
            # A score of a chunk is not lower than itself.
            for least in (scores[-1] - 1, *cuts, 0, scores[0], int(scores[0]) + 2):
                wanted = [score for score in scores if score >= least]
                got = (await _asked(bank, query, max_chunks=MOST, score_threshold=least)).scores
                if not _are_close(got, wanted):
                    raise CheckFailure(f"of {scores} the threshold {least} leaves {got}", wanted=f"{wanted}")

    @check(
        "query_documents.long-query",
        tier=Tier.live,
        capability="query_documents",
        mend="search for the whole query; refuse one that is too long, and cut none",
    )
    async def test_query_documents_long_query(self, subject: Subject) -> None:
        """the end of a query of 400 characters counts: it decides which document is found first"""
        texts = {name: _GRADED[name] for name in ("four", "none")}
        async with subject.shared() as running, own_bank(self, running, "long") as bank:
            await bank.put(texts)
            for name, text in texts.items():
                found = (await _asked(bank, _PREAMBLE + text, max_chunks=1)).chunks
                if [chunk.document_id for chunk in found] != [name]:
                    raise CheckFailure(f"a query that ends with {text!r} finds {[c.document_id for c in found]}")

    @check(
        "query_documents.max-chunks",
        tier=Tier.live,
        capability="query_documents",
        mend="return min(max_chunks, what is there) chunks, the best ones; take 1 to 1000 and refuse other values",
    )
    async def test_query_documents_max_chunks(self, subject: Subject) -> None:
        """`max_chunks` from 1 to 1000 gives so many chunks, or all, each once, always the best; a wrong value of a
        parameter is InvalidRequestError (400); `params` of the caller do not change
        """
        async with subject.shared() as running, own_bank(self, running, "limits") as bank:
            await bank.put({f"alike-{n}": f"The amber of number {n} is {word(n)} here." for n in range(_ALIKE)})
            best = (await _asked(bank, "amber number", max_chunks=MOST)).scores
            for most in (1, 2, _ALIKE - 1, _ALIKE, _ALIKE + 1, 100, MOST):
                params = {"max_chunks": most}
                found = await self.query(running, "amber number", bank_id=bank.bank_id, **params)
                ids = [chunk.document_id for chunk in found.chunks]
                if len(ids) != min(most, _ALIKE) or len(set(ids)) != len(ids):
                    raise CheckFailure(f"max_chunks {most} finds {ids} of {_ALIKE}")
                if not _are_close(found.scores, best[:most]):
                    raise CheckFailure(f"max_chunks {most} finds the scores {found.scores}", wanted=f"{best[:most]}")
            for wrong in (*_WRONG, {"max_chunks": 10**9}, {"no_such_parameter": 1}):
                await _check_wrong(bank, wrong)

    @check(
        "query_documents.empty",
        tier=Tier.live,
        capability="query_documents",
        mend="return no chunks and no scores for a bank without documents",
    )
    async def test_query_documents_empty(self, subject: Subject) -> None:
        """an empty bank finds nothing, also after its last document was deleted"""
        if not subject.declares("registration"):
            raise NotApplicable("the provider declares no `registration`")
        async with subject.shared() as running, own_bank(self, running, "empty") as bank:
            for more in ({}, {"max_chunks": MOST}, {"score_threshold": 0.1}):
                found = await _asked(bank, "amber basil", **more)
                if found.chunks or found.scores:
                    raise CheckFailure(f"an empty bank finds {[c.document_id for c in found.chunks]}, {found.scores}")
            if subject.declares("delete_documents"):
                await bank.delete("never-there")
                await bank.put(_GRADED)
                if not (await _asked(bank, "amber basil")).chunks:
                    raise CheckFailure("a query that found nothing before finds nothing after an insert either")
                await bank.delete(*_GRADED)
                if left := await bank.found(" ".join(_GRADED.values())):
                    raise CheckFailure(f"after all documents were deleted, {sorted(left)} are found")

    @check(
        "query_documents.texts",
        tier=Tier.live,
        capability="query_documents",
        mend="escape what is special in the backend's query language; refuse other queries with InvalidRequestError",
    )
    async def test_query_documents_texts(self, subject: Subject) -> None:
        """signs, operators and other scripts in a query do no harm; an empty, odd or very long query gets a result, or
        InvalidRequestError (400)
        """
        async with subject.shared() as running, own_bank(self, running, "texts") as bank:
            await bank.put(_GRADED)
            for sign in _SIGNS:
                query = f"amber {sign} dahlia"
                if "four" not in await bank.found(query):
                    raise CheckFailure(f"{query!r} finds {sorted(await bank.found(query))}")
            long = " ".join(word(number) for number in range(_WORDS_OF_A_LONG_QUERY))
            for name, odd in {**_ODD_QUERIES, "long": f"{long} amber dahlia"}.items():
                try:
                    found = await bank.found(odd)
                except (InvalidRequestError, RequestTooLargeError):
                    continue
                if name == "long" and not bank.is_vector and "four" not in found:
                    raise CheckFailure(f"a query of {_WORDS_OF_A_LONG_QUERY} words finds {sorted(found)}")
            again = await bank.chunks(_GRADED["four"], 1)
            if [chunk.document_id for chunk in again] != ["four"]:
                raise CheckFailure(f"after odd queries a usual one finds {[chunk.document_id for chunk in again]}")

    @check(
        "query_documents.parts",
        tier=Tier.live,
        capability="query_documents",
        mend="read a query by `llamastack.api.common.text_of`; refuse images",
    )
    async def test_query_documents_parts(self, subject: Subject) -> None:
        """a query may be a list of texts, which are all asked for; a query with an image is refused, or its text is
        asked for
        """
        async with subject.shared() as running, own_bank(self, running, "parts") as bank:
            await bank.put(
                {"one": f"The {word(1)} and the {word(2)} meet.", "other": f"Of {word(3)} and {word(4)} too."}
            )
            whole = await _asked(bank, f"{word(1)}\n{word(3)}", max_chunks=MOST)
            for parts in ([f"{word(1)}\n{word(3)}"], [word(1), word(3)]):
                found = await _asked(bank, parts, max_chunks=MOST)
                ids = sorted(chunk.document_id for chunk in found.chunks)
                if ids != sorted(chunk.document_id for chunk in whole.chunks):
                    raise CheckFailure(f"the query {parts} finds {ids}", wanted="what its text finds")
            for part in ([word(5), f"Of {word(3)} and {word(4)} too."], [f"Of {word(3)} and {word(4)} too.", word(5)]):
                best = [chunk.document_id for chunk in (await _asked(bank, part, max_chunks=1)).chunks]
                if best != ["other"]:
                    raise CheckFailure(f"the query {part} finds {best} first", wanted="'other', which has a part of it")
            try:
                seen = await _asked(bank, [word(3), DOT], max_chunks=1)
            except (InvalidRequestError, NotSupportedError):
                return
            if [chunk.document_id for chunk in seen.chunks] != ["other"]:
                raise CheckFailure("of a query with an image the text is not asked for")


async def _asked(bank: OwnBank, query: Any, **params: Any) -> QueryDocumentsResponse:
    """One query. Raises CheckFailure if it changes the params, or chunks and scores do not match."""
    given = copy.deepcopy(params)
    found: QueryDocumentsResponse = await bank.running.calls.query_documents(
        bank_id=bank.bank_id, query=query, **({"params": given} if params else {})
    )
    if given != params:
        raise CheckFailure(f"the params {params} of the caller became {given}")
    if len(found.scores) != len(found.chunks) or found.scores != sorted(found.scores, reverse=True):
        raise CheckFailure(f"{len(found.chunks)} chunks with scores {found.scores}")
    return found


async def _check_wrong(bank: OwnBank, params: dict[str, Any]) -> None:
    """A wrong value is refused. A number that is too high, and an unknown parameter, may also have no effect."""
    may_be_ignored = params not in _WRONG
    try:
        found = await _asked(bank, "amber number", **params)
    except InvalidRequestError:
        return
    if not may_be_ignored:
        raise CheckFailure(f"the params {params} were taken")
    if len(found.chunks) != (_ALIKE if "max_chunks" in params else 3):
        raise CheckFailure(f"with the params {params} a query finds {len(found.chunks)} chunks")


def _are_close(got: list[float], wanted: list[float]) -> bool:
    return len(got) == len(wanted) and all(
        abs(one - other) <= _CLOSE * max(1, abs(other)) for one, other in zip(got, wanted, strict=True)
    )

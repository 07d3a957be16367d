"""Checks of documents that expire."""

from __future__ import annotations

import anyio

from llamastack.provider.errors import InvalidRequestError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.suites.memory_calls import TTL_OVER_S, TTL_S, MemoryCalls
from llamastack_conformance.suites.memory_own_bank import OwnBank, own_bank
from llamastack_conformance.suites.memory_texts import word

_LONGEST_TTL_S = 10**13
_WHOLE_SECOND_S = 1.2
_STAYS = ("kept", "prolonged", "minute", "hour", "forever")


class ExpiryChecks(MemoryCalls):
    """The checks of `ttl_seconds`."""

    @check(
        "ttl.limits",
        tier=Tier.live,
        capability="ttl",
        mend="count seconds, let each insert of a document set or remove its expiry, and leave expired chunks out "
        "before the best ones are chosen",
    )
    async def test_ttl_limits(self, subject: Subject) -> None:
        """the last insert of a document says when it expires, if at all; a ttl of 300,000 years is refused with a 400
        or never ends; 0 and less is refused; an expired document takes no place in a result
        """
        async with subject.shared() as running, own_bank(self, running, "ttl") as bank:
            texts = {name: f"The comet {word(n)} passes" for n, name in enumerate(("brief", "shortened", *_STAYS))}
            for wrong in (0, -1):
                try:
                    await bank.put({"brief": texts["brief"]}, ttl_seconds=wrong)
                except InvalidRequestError:
                    continue
                raise CheckFailure(f"ttl_seconds {wrong} was taken")
            began = anyio.current_time()
            stays = await _inserted(bank, texts)
            if lost := sorted(stays - await bank.found(" ".join(texts.values()))):
                raise CheckFailure(f"{lost} are not found at once")
            if left := await bank.loses(" ".join(texts.values()), {"brief", "shortened"}, TTL_OVER_S):
                raise CheckFailure(f"with ttl_seconds {TTL_S} {sorted(left)} are still found after {TTL_OVER_S} s")
            # The brief ones may be gone too early; those of a minute have a whole second for that.
            await anyio.sleep(max(0.0, began + _WHOLE_SECOND_S - anyio.current_time()))
            if lost := sorted(stays - await bank.found(" ".join(texts.values()))):
                raise CheckFailure(f"{lost} are gone after {TTL_OVER_S} s", wanted="only what has the ttl 1 expires")
            if len(await bank.chunks(texts["brief"], 1)) != 1:
                raise CheckFailure("with max_chunks 1 a query finds nothing: the expired ones take the places")
            await bank.put({"brief": texts["brief"]})
            if "brief" not in await bank.found(texts["brief"]):
                raise CheckFailure("a document that expired and was inserted again is not found")


async def _inserted(bank: OwnBank, texts: dict[str, str]) -> set[str]:
    """Insert the documents; two of them expire. Returns the others."""

    async def put(*names: str, ttl: int | None = None) -> None:
        await bank.put({name: texts[name] for name in names}, **({} if ttl is None else {"ttl_seconds": ttl}))

    stays = {*_STAYS}
    try:
        await put("forever", ttl=_LONGEST_TTL_S)
    except InvalidRequestError:
        stays.discard("forever")
    await put("shortened")
    await put("minute", ttl=60)
    await put("hour", ttl=3600)
    await put("brief", "kept", "prolonged", ttl=TTL_S)
    await put("kept")
    await put("prolonged", ttl=60)
    await put("shortened", ttl=TTL_S)
    return stays

"""Checks that a stream says the same however the network splits it, within characters too."""

from __future__ import annotations

import json
from typing import Any

from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import instead_of_the_last, is_text, reframed
from llamastack_conformance.running import Running
from llamastack_conformance.suites.inference_calls import text_of_piece
from llamastack_conformance.suites.inference_kinds import KindChecks, primed
from llamastack_conformance.suites.inference_wholes import said

_MARK = "ä🦙é\u0301שלום\u2028"
_SIZES = (1, 7, 64)
_MOST_PIECES = 2000


class SplitChecks(KindChecks):
    """The checks of streams over a network that splits them."""

    @check(
        "wholes.splits",
        tier=Tier.live,
        capability="streaming",
        mend="decode whole lines or events, never the blocks that the network delivers",
    )
    async def test_wholes_splits(self, subject: Subject) -> None:
        """a stream of the backend says the same whether it arrives at once or byte by byte, with characters of several
        bytes in it
        """
        async with subject.shared(tapped=True) as running:
            for kind in await self.kinds(running):
                if not kind.is_native or not kind.streamed:
                    continue
                first = await primed(running, kind)
                expected = said(first)
                changed, answer = _with_mark(first, _last_answer(running))
                for size in (len(answer), *_SIZES):
                    running.tap.disturb(inject=instead_of_the_last(running.tap, _split(answer, size)))
                    found = said(await kind.make("Say qzplain."))
                    if (found.text, found.stop_reason, found.usage) != (
                        changed,
                        expected.stop_reason,
                        expected.usage,
                    ):
                        raise CheckFailure(
                            f"{kind.name}, in pieces of {min(size, len(answer))} bytes: {found}",
                            wanted=f"{changed!r}, {expected.stop_reason}, {expected.usage}",
                        )


def _last_answer(running: Running) -> bytes:
    """The answer that the tap gives to the latest request with a body."""
    asked = [request for request in running.tap.requests if request.body]
    answer = running.tap.inject(asked[-1]) if asked and running.tap.inject else None
    if not isinstance(answer, bytes):
        raise NotApplicable("the provider sends requests without a body")
    return answer


def _with_mark(pieces: list[Any], answer: bytes) -> tuple[str, bytes]:
    """The text and the answer with other characters in place of one piece; unchanged where that is impossible."""
    texts = [text_of_piece(piece) for piece in pieces]
    whole = "".join(texts)
    if not is_text(answer):
        return whole, answer
    for text in sorted(set(texts), key=len, reverse=True):
        quoted = json.dumps(text).encode()
        body = reframed(answer, lambda body: body)
        if text.isascii() and text.strip().isalpha() and len(text) > 2 and body.count(quoted) == texts.count(text):
            mark = json.dumps(text[0] + _MARK, ensure_ascii=False).encode()
            changed = "".join(text[0] + _MARK if one == text else one for one in texts)
            return changed, reframed(answer, lambda body, q=quoted, m=mark: body.replace(q, m))  # type: ignore[misc]
    return whole, answer


def _split(answer: bytes, size: int) -> list[bytes]:
    """The head in one piece, and the body in pieces of `size`, or larger ones where there would be too many."""
    head, end, content = answer.partition(b"\r\n\r\n")
    step = max(size, -(-len(content) // _MOST_PIECES))
    return [head + end, *(content[at : at + step] for at in range(0, len(content), step))]

"""Checks of the log probabilities in answers of the backend, to which the suite adds them in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from llamastack.api.common import UserMessage
from llamastack.api.inference import ChatCompletionResponseStreamChunk, LogProbConfig
from llamastack_adapters.chat_request import ChatRequest
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.replaying import changed_events, instead_of_the_last, is_text, target_of
from llamastack_conformance.suites.inference_calls import BRIEF, read, text_of_piece
from llamastack_conformance.suites.inference_ways import AskingChecks

_TOP = 2
_GIVEN = 5


class LogprobChecks(AskingChecks):
    """The checks of log probabilities."""

    @check(
        "logprobs.alternatives",
        tier=Tier.live,
        capability="logprobs",
        mend="return the chosen token and the `top_k` likeliest ones of each place, in each piece of a stream too",
    )
    async def test_logprobs_alternatives(self, subject: Subject) -> None:
        """of five likely tokens per place, a call with `top_k` 2 gets the chosen one and two, whole and in each piece
        of a stream
        """
        tried = False
        async with subject.shared(tapped=True) as running:
            if not subject.declares("chat_completion"):
                raise NotApplicable("the provider declares no `chat_completion`")
            model = await self._model(running)
            async for way, _ in self.replaying_ways(running):
                request = next((one for one in reversed(running.tap.requests) if one.body), None)
                answer = running.tap.inject(request) if request and running.tap.inject else None
                if not way.native or request is None or not isinstance(answer, bytes) or not is_text(answer):
                    continue
                changed = changed_events(answer, _with_logprobs)
                if changed is None or not target_of(request).endswith(b"/chat/completions"):
                    continue
                tried = True
                running.tap.disturb(inject=instead_of_the_last(running.tap, changed))
                asked = ChatRequest(
                    model, [UserMessage(content="Say qzplain.")], BRIEF, logprobs=LogProbConfig(top_k=_TOP)
                )
                _check_places(way.name, await read(await way.ask(running, asked)))
        if not tried:
            raise NotApplicable("the backend does not speak OpenAI's dialect")


def _with_logprobs(events: Sequence[Any]) -> bool:
    """Add log probabilities of one token to each choice with a text; whether there was one."""
    found = False
    for event in events:
        for choice in event.get("choices") or () if isinstance(event, dict) else ():
            text = (choice.get("message") or choice.get("delta") or {}).get("content")
            if isinstance(text, str) and text:
                others = [(f"qz{number}", -1.0 - number) for number in range(1, _GIVEN)]
                tops = [{"token": token, "logprob": value, "bytes": None} for token, value in ((text, -0.25), *others)]
                choice["logprobs"] = {"content": [{**tops[0], "top_logprobs": tops}]}
                found = True
    return found


def _check_places(what: str, result: Any) -> None:
    """Raise CheckFailure if a whole reply or a piece with text has no, too few or too many log probabilities."""
    if not isinstance(result, list):
        _check_some(what, result.logprobs)
        return
    for piece in result:
        event = piece.event if isinstance(piece, ChatCompletionResponseStreamChunk) else piece
        if text_of_piece(piece):
            _check_some(f"{what}, the piece {text_of_piece(piece)!r}", event.logprobs)


def _check_some(what: str, places: Iterable[Any] | None) -> None:
    found: list[Mapping[str, float]] = [place.logprobs_by_token for place in places or ()]
    if not found or any(not _TOP <= len(tokens) <= _TOP + 1 for tokens in found):
        shown = json.dumps(found)[:300]
        raise CheckFailure(f"{what}: {shown}", wanted=f"the chosen token and the {_TOP} likeliest, per place")

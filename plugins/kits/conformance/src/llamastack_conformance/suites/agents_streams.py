"""Checks of streamed turns: what the events say is what the turn has, and a closed stream closes the model's."""

from __future__ import annotations

from typing import Any

from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.scripted_model import Reply
from llamastack_conformance.suites.agent_calls import QUESTION, AgentCalls
from llamastack_conformance.watching import becomes

_TEXT = "  One two  three, four.\n\nFive 🦙 six. "
_CLOSED_BY_S = 5.0


class AgentStreamChecks(AgentCalls):
    """The checks of streamed turns."""

    @check(
        "streaming.text",
        tier=Tier.live,
        capability="streaming",
        mend="pass on each piece of the model's text once, unchanged",
    )
    async def test_streaming_text(self, subject: Subject) -> None:
        """the pieces of a step's text, joined, are the text of the step, and those of the last step are the output of
        the turn, with its white space
        """
        async with self.scripted(subject) as (running, model):
            model.reply(Reply(_TEXT))
            payloads = await self.streamed(running, await self.new_session(running))
        joined = ""
        for payload in payloads:
            kind = str(payload.event_type)
            if kind == "step_start":
                joined = ""
            elif kind == "step_progress":
                joined += payload.model_response_text_delta or ""
            elif kind == "step_complete" and payload.step_details.step_type == "inference":
                _expect_text("the step", joined, payload.step_details.model_response.content)
        _expect_text("the turn", joined, payloads[-1].turn.output_message.content)

    @check(
        "streaming.ids",
        tier=Tier.live,
        capability="streaming",
        mend="make the ids of a turn and of a step once, and keep the turn that the last event has",
    )
    async def test_streaming_ids(self, subject: Subject) -> None:
        """all events of a turn and of a step have the same ids, which are those of the whole turn; the turn that is
        kept is that of the last event
        """
        async with self.scripted(subject) as (running, _):
            ids = await self.new_session(running)
            payloads = await self.streamed(running, ids)
            turn = payloads[-1].turn
            kept = (
                await running.calls.get_agent_turn(**ids, turn_id=turn.turn_id)
                if subject.declares("get_turn")
                else turn
            )
        details = [p.step_details for p in payloads if p.event_type == "step_complete"]
        turn_ids = {payloads[0].turn_id, turn.turn_id, *(step.turn_id for step in [*details, *turn.steps])}
        if len(turn_ids) > 1:
            raise CheckFailure(f"the events of one turn have the turn ids {turn_ids}")
        begun = [p.step_id for p in payloads if p.event_type == "step_start"]
        going = {p.step_id for p in payloads if p.event_type == "step_progress"}
        ended, whole = [step.step_id for step in details], [step.step_id for step in turn.steps]
        if not begun == ended == whole or going - set(whole):
            raise CheckFailure(f"steps {begun} begin, {going} go on, {ended} end, and the turn has {whole}")
        if kept != turn:
            raise CheckFailure(f"{kept}", wanted=f"{turn}")

    @check(
        "streaming.closed",
        tier=Tier.live,
        capability="streaming",
        mend="read the model's stream inside `async with closing(reply)`; keep a turn when it is complete",
    )
    async def test_streaming_closed(self, subject: Subject) -> None:
        """the model's stream is closed when a turn's stream is closed early, and when it ends; a turn that was cut off
        is not kept as complete
        """
        async with self.scripted(subject) as (running, model):
            ids = await self.new_session(running)
            await self.streamed(running, ids)
            pieces: Any = await self.take_turn(running, ids, stream=True)
            async for piece in pieces:
                if piece.event.payload.event_type == "step_progress":
                    break
            await pieces.aclose()
            if not await becomes(lambda: model.closed == model.opened, _CLOSED_BY_S):
                raise CheckFailure(f"{model.closed} of {model.opened} streams of the model are closed")
            if subject.declares("get_session"):
                session = await running.calls.get_agent_session(**ids)
                whole = [turn for turn in session.turns if turn.completed_at is not None]
                if len(whole) != 1:
                    raise CheckFailure(f"{len(whole)} complete turns", wanted="the one that ended, not the one cut off")
            await self.take_turn(running, ids, QUESTION)


def _expect_text(what: str, joined: str, whole: Any) -> None:
    if joined != whole or joined != _TEXT:
        raise CheckFailure(f"the pieces are {joined!r}, and the text of {what} is {whole!r}", wanted=f"{_TEXT!r}")

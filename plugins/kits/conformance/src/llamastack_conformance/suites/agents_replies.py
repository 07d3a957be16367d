"""Checks of what an agents provider makes of the model's replies and errors, and of what it is not able to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llamastack.api.agent_tools import FunctionCallToolDefinition
from llamastack.api.agents import Attachment
from llamastack.api.common import StopReason
from llamastack.provider.errors import (
    ContextLengthExceededError,
    LlamaStackError,
    NotSupportedError,
    ProviderUnavailableError,
)
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.scripted_model import Reply
from llamastack_conformance.suites.agent_calls import QUESTION, AgentCalls
from llamastack_conformance.suites.agents_history import last_call

_TEXTS = ("  leading and trailing \n", "🦙 Lama, el niño, 日本語\u200d", "a\tb\r\n\r\nc", '{"a": [1, "\\\\"]}')
_WORD = "zanzibar-7f3a"


class AgentReplyChecks(AgentCalls):
    """The checks of replies, errors and refusals."""

    @check(
        "create_turn.model-fails",
        tier=Tier.live,
        capability="create_turn",
        mend="let the error of the inference API through; keep a turn when it is complete",
    )
    async def test_create_turn_model_fails(self, subject: Subject) -> None:
        """if the model fails, at once or within its reply, the turn fails with its error; a failed turn is not kept as
        complete, and the model gets neither its messages nor a part of its reply in later turns
        """
        errors = (ContextLengthExceededError("too long in this check"), ProviderUnavailableError("down in this check"))
        async with self.scripted(subject) as (running, model):
            ids = await self.new_session(running)
            for error in errors:
                for text in ("", _WORD):
                    model.reply(lambda call, text=text, error=error: Reply(text, error=error))  # type: ignore[misc]
                    for streams in (False, True) if subject.declares("streaming") else (False,):
                        await self._expect_error(running, ids, error, streams)
            model.reply()
            await self.take_turn(running, ids)
            wanted = [("system", "You are brief."), ("user", QUESTION)]
            if last_call(model).said != wanted:
                raise CheckFailure(f"after failed turns the model gets {last_call(model).said}", wanted=f"{wanted}")
            if subject.declares("get_session"):
                session = await running.calls.get_agent_session(**ids)
                whole = [turn for turn in session.turns if turn.completed_at is not None]
                if len(whole) != 1:
                    raise CheckFailure(f"{len(whole)} complete turns", wanted="the last one: the others failed")

    async def _expect_error(
        self, running: Running, ids: Mapping[str, str], error: LlamaStackError, streams: bool
    ) -> None:
        how = "a streamed turn" if streams else "a turn"
        try:
            got = await (self.streamed(running, ids) if streams else self.take_turn(running, ids))
        except LlamaStackError as raised:
            if type(raised) is not type(error) or error.message not in raised.message:
                found = f"{how} raises {type(raised).__name__}: {raised.message}"
                raise CheckFailure(found, wanted=f"{type(error).__name__}: {error.message}") from None
            return
        raise CheckFailure(f"{how} returns {str(got)[-200:]}", wanted=f"{type(error).__name__}: {error.message}")

    @check(
        "create_turn.stop-reason",
        tier=Tier.live,
        capability="create_turn",
        mend="copy the stop reason of the model into the step and the output message",
    )
    async def test_create_turn_stop_reason(self, subject: Subject) -> None:
        """a turn whose reply was cut at `max_tokens` has the model's stop reason in its output and its last step"""
        async with self.scripted(subject) as (running, model):
            ids = await self.new_session(running)
            for reason in (StopReason.out_of_tokens, StopReason.end_of_turn):
                model.reply(Reply("Paris is", reason))
                for turn in await self._both_ways(running, ids, QUESTION):
                    found = {turn.output_message.stop_reason, turn.steps[-1].model_response.stop_reason}
                    if found != {reason}:
                        raise CheckFailure(f"{found}", wanted=f"{reason}")

    async def _both_ways(self, running: Running, ids: Mapping[str, str], text: str) -> list[Any]:
        """A turn, and a streamed one if the provider streams."""
        turns = [await self.take_turn(running, ids, text)]
        if running.subject.declares("streaming"):
            turns.append((await self.streamed(running, ids, text))[-1].turn)
        return turns

    @check(
        "create_turn.text",
        tier=Tier.live,
        capability="create_turn",
        mend="change no text on its way: strip nothing, and encode nothing",
    )
    async def test_create_turn_text(self, subject: Subject) -> None:
        """texts with white space at their ends, emoji and quotes are unchanged in what the model gets, in the turn, and
        in the session that is read again; the session has its name
        """
        async with self.scripted(subject) as (running, model):
            agent_id = (await self.new_agent(running)).agent_id
            name = _TEXTS[1]
            made = await running.calls.create_agent_session(agent_id=agent_id, session_name=name)
            ids = {"agent_id": agent_id, "session_id": made.session_id}
            turns = []
            for text in _TEXTS:
                model.reply(Reply(text[::-1]))
                for turn in await self._both_ways(running, ids, text):
                    _expect_texts("a turn", turn, text)
                    turns.append((text, turn))
                if last_call(model).said[-1] != ("user", text):
                    raise CheckFailure(f"the model gets {last_call(model).said[-1][1]!r}", wanted=f"{text!r}")
            if subject.declares("get_session"):
                session = await running.calls.get_agent_session(**ids)
                if session.session_name != name:
                    raise CheckFailure(f"the name {session.session_name!r}", wanted=f"{name!r}")
                for (text, _), turn in zip(turns, session.turns, strict=True):
                    _expect_texts("a kept turn", turn, text)

    @check(
        "create_agent.tools",
        tier=Tier.live,
        capability="create_agent",
        mend="raise NotSupportedError in `create_agent` for tools and shields that the provider does not have",
    )
    async def test_create_agent_tools(self, subject: Subject) -> None:
        """tools reach the model, or the agent is refused with NotSupportedError (501); a shield that there is not fails
        the turn, or the agent is refused: nothing of a config is ignored
        """
        tool = FunctionCallToolDefinition(function_name=_WORD, description="Says where it is.", parameters={})
        async with self.scripted(subject) as (running, model):
            try:
                await self.take_turn(running, await self.new_session(running, tools=[tool]))
            except NotSupportedError:
                pass
            else:
                call = last_call(model)
                if _WORD not in f"{call.tools} {call.said}":
                    raise CheckFailure("an agent with a tool is made, and its model does not get the tool")
            for name in ("input_shields", "output_shields"):
                try:
                    await self.take_turn(
                        running, await self.new_session(running, None, **{name: [subject.settings.unserved]})
                    )
                except LlamaStackError:
                    continue
                raise CheckFailure(
                    f"a turn passes {name} that are not there", wanted="NotSupportedError, or NotFoundError"
                )

    @check(
        "create_turn.attachments",
        tier=Tier.live,
        capability="create_turn",
        mend="raise NotSupportedError for attachments that the provider does not read",
    )
    async def test_create_turn_attachments(self, subject: Subject) -> None:
        """the text of an attachment reaches the model or a memory bank, or the turn is refused with NotSupportedError
        (501): attachments are not ignored
        """
        async with self.scripted(subject) as (running, model):
            attachment = Attachment(content=f"The word is {_WORD}.", mime_type="text/plain")
            for streams in (False, True) if subject.declares("streaming") else (False,):
                ids = await self.new_session(running)
                try:
                    turn = await self.take_turn(running, ids, attachments=[attachment], stream=streams)
                    if streams:
                        turn = [piece async for piece in turn][-1].event.payload.turn
                except NotSupportedError:
                    continue
                looked = any(step.step_type == "memory_retrieval" for step in turn.steps)
                if not looked and _WORD not in str(last_call(model).said):
                    raise CheckFailure("a turn with an attachment is answered, and the model does not get it")


def _expect_texts(what: str, turn: Any, text: str) -> None:
    found = turn.input_messages[0].content, turn.output_message.content
    if found != (text, text[::-1]):
        raise CheckFailure(f"{what} has the texts {found}", wanted=f"{(text, text[::-1])}")

"""Checks of agents with many sessions, and of what is deleted while a turn goes on."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

import anyio

from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.scripted_model import ScriptedModel
from llamastack_conformance.suites.agent_calls import QUESTION, AgentCalls, expect_not_found

_MANY = 30
_WAITS_S = 0.1


class AgentLastingChecks(AgentCalls):
    """The checks of many sessions, and of deletions during turns."""

    @check(
        "get_turn.many-sessions",
        tier=Tier.live,
        capability="get_turn",
        mend="read every page of the agent's sessions",
    )
    async def test_get_turn_many_sessions(self, subject: Subject) -> None:
        """of an agent with thirty sessions every turn and every step is found without its session's id"""
        async with self.scripted(subject) as (running, _):
            agent_id = (await self.new_agent(running)).agent_id
            sessions = [await self.new_session(running, agent_id) for _ in range(_MANY)]
            turns = [await self.take_turn(running, ids, f"{QUESTION} {n}") for n, ids in enumerate(sessions)]
            for number, turn in enumerate(turns):
                named = {"agent_id": agent_id, "turn_id": turn.turn_id}
                try:
                    found = await running.calls.get_agent_turn(**named)
                    if subject.declares("get_step"):
                        await running.calls.get_agent_step(**named, step_id=turn.steps[0].step_id)
                except LlamaStackError as error:
                    where = f"the turn of session {number + 1} of {_MANY}"
                    raise CheckFailure(f"{where}: {type(error).__name__}: {error.message}") from None
                if found != turn:
                    raise CheckFailure(f"{found}", wanted=f"{turn}")

    @check(
        "delete_session.during-turn",
        tier=Tier.live,
        capability="delete_session",
        mend="add a turn to a session in one step that fails if the session is gone",
    )
    async def test_delete_session_during_turn(self, subject: Subject) -> None:
        """a session that is deleted during a turn stays NotFoundError (404) when the turn has ended, and so do the
        sessions of an agent that is deleted during a turn
        """
        self.need(subject, "get_session")
        async with self.scripted(subject) as (running, model):
            for streams in (False, True) if subject.declares("streaming") else (False,):
                for deletes_agent in (False, True) if subject.declares("delete_agent") else (False,):
                    ids = await self.new_session(running)
                    await self._delete_during_turn(running, model, ids, deletes_agent, streams)
                    what = f"a session {'of an agent ' if deletes_agent else ''}that was deleted during a turn"
                    await expect_not_found(running.calls.get_agent_session(**ids), what)

    async def _delete_during_turn(
        self, running: Running, model: ScriptedModel, ids: Mapping[str, str], deletes_agent: bool, streams: bool
    ) -> None:
        """Take a turn, and delete what it belongs to while the model answers. The turn may fail."""
        begun, ended = anyio.Event(), anyio.Event()

        async def delete() -> None:
            await begun.wait()
            if deletes_agent:
                await running.calls.delete_agent(agent_id=ids["agent_id"])
            else:
                await running.calls.delete_agent_session(**ids)
            ended.set()

        async def wait(_: int) -> None:
            if begun.is_set():
                return
            begun.set()
            with anyio.move_on_after(_WAITS_S):  # a provider may delete after the turn
                await ended.wait()

        model.wait_before_pieces(wait)
        async with anyio.create_task_group() as group:
            group.start_soon(delete)
            with suppress(LlamaStackError):  # it is deleted, and the turn cannot be kept
                await (self.streamed(running, ids) if streams else self.take_turn(running, ids))
            if not begun.is_set():
                group.cancel_scope.cancel()
                raise NotApplicable("the turn asks no model of the stack by `chat_completion`")

"""The suite of the API agents."""

from __future__ import annotations

import uuid

from llamastack_conformance.checks import CheckFailure, NotApplicable, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.shapes import well_formed, well_formed_piece
from llamastack_conformance.suites.agent_calls import QUESTION, expect_not_found
from llamastack_conformance.suites.agents_history import AgentHistoryChecks
from llamastack_conformance.suites.agents_ids import AgentIdChecks
from llamastack_conformance.suites.agents_lasting import AgentLastingChecks
from llamastack_conformance.suites.agents_replies import AgentReplyChecks
from llamastack_conformance.suites.agents_streams import AgentStreamChecks
from llamastack_conformance.suites.suite import refused


class AgentsConformance(AgentHistoryChecks, AgentReplyChecks, AgentStreamChecks, AgentIdChecks, AgentLastingChecks):
    """All checks of an agents provider. Source of the shapes: `llamastack.api.agents`."""

    # ---- agents and sessions -------------------------------------------------------------------------------------

    @check("create_agent.works", tier=Tier.live, capability="create_agent", mend="give every agent its own id")
    async def test_create_agent_works(self, subject: Subject) -> None:
        """each agent gets its own id"""
        async with subject.shared() as running:
            made = [await self.new_agent(running) for _ in range(2)]
        for agent in made:
            well_formed(subject.method("create_agent"), agent)
        if not made[0].agent_id or made[0].agent_id == made[1].agent_id:
            raise CheckFailure(f"ids {made[0].agent_id!r} and {made[1].agent_id!r}")

    test_create_agent_refused = refused("create_agent")

    @check(
        "create_session.works",
        tier=Tier.live,
        capability="create_session",
        mend="raise NotFoundError for an unknown agent",
    )
    async def test_create_session_works(self, subject: Subject) -> None:
        """each session of an agent gets its own id; a session of an unknown agent is NotFoundError (404)"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            again = await running.calls.create_agent_session(agent_id=ids["agent_id"], session_name="a session")
            if again.session_id == ids["session_id"]:
                raise CheckFailure(f"two sessions with the id {again.session_id}")
            call = running.calls.create_agent_session(agent_id=uuid.uuid4().hex, session_name="s")
            await expect_not_found(call, "a session of an unknown agent")

    test_create_session_refused = refused("create_session")

    @check(
        "create_turn.works",
        tier=Tier.live,
        capability="create_turn",
        mend="return a Turn with the unchanged messages, the steps, and the output message",
    )
    async def test_create_turn_works(self, subject: Subject) -> None:
        """a turn has its input, at least one step, an output, its session, and the times of its start and end"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            turn = await self.take_turn(running, ids)
        well_formed(subject.method("create_agent_turn"), turn)
        if turn.session_id != ids["session_id"] or not self.answers(QUESTION, turn):
            raise CheckFailure(f"session {turn.session_id} with input {turn.input_messages}")
        if not turn.steps or not str(turn.output_message.content).strip():
            raise CheckFailure(f"{len(turn.steps)} steps and the output {turn.output_message.content!r}")
        if turn.completed_at is None or turn.completed_at < turn.started_at:
            raise CheckFailure(f"from {turn.started_at} to {turn.completed_at}")

    test_create_turn_refused = refused("create_turn")

    @check(
        "streaming.order",
        tier=Tier.live,
        capability="streaming",
        mend="yield turn_start, then the start, progress and completion of each step, then turn_complete with the Turn",
    )
    async def test_streaming_order(self, subject: Subject) -> None:
        """a streamed turn begins with turn_start, ends with turn_complete, and every step that starts completes"""
        async with subject.shared() as running:
            pieces = [piece async for piece in await self.stream(running)]
        for piece in pieces:
            well_formed_piece(subject.method("create_agent_turn"), piece)
        payloads = [piece.event.payload for piece in pieces]
        kinds = [str(payload.event_type) for payload in payloads]
        if not kinds or kinds[0] != "turn_start" or kinds[-1] != "turn_complete" or kinds.count("turn_complete") != 1:
            raise CheckFailure(f"events {kinds[:3]} ... {kinds[-3:]}")
        if kinds.count("step_start") < 1 or kinds.count("step_start") != kinds.count("step_complete"):
            raise CheckFailure(f"{kinds.count('step_start')} starts and {kinds.count('step_complete')} ends of steps")

    test_streaming_refused = refused("streaming")

    # ---- reading again --------------------------------------------------------------------------------------------

    @check("get_turn.works", tier=Tier.live, capability="get_turn", mend="keep turns as they were returned")
    async def test_get_turn_works(self, subject: Subject) -> None:
        """a turn can be read again, unchanged; an unknown turn is NotFoundError (404)"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            turn = await self.take_turn(running, ids)
            again = await running.calls.get_agent_turn(**ids, turn_id=turn.turn_id)
            if again != turn:
                raise CheckFailure(f"{again}", wanted=f"{turn}")
            await expect_not_found(running.calls.get_agent_turn(**ids, turn_id=uuid.uuid4().hex), "an unknown turn")

    test_get_turn_refused = refused("get_turn")

    @check("get_step.works", tier=Tier.live, capability="get_step", mend="keep steps as they were returned")
    async def test_get_step_works(self, subject: Subject) -> None:
        """a step of a turn can be read again, unchanged"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            turn = await self.take_turn(running, ids)
            step = turn.steps[0]
            again = await running.calls.get_agent_step(**ids, turn_id=turn.turn_id, step_id=step.step_id)
        well_formed(subject.method("get_agent_step"), again)
        if again.step != step:
            raise CheckFailure(f"{again.step}", wanted=f"{step}")

    test_get_step_refused = refused("get_step")

    @check(
        "get_session.works", tier=Tier.live, capability="get_session", mend="keep each session's turns in their order"
    )
    async def test_get_session_works(self, subject: Subject) -> None:
        """a session has its own turns in their order, and no others"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            turns = [await self.take_turn(running, ids, text) for text in ("Hello.", "And again.")]
            await self.call(running)
            session = await running.calls.get_agent_session(**ids)
        well_formed(subject.method("get_agent_session"), session)
        if [turn.turn_id for turn in session.turns] != [turn.turn_id for turn in turns]:
            raise CheckFailure(f"{len(session.turns)} turns", wanted="the two that were taken, in their order")

    test_get_session_refused = refused("get_session")

    @check("delete_session.works", tier=Tier.live, capability="delete_session", mend="forget the session and its turns")
    async def test_delete_session_works(self, subject: Subject) -> None:
        """a deleted session is NotFoundError (404) from then on"""
        if not subject.declares("get_session"):
            raise NotApplicable("the provider declares no `get_session`")
        async with subject.shared() as running:
            ids = await self.new_session(running)
            await running.calls.delete_agent_session(**ids)
            await expect_not_found(running.calls.get_agent_session(**ids), "a deleted session")

    test_delete_session_refused = refused("delete_session")

    @check("delete_agent.works", tier=Tier.live, capability="delete_agent", mend="forget the agent and its sessions")
    async def test_delete_agent_works(self, subject: Subject) -> None:
        """a turn with a deleted agent is NotFoundError (404)"""
        async with subject.shared() as running:
            ids = await self.new_session(running)
            await running.calls.delete_agent(agent_id=ids["agent_id"])
            await expect_not_found(self.take_turn(running, ids), "a turn with a deleted agent")

    test_delete_agent_refused = refused("delete_agent")

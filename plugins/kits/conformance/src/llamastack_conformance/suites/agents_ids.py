"""Checks of the ids of an agents provider: each opens what it was made for, and nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from itertools import takewhile
from typing import Any

from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.suites.agent_calls import QUESTION, AgentCalls, expect_not_found

_MANY = 30
_IDS = 8
_DIFFERENT = 8
"""The fewest characters in which ids of the same kind must differ: those of a counter differ in one or two."""


class AgentIdChecks(AgentCalls):
    """The checks of ids of agents, sessions, turns and steps."""

    async def _turns(self, running: Running, ids: Mapping[str, str]) -> list[str]:
        """The ids of the turns of a session."""
        return [turn.turn_id for turn in (await running.calls.get_agent_session(**ids)).turns]

    @check(
        "create_session.other-agent",
        tier=Tier.live,
        capability="create_session",
        mend="look for a session among those of its agent",
    )
    async def test_create_session_other_agent(self, subject: Subject) -> None:
        """a session with the id of another agent is NotFoundError (404) for a turn, a read and a deletion, and none of
        these changes it
        """
        self.need(subject, "create_turn")
        async with subject.shared() as running:
            ids = await self.new_session(running)
            turn = await self.take_turn(running, ids)
            wrong = {**ids, "agent_id": (await self.new_agent(running)).agent_id}
            await expect_not_found(self.take_turn(running, wrong), "a turn with another agent's session")
            if subject.declares("delete_session"):
                call = running.calls.delete_agent_session(**wrong)
                await expect_not_found(call, "a deletion of another agent's session")
            if subject.declares("get_session"):
                await expect_not_found(running.calls.get_agent_session(**wrong), "another agent's session")
                if await self._turns(running, ids) != [turn.turn_id]:
                    raise CheckFailure("calls with the id of another agent have changed the session")

    @check(
        "delete_session.siblings",
        tier=Tier.live,
        capability="delete_session",
        mend="delete the one session with its turns; raise NotFoundError if there is none",
    )
    async def test_delete_session_siblings(self, subject: Subject) -> None:
        """a deleted session, and a turn of it, stay NotFoundError (404), also for a second deletion; the other sessions
        of the agent stay
        """
        self.need(subject, "create_turn", "get_session")
        async with subject.shared() as running:
            gone = await self.new_session(running)
            stays = await self.new_session(running, gone["agent_id"])
            old = await self.take_turn(running, gone)
            kept = [(await self.take_turn(running, stays)).turn_id]
            await running.calls.delete_agent_session(**gone)
            for _ in range(2):
                await self._expect_gone(running, gone, old)
                if await self._turns(running, stays) != kept:
                    raise CheckFailure(
                        f"turns {await self._turns(running, stays)} of the other session", wanted=f"{kept}"
                    )
                kept.append((await self.take_turn(running, stays)).turn_id)
            unknown = {**gone, "session_id": uuid.uuid4().hex}
            await expect_not_found(running.calls.delete_agent_session(**unknown), "a deletion of an unknown session")

    async def _expect_gone(self, running: Running, ids: Mapping[str, str], turn: Any) -> None:
        await expect_not_found(running.calls.get_agent_session(**ids), "a deleted session")
        await expect_not_found(self.take_turn(running, ids), "a turn with a deleted session")
        await expect_not_found(running.calls.delete_agent_session(**ids), "a second deletion of a session")
        if running.subject.declares("get_turn"):
            for named in (ids, {"agent_id": ids["agent_id"]}):
                call = running.calls.get_agent_turn(**named, turn_id=turn.turn_id)
                await expect_not_found(call, "a turn of a deleted session")

    @check(
        "delete_agent.siblings",
        tier=Tier.live,
        capability="delete_agent",
        mend="delete the one agent with its sessions; raise NotFoundError if there is none",
    )
    async def test_delete_agent_siblings(self, subject: Subject) -> None:
        """a deleted agent, with its sessions and turns, stays NotFoundError (404), also for a second deletion; other
        agents stay
        """
        self.need(subject, "create_turn", "get_session")
        async with subject.shared() as running:
            gone, stays = await self.new_session(running), await self.new_session(running)
            old = await self.take_turn(running, gone)
            kept = [(await self.take_turn(running, stays)).turn_id]
            calls, agent = running.calls, {"agent_id": gone["agent_id"]}
            await calls.delete_agent(**agent)
            for _ in range(2):
                await expect_not_found(calls.get_agent_session(**gone), "a session of a deleted agent")
                await expect_not_found(self.take_turn(running, gone), "a turn with a deleted agent")
                call = calls.create_agent_session(**agent, session_name="s")
                await expect_not_found(call, "a new session of a deleted agent")
                await expect_not_found(calls.delete_agent(**agent), "a second deletion of an agent")
                if subject.declares("get_turn"):
                    await expect_not_found(calls.get_agent_turn(**agent, turn_id=old.turn_id), "a deleted agent's turn")
                if await self._turns(running, stays) != kept:
                    raise CheckFailure(
                        f"turns {await self._turns(running, stays)} of the other agent", wanted=f"{kept}"
                    )
                kept.append((await self.take_turn(running, stays)).turn_id)
            await expect_not_found(calls.delete_agent(agent_id=uuid.uuid4().hex), "a deletion of an unknown agent")

    @check(
        "get_session.turn-ids",
        tier=Tier.live,
        capability="get_session",
        mend="return the turns whose ids are in `turn_ids`; all, only if it is None",
    )
    async def test_get_session_turn_ids(self, subject: Subject) -> None:
        """with `turn_ids`, a session has only these turns, in the order of the session, and ids that are not its own
        add none; with an empty list it has no turns
        """
        self.need(subject, "create_turn")
        async with subject.shared() as running:
            ids = await self.new_session(running)
            made = [(await self.take_turn(running, ids, f"{QUESTION} {number}")).turn_id for number in range(4)]
            other = await self.take_turn(running, await self.new_session(running, ids["agent_id"]))
            asked = {
                "the third and the first": ([made[2], made[0]], [made[0], made[2]]),
                "no ids": ([], []),
                "an unknown id": ([uuid.uuid4().hex], []),
                "an id of another session and the last": ([other.turn_id, made[3]], [made[3]]),
            }
            for name, (turn_ids, wanted) in asked.items():
                found = await running.calls.get_agent_session(**ids, turn_ids=turn_ids)
                if [turn.turn_id for turn in found.turns] != wanted:
                    got = [turn.turn_id for turn in found.turns]
                    raise CheckFailure(f"{name}: turns {got} of {made}", wanted=f"{wanted}")

    @check(
        "get_turn.other-session",
        tier=Tier.live,
        capability="get_turn",
        mend="look in all sessions of the agent only if `session_id` is None",
    )
    async def test_get_turn_other_session(self, subject: Subject) -> None:
        """a turn is found without its session's id; with the id of another session, or of another agent, it is
        NotFoundError (404)
        """
        self.need(subject, "create_turn")
        async with subject.shared() as running:
            ids = await self.new_session(running)
            other = await self.new_session(running, ids["agent_id"])
            turns = [await self.take_turn(running, named) for named in (ids, other)]
            for turn in turns:
                found = await running.calls.get_agent_turn(agent_id=ids["agent_id"], turn_id=turn.turn_id)
                if found != turn:
                    raise CheckFailure(f"without `session_id`: {found}", wanted=f"{turn}")
            call = running.calls.get_agent_turn(**other, turn_id=turns[0].turn_id)
            await expect_not_found(call, "a turn with the id of another session")
            stranger = await self.new_session(running)
            call = running.calls.get_agent_turn(agent_id=stranger["agent_id"], turn_id=turns[0].turn_id)
            await expect_not_found(call, "a turn with the id of another agent")
            unknown = {**ids, "session_id": uuid.uuid4().hex}
            call = running.calls.get_agent_turn(**unknown, turn_id=turns[0].turn_id)
            await expect_not_found(call, "a turn with the id of an unknown session")

    @check(
        "get_step.unknown",
        tier=Tier.live,
        capability="get_step",
        mend="find the turn first, then the step among those of the turn",
    )
    async def test_get_step_unknown(self, subject: Subject) -> None:
        """a step is found by the ids of its turn and its session; with those of another, or if it is unknown, it is
        NotFoundError (404)
        """
        self.need(subject, "create_turn")
        async with subject.shared() as running:
            ids = await self.new_session(running)
            other = await self.new_session(running, ids["agent_id"])
            turn, later = await self.take_turn(running, ids), await self.take_turn(running, ids)
            step_id = turn.steps[0].step_id
            wrong = {
                "an unknown step": {**ids, "turn_id": turn.turn_id, "step_id": uuid.uuid4().hex},
                "a step of another turn": {**ids, "turn_id": later.turn_id, "step_id": step_id},
                "a step of an unknown turn": {**ids, "turn_id": uuid.uuid4().hex, "step_id": step_id},
                "a step with the id of another session": {**other, "turn_id": turn.turn_id, "step_id": step_id},
            }
            for what, arguments in wrong.items():
                await expect_not_found(running.calls.get_agent_step(**arguments), what)
            agent = {"agent_id": ids["agent_id"]}
            found = await running.calls.get_agent_step(**agent, turn_id=later.turn_id, step_id=later.steps[0].step_id)
            if found.step != later.steps[0]:
                raise CheckFailure(f"without `session_id`: {found.step}", wanted=f"{later.steps[0]}")

    @check("get_session.many-turns", tier=Tier.live, capability="get_session", mend="keep and return every turn")
    async def test_get_session_many_turns(self, subject: Subject) -> None:
        """a session of thirty turns has all of them, in order"""
        self.need(subject, "create_turn")
        async with self.scripted(subject) as (running, _):
            ids = await self.new_session(running)
            made = [(await self.take_turn(running, ids, f"{QUESTION} {number}")).turn_id for number in range(_MANY)]
            found = await self._turns(running, ids)
        if found != made:
            raise CheckFailure(f"{len(found)} turns: {found}", wanted=f"{made}")

    @check(
        "create_agent.unguessable",
        tier=Tier.live,
        capability="create_agent",
        mend="make ids with `uuid.uuid4()`: whoever knows an id can read the conversation",
    )
    async def test_create_agent_unguessable(self, subject: Subject) -> None:
        """no two agents, sessions, turns or steps have the same id, and the next id cannot be guessed: ids of a kind
        differ in eight characters or more, which those of a counter do not
        """
        found: dict[str, list[str]] = {"agents": [], "sessions": [], "turns": [], "steps": []}
        async with subject.shared() as running:
            for _ in range(_IDS):
                found["agents"].append((await self.new_agent(running)).agent_id)
            if subject.declares("create_session"):
                for agent_id in (found["agents"] * 2)[: _IDS * 2]:
                    ids = await self.new_session(running, agent_id)
                    found["sessions"].append(ids["session_id"])
                    if subject.declares("create_turn") and len(found["turns"]) < _IDS:
                        turn = await self.take_turn(running, ids)
                        found["turns"].append(turn.turn_id)
                        found["steps"] += [step.step_id for step in turn.steps]
        for kind, made in found.items():
            _expect_unlike(kind, made)


def _expect_unlike(kind: str, made: list[str]) -> None:
    if len(set(made)) < len(made):
        raise CheckFailure(f"ids of {kind} come twice: {made}")
    if not made:
        return
    same = _same_at_start(made) + _same_at_start([text[::-1] for text in made])
    if max(len(text) for text in made) - same < _DIFFERENT:
        raise CheckFailure(f"{kind} have the ids {made[:3]} ...")


def _same_at_start(texts: list[str]) -> int:
    """How many characters all texts begin with."""
    return sum(1 for _ in takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False)))

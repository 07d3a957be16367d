"""Checks of what the model of an agent gets: the conversation so far, by the agent's own config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio

from llamastack.api.common import SamplingParams, UserMessage
from llamastack.provider.errors import LlamaStackError
from llamastack_conformance.checks import CheckFailure, Tier, check
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.scripted_model import ModelCall, ScriptedModel, answer_to
from llamastack_conformance.suites.agent_calls import AgentCalls

_AT_ONCE = 4
_ROUNDS = 3
_Said = list[tuple[str, str]]
"""The role and the text of messages, in order."""


class AgentHistoryChecks(AgentCalls):
    """The checks of what the model gets."""

    @check(
        "create_turn.history",
        tier=Tier.live,
        capability="create_turn",
        mend="send the instructions, then the input and the output of every earlier turn, then the new messages",
    )
    async def test_create_turn_history(self, subject: Subject) -> None:
        """the model gets the instructions as the only system message, then all earlier turns of the session, the oldest
        first, then all messages of the turn; streamed turns count like others
        """
        async with self.scripted(subject) as (running, model):
            ids = await self.new_session(running)
            said: _Said = [("system", "You are brief.")]
            turns = (
                ["Hello."],
                ["My name is Ada.", "I live in Oslo."],
                ["What is my name?"],
                ["And where?"],
                ["Thanks."],
            )
            for number, texts in enumerate(turns):
                said += [("user", text) for text in texts]
                messages = [UserMessage(content=text) for text in texts]
                if subject.declares("streaming") and number % 2:
                    pieces = await running.calls.create_agent_turn(**ids, messages=messages, stream=True)
                    _ = [piece async for piece in pieces]
                else:
                    await running.calls.create_agent_turn(**ids, messages=messages)
                _expect_said(f"turn {number + 1}", model, said)
                said.append(("assistant", answer_to(texts[-1])))

    @check(
        "create_turn.sessions",
        tier=Tier.live,
        capability="create_turn",
        mend="keep the turns of each session apart",
    )
    async def test_create_turn_sessions(self, subject: Subject) -> None:
        """the model gets the earlier turns of the session alone when turns of two sessions of an agent, and of another
        agent, alternate
        """
        async with self.scripted(subject) as (running, model):
            first = await self.new_session(running)
            sessions = [first, await self.new_session(running, first["agent_id"]), await self.new_session(running)]
            said: list[_Said] = [[("system", "You are brief.")] for _ in sessions]
            for number in range(_ROUNDS):
                for which, ids in enumerate(sessions):
                    text = f"Message {number} of session {which}."
                    said[which].append(("user", text))
                    await self.take_turn(running, ids, text)
                    _expect_said(f"turn {number + 1} of session {which + 1}", model, said[which])
                    said[which].append(("assistant", answer_to(text)))

    @check(
        "create_turn.own-config",
        tier=Tier.live,
        capability="create_turn",
        mend="keep the config of each agent under the agent's id, and send its model and sampling params unchanged",
    )
    async def test_create_turn_own_config(self, subject: Subject) -> None:
        """agents that are used alternately each ask their own model with their own instructions and sampling params, as
        they were given
        """
        async with self.scripted(subject) as (running, model):
            listed = [item.identifier for item in await _models(running)]
            chosen = subject.settings.chat_model or listed[0]
            names = [chosen, next((name for name in listed if name != chosen), chosen)]
            sampling = [
                SamplingParams(strategy="top_p", temperature=0.7, top_p=0.8, max_tokens=11, stop=["END"]),
                SamplingParams(max_tokens=22, repetition_penalty=1.5),
                None,
            ]
            instructions = ["Answer in verse.", "Answer in prose.", "Answer in Latin."]
            configs: list[dict[str, Any]] = [
                {"model": names[n % 2], "instructions": instructions[n], "sampling_params": sampling[n]}
                for n in range(3)
            ]
            sessions = [await self.new_session(running, **config) for config in configs]
            for ids, config in list(zip(sessions, configs, strict=True)) * 2:
                await self.take_turn(running, ids)
                _expect_config(model, config)

    @check(
        "create_turn.at-once",
        tier=Tier.live,
        capability="create_turn",
        mend="keep nothing of a turn in the provider itself, and add each turn to its session in one step",
    )
    async def test_create_turn_at_once(self, subject: Subject) -> None:
        """turns of several sessions at once do not mix: each model call has the messages of one session, each turn has
        its own answer, and every session keeps all its turns; two turns of one session at once are both kept
        """
        async with self.scripted(subject) as (running, model):
            sessions = [await self.new_session(running) for _ in range(_AT_ONCE)]
            sessions.append(await self.new_session(running, sessions[0]["agent_id"]))
            model.wait_before_pieces(_pause)
            for number in range(_ROUNDS):
                turns = [(ids, f"Message {number} of session {which}.") for which, ids in enumerate(sessions)]
                await self._at_once(running, turns)
            for which, ids in enumerate(sessions):
                said = [f"Message {number} of session {which}." for number in range(_ROUNDS)]
                await self._expect_kept(running, ids, said)
            _expect_unmixed(model.calls)
            await self._at_once(running, [(sessions[0], "One."), (sessions[0], "Two.")])
            said = [f"Message {number} of session 0." for number in range(_ROUNDS)]
            await self._expect_kept(running, sessions[0], [*said, "One.", "Two."])

    async def _at_once(self, running: Running, turns: list[tuple[dict[str, str], str]]) -> None:
        """Take all these turns at once. Raises the first failure."""
        failures: list[Exception] = []

        async def take(ids: Mapping[str, str], text: str) -> None:
            try:
                await self._own_turn(running, ids, text)
            except (CheckFailure, LlamaStackError) as failure:
                failures.append(failure)

        async with anyio.create_task_group() as group:
            for ids, text in turns:
                group.start_soon(take, ids, text)
        if failures:
            raise failures[0]

    async def _own_turn(self, running: Running, ids: Mapping[str, str], text: str) -> None:
        turn = await self.take_turn(running, ids, text)
        if turn.output_message.content != answer_to(text) or turn.session_id != ids["session_id"]:
            raise CheckFailure(
                f"{text!r} is answered with {turn.output_message.content!r} in session {turn.session_id}",
                wanted=f"{answer_to(text)!r} in session {ids['session_id']}",
            )

    async def _expect_kept(self, running: Running, ids: Mapping[str, str], texts: list[str]) -> None:
        if not running.subject.declares("get_session"):
            return
        session = await running.calls.get_agent_session(**ids)
        found = sorted((turn.input_messages[0].content, turn.output_message.content) for turn in session.turns)
        wanted = sorted((text, answer_to(text)) for text in texts)
        if found != wanted:
            raise CheckFailure(f"a session has the turns {found}", wanted=f"{wanted}")


async def _pause(_: int) -> None:
    await anyio.sleep(0.002)


async def _models(running: Running) -> list[Any]:
    listed = await running.stack.api("models").list_models()
    return list(getattr(listed, "data", listed))


def last_call(model: ScriptedModel) -> ModelCall:
    """The newest call of the model. Raises CheckFailure if there is none."""
    if not model.calls:
        raise CheckFailure("the turn did not ask the model of the stack", wanted="a call of chat_completion")
    return model.calls[-1]


def _expect_said(when: str, model: ScriptedModel, said: _Said) -> None:
    found = last_call(model).said
    if found != said:
        raise CheckFailure(f"at {when} the model gets {found}", wanted=f"{said}")


def _expect_config(model: ScriptedModel, config: Mapping[str, Any]) -> None:
    call = last_call(model)
    system = [text for role, text in call.said if role == "system"]
    wanted = config["sampling_params"]
    # No sampling params, and those of which none is given, mean the same.
    same = (call.sampling_params or SamplingParams()) == (wanted or SamplingParams())
    if system != [config["instructions"]] or not same or not config["model"].endswith(call.model):
        got = f"model {call.model} with system messages {system} and {call.sampling_params!r}"
        raise CheckFailure(got, wanted=f"{dict(config)}")


def _expect_unmixed(calls: list[ModelCall]) -> None:
    for call in calls:
        sessions = {text.partition("session ")[2][:1] for role, text in call.said if role != "system"}
        if len(sessions) > 1:
            raise CheckFailure(f"one call of the model has messages of several sessions: {call.said}")

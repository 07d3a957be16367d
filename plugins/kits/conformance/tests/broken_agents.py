"""Agents providers that are each broken in one way: in what their model gets, or in their ids."""

from __future__ import annotations

import itertools
from typing import Any

from broken_others import idle

from llamastack.api.agents import AgentCreateResponse, AgentSessionCreateResponse, Session
from llamastack.api.common import SamplingParams, SystemMessage
from llamastack_provider_sample.agents import SampleAgents

# ---- what the model gets ---------------------------------------------------------------------------------------------


class _Asks(SampleAgents):
    """It changes what it asks its model."""

    def changed(self, arguments: dict[str, Any]) -> None:
        raise NotImplementedError

    def _take_turn(self, *args: Any, **kwargs: Any) -> Any:
        if isinstance(self._inference, _Changed):
            return super()._take_turn(*args, **kwargs)
        self._inference = _Changed(self._inference, self)  # type: ignore[assignment]
        return super()._take_turn(*args, **kwargs)


class _Changed:
    def __init__(self, inference: Any, by: _Asks) -> None:
        self._inference = inference
        self._by = by

    async def chat_completion(self, **arguments: Any) -> Any:
        self._by.changed(arguments)
        return await self._inference.chat_completion(**arguments)


@idle("create_turn.history")
class ForgetsWhatWasSaid(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        arguments["messages"] = [arguments["messages"][0], arguments["messages"][-1]]


@idle("create_turn.history")
class SaysTheNewestFirst(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        first, *history, last = arguments["messages"]
        arguments["messages"] = [first, *history[::-1], last]


@idle("create_turn.history")
class SendsNoAnswers(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        arguments["messages"] = [m for m in arguments["messages"] if m.role != "assistant"]


@idle("create_turn.history")
class RepeatsTheInstructions(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        arguments["messages"] = [*arguments["messages"], arguments["messages"][0]]


@idle("create_turn.history")
class KeepsNoStreamedTurns(SampleAgents):
    streams = False

    async def create_agent_turn(self, *args: Any, **kwargs: Any) -> Any:
        self.streams = bool(kwargs.get("stream"))
        return await super().create_agent_turn(*args, **kwargs)

    async def _add_turn(self, *args: Any) -> None:
        if not self.streams:
            await super()._add_turn(*args)


@idle("create_turn.sessions")
class HasOneConversation(_Asks):
    said: tuple[Any, ...] = ()

    def changed(self, arguments: dict[str, Any]) -> None:
        self.said = (*self.said, arguments["messages"][-1])
        arguments["messages"] = [arguments["messages"][0], *self.said]


@idle("create_turn.own-config")
class UsesTheNewestConfig(SampleAgents):
    async def create_agent(self, agent_config: Any, provider_id: str | None = None) -> Any:
        self.newest = agent_config
        return await super().create_agent(agent_config)

    async def _agent(self, agent_id: str) -> Any:
        await super()._agent(agent_id)
        return self.newest


@idle("create_turn.own-config")
class DropsSamplingParams(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        arguments["sampling_params"] = None


@idle("create_turn.own-config")
class SendsTheTokensAlone(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        if arguments["sampling_params"]:
            arguments["sampling_params"] = SamplingParams(max_tokens=arguments["sampling_params"].max_tokens)


@idle("create_turn.own-config")
class HasItsOwnInstructions(_Asks):
    def changed(self, arguments: dict[str, Any]) -> None:
        arguments["messages"] = [SystemMessage(content="You are brief."), *arguments["messages"][1:]]


@idle("create_turn.at-once")
class AddsToWhatItReadBefore(SampleAgents):
    async def create_agent_turn(self, agent_id: str, session_id: str, *args: Any, **kwargs: Any) -> Any:
        before = await self._session(agent_id, session_id)
        self.__dict__.setdefault("before", {})[session_id] = before
        return await super().create_agent_turn(agent_id, session_id, *args, **kwargs)

    async def _add_turn(self, agent_id: str, agent: Any, turn: Any) -> None:
        before: Session = self.__dict__["before"][turn.session_id]
        changed = before.model_copy(update={"turns": [*before.turns, turn]})
        await self._sessions.set(f"{agent_id}/{turn.session_id}", changed, expires_in_s=60)


@idle("create_turn.at-once")
class AnswersInTheNewestSession(SampleAgents):
    async def _session(self, agent_id: str, session_id: str) -> Session:
        self.newest = session_id
        return await super()._session(agent_id, session_id)

    async def _add_turn(self, agent_id: str, agent: Any, turn: Any) -> None:
        turn.session_id = self.newest
        await super()._add_turn(agent_id, agent, turn)


# ---- ids -------------------------------------------------------------------------------------------------------------


@idle("create_session.other-agent")
class FindsSessionsOfAnyAgent(SampleAgents):
    async def _session(self, agent_id: str, session_id: str) -> Session:
        after = ""
        while page := await self._sessions.scan("", after, limit=10):
            for entry in page:
                if entry.value.session_id == session_id:
                    return entry.value
            after = page[-1].key
        return await super()._session(agent_id, session_id)


@idle("delete_session.siblings")
class DeletesAllSessions(SampleAgents):
    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        await super().delete_agent_session(agent_id, session_id)
        for key in await self._sessions.keys(f"{agent_id}/", limit=10):
            await self._sessions.delete(key)


@idle("delete_session.siblings")
class DeletesUnknownSessions(SampleAgents):
    async def delete_agent_session(self, agent_id: str, session_id: str) -> None:
        await self._sessions.delete(f"{agent_id}/{session_id}")


@idle("delete_agent.siblings")
class DeletesUnknownAgents(SampleAgents):
    async def delete_agent(self, agent_id: str) -> None:
        await self._agents.delete(agent_id)


@idle("delete_agent.siblings")
class DeletesAllAgents(SampleAgents):
    async def delete_agent(self, agent_id: str) -> None:
        await super().delete_agent(agent_id)
        for key in await self._agents.keys("", limit=10):
            await self._agents.delete(key)


@idle("get_session.turn-ids")
class ReturnsAllTurns(SampleAgents):
    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: Any = None) -> Any:
        return await super().get_agent_session(agent_id, session_id)


@idle("get_session.turn-ids")
class TakesAnEmptyListForNone(SampleAgents):
    async def get_agent_session(self, agent_id: str, session_id: str, turn_ids: Any = None) -> Any:
        return await super().get_agent_session(agent_id, session_id, turn_ids or None)


@idle("get_turn.other-session")
class FindsTurnsOfAnySession(SampleAgents):
    async def get_agent_turn(self, agent_id: str, turn_id: str, session_id: str | None = None) -> Any:
        return await super().get_agent_turn(agent_id, turn_id)


@idle("get_step.unknown")
class FindsTheFirstStep(SampleAgents):
    async def get_agent_step(self, agent_id: str, turn_id: str, step_id: str, session_id: str | None = None) -> Any:
        turn = await self.get_agent_turn(agent_id, turn_id, session_id)
        return await super().get_agent_step(agent_id, turn_id, turn.steps[0].step_id, session_id)


@idle("get_session.many-turns")
class KeepsTwentyTurns(SampleAgents):
    async def get_agent_session(self, *args: Any, **kwargs: Any) -> Any:
        session = await super().get_agent_session(*args, **kwargs)
        return session.model_copy(update={"turns": session.turns[-20:]})


@idle("create_agent.unguessable")
class CountsItsAgents(SampleAgents):
    async def create_agent(self, agent_config: Any, provider_id: str | None = None) -> Any:
        numbers = self.__dict__.setdefault("numbers", itertools.count())
        agent_id = f"agent-00000000-{next(numbers):04}"
        await self._agents.set(agent_id, agent_config)
        return AgentCreateResponse(agent_id=agent_id)


@idle("create_agent.unguessable")
class CountsTheSessionsOfAnAgent(SampleAgents):
    async def create_agent_session(self, agent_id: str, session_name: str) -> Any:
        made = await super().create_agent_session(agent_id, session_name)
        session = await self._session(agent_id, made.session_id)
        session_id = str(len(await self._sessions.keys(f"{agent_id}/", limit=100)))
        session.session_id = session_id
        await self._sessions.set(f"{agent_id}/{session_id}", session, expires_in_s=60)
        return AgentSessionCreateResponse(session_id=session_id)

"""Calls of an agents provider, from which the checks of its suite are made."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, ClassVar

from llamastack.api.agents import AgentConfig
from llamastack.api.common import SamplingParams, UserMessage
from llamastack.provider.errors import LlamaStackError, NotFoundError
from llamastack.provider.streams import closing
from llamastack_conformance.checks import CheckFailure, NotApplicable
from llamastack_conformance.provider_under_test import Subject
from llamastack_conformance.running import Running
from llamastack_conformance.scripted_model import ScriptedModel, scripted_model
from llamastack_conformance.shapes import well_formed
from llamastack_conformance.suites.provider import ProviderConformance
from llamastack_conformance.suites.suite import Probe

QUESTION = "What is the capital of France?"


class AgentCalls(ProviderConformance):
    """The calls of a suite of the API agents. Source of the shapes: `llamastack.api.agents`."""

    api: ClassVar[str] = "agents"
    _kept_ids: Mapping[str, str] = MappingProxyType({})

    async def agent_config(self, running: Running, **changes: Any) -> AgentConfig:
        """The config of an agent, with other fields where they are given."""
        model = running.subject.settings.chat_model
        if model is None:
            listed = await running.stack.api("models").list_models()
            model = listed[0].identifier
        fields = {
            "model": model,
            "instructions": "You are brief.",
            "enable_session_persistence": False,
            "sampling_params": SamplingParams(max_tokens=24),
            **changes,
        }
        return AgentConfig(**fields)

    async def new_agent(self, running: Running, **changes: Any) -> Any:
        """Make an agent, whose config has these fields."""
        config = await self.agent_config(running, **changes)
        return await running.calls.create_agent(agent_config=config, provider_id=running.provider_id)

    async def new_session(self, running: Running, agent_id: str | None = None, **changes: Any) -> dict[str, str]:
        """Make a session with an agent; without `agent_id`, with a new one, whose config has these fields."""
        if agent_id is None:
            agent = await self.new_agent(running, **changes)
            well_formed(running.subject.method("create_agent"), agent)
            agent_id = agent.agent_id
        session = await running.calls.create_agent_session(agent_id=agent_id, session_name="a session")
        well_formed(running.subject.method("create_agent_session"), session)
        return {"agent_id": agent_id, "session_id": session.session_id}

    async def take_turn(self, running: Running, ids: Mapping[str, str], text: str = QUESTION, **more: Any) -> Any:
        """Take a turn with one message."""
        return await running.calls.create_agent_turn(**ids, messages=[UserMessage(content=text)], **more)

    async def put_content(self, running: Running) -> None:
        self._kept_ids = await self.new_session(running)
        await self.take_turn(running, self._kept_ids)

    async def content(self, running: Running) -> Any:
        """A session with a turn, as it can be read."""
        for needed in ("create_turn", "get_session"):
            if not running.subject.declares(needed):
                raise NotApplicable(f"the provider declares no `{needed}`")
        session = await running.calls.get_agent_session(**self._kept_ids)
        return session.model_dump(mode="json")

    async def call(self, running: Running, text: str = QUESTION) -> Any:
        return await self.take_turn(running, await self.new_session(running), text)

    async def stream(self, running: Running) -> AsyncIterator[Any]:
        if not running.subject.declares("streaming"):
            return await super().stream(running)
        pieces: AsyncIterator[Any] = await self.take_turn(running, await self.new_session(running), stream=True)
        return pieces

    def answers(self, text: str, result: Any) -> bool:
        return [message.content for message in result.input_messages] == [text]

    async def probe(self, running: Running, capability: str) -> Probe:
        config = await self.agent_config(running)
        ids, turn_id, step_id = {"agent_id": "a", "session_id": "s"}, "t", "s"
        # The provider is called directly: the stack may refuse these calls. If the provider lacks them, any id will do.
        with suppress(LlamaStackError, NotImplementedError, AttributeError):
            made = await running.provider.create_agent(agent_config=config)
            ids["agent_id"] = made.agent_id
            session = await running.provider.create_agent_session(agent_id=made.agent_id, session_name="s")
            ids["session_id"] = session.session_id
            taken = await running.provider.create_agent_turn(**ids, messages=[UserMessage(content=QUESTION)])
            turn_id, step_id = taken.turn_id, taken.steps[0].step_id
        agent = {"agent_id": ids["agent_id"]}
        turn = {**ids, "messages": [UserMessage(content=QUESTION)]}
        probes = {
            "create_agent": Probe("create_agent", {"agent_config": config}),
            "create_session": Probe("create_agent_session", {**agent, "session_name": "s"}),
            "create_turn": Probe("create_agent_turn", turn),
            "streaming": Probe("create_agent_turn", {**turn, "stream": True}, lambda r: isinstance(r, AsyncIterator)),
            "get_turn": Probe("get_agent_turn", {**ids, "turn_id": turn_id}),
            "get_step": Probe("get_agent_step", {**ids, "turn_id": turn_id, "step_id": step_id}),
            "get_session": Probe("get_agent_session", ids),
            "delete_session": Probe("delete_agent_session", ids, lambda _: True),
            "delete_agent": Probe("delete_agent", agent, lambda _: True),
        }
        return probes[capability]

    def need(self, subject: Subject, *capabilities: str) -> None:
        """Raise NotApplicable unless the provider declares all of these."""
        for name in capabilities:
            if not subject.declares(name):
                raise NotApplicable(f"the provider declares no `{name}`")

    @asynccontextmanager
    async def scripted(self, subject: Subject) -> AsyncIterator[tuple[Running, ScriptedModel]]:
        """A stack whose models are scripted. Raises NotApplicable if the provider does not ask them."""
        self.need(subject, "create_agent", "create_session", "create_turn")
        if "inference" not in subject.spec.api_dependencies:
            raise NotApplicable("the provider does not depend on the API inference")
        async with subject.shared() as running:
            with scripted_model(running) as model:
                yield running, model

    async def streamed(self, running: Running, ids: Mapping[str, str], text: str = QUESTION) -> list[Any]:
        """The payloads of all events of a streamed turn."""
        pieces: AsyncIterator[Any] = await self.take_turn(running, ids, text, stream=True)
        async with closing(pieces):
            return [piece.event.payload async for piece in pieces]


async def expect_not_found(call: Any, what: str) -> None:
    """Raise CheckFailure unless `call`, which is `what`, raises NotFoundError."""
    try:
        result = await call
    except NotFoundError:
        return
    raise CheckFailure(f"{what} gives {str(result)[:200]}", wanted="NotFoundError (404)")

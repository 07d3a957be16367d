"""Agents and sessions in the stack's store: what they survive, who finds them, when they are forgotten."""

from __future__ import annotations

import time
from typing import Any

import anyio
import pytest

from llamastack.api import AgentConfig, Turn, UserMessage
from llamastack.provider import Deps, NotFoundError
from llamastack.provider.memory_store import MemoryStore
from llamastack.provider.store import Record
from llamastack_provider_sample import AGENTS, INFERENCE

pytestmark = pytest.mark.anyio
PERSISTENT = AgentConfig(model="m", instructions="i", enable_session_persistence=True)
TRANSIENT = PERSISTENT.model_copy(update={"enable_session_persistence": False})
DAY_S = 86_400.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def make(store: MemoryStore, **config: Any) -> Any:
    """The agents as a worker with this store makes them."""
    inference = await INFERENCE.load_factory()(INFERENCE.load_config_class()(), Deps(provider_id="i"))
    deps = Deps(provider_id="a", api="agents", apis={"inference": inference}, store=store)
    return await AGENTS.load_factory()(AGENTS.load_config_class()(**config), deps)


async def agent_and_session(agents: Any, config: AgentConfig = PERSISTENT) -> tuple[str, str]:
    agent_id = (await agents.create_agent(config)).agent_id
    return agent_id, (await agents.create_agent_session(agent_id, "n")).session_id


async def turn(agents: Any, agent_id: str, session_id: str, text: str = "hi") -> Turn:
    made = await agents.create_agent_turn(agent_id, session_id, [UserMessage(content=text)])
    assert isinstance(made, Turn)
    return made


async def test_another_worker_goes_on_with_a_session() -> None:
    store = MemoryStore()
    first, second = await make(store), await make(store)
    ids = await agent_and_session(first)
    turns = [await turn(agents, *ids) for agents in (first, second, first)]
    assert (await second.get_agent_session(*ids)).turns == turns
    step = turns[1].steps[0]
    assert (await first.get_agent_step(ids[0], turns[1].turn_id, step.step_id)).step == step
    await second.delete_agent(ids[0])
    with pytest.raises(NotFoundError, match="there is no agent"):
        await first.create_agent_session(ids[0], "n")


async def test_turns_at_the_same_time_are_all_kept() -> None:
    store = MemoryStore()
    workers = [await make(store) for _ in range(4)]
    ids = await agent_and_session(workers[0])
    turns: list[Turn] = []

    async def take(agents: Any) -> None:
        turns.append(await turn(agents, *ids))

    async with anyio.create_task_group() as tasks:
        for agents in workers:
            tasks.start_soon(take, agents)
    kept = (await workers[0].get_agent_session(*ids)).turns
    assert {turn.turn_id for turn in kept} == {turn.turn_id for turn in turns}


async def test_a_turn_is_found_among_many_sessions() -> None:
    agents = await make(MemoryStore())
    agent_id, _ = await agent_and_session(agents)
    sessions = [(await agents.create_agent_session(agent_id, f"{n}")).session_id for n in range(25)]
    turns = [await turn(agents, agent_id, session_id) for session_id in sessions]
    for made in turns:
        assert await agents.get_agent_turn(agent_id, made.turn_id) == made
    with pytest.raises(NotFoundError, match="has no turn"):
        await agents.get_agent_turn(agent_id, turns[0].turn_id, session_id=sessions[1])


async def test_a_deleted_agent_leaves_nothing() -> None:
    store = MemoryStore()
    agents = await make(store)
    agent_id, _ = await agent_and_session(agents)
    for number in range(25):
        await agents.create_agent_session(agent_id, f"{number}")
    other = await agent_and_session(agents)
    await agents.delete_agent(agent_id)
    with pytest.raises(NotFoundError):
        await agents.delete_agent(agent_id)
    kinds = ("kv/agents/agents/a", "kv/agents/sessions/a")
    assert [len(await store.scan(kind, limit=99)) for kind in kinds] == [1, 1]
    assert (await agents.get_agent_session(*other)).turns == []


async def test_an_agent_with_a_session_that_cannot_be_read_is_deleted() -> None:
    store = MemoryStore()
    agents = await make(store)
    agent_id, session_id = await agent_and_session(agents)
    await store.put("kv/agents/sessions/a", f"{agent_id}/{session_id}", '"of an older release"')
    await agents.delete_agent(agent_id)
    assert await store.scan("kv/agents/sessions/a", limit=9) == []


async def test_a_session_that_is_created_while_its_agent_is_deleted_is_none() -> None:
    class DeletesTheAgent(MemoryStore):
        async def put(self, kind: str, key: str, value: str, **named: Any) -> Record:
            if kind == "kv/agents/sessions/a":
                await agents.delete_agent(key.partition("/")[0])
            return await super().put(kind, key, value, **named)

    store = DeletesTheAgent()
    agents = await make(store)
    agent_id = (await agents.create_agent(PERSISTENT)).agent_id
    with pytest.raises(NotFoundError, match="there is no agent"):
        await agents.create_agent_session(agent_id, "n")
    assert await store.scan("kv/agents/sessions/a", limit=9) == []


@pytest.mark.parametrize("unknown", ["", "x" * 2000, "\ud800", "a/b"])
async def test_an_id_that_cannot_be_is_not_found(unknown: str) -> None:
    agents = await make(MemoryStore())
    agent_id, session_id = await agent_and_session(agents)
    for call in (
        agents.create_agent_session(unknown, "n"),
        agents.get_agent_session(agent_id, unknown),
        agents.get_agent_session(unknown, session_id),
        agents.get_agent_turn(agent_id, "t", unknown),
        agents.delete_agent_session(agent_id, unknown),
        agents.delete_agent(unknown),
    ):
        with pytest.raises(NotFoundError):
            await call


async def test_a_session_that_is_deleted_during_a_turn_does_not_come_back() -> None:
    agents = await make(MemoryStore())
    ids = await agent_and_session(agents)
    with pytest.raises(NotFoundError, match="has no session"):
        async for _ in await agents.create_agent_turn(*ids, [UserMessage(content="hi")], stream=True):
            if await agents._sessions.get("/".join(ids)) is not None:
                await agents.delete_agent_session(*ids)
    with pytest.raises(NotFoundError, match="has no session"):
        await agents.get_agent_session(*ids)


@pytest.mark.parametrize(
    ("config", "agent", "lasts_s"),
    [
        ({}, PERSISTENT, 30 * DAY_S),
        ({}, TRANSIENT, 3600),
        ({"session_idle_s": 60}, PERSISTENT, 60),
        ({"session_idle_s": 60}, TRANSIENT, 60),
        ({"session_idle_s": None}, PERSISTENT, None),
        ({"session_idle_s": None}, TRANSIENT, 3600),
    ],
)
async def test_a_session_is_forgotten_some_time_after_its_last_turn(
    config: dict[str, Any], agent: AgentConfig, lasts_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    agents = await make(MemoryStore(), **config)
    ids = await agent_and_session(agents, agent)
    for _ in range(3):  # each turn begins the time anew
        now += (lasts_s or 1e9) * 0.9
        await turn(agents, *ids)
    now += (lasts_s or 1e9) * 1.1
    if lasts_s is None:
        assert len((await agents.get_agent_session(*ids)).turns) == 3
    else:
        with pytest.raises(NotFoundError, match="has no session"):
            await agents.get_agent_session(*ids)
    await agents.create_agent_session(ids[0], "the agent stays")

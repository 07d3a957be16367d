"""Jobs in a whole stack: whom the calls are made for, and providers that use jobs themselves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from access_fake import ACCESS, AROUND, CALLS, DENYING, KEYS, KEYS_PLUGIN, forget
from installed_fakes import entry_points_in, install

from llamastack import Stack
from llamastack.api.agents import AgentConfig
from llamastack.api.inspect import ProviderStatus
from llamastack.api.memory_banks import KeywordMemoryBank
from llamastack.provider.context import use_context
from llamastack.provider.errors import PermissionDeniedError
from llamastack.stack.discovery import Discovery

pytestmark = pytest.mark.anyio
ANN, BOB = KEYS["ann-key"], KEYS["bob-key"]
RUN: dict[str, Any] = {
    "providers": {
        "inference": [{"provider_id": "echo", "provider_type": "remote::sample"}],
        "agents": [{"provider_id": "agents", "provider_type": "remote::sample"}],
        "jobs": [{"provider_id": "jobs", "provider_type": "durable"}],
    },
    "store": {"type": "memory"},
}


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Discovery]:
    install(tmp_path / "site", "acme-access", ACCESS)
    install(tmp_path / "site", "acme-calls", CALLS)
    forget()
    yield Discovery(entry_points_in(tmp_path / "site"))
    forget()


async def ended(stack: Stack, job_id: str) -> Any:
    with anyio.fail_after(20):
        while (job := await stack.jobs.get_job(job_id=job_id)).finished_at is None:
            await anyio.sleep(0.02)
    return job


async def test_a_job_does_nothing_that_its_creator_may_not_do(guarded: Discovery) -> None:
    async with Stack.from_config(RUN, discovery=guarded) as stack:
        KEYS_PLUGIN.open_to_all |= {"", "sample-echo"}
        with use_context(principal=BOB):
            agent = await stack.agents.create_agent(
                AgentConfig(model="sample-echo", instructions="x", enable_session_persistence=True)
            )
            session = await stack.agents.create_agent_session(agent.agent_id, "s")
            messages = [{"role": "user", "content": "Hello"}]
            turn = {"agent_id": agent.agent_id, "session_id": session.session_id, "messages": messages}

            async def as_job() -> Any:
                job = await stack.jobs.create_job(api="agents", method="create_agent_turn", arguments=turn)
                return await ended(stack, job.job_id)

            job = await as_job()
            assert job.result["output_message"]["content"] == "Hello"
            # Not only the call itself, also those that it makes.
            KEYS_PLUGIN.open_to_all.remove("sample-echo")
            with pytest.raises(PermissionDeniedError, match="'bob' may not call 'sample-echo' of inference"):
                await stack.agents.create_agent_turn(**turn)
            job = await as_job()
            assert (job.status, job.error.status) == ("failed", 403)
            assert job.error.message.endswith("'bob' may not call 'sample-echo' of inference (chat_completion)")
            with pytest.raises(PermissionDeniedError, match="'bob' may not call 'sample-echo' of inference"):
                await stack.jobs.create_job(
                    api="inference",
                    method="chat_completion",
                    arguments={"model": "sample-echo", "messages": messages},
                )
            DENYING.denied = {"jobs"}
            with pytest.raises(PermissionDeniedError, match="'bob' may not call jobs"):
                await stack.jobs.get_job(job_id=job.job_id)
        DENYING.denied = set()
        with use_context(principal=ANN):  # she may make the call, but it is still made for bob
            await stack.jobs.retry_job(job_id=job.job_id)
            assert (await ended(stack, job.job_id)).error.message.count("'bob' may not") == 1
    # Plugins around calls see whom the call is made for.
    made = {principal for call, principal in zip(AROUND.calls, AROUND.principals, strict=True) if call.api != "jobs"}
    assert made == {"bob"}


async def test_a_provider_may_use_jobs_although_jobs_may_call_it(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "llamastack-provider-kept", {"llamastack.providers.memory": {"kept-fake": "kept_memory_fake:USER"}})
    run = {
        "providers": {
            "memory": [{"provider_id": "docs", "provider_type": "kept-fake"}],
            "jobs": [{"provider_id": "jobs", "provider_type": "durable"}],
        },
        "store": {"type": "memory"},
    }
    async with Stack.from_config(run, discovery=Discovery(entry_points_in(site))) as stack:
        statuses = {each.provider_id: each.status for each in (await stack.inspect.health()).providers}
        assert statuses == dict.fromkeys(("docs", "jobs"), ProviderStatus.healthy)
        await stack.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="b", provider_id="docs"))
        with anyio.fail_after(10):  # the provider inserts a document by a job, when it has a bank
            while not (found := (await stack.memory.query_documents(bank_id="b", query="x")).chunks):
                await anyio.sleep(0.02)
        assert [chunk.document_id for chunk in found] == ["first"]

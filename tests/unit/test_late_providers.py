"""A stack runs while slow providers still start: what is ready is served, and errors say what is not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from scripted_fake import ScriptedInference
from scripted_stacks import Scripted, Scripts

from llamastack.api import Model, UserMessage
from llamastack.api.inspect import ProviderStatus
from llamastack.provider.errors import ObjectNotFoundError, ProviderUnavailableError
from llamastack.stack import Stack, supervisor
from llamastack.stack.stack import StackStartError

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]


@pytest.fixture
def may_start(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of the fakes that may finish their start."""
    names: set[str] = set()

    async def initialize(self: ScriptedInference) -> None:
        while self.name not in names:
            await anyio.sleep(0.01)

    monkeypatch.setattr(ScriptedInference, "initialize", initialize)
    return names


@asynccontextmanager
async def running(stack: Stack) -> AsyncIterator[Stack]:
    await stack.start(wait_s=0.05)
    try:
        yield stack
    finally:
        await stack.stop()


async def statuses(stack: Stack) -> dict[str, ProviderStatus]:
    return {each.provider_id: each.status for each in (await stack.inspect.health()).providers}


async def until_healthy(stack: Stack, provider_id: str) -> None:
    with anyio.fail_after(10):
        while (await statuses(stack))[provider_id] is not ProviderStatus.healthy:
            await anyio.sleep(0.01)


async def test_what_is_ready_is_served_while_another_provider_starts(
    scripted: Scripted, script: Scripts, may_start: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "llamastack.stack")
    script("a", serves=["m"])
    script("b", serves=["n"])
    may_start.add("a")
    async with running(scripted("a", "b")) as stack:
        await until_healthy(stack, "a")
        assert await statuses(stack) == {"a": ProviderStatus.healthy, "b": ProviderStatus.starting}
        await stack.inference.chat_completion(model="m", messages=[*HELLO])
        with pytest.raises(
            ProviderUnavailableError, match=r"'b' \(scripted\) is starting; whether it serves model 'n'"
        ):
            await stack.inference.chat_completion(model="n", messages=[*HELLO])
        with pytest.raises(ProviderUnavailableError, match=r"is starting. Nothing was registered."):
            await stack.models.register_model(Model(identifier="x", provider_id="b"))
        assert [model.identifier for model in await stack.models.list_models()] == ["m"]
        may_start.add("b")
        await until_healthy(stack, "b")
        await stack.inference.chat_completion(model="n", messages=[*HELLO])
        with pytest.raises(ObjectNotFoundError):
            await stack.inference.chat_completion(model="x", messages=[*HELLO])
    told = [record.getMessage() for record in caplog.records if " b " in record.getMessage()]
    assert told == ["inference b (scripted) is still starting", "inference b is healthy"]


async def test_a_name_that_a_provider_listed_before_the_restart_is_told_from_one_that_it_did_not(
    scripted: Scripted, script: Scripts, may_start: set[str], store: dict[str, object]
) -> None:
    script("a", serves=["m"])
    script("b", serves=["n"])
    may_start.update("ab")
    async with scripted("a", "b", store=store):
        pass
    may_start.remove("b")
    async with running(scripted("a", "b", store=store)) as stack:
        with pytest.raises(ProviderUnavailableError, match=r"'b' \(scripted\) is starting$"):
            await stack.inference.chat_completion(model="n", messages=[*HELLO])
        with pytest.raises(ObjectNotFoundError, match="provider 'b' is starting"):
            await stack.inference.chat_completion(model="x", messages=[*HELLO])


async def test_a_listing_that_takes_long_holds_up_neither_the_start_nor_lists(
    scripted: Scripted, script: Scripts
) -> None:
    script("a", serves=["m"])
    b = script("b", hang_list=True)
    async with running(scripted("a", "b")) as stack:
        await until_healthy(stack, "a")
        with anyio.fail_after(4):  # to wait for the listing takes 5 s
            assert [model.identifier for model in await stack.models.list_models()] == ["m"]
        assert (await statuses(stack))["b"] is ProviderStatus.starting
        with anyio.fail_after(5):
            while not b.calls:  # on a busy machine its module may still be imported
                await anyio.sleep(0.01)
        assert [name for name, _ in b.calls] == ["list"]


async def test_a_start_that_fails_on_errors_waits_for_every_provider(
    scripted: Scripted, script: Scripts, may_start: set[str]
) -> None:
    script("a")
    script("b", fail_list=ConnectionError("refused"))
    may_start.update("ab")
    with pytest.raises(StackStartError, match="refused"):
        await scripted("a", "b", on_provider_error="fail").start(wait_s=0)


@pytest.mark.parametrize(
    ("hangs", "reason"),
    [("hang_start", "did not start within 0.1 s"), ("hang_list", "did not say within 0.1 s what it serves")],
)
async def test_the_reason_of_a_backend_that_never_answers_names_its_url(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch, hangs: str, reason: str
) -> None:
    monkeypatch.setattr(supervisor, "_ASK_TIMEOUT_S", 0.1)
    script("a", **{hangs: True})
    stack = scripted("a", start_timeout_s=0.1)
    object.__setattr__(stack.plan.providers[0].config, "url", "http://user:s3cret@gpu:8080")
    async with stack:
        (health,) = (await stack.inspect.health()).providers
    assert health.reason == f"{reason} (its backend: http://***@gpu:8080)"

"""Two workers that share a store: what one registers and unregisters, the other knows, and the store decides."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from scripted_fake import SCRIPTS
from scripted_stacks import Scripted, Scripts, names

from llamastack.api import Model, UserMessage
from llamastack.provider.errors import (
    ConflictError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
)
from llamastack.stack import Stack
from llamastack.stack.resources import kept_registrations, releases
from llamastack.stack.resources.kept_registrations import StoreFollower
from llamastack.stack.resources.releases import Releases
from llamastack.stack.supervisor import SupervisedProvider

pytestmark = pytest.mark.anyio


def hundredths_of_a_second() -> Iterator[int]:
    """Turns of a loop that waits so long in each; on a busy machine a turn takes longer, and what is awaited, too."""
    yield from range(100)
    pytest.fail("it did not come within a second")


async def test_two_workers_on_one_store_see_each_other_within_a_second(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as one, scripted("a", store=store) as two:
        await one.models.register_model(Model(identifier="new"))
        for _ in hundredths_of_a_second():
            await anyio.sleep(0.01)
            found = await two.models.get_model("new")
            if found is not None and not found.unavailable_reason:
                break
        assert a.registered == ["new", "new"]
        with pytest.raises(ConflictError):
            await two.models.register_model(Model(identifier="new", metadata={"other": True}))
        await two.models.unregister_model("new")
        for _ in hundredths_of_a_second():
            await anyio.sleep(0.01)
            if await one.models.get_model("new") is None:
                break
        with pytest.raises(ObjectNotFoundError):
            await one.inference.chat_completion(model="new", messages=[UserMessage(content="x")])


async def test_what_a_worker_is_unregistering_is_registered_again_when_its_provider_has_released_it(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as one, scripted("a", store=store) as two:
        await one.models.register_model(Model(identifier="new"))
        a.slow_unregister_s = 0.3
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(one.models.unregister_model, "new")
            while ("unregister", "new") not in a.calls:
                await anyio.sleep(0.01)
            a.calls.clear()
            await two.models.register_model(Model(identifier="new", metadata={"other": True}))
        # A provider that shares its backend between workers would otherwise delete what the second one has made.
        assert a.registered == ["new"]
        assert [name for name, _ in a.calls if name != "list"] == ["register"]
        for _ in hundredths_of_a_second():
            await anyio.sleep(0.01)
            found = await one.models.get_model("new")
            if found is not None and found.metadata == {"other": True}:
                break


async def test_what_a_dead_worker_was_unregistering_is_refused_for_a_while(
    scripted: Scripted, script: Scripts, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(releases, "_LONGEST_WAIT_S", 0.1)
    a = script("a", serves=[])
    async with scripted("a", store=store) as stack:
        async with Releases(stack.store, "models", "model").releasing("new"):
            with pytest.raises(
                ConflictError, match=r"^model 'new' is being unregistered; try again when it has ended$"
            ):
                await stack.models.register_model(Model(identifier="new"))
            await stack.models.register_model(Model(identifier="other"))
        await stack.models.register_model(Model(identifier="new"))
        assert a.registered == ["other", "new"]
        assert await stack.store.get("releasing/models", "new") is None
        await stack.store.put("releasing/models", "old", "", expires_at=time.time() - 1)
        await stack.models.register_model(Model(identifier="old"))


@pytest.mark.parametrize(("providers", "left"), [(("a", "a"), 1), (("a", "b"), 1)])
async def test_two_workers_registering_the_same_name_at_once(
    scripted: Scripted, script: Scripts, store: dict[str, Any], providers: tuple[str, str], left: int
) -> None:
    """One is kept; the loser is undone at its provider, unless that is where the winner's object lives."""
    a, b = script("a", serves=[]), script("b", serves=[])
    outcomes: list[str] = []
    async with scripted("a", "b", store=store) as one, scripted("a", "b", store=store) as two:

        async def register(stack: Stack, provider_id: str, number: int) -> None:
            try:
                await stack.models.register_model(
                    Model(identifier="new", provider_id=provider_id, metadata={"worker": number})
                )
            except ConflictError:
                outcomes.append("conflict")
            else:
                outcomes.append("kept")

        async with anyio.create_task_group() as group:
            group.start_soon(register, one, providers[0], 1)
            group.start_soon(register, two, providers[1], 2)
        assert sorted(outcomes) == ["conflict", "kept"]
        assert len({*a.registered, *(f"{name} at b" for name in b.registered)}) == left


@pytest.fixture
async def workers(
    scripted: Scripted, script: Scripts, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Stack, Stack]]:
    """Two workers that share a store and follow it only when a test says so."""
    monkeypatch.setattr(kept_registrations, "_FOLLOW_INTERVAL_S", 3600)
    script("a", serves=[])
    script("b", serves=[])
    async with scripted("a", "b", store=store) as one, scripted("a", "b", store=store) as two:
        yield one, two


async def kept_after(workers: tuple[Stack, Stack]) -> list[Model]:
    """What both workers list when they have followed, and their providers, too."""
    found: list[list[Model]] = []
    for stack in workers:
        follower = StoreFollower(stack.store, stack._tables.values())
        await follower.take()
        with anyio.fail_after(5):
            listed = await stack.models.list_models()
            while any(model.unavailable_reason for model in listed):
                await anyio.sleep(0.01)
                listed = await stack.models.list_models()
        found.append(listed)
    assert found[0] == found[1]
    return found[0]


async def test_what_another_worker_has_just_unregistered_can_be_registered_again(workers: tuple[Stack, Stack]) -> None:
    one, two = workers
    model = Model(identifier="new", provider_id="a")
    await two.models.register_model(model)
    await kept_after(workers)
    for _ in range(20):
        await one.models.unregister_model("new")
        await two.models.register_model(model)
    assert await kept_after(workers) == [model]


@pytest.mark.parametrize("provider_id", ["a", "b"])
async def test_another_definition_can_be_registered_then(workers: tuple[Stack, Stack], provider_id: str) -> None:
    one, two = workers
    await two.models.register_model(Model(identifier="new", provider_id="a"))
    await kept_after(workers)
    await one.models.unregister_model("new")
    other = Model(identifier="new", provider_id=provider_id, metadata={"k": 2})
    await two.models.register_model(other)
    assert await kept_after(workers) == [other]


async def test_what_another_worker_has_just_registered_is_a_conflict(workers: tuple[Stack, Stack]) -> None:
    one, two = workers
    await one.models.register_model(Model(identifier="new", provider_id="a"))
    with pytest.raises(ConflictError, match="model 'new' is registered already, with provider 'a'"):
        await two.models.register_model(Model(identifier="new", provider_id="b"))
    await two.models.register_model(Model(identifier="new", provider_id="a"))
    await two.inference.chat_completion(model="new", messages=[UserMessage(content="x")])


@pytest.mark.parametrize("name", ["new", "a/new"])
async def test_what_another_worker_has_just_registered_can_be_unregistered_once(
    workers: tuple[Stack, Stack], name: str
) -> None:
    one, two = workers
    await one.models.register_model(Model(identifier="new", provider_id="a"))
    await two.models.unregister_model(name)
    for stack in workers:
        with pytest.raises(NotFoundError, match=f"model '{name}' is not registered"):
            await stack.models.unregister_model(name)
    assert await kept_after(workers) == []


async def test_a_name_with_another_provider_means_nothing(workers: tuple[Stack, Stack]) -> None:
    one, two = workers
    await one.models.register_model(Model(identifier="new", provider_id="a"))
    with pytest.raises(NotFoundError, match="model 'b/new' is not registered"):
        await two.models.unregister_model("b/new")
    assert len(await kept_after(workers)) == 1


@pytest.mark.parametrize("is_followed", [False, True])
async def test_a_registration_during_an_unregistration_stays(
    workers: tuple[Stack, Stack], monkeypatch: pytest.MonkeyPatch, is_followed: bool
) -> None:
    one, two = workers
    model = Model(identifier="new", provider_id="a")
    await one.models.register_model(model)
    again = Model(identifier="new", provider_id="b")

    registrations = one._tables["inference"]._registrations
    ask_to_unregister = registrations.ask_to_unregister

    async def meanwhile(instance: SupervisedProvider, item: Model) -> None:
        monkeypatch.undo()
        await ask_to_unregister(instance, item)
        await one.store.delete("releasing/models", "new")  # it has expired
        await two.models.register_model(again)
        if is_followed:
            await StoreFollower(one.store, one._tables.values()).take()

    monkeypatch.setattr(registrations, "ask_to_unregister", meanwhile)
    await one.models.unregister_model("new")
    assert await kept_after(workers) == [again]
    await one.instances["inference"][1].refresh(force=True)
    await one.inference.chat_completion(model="new", messages=[UserMessage(content="x")])


async def test_a_registration_that_its_provider_does_not_release_stays_although_its_deletion_was_followed(
    workers: tuple[Stack, Stack], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = workers
    model = Model(identifier="new", provider_id="a")
    await two.models.register_model(model)
    await kept_after(workers)
    swap, follower = one.store.swap, StoreFollower(one.store, one._tables.values())

    async def followed(kind: str, key: str, value: str | None, **named: Any) -> Any:
        changed = await swap(kind, key, value, **named)
        if value is None:
            await follower.take()
        return changed

    with monkeypatch.context() as patched:
        patched.setattr(one.store, "swap", followed)
        patched.setattr(SCRIPTS["a"], "fail_unregister", ConnectionError("it fails to release"))
        with pytest.raises(ProviderUnavailableError, match="it fails to release"):
            await one.models.unregister_model("new")
    assert await one.models.get_model("new") is not None
    assert await kept_after(workers) == [model]
    await one.inference.chat_completion(model="new", messages=[UserMessage(content="x")])


async def test_a_row_that_cannot_be_read_can_be_unregistered_or_replaced(
    workers: tuple[Stack, Stack], tmp_path: Path
) -> None:
    one, _ = workers
    for name in ("odd", "other"):
        await one.store.put("models", name, '{"identifier": 5}')
    await one.models.unregister_model("odd")
    await one.models.register_model(Model(identifier="other", provider_id="a"))
    assert await one.store.get("models", "odd") is None
    assert [model.identifier for model in await kept_after(workers)] == ["other"]


async def test_a_follower_that_reads_all_forgets_what_is_not_there(workers: tuple[Stack, Stack]) -> None:
    one, two = workers
    await one.models.register_model(Model(identifier="gone", provider_id="a"))
    await kept_after(workers)
    await one.models.unregister_model("gone")
    table = two._tables["inference"]
    changes = await two.store.changes_since(0, ["models"])
    await two.models.register_model(Model(identifier="newer", provider_id="a"))
    await table.follow(changes)
    assert await names(two) == ["newer"], "registered here after the changes were read"
    await table.follow(await two.store.changes_since(0, ["models"]))
    assert await names(two) == ["newer"]

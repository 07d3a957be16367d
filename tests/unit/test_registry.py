"""Registering at run time: the provider first, kept in the store, replayed, never by half."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
from scripted_stacks import Scripted, Scripts, names

from llamastack.api import KeywordMemoryBank, Model, UserMessage
from llamastack.provider.errors import (
    ConflictError,
    InvalidRequestError,
    NotFoundError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    StoreUnavailableError,
    UnsupportedModelError,
)
from llamastack.stack import Stack, StackStartError

pytestmark = pytest.mark.anyio


async def chat(stack: Stack, model: str) -> None:
    await stack.inference.chat_completion(model=model, messages=[UserMessage(content="x")])


async def test_the_provider_is_told_first_and_the_name_works(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=[])
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="new", metadata={"k": 1}))
        assert a.registered == ["new"]
        assert await stack.models.get_model("new") == Model(identifier="new", provider_id="a", metadata={"k": 1})
        assert await names(stack) == ["new"]
        await stack.inference.chat_completion(model="a/new", messages=[UserMessage(content="x")])


async def test_a_refusal_leaves_nothing_behind(
    scripted: Scripted, script: Scripts, store: dict[str, Any], tmp_path: Path
) -> None:
    script("a", serves=["x"], accepts=["x"])
    async with scripted("a", store=store) as stack:
        with pytest.raises(UnsupportedModelError, match="model 'other' is not served. Served: x") as caught:
            await stack.models.register_model(Model(identifier="other"))
        assert caught.value.provider_id == "a"
        assert await names(stack) == ["x"]
    with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
        assert connection.execute("SELECT * FROM records WHERE kind = 'models'").fetchall() == []
    connection.close()


async def test_a_provider_that_is_down_registers_nothing(scripted: Scripted, script: Scripts) -> None:
    script("a", fail_start=ConnectionError("refused"))
    async with scripted("a") as stack:
        with pytest.raises(ProviderUnavailableError, match=r"is down: .*refused\. Nothing was registered\."):
            await stack.models.register_model(Model(identifier="new"))
        assert await names(stack) == []


async def test_a_store_that_fails_is_undone_at_the_provider(
    scripted: Scripted, script: Scripts, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a")
    async with scripted("a") as stack:

        async def full(*_: object, **__: object) -> None:
            raise OSError("disk full")

        monkeypatch.setattr(stack.store, "swap", full)
        with pytest.raises(OSError, match="disk full"):
            await stack.models.register_model(Model(identifier="new"))
        assert a.registered == []
        assert await stack.models.get_model("new") is None


async def test_the_same_again_is_fine_and_something_else_is_a_conflict(scripted: Scripted, script: Scripts) -> None:
    a = script("a")
    script("b")
    async with scripted("a", "b") as stack:
        model = Model(identifier="new", provider_id="a")
        await stack.models.register_model(model)
        await stack.models.register_model(model)
        assert a.registered == ["new"]
        for other in (model.model_copy(update={"provider_id": "b"}), model.model_copy(update={"metadata": {"k": 2}})):
            with pytest.raises(ConflictError, match="model 'new' is registered already, with provider 'a'"):
                await stack.models.register_model(other)


async def test_several_providers_need_a_provider_id(scripted: Scripted, script: Scripts) -> None:
    script("a")
    script("b")
    async with scripted("a", "b") as stack:
        with pytest.raises(InvalidRequestError, match="provider_id must be given.*: a, b") as caught:
            await stack.models.register_model(Model(identifier="new"))
        assert caught.value.param == "model.provider_id"
        with pytest.raises(InvalidRequestError, match="'c' is no provider of API 'inference'; allowed: a, b"):
            await stack.models.register_model(Model(identifier="new", provider_id="c"))


async def test_a_registered_name_counts_before_one_that_is_merely_served(scripted: Scripted, script: Scripts) -> None:
    script("a", serves=["m"])
    script("b", serves=["m"])
    async with scripted("a", "b") as stack:
        await stack.models.register_model(Model(identifier="m", provider_id="b"))
        reply = await stack.inference.chat_completion(model="m", messages=[UserMessage(content="x")])
        assert reply.completion_message.content == "b"


async def test_what_its_provider_does_not_release_stays_registered(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["m"])
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="new"))
        a.fail_unregister = ConnectionError("away")
        with pytest.raises(ProviderUnavailableError):
            await stack.models.unregister_model("new")
        assert "new" in await names(stack)
        a.fail_unregister = None
        await stack.models.unregister_model("new")
        assert a.registered == []
        assert await names(stack) == ["m"]
        with pytest.raises(NotFoundError, match="model 'new' is not registered$"):
            await stack.models.unregister_model("new")
        with pytest.raises(NotFoundError, match="not registered; provider 'a' serves it by itself"):
            await stack.models.unregister_model("m")


async def test_a_store_that_is_locked_leaves_what_was_to_be_unregistered_with_its_provider(
    scripted: Scripted, script: Scripts, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="new"))

        async def locked(*_: object, **__: object) -> None:
            raise StoreUnavailableError("the store is locked")

        with monkeypatch.context() as patched:
            patched.setattr(stack.store, "swap", locked)
            with pytest.raises(StoreUnavailableError, match="the store is locked"):
                await stack.models.unregister_model("new")
        assert a.registered == ["new"]
        await chat(stack, "new")
        await stack.models.unregister_model("new")
        assert a.registered == []


async def test_a_provider_and_then_the_store_that_fail_leave_no_registration_that_only_seems_to_be_one(
    scripted: Scripted, script: Scripts, store: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="new"))
        a.fail_unregister = ConnectionError("away")
        swap = stack.store.swap

        async def once(*arguments: Any, **named: Any) -> Any:
            if arguments[2] is not None:
                raise StoreUnavailableError("the disk is full")
            return await swap(*arguments, **named)

        monkeypatch.setattr(stack.store, "swap", once)
        with pytest.raises(ProviderUnavailableError, match="'new' is registered no longer, as the disk is full"):
            await stack.models.unregister_model("new")
        assert await names(stack) == []


async def test_a_model_that_vanishes_between_its_registration_and_the_next_listing_is_unavailable(
    scripted: Scripted, script: Scripts
) -> None:
    a = script("a", serves=["other"])
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="new"))
        a.accepts = ["other"]  # it has vanished
        await stack.instances["inference"][0].refresh(force=True)
        await stack.instances["inference"][0].refresh(force=True)
        (new,) = [model for model in await stack.models.list_models() if model.identifier == "new"]
        assert new.unavailable_reason is not None
        assert "model 'new' is not served" in new.unavailable_reason
        with pytest.raises(ProviderUnavailableError, match="model 'new' is unavailable: model 'new' is not served"):
            await chat(stack, "new")


async def test_a_provider_that_lists_nothing_it_takes_is_asked_once_more(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=[])
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="new"))
        for _ in range(4):
            await stack.instances["inference"][0].refresh(force=True)
            await chat(stack, "new")
        assert [name for name, _ in a.calls].count("register") == 2


async def test_what_a_provider_has_released_before_it_failed_is_registered_with_it_again(
    scripted: Scripted, script: Scripts
) -> None:
    a = script("a", serves=[])
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="new"))
        for _ in range(3):  # it is confirmed, though it is never listed
            await stack.instances["inference"][0].refresh(force=True)
        a.fail_after_unregister = ConnectionError("away")
        with pytest.raises(ProviderUnavailableError):
            await stack.models.unregister_model("new")
        with anyio.fail_after(5):
            while a.registered != ["new"]:
                await anyio.sleep(0.01)


async def test_what_is_unregistered_is_gone_at_once(own_home: Path) -> None:
    config = {"providers": {"memory": [{"provider_id": "s", "provider_type": "remote::sample"}]}}
    async with Stack.from_config(config) as stack:
        await stack.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="b"))
        assert len(await stack.memory_banks.list_memory_banks()) == 1
        await stack.instances["memory"][0].refresh()  # the provider lists it by itself, too
        await stack.memory_banks.unregister_memory_bank("b")
        with pytest.raises(ObjectNotFoundError, match="No memory bank is served at all"):
            await stack.memory.query_documents(bank_id="b", query="x")
        assert (await stack.inspect.health()).providers[0].serves == 0


async def test_what_vanishes_at_the_provider_is_unavailable_though_registered(
    scripted: Scripted, script: Scripts
) -> None:
    a = script("a", serves=["m", "other"])
    async with scripted("a", refresh_interval_s=0.05) as stack:
        await stack.models.register_model(Model(identifier="m"))
        await anyio.sleep(0.2)
        a.serves, a.accepts = ["other"], ["other"]
        with anyio.fail_after(5):
            while "model 'm' is not served" not in ((await stack.models.get_model("m")).unavailable_reason or ""):
                await anyio.sleep(0.02)
        with pytest.raises(ProviderUnavailableError, match="model 'm' is unavailable: model 'm' is not served"):
            await stack.inference.chat_completion(model="m", messages=[UserMessage(content="x")])
        a.serves, a.accepts = ["m", "other"], None
        with anyio.fail_after(5):
            while (await stack.models.get_model("m")).unavailable_reason:
                await anyio.sleep(0.02)


async def test_a_registration_does_not_hide_what_the_provider_says(scripted: Scripted, script: Scripts) -> None:
    script("a", serves=["m"], metadata={"context_length": 7})
    async with scripted("a") as stack:
        await stack.models.register_model(Model(identifier="m"))
        (listed,) = await stack.models.list_models()
        assert listed.metadata == {"context_length": 7}
        assert await stack.models.get_model("m") == listed
        await stack.models.unregister_model("m")
        await stack.models.register_model(Model(identifier="m", metadata={"mine": 1}))
        assert (await stack.models.list_models())[0].metadata == {"mine": 1}


async def test_registrations_survive_a_restart_and_are_replayed(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="kept"))
        await stack.models.register_model(Model(identifier="dropped"))
        await stack.models.unregister_model("dropped")
    a = script("a", serves=[])
    async with scripted("a", store=store) as stack:
        assert a.registered == ["kept"]
        assert await names(stack) == ["kept"]


async def test_a_provider_that_refuses_at_replay_leaves_it_listed_with_the_reason(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="kept"))
    a = script("a", serves=[], accepts=["other"])
    async with scripted("a", store=store, refresh_interval_s=0.05) as stack:
        (listed,) = await stack.models.list_models()
        assert "model 'kept' is not served. Served: other" in (listed.unavailable_reason or "")
        assert (await stack.models.get_model("kept")).unavailable_reason == listed.unavailable_reason
        with pytest.raises(ProviderUnavailableError, match="model 'kept' is unavailable"):
            await stack.inference.chat_completion(model="kept", messages=[UserMessage(content="x")])
        a.accepts = None
        with anyio.fail_after(10):
            while (await stack.models.get_model("kept")).unavailable_reason:
                await anyio.sleep(0.02)


async def test_a_provider_that_is_down_or_gone_at_replay_loses_nothing(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="kept"))
    script("a", fail_start=ConnectionError("refused"))
    async with scripted("a", store=store) as stack:
        (listed,) = await stack.models.list_models()
        assert "is down: ConnectionError: refused" in (listed.unavailable_reason or "")
    script("b", serves=[])
    async with scripted("b", store=store) as stack:
        (listed,) = await stack.models.list_models()
        assert listed.unavailable_reason == "provider 'a' is not configured"
        with pytest.raises(ProviderUnavailableError, match="provider 'a' is not configured"):
            await stack.inference.chat_completion(model="kept", messages=[UserMessage(content="x")])


async def test_objects_of_the_run_config_are_registered_and_stay(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=[])
    async with scripted("a", models=[{"identifier": "declared"}]) as stack:
        assert a.registered == ["declared"]
        assert await names(stack) == ["declared"]
        with pytest.raises(ConflictError, match="stands in the run config"):
            await stack.models.unregister_model("declared")


async def test_a_store_that_cannot_be_opened_stops_the_start(
    scripted: Scripted, script: Scripts, tmp_path: Path
) -> None:
    tmp_path.joinpath("file").write_text("")
    path = str(tmp_path / "file" / "registry.sqlite")
    with pytest.raises(StackStartError, match="store .*registry.sqlite cannot be opened"):
        async with scripted("a", store={"type": "sqlite", "config": {"path": path}}):
            pytest.fail("must not start")


async def test_a_file_config_keeps_its_registry_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("providers: {inference: [{provider_id: a, provider_type: 'remote::sample'}]}")
    async with Stack.from_config(file):
        pass
    assert list(tmp_path.glob(".llamastack/run-*/registry.sqlite"))


async def test_the_sqlite_store_uses_a_write_ahead_log(
    scripted: Scripted, script: Scripts, store: dict[str, Any], tmp_path: Path
) -> None:
    async with scripted("a", store=store):
        with sqlite3.connect(tmp_path / "registry.sqlite") as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        connection.close()


async def test_a_registry_that_is_locked_is_unavailable_and_nothing_is_registered(
    scripted: Scripted, script: Scripts, tmp_path: Path
) -> None:
    path = str(tmp_path / "registry.sqlite")
    a = script("a", serves=[])
    async with scripted("a", store={"type": "sqlite", "config": {"path": path, "busy_timeout_s": 0.1}}) as stack:
        with sqlite3.connect(path, isolation_level=None) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="store .* cannot be used: database is locked"):
                await stack.models.register_model(Model(identifier="m"))
            other.execute("ROLLBACK")
        other.close()
        assert a.registered == []
        assert await stack.models.get_model("m") is None


async def test_a_provider_is_told_what_is_a_replay(scripted: Scripted, script: Scripts, store: dict[str, Any]) -> None:
    for replays in (False, True):
        a = script("a", serves=[])
        async with scripted("a", store=store) as stack:
            if not replays:
                await stack.models.register_model(Model(identifier="new"))
            assert a.replays == [replays]

"""Aliases that users register: another name for what a provider serves, in every lane, without a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest
from scripted_fake import Script
from scripted_stacks import Scripted, Scripts

from llamastack.api import KeyValueMemoryBank, KeywordMemoryBank, MemoryBankDocument, Model, UserMessage
from llamastack.provider.errors import InvalidRequestError, ProviderUnavailableError
from llamastack.stack import Stack

pytestmark = pytest.mark.anyio


def alias(of: str, provider_id: str = "", identifier: str = "fast") -> Model:
    return Model(identifier=identifier, provider_id=provider_id, provider_resource_id=of)


async def served_as(stack: Stack, script: Script, name: str) -> str:
    """The name by which the provider is called."""
    await stack.inference.chat_completion(model=name, messages=[UserMessage(content="x")])
    return str(script.last("chat_completion")["model"])


async def test_an_alias_is_sent_to_what_it_stands_for(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["m"], metadata={"context_length": 7})
    async with scripted("a") as stack:
        await stack.models.register_model(alias("m"))
        assert await served_as(stack, a, "fast") == "m"
        assert await served_as(stack, a, "a/fast") == "m"
        assert a.registered == [], "the provider hears of no alias"
        assert await stack.models.get_model("fast") == Model(
            identifier="fast",
            provider_id="a",
            provider_resource_id="m",
            llama_model="m",
            metadata={"context_length": 7},
        )
        await stack.models.unregister_model("fast")
        assert ("unregister", "fast") not in a.calls
        assert stack._tables["inference"].count(stack.instances["inference"][0]) == 1
        assert [model.identifier for model in await stack.models.list_models()] == ["m"]


async def test_an_alias_looks_the_same_after_a_restart(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    script("a", serves=["m"], metadata={"context_length": 7})
    async with scripted("a", store=store) as stack, scripted("a", store=store) as other:
        await stack.models.register_model(alias("m"))
        before = await stack.models.get_model("fast")
        with anyio.fail_after(5):
            while await other.models.get_model("fast") is None:
                await anyio.sleep(0.01)
        assert await other.models.get_model("fast") == before
    async with scripted("a", store=store) as stack:
        assert await stack.models.get_model("fast") == before


async def test_an_alias_that_stands_for_itself_is_none(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=["m"])
    async with scripted("a") as stack:
        await stack.models.register_model(alias("m", identifier="m"))
        assert a.registered == ["m"]
        for _ in range(2):
            await stack.instances["inference"][0].refresh(force=True)
        assert await served_as(stack, a, "m") == "m"


async def test_an_alias_of_what_another_worker_has_just_registered(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as one, scripted("a", store=store) as two:
        await one.models.register_model(Model(identifier="z"))
        await two.models.register_model(alias("z"))
        await two.instances["inference"][0].refresh(force=True)
        await two.instances["inference"][0].refresh(force=True)
        assert await served_as(two, a, "fast") == "z"


async def test_an_alias_leaves_a_provider_that_is_not_running(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    a, b = script("a", serves=["m"]), script("b", serves=["n"])
    async with scripted("a", "b", store=store) as stack:
        await stack.models.register_model(alias("m", "a"))
    a.fail_start = ConnectionError("away")
    async with scripted("a", "b", store=store) as stack:
        await stack.models.unregister_model("fast")
        await stack.models.register_model(alias("n", "b"))
        assert await served_as(stack, b, "fast") == "n"


async def test_whether_a_provider_that_is_down_serves_the_target_is_not_known(
    scripted: Scripted, script: Scripts
) -> None:
    script("a", fail_start=ConnectionError("away"))
    async with scripted("a") as stack:
        with pytest.raises(ProviderUnavailableError, match="provider 'a' .* is down"):
            await stack.models.register_model(alias("m"))
        assert await stack.models.get_model("fast") is None


async def test_an_alias_of_a_bank_of_another_type_is_refused(own_home: Path) -> None:
    config = {"providers": {"memory": [{"provider_id": "s", "provider_type": "remote::sample"}]}}
    async with Stack.from_config(config) as stack:
        await stack.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="notes"))
        with pytest.raises(InvalidRequestError, match="of the same type"):
            await stack.memory_banks.register_memory_bank(
                KeyValueMemoryBank(identifier="mine", provider_resource_id="notes")
            )


async def test_an_alias_is_moved_without_a_restart(scripted: Scripted, script: Scripts, store: dict[str, Any]) -> None:
    a, b = script("a", serves=["m"]), script("b", serves=["n"])
    async with scripted("a", "b", store=store) as stack:
        await stack.models.register_model(alias("m", "a"))
        assert await served_as(stack, a, "fast") == "m"
        await stack.models.unregister_model("fast")
        await stack.models.register_model(alias("n", "b"))
        assert await served_as(stack, b, "fast") == "n"
    async with scripted("a", "b", store=store) as stack:
        assert await served_as(stack, b, "fast") == "n", "after a restart"


@pytest.mark.parametrize("of", ["nothing", "other"])
async def test_an_alias_needs_something_to_stand_for(scripted: Scripted, script: Scripts, of: str) -> None:
    script("a", serves=["m"])
    script("b", serves=["nothing"])
    async with scripted("a", "b") as stack:
        await stack.models.register_model(alias("m", "a", "other"))
        with pytest.raises(
            InvalidRequestError, match=f"provider 'a' serves no model '{of}' that 'fast' could"
        ) as caught:
            await stack.models.register_model(alias(of, "a"))
        assert caught.value.param == "model.provider_resource_id"
        assert await stack.models.get_model("fast") is None


async def test_an_alias_of_what_is_new_at_the_provider(scripted: Scripted, script: Scripts) -> None:
    a = script("a", serves=[])
    async with scripted("a") as stack:
        a.serves = ["new"]
        await stack.models.register_model(alias("new"))
        assert await served_as(stack, a, "fast") == "new"


async def test_an_alias_of_a_registered_model_comes_and_goes_with_it(
    scripted: Scripted, script: Scripts, store: dict[str, Any]
) -> None:
    a = script("a", serves=[])
    async with scripted("a", store=store) as stack:
        await stack.models.register_model(Model(identifier="z", metadata={"k": 1}))
        await stack.models.register_model(alias("z"))
    async with scripted("a", store=store) as stack:
        assert await served_as(stack, a, "fast") == "z"
        await stack.models.unregister_model("z")
        await stack.instances["inference"][0].refresh(force=True)
        with anyio.fail_after(5):
            while "serves no model 'z'" not in ((await stack.models.get_model("fast")).unavailable_reason or ""):
                await anyio.sleep(0.01)
        with pytest.raises(
            ProviderUnavailableError, match="model 'fast' is unavailable: provider 'a' serves no model 'z'"
        ):
            await served_as(stack, a, "fast")
        await stack.models.register_model(Model(identifier="z", metadata={"k": 1}))
        assert await served_as(stack, a, "fast") == "z"


async def test_an_alias_of_a_bank_holds_its_documents_and_leaves_them(own_home: Path) -> None:
    config = {"providers": {"memory": [{"provider_id": "s", "provider_type": "remote::sample"}]}}
    async with Stack.from_config(config) as stack:
        await stack.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="notes"))
        await stack.memory_banks.register_memory_bank(
            KeywordMemoryBank(identifier="mine", provider_resource_id="notes")
        )
        document = MemoryBankDocument(document_id="d", content="a blue whale", mime_type="text/plain", metadata={})
        await stack.memory.insert_documents(bank_id="mine", documents=[document])
        await stack.memory_banks.unregister_memory_bank("mine")
        found = await stack.memory.query_documents(bank_id="notes", query="whale")
        assert len(found.chunks) == 1

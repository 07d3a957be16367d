"""Which models a stack serves when a backend lists none, is down, or refuses what the run config names."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from backends.scripted_http import answer, scripted_http, served_by
from installed_fakes import scripted_discovery
from scripted_fake import Script
from served_stack import served_stack

from llamastack.api import KeywordMemoryBank, Model, ProviderStatus, UserMessage
from llamastack.provider.errors import (
    LlamaStackError,
    ObjectNotFoundError,
    ProviderUnavailableError,
    UnsupportedModelError,
)
from llamastack.stack import Stack, StackStartError
from llamastack.stack.discovery import Discovery
from llamastack_cli.output import TerminalOutput
from llamastack_server.commands.run_stack import show_stack

pytestmark = pytest.mark.anyio
HELLO = [UserMessage(content="Hello")]
BODY = {"model": "m", "messages": [{"role": "user", "content": "Hello"}]}
CHAT = {
    "id": "c",
    "object": "chat.completion",
    "created": 0,
    "model": "backend-m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}],
}
PATHS = {"N": "/inference/chat_completion", "F": "/v1/chat/completions"}
NO_LISTS = {
    "404 told": answer(404, {"error": {"message": "no such route"}}),
    "404": answer(404, "<html>nothing here</html>", content_type="text/html"),
    "405": answer(405, {"detail": "Method Not Allowed"}),
    "501": answer(501, {"error": {"message": "not implemented"}}),
    "403": answer(403, {"error": {"message": "this key may not list"}}),
    "page": answer(200, "<html>a page</html>", content_type="text/html"),
    "no list": answer(200, {"models": []}),
    "empty": answer(200, {"object": "list", "data": []}),
    "others": answer(200, {"object": "list", "data": [{"id": "other"}]}),
}
LISTS = ("empty", "others")
ADAPTERS = ["remote::openai", "remote::vllm", "remote::together", "remote::fireworks"]


def config(*providers: dict[str, Any], **run: Any) -> dict[str, Any]:
    return {"providers": {"inference": list(providers)}, **run}


async def answer_of(stack: Stack, model: str = "m") -> Any:
    return await stack.inference.chat_completion(model=model, messages=HELLO)


@pytest.mark.parametrize("adapter", ADAPTERS)
@pytest.mark.parametrize("listing", NO_LISTS)
async def test_names_are_served_on_trust(adapter: str, listing: str, caplog: pytest.LogCaptureFixture) -> None:
    with scripted_http(routes={"/models": NO_LISTS[listing], "/chat/completions": answer(200, CHAT)}) as backend:
        provider = served_by(backend, adapter, api_key="k", models={"m": "backend-m"}, trust_models=True)
        async with served_stack(config(provider)) as (stack, client):
            for path in PATHS.values():
                assert (await client.post(path, json=BODY)).status_code == 200
                assert backend.last("/chat/completions").json["model"] == "backend-m"
            models = {model.identifier for model in await stack.models.list_models()}
            assert models == ({"m", "other"} if listing == "others" else {"m"})
            [health] = (await stack.inspect.health()).providers
            assert (health.status, health.serves) == (ProviderStatus.healthy, len(models))
            assert "served on trust" in (health.note or "")
            await stack.models.register_model(Model(identifier="backend-m"))
            if listing in LISTS:
                with pytest.raises(UnsupportedModelError):
                    await stack.models.register_model(Model(identifier="never-named"))
    assert caplog.text.count("served on trust") == 1


@pytest.mark.parametrize("listing", NO_LISTS)
async def test_without_the_setting_the_log_tells_of_it(listing: str, caplog: pytest.LogCaptureFixture) -> None:
    with scripted_http(routes={"/models": NO_LISTS[listing]}) as backend:
        provider = served_by(backend, api_key="k", models={"m": "backend-m"})
        async with Stack.from_config(config(provider)) as stack:
            with pytest.raises(LlamaStackError) as caught:
                await answer_of(stack)
            assert isinstance(caught.value, ObjectNotFoundError if listing in LISTS else ProviderUnavailableError)
    assert "trust_models: true" in caplog.text


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_backend_that_fails_is_not_trusted(status: int) -> None:
    with scripted_http(routes={"/models": answer(status, {"error": {"message": "broken"}})}) as backend:
        provider = served_by(backend, models={"m": "backend-m"}, trust_models=True)
        async with Stack.from_config(config(provider)) as stack:
            with pytest.raises(ProviderUnavailableError, match="broken"):
                await answer_of(stack)


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("aliases", [{}, {"mine": "backend-m"}])
async def test_what_lists_nothing_without_a_key_says_so(
    status: int, aliases: dict[str, str], caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_http(routes={"/models": answer(status, {"error": {"message": "who are you?"}})}) as backend:
        async with served_stack(config(served_by(backend, models=aliases))) as (stack, client):
            health = (await client.get("/health")).json()
            assert health["status"] == "OK"
            assert health["providers"][0]["note"] == "lists nothing without a key"
            for path in PATHS.values():
                refused = await client.post(path, json=BODY)
                assert refused.status_code == 404
                assert "provider 'p' lists nothing without a key" in refused.json()["error"]["message"]
            await show_stack(stack, str(client.base_url), TerminalOutput())
    assert caplog.text.count("inference p lists nothing without a key") == 1
    shown = capsys.readouterr().out
    assert "healthy" in shown
    assert ("mine; " if aliases else "0 models; ") + "lists nothing without a key" in shown


# ---- what is down ----------------------------------------------------------------------------------------------------


def scripted(provider_id: str = "a", **settings: Any) -> dict[str, Any]:
    return {"provider_id": provider_id, "provider_type": "scripted", "config": {"script": provider_id, **settings}}


@pytest.fixture
def kept(tmp_path: Path) -> dict[str, Any]:
    return {"type": "sqlite", "config": {"path": str(tmp_path / "registry.sqlite")}}


async def test_a_name_that_was_listed_before_a_restart_is_a_503(
    discovery: Discovery, script: Callable[..., Script], kept: dict[str, Any]
) -> None:
    a = script("a", serves=["m", "n"])
    async with Stack.from_config(config(scripted(), store=kept), discovery=discovery):
        pass
    a.fail_start = ConnectionError("refused")
    async with served_stack(config(scripted(), store=kept), discovery) as (stack, client):
        with pytest.raises(ProviderUnavailableError, match=r"provider 'a' \(scripted\) is down: .*refused"):
            await answer_of(stack, "n")
        for path in PATHS.values():
            refused = await client.post(path, json=BODY)
            assert refused.status_code == 503
            assert "refused" in refused.json()["error"]["message"]
            assert (await client.post(path, json={**BODY, "model": "never"})).status_code == 404
    a.fail_start, a.serves = None, ["n"]
    async with Stack.from_config(config(scripted(), store=kept), discovery=discovery):
        pass
    a.fail_start = ConnectionError("refused")
    async with Stack.from_config(config(scripted(), store=kept), discovery=discovery) as stack:
        with pytest.raises(ObjectNotFoundError):
            await answer_of(stack, "m")


async def test_a_name_in_the_run_config_is_a_503() -> None:
    with scripted_http() as backend:
        provider = served_by(backend, models={"mine": "backend-m"})
    run = config(provider, models=[{"identifier": "registered", "provider_id": "p"}])
    async with Stack.from_config(run) as stack:
        for name in ("mine", "registered", "p/mine", "p/whatever"):
            with pytest.raises(ProviderUnavailableError, match="connection refused"):
                await answer_of(stack, name)
        with pytest.raises(ObjectNotFoundError, match="Note that provider 'p' is down"):
            await answer_of(stack, "other")


async def test_another_that_serves_it_goes_before_one_that_is_down(
    discovery: Discovery, script: Callable[..., Script], kept: dict[str, Any]
) -> None:
    a = script("a", serves=["m"])
    script("b", serves=["m"])
    run = config(scripted("a"), scripted("b"), store=kept)
    async with Stack.from_config(run, discovery=discovery):
        pass
    a.fail_start = ConnectionError("refused")
    async with Stack.from_config(run, discovery=discovery) as stack:
        assert (await answer_of(stack)).completion_message.content == "b"


async def test_banks_and_shields_likewise(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from llamastack_provider_sample import memory, safety

    sample = [{"provider_id": "s", "provider_type": "remote::sample"}]
    run = {"providers": {"memory": sample, "safety": sample}, "store": kept}
    async with Stack.from_config(run) as stack:
        await stack.memory_banks.register_memory_bank(KeywordMemoryBank(identifier="b"))
        await anyio.sleep(0)
        shields = [shield.identifier for shield in await stack.shields.list_shields()]
        assert shields

    async def refuse(*_: object) -> None:
        raise ConnectionError("refused")

    monkeypatch.setattr(memory.SampleMemory, "list_memory_banks", refuse)
    monkeypatch.setattr(safety.SampleSafety, "list_shields", refuse)
    async with Stack.from_config(run) as stack:
        with pytest.raises(ProviderUnavailableError, match="refused"):
            await stack.memory.query_documents(bank_id="b", query="q")
        with pytest.raises(ProviderUnavailableError, match="refused"):
            await stack.safety.run_shield(shield_type=shields[0], messages=HELLO)
        with pytest.raises(ObjectNotFoundError):
            await stack.memory.query_documents(bank_id="never", query="q")


async def test_many_names_are_kept_in_no_time(
    discovery: Discovery, script: Callable[..., Script], kept: dict[str, Any], tmp_path: Path
) -> None:
    a = script("a", serves=[f"model-{number}" for number in range(30_000)])
    async with Stack.from_config(config(scripted(), store=kept), discovery=discovery):
        pass
    assert (tmp_path / "registry.sqlite").stat().st_size < 2**20
    a.fail_start = ConnectionError("refused")
    async with Stack.from_config(config(scripted(), store=kept), discovery=discovery) as stack:
        with pytest.raises(ProviderUnavailableError):
            await answer_of(stack, "model-17")


# ---- what is refused -------------------------------------------------------------------------------------------------

RUN = """\
on_provider_error: {mode}
refresh_interval_s: 0.05
providers:
  inference:
  - {{provider_id: a, provider_type: scripted, config: {{script: a}}}}
models:
- {{identifier: good}}
- {{identifier: no-such}}
"""


async def test_what_its_provider_refuses_is_told_and_not_counted(
    tmp_path: Path,
    script: Callable[..., Script],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)
    a = script("a", serves=["x"], accepts=["good"])
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(mode="retry"))
    async with Stack.from_config(file, discovery=scripted_discovery(tmp_path / "site")) as stack:
        [health] = (await stack.inspect.health()).providers
        assert health.serves == 2
        assert "does not take model 'no-such': model 'no-such' is not served" in (health.note or "")
        await show_stack(stack, "http://h", TerminalOutput())
        [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("inference")]
        assert "x, good; does not take model 'no-such'" in line
        await anyio.sleep(0.3)
        a.accepts = ["good", "no-such"]
        with anyio.fail_after(10):
            while (await stack.inspect.health()).providers[0].serves != 3:
                await anyio.sleep(0.02)
        assert (await stack.inspect.health()).providers[0].note is None
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert warnings[0].startswith("a does not take model 'no-such', which the run config registers: model 'no-such' is")
    assert "a takes model 'no-such' now" in caplog.text


async def test_fail_means_refused_objects_too(tmp_path: Path, script: Callable[..., Script]) -> None:
    a = script("a", serves=["x"], accepts=["good"])
    file = tmp_path / "run.yaml"
    file.write_text(RUN.format(mode="fail"))
    discovery = scripted_discovery(tmp_path / "site")
    with pytest.raises(StackStartError) as caught:
        await Stack.from_config(file, discovery=discovery).start()
    assert str(caught.value).startswith(f"{file}:8: models[1]: model 'no-such' is not taken: model 'no-such' is not")
    assert a.shut_down == 1
    a.accepts = None
    async with Stack.from_config(file, discovery=discovery) as stack:
        await answer_of(stack, "no-such")


async def test_shields_and_banks_are_refused_alike() -> None:
    sample = [{"provider_id": "s", "provider_type": "remote::sample"}]
    run = {
        "providers": {"memory": sample, "safety": sample},
        "memory_banks": [{"identifier": "b", "type": "graph"}],
        "shields": [{"identifier": "sh", "type": "no-such-type"}],
        "on_provider_error": "fail",
    }
    with pytest.raises(StackStartError) as caught:
        await Stack.from_config(run).start()
    assert "config: shields[0]: shield 'sh' is not taken: " in str(caught.value)
    assert "config: memory_banks[0]: memory bank 'b' is not taken: " in str(caught.value)

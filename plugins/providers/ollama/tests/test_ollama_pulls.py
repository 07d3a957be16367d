"""Registering a model that Ollama does not have: pulled, watched, shared, cancelled, resumed."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import yaml
from backends.ollama import OllamaStandIn
from backends.ollama_stack import Running, Start, limit
from backends.ollama_wire import ndjson
from backends.serving import becomes
from running_server import running_server

from llamastack.api import Model
from llamastack.provider import BackendError, ProviderUnavailableError, UnsupportedModelError

pytestmark = pytest.mark.anyio
TINY = Model(identifier="tiny")


async def until(condition: Callable[[], Any]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0.01)


async def progress(running: Running) -> Any:
    [provider] = (await running.stack.inspect.health()).providers
    return provider.progress


async def test_a_model_is_pulled_and_served(start: Start) -> None:
    async with start(allow_pull=True) as running:
        await running.stack.models.register_model(TINY)
        assert running.ollama.pulls == ["tiny:latest"]
        reply = await running.chat(model="tiny")
        assert reply.completion_message.content == "The capital of France is Paris."
        await running.stack.models.register_model(Model(identifier="tiny:latest"))
        assert running.ollama.pulls == ["tiny:latest"]  # it is there


async def test_progress_is_told(start: Start) -> None:
    seen = []
    async with start(allow_pull=True) as running, anyio.create_task_group() as group:
        running.ollama.pull_step_s = 0.05
        group.start_soon(running.stack.models.register_model, TINY)
        await until(lambda: running.ollama.pulling)
        while running.ollama.pulling:
            shown = await progress(running)
            if shown is not None:
                seen.append((shown.task, shown.done, shown.unit))
            await anyio.sleep(0.02)
        assert await progress(running) is None
    assert {task for task, _, unit in seen if unit == "bytes"} == {"pulling tiny"}
    done = [done for _, done, _ in seen]
    assert done == sorted(done)
    assert 0 < done[-1] <= 102_500


async def test_two_clients_share_a_pull(start: Start) -> None:
    async with start(allow_pull=True, models={"mine": "tiny"}) as running:
        running.ollama.pull_held = True
        async with anyio.create_task_group() as group:
            for name in ("tiny", "tiny:latest", "mine"):
                group.start_soon(running.stack.models.register_model, Model(identifier=name))
            await until(lambda: running.ollama.count("/api/show") >= 8)
            await anyio.sleep(0.1)
            running.ollama.pull_held = False
        assert running.ollama.pulls == ["tiny:latest"]


async def test_a_pull_is_cancelled_when_nobody_waits_any_more(start: Start) -> None:
    async with start(allow_pull=True) as running:
        running.ollama.pull_held = True
        scopes = [anyio.CancelScope(), anyio.CancelScope()]

        async def register(scope: anyio.CancelScope) -> None:
            with scope:
                await running.stack.models.register_model(
                    Model(identifier=f"tiny{'' if scope is scopes[0] else ':latest'}")
                )

        async with anyio.create_task_group() as group:
            for scope in scopes:
                group.start_soon(register, scope)
            await until(lambda: running.ollama.pulling)
            await anyio.sleep(0.1)
            scopes[0].cancel()
            await anyio.sleep(0.3)
            assert running.ollama.pulling == 1  # the other one still waits
            scopes[1].cancel()
            await until(lambda: not running.ollama.pulling)
        assert await anyio.to_thread.run_sync(becomes, lambda: running.ollama.disconnects == 1)
        running.ollama.pull_held = False
        assert "tiny" not in [model.identifier for model in await running.stack.models.list_models()]
        await running.stack.models.register_model(TINY)
        assert running.ollama.pulls == ["tiny:latest", "tiny:latest"]


async def test_a_model_that_nobody_has(start: Start) -> None:
    async with start(allow_pull=True) as running:
        with pytest.raises(UnsupportedModelError, match="model 'nope' is not served: .*file does not exist") as caught:
            await running.stack.models.register_model(Model(identifier="nope"))
        assert (caught.value.status, caught.value.provider_id) == (400, "o")
        assert "nope" not in [model.identifier for model in await running.stack.models.list_models()]


@pytest.mark.parametrize(("fault", "words"), [("pull_error", "unexpected EOF"), ("pull_cut", "cut short")])
async def test_a_pull_that_fails_leaves_nothing_and_can_be_tried_again(start: Start, fault: str, words: str) -> None:
    async with start(allow_pull=True) as running:
        setattr(running.ollama, fault, 3)
        with pytest.raises(BackendError, match=words) as caught:
            await running.stack.models.register_model(TINY)
        assert caught.value.provider_id == "o"
        assert "tiny" not in [model.identifier for model in await running.stack.models.list_models()]
        setattr(running.ollama, fault, None)
        await running.stack.models.register_model(TINY)
        await running.chat(model="tiny", sampling_params=limit(1))


async def test_a_pull_that_ends_before_it_is_complete(start: Start) -> None:
    async with start(allow_pull=True) as running:
        running.ollama.routes["/api/pull"] = lambda _: ndjson({"status": "pulling manifest"})
        with pytest.raises(BackendError, match="ended the pull of 'tiny' before it was complete"):
            await running.stack.models.register_model(TINY)


async def test_the_provider_alone_cancels_a_pull_that_nobody_waits_for(start: Start) -> None:
    async with start(allow_pull=True) as running:
        running.ollama.pull_held = True
        provider = running.stack.instances["inference"][0].provider
        async with anyio.create_task_group() as group:  # without the stack, which would unregister, too
            group.start_soon(provider.register_model, TINY)
            await until(lambda: running.ollama.pulling)
            group.cancel_scope.cancel()
        await until(lambda: not running.ollama.pulling)


async def test_what_was_registered_is_pulled_in_the_background_at_the_next_start(start: Start) -> None:
    async with start(allow_pull=True, kept=True) as running:
        await running.stack.models.register_model(TINY)
    del running.ollama.models["tiny:latest"]
    running.ollama.pull_held = True
    async with start(allow_pull=True, kept=True) as running:  # it starts without waiting for the pull
        with pytest.raises(ProviderUnavailableError, match="is pulling 'tiny'"):
            await running.chat(model="tiny")
        running.ollama.pull_held = False
        await until(lambda: not running.ollama.pulling)
        running.stack.instances["inference"][0].wake()
        with anyio.fail_after(10):
            while (await running.stack.models.get_model(identifier="tiny")).unavailable_reason:
                await anyio.sleep(0.02)
        await running.chat(model="tiny", sampling_params=limit(1))
        assert running.ollama.pulls == ["tiny:latest", "tiny:latest"]


async def test_unregistering_ends_a_pull_in_the_background(start: Start) -> None:
    async with start(allow_pull=True, kept=True) as running:
        await running.stack.models.register_model(TINY)
    del running.ollama.models["tiny:latest"]
    running.ollama.pull_held = True
    async with start(allow_pull=True, kept=True) as running:
        await until(lambda: running.ollama.pulling)
        await running.stack.models.unregister_model("tiny")
        await until(lambda: not running.ollama.pulling)


async def test_a_stop_ends_a_pull(start: Start) -> None:
    async with start(allow_pull=True) as running:
        running.ollama.pull_held = True
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as group:

                async def register() -> None:
                    await running.stack.models.register_model(TINY)

                group.start_soon(register)
                await until(lambda: running.ollama.pulling)
                scope.cancel()
    await until(lambda: not running.ollama.pulling)


def test_the_command_shows_how_far_it_is(stand_in: tuple[OllamaStandIn, str], tmp_path: Path) -> None:
    made, url = stand_in
    made.pull_step_s = 0.2
    provider = {"provider_id": "o", "provider_type": "remote::ollama", "config": {"url": url, "allow_pull": True}}
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump({"providers": {"inference": [provider]}}))
    with running_server(config, home=tmp_path / "home") as server:
        command = [str(Path(sys.executable).with_name("llamastack")), "models", "register", "tiny", "--url", server.url]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, "registered model 'tiny' with provider 'o'\n"), done.stderr
        assert "inference o: pulling tiny ..." in done.stderr
        listed = subprocess.run(
            [command[0], "models", "get", "tiny", "--json", "--url", server.url],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(listed.stdout)["provider_id"] == "o"

"""Plugins: a whole API from a package, hooks, middleware, commands; a broken one stops nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import plugin_fake
import pytest
from installed_fakes import entry_points_in, install

from llamastack import LlamaStackClient, Stack
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.errors import ObjectNotFoundError
from llamastack.stack.discovery import Discovery
from llamastack.stack.plugins import Plugins
from llamastack_server.uvicorn_server import bind, serve, url_of

pytestmark = pytest.mark.anyio
CONFIG = {"providers": {"speech": [{"provider_id": "loud", "provider_type": "loudspeaker"}]}}


@pytest.fixture
def plugged(tmp_path: Path) -> Iterator[Discovery]:
    """The plugin and two broken ones are installed."""
    site = tmp_path / "site"
    install(
        site,
        "speaking",
        {
            "llamastack.plugins": {"speaking": "plugin_fake:PLUGIN"},
            "llamastack.providers.speech": {
                "loudspeaker": "plugin_fake:SPEC",
                "remote": "llamastack_provider_remote.passthrough:speech",
            },
        },
    )
    install(site, "broken", {"llamastack.plugins": {"gone": "package_that_is_gone:X", "wrong": "plugin_fake:WRONG"}})
    plugin_fake.PLUGIN.heard.clear()
    yield Discovery(entry_points_in(site))
    plugin_fake.PLUGIN.heard.clear()


async def test_an_api_of_a_package_is_served_everywhere(plugged: Discovery) -> None:
    """Routed, registered, over HTTP, in OpenAPI, through the client and through the passthrough."""
    listening = bind("127.0.0.1", 0)
    ready = anyio.Event()
    definitions = [*BUILTIN_APIS, *plugin_fake.APIS]
    async with Stack.from_config(CONFIG, discovery=plugged) as stack, anyio.create_task_group() as group:
        group.start_soon(serve, stack, listening, ready.set)
        await ready.wait()
        url = url_of(listening)
        async with LlamaStackClient(url, apis=definitions) as client:
            remote = {"provider_id": "far", "provider_type": "remote", "config": {"url": url}}
            async with Stack.from_config({"providers": {"speech": [remote]}}, discovery=plugged) as other:
                for apis in (stack, client, other):
                    speech: Any = await apis.speech.speak(voice="anna", text="hello")
                    assert speech.sound == "anna: hello"
                    with pytest.raises(ObjectNotFoundError, match="no voice 'bob' is served. Served: anna"):
                        await apis.speech.speak(voice="bob", text="hello")
                await other.voices.register_voice({"identifier": "carl"})
                assert (await stack.voices.get_voice("carl")).provider_id == "loud"
        async with httpx.AsyncClient(base_url=url) as http:
            paths = (await http.get("/openapi.json")).json()["paths"]
            assert {"/speech/speak", "/voices/list", "/health"} <= set(paths)
        group.cancel_scope.cancel()


async def test_every_hook_is_called_and_its_failures_hurt_nobody(
    plugged: Discovery, caplog: pytest.LogCaptureFixture
) -> None:
    listening = bind("127.0.0.1", 0)
    ready = anyio.Event()
    with caplog.at_level(logging.ERROR):
        async with Stack.from_config(CONFIG, discovery=plugged) as stack, anyio.create_task_group() as group:
            group.start_soon(serve, stack, listening, ready.set)
            await ready.wait()
            await stack.voices.register_voice({"identifier": "carl"})
            await stack.voices.unregister_voice("carl")
            async with httpx.AsyncClient(base_url=url_of(listening)) as http:
                reply = await http.get("/health")
                assert (reply.status_code, reply.headers["x-stamped"]) == (200, "yes")
            group.cancel_scope.cancel()
    assert plugin_fake.PLUGIN.heard == [
        ("started", ["inspect", "speech", "voices"]),
        ("registered", ("voices", "carl")),
        ("unregistered", ("voices", "carl")),
        ("finished", ("GET", "/health", 200)),
        ("stopping", "anna: bye"),
    ]
    assert "a plugin failed in llamastack_request_finished" in caplog.text


def test_a_broken_plugin_is_a_record_and_stops_no_other(plugged: Discovery) -> None:
    hooks = Plugins(plugged)
    assert "speech" in hooks.apis()
    broken = {record.installed.name: record.cause for record in hooks.broken}
    assert set(broken) == {"gone", "wrong"}
    assert "'gone' (broken 1.2.3, entry point package_that_is_gone:X) cannot be loaded" in broken["gone"]
    assert "nonsense" in broken["wrong"]


def test_a_disabled_plugin_is_not_loaded(plugged: Discovery) -> None:
    off = Discovery(plugged._entry_points, disabled=["speaking"])
    assert "speech" not in Plugins(off).apis()


def test_hook_calls_are_traced_on_request(
    plugged: Discovery, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LLAMASTACK_TRACE_HOOKS", "1")
    Plugins(plugged).apis()
    assert "llamastack_apis" in capsys.readouterr().err

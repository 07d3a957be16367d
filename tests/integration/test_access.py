"""Who asks and what they may do, over every surface: a static table of API keys in a plugin decides."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import access_fake
import httpx
import pytest
from access_fake import ACCESS, AROUND, CALLS, DENYING, KEYS_PLUGIN
from backends.scripted_http import ScriptedHttp, answer, served_by
from installed_fakes import install, scripted_discovery
from running_server import running_server
from scripted_stacks import Scripts
from served_stack import served_stack
from telemetry_fake import FAKE_SINKS, FakeSink

from llamastack.api.common import UserMessage
from llamastack.client import LlamaStackClient
from llamastack.provider import AuthenticationError, PermissionDeniedError
from llamastack.provider.context import Principal, use_context
from llamastack.provider.errors import InternalError, ObjectNotFoundError
from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery, DiscoveryError

pytestmark = pytest.mark.anyio
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ASK: dict[str, Any] = {"messages": [UserMessage(content="Hi")]}
REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Paris"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}
TWO = {
    "providers": {
        "inference": [
            {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}},
            {"provider_id": "b", "provider_type": "scripted", "config": {"script": "b"}},
        ]
    },
    "store": {"type": "memory"},
}


def key(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {name}-key"}


@pytest.fixture(autouse=True)
def plugged(tmp_path: Path) -> Iterator[None]:
    install(tmp_path / "site-packages", "acme-access", ACCESS)
    install(tmp_path / "site-packages", "acme-calls", CALLS)
    access_fake.forget()
    yield
    access_fake.forget()


@pytest.fixture
async def http(discovery: Discovery, script: Scripts) -> AsyncIterator[httpx.AsyncClient]:
    """Of a stack whose `m` everybody may call, and `secret` only admins."""
    script("a", serves=["m"])
    script("b", serves=["secret"])
    async with served_stack(TWO, discovery) as (_, client):
        yield client


async def test_nobody_is_let_in_without_a_key_but_to_health(http: httpx.AsyncClient) -> None:
    routes = [("GET", "/models/list"), ("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/docs")]
    for method, path in [*routes, ("POST", "/inference/chat_completion"), ("GET", "/openapi.json"), ("GET", "/none")]:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            reply = await http.request(method, path, json=CHAT if method == "POST" else None, headers=headers)
            assert (reply.status_code, reply.headers["www-authenticate"]) == (401, "Bearer"), path
            error = reply.json()["error"]
            assert error["code"] == ("invalid_api_key" if path.startswith("/v1") else "authentication_failed")
            assert "wrong" not in reply.text
    assert (await http.get("/health")).status_code == 200
    assert (await http.head("/health")).status_code == 200


async def test_a_request_without_a_key_has_a_span_too(discovery: Discovery, tmp_path: Path) -> None:
    install(tmp_path / "site-packages", "acme-sink", FAKE_SINKS)
    config = {
        "providers": {"telemetry": [{"provider_id": "sink", "provider_type": "fake-sink"}]},
        "tracing": {"interval_s": 0.05},
    }
    async with served_stack(config, discovery) as (stack, client):
        assert (await client.get("/v1/models")).status_code == 401
        sink = stack.instances["telemetry"][0].provider
        assert isinstance(sink, FakeSink)
        [span] = await sink.until(1)
        assert span.attributes["http.response.status_code"] == 401
        assert (span.status, span.parent_id) == ("unset", None)


async def test_errors_have_the_form_of_the_surface(http: httpx.AsyncClient) -> None:
    native = await http.post("/inference/chat_completion", json={**CHAT, "model": "secret"}, headers=key("bob"))
    assert native.status_code == 403
    assert native.json()["error"]["code"] == "permission_denied"
    assert native.json()["error"]["message"] == "'bob' may not call 'secret' of inference (chat_completion)"
    openai = await http.post("/v1/chat/completions", json={**CHAT, "model": "b/secret"}, headers=key("bob"))
    assert openai.status_code == 403
    assert openai.json()["error"]["type"] == "permission_error"
    stream = {**CHAT, "model": "secret", "stream": True}
    for path in ("/inference/chat_completion", "/v1/chat/completions"):
        assert (await http.post(path, json=stream, headers=key("bob"))).status_code == 403
        assert (await http.post(path, json=stream, headers=key("ann"))).status_code == 200


async def test_what_a_principal_may_not_see_is_not_listed_nor_named(http: httpx.AsyncClient) -> None:
    for name, seen in (("ann", ["m", "secret"]), ("bob", ["m"])):
        native = (await http.get("/models/list", headers=key(name))).json()
        assert [model["identifier"] for model in native] == seen
        openai = (await http.get("/v1/models", headers=key(name))).json()["data"]
        assert [model["id"] for model in openai] == seen
    assert (await http.get("/models/get", params={"identifier": "secret"}, headers=key("bob"))).json() is None
    assert (await http.get("/v1/models/secret", headers=key("bob"))).status_code == 404
    unknown = await http.post("/v1/chat/completions", json={**CHAT, "model": "none"}, headers=key("bob"))
    assert unknown.status_code == 404
    assert "Served: m" in unknown.text
    assert "secret" not in unknown.text
    assert (await http.get("/providers/list", headers=key("bob"))).status_code == 403
    assert (await http.get("/providers/list", headers=key("ann"))).status_code == 200


async def test_registration_and_its_end_need_permission(http: httpx.AsyncClient, script: Scripts) -> None:
    new = {"model": {"identifier": "new", "provider_id": "a"}}
    assert (await http.post("/models/register", json=new, headers=key("bob"))).status_code == 403
    assert (await http.post("/models/register", json=new, headers=key("ann"))).status_code == 200
    KEYS_PLUGIN.asked.clear()
    by_other_name = {"identifier": "a/new"}
    assert (await http.post("/models/unregister", json=by_other_name, headers=key("bob"))).status_code == 403
    [(who, action, resource)] = [one for one in KEYS_PLUGIN.asked if one[1] == "unregister"]
    assert (who, action, resource.identifier, resource.provider_id) == ("bob", "unregister", "new", "a")
    assert (await http.post("/models/unregister", json=by_other_name, headers=key("ann"))).status_code == 200


async def test_an_alias_gives_nobody_more_rights(http: httpx.AsyncClient) -> None:
    alias = {"model": {"identifier": "fast", "provider_id": "b", "provider_resource_id": "secret"}}
    assert (await http.post("/models/register", json=alias, headers=key("bob"))).status_code == 403
    assert (await http.post("/models/register", json=alias, headers=key("ann"))).status_code == 200
    assert [resource.identifier for _, action, resource in KEYS_PLUGIN.asked if action == "read"][-1] == "secret"
    KEYS_PLUGIN.open_to_all = {"m", "fast"}
    for stream in (False, True):
        for path in ("/inference/chat_completion", "/v1/chat/completions"):
            for name in ("fast", "b/fast"):
                asked = {**CHAT, "model": name, "stream": stream}
                assert (await http.post(path, json=asked, headers=key("bob"))).status_code == 403
                assert (await http.post(path, json=asked, headers=key("ann"))).status_code == 200


async def test_every_plugin_is_asked_and_a_deny_wins(http: httpx.AsyncClient) -> None:
    DENYING.denied = {"m"}
    before = DENYING.asked
    reply = await http.post("/inference/chat_completion", json=CHAT, headers=key("ann"))
    assert reply.status_code == 403
    assert DENYING.asked == before + 1
    assert KEYS_PLUGIN.asked[-1][0] == "ann"
    DENYING.denied, DENYING.fails = set(), ValueError("its own fault")
    reply = await http.post("/inference/chat_completion", json=CHAT, headers=key("ann"))
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal_error")
    assert "acme-access:denying failed in llamastack_authorize" in reply.text
    assert "its own fault" not in reply.text


async def test_the_client_brings_a_key(http: httpx.AsyncClient) -> None:
    url = str(http.base_url)
    async with LlamaStackClient(url, api_key="bob-key") as bob, LlamaStackClient(url) as nobody:
        reply: Any = await bob.inference.chat_completion(model="m", **ASK)
        assert reply.completion_message.content == "a"
        stream: Any = await bob.inference.chat_completion(model="m", **ASK, stream=True)
        assert [piece async for piece in stream]
        with pytest.raises(PermissionDeniedError):
            await bob.inference.chat_completion(model="secret", **ASK)
        with pytest.raises(AuthenticationError):
            await nobody.inference.chat_completion(model="m", **ASK)


async def test_in_process_the_context_says_who_asks(discovery: Discovery, script: Scripts) -> None:
    script("a", serves=["m"])
    script("b", serves=["secret"])
    async with Stack.from_config(TWO, discovery=discovery) as stack:
        with pytest.raises(PermissionDeniedError, match="a caller without a principal may not call 'm'"):
            await stack.inference.chat_completion(model="m", **ASK)
        with use_context(principal=Principal("bob", {"group": "users"})):
            await stack.inference.chat_completion(model="m", **ASK)
            assert [model.identifier for model in await stack.models.list_models()] == ["m"]
            with pytest.raises(ObjectNotFoundError) as raised:
                await stack.inference.chat_completion(model="none", **ASK)
            assert "secret" not in str(raised.value)
        DENYING.fails = ValueError("no")
        with use_context(principal=Principal("ann", {"group": "admins"})), pytest.raises(InternalError):
            await stack.inference.chat_completion(model="m", **ASK)


async def test_a_choice_of_an_unknown_model_names_visible_models(discovery: Discovery, script: Scripts) -> None:
    script("a", serves=["m"])
    script("b", serves=["secret"])
    AROUND.does = lambda call, proceed: proceed(call.replaced(provider_id="b", identifier="none"))
    async with Stack.from_config(TWO, discovery=discovery) as stack:
        bob = use_context(principal=Principal("bob", {"group": "users"}))
        with bob, pytest.raises(ObjectNotFoundError, match="'b/none' is served. Served: m$"):
            await stack.inference.chat_completion(model="m", **ASK)


async def test_an_unknown_name_tells_who_is_down(discovery: Discovery, script: Scripts) -> None:
    script("a", serves=["m"])
    script("b", fail_start=ConnectionError("gone"))
    async with Stack.from_config(TWO, discovery=discovery) as stack:
        bob = use_context(principal=Principal("bob", {"group": "users"}))
        with bob, pytest.raises(ObjectNotFoundError, match="Served: m. Note that provider 'b' is down"):
            await stack.inference.chat_completion(model="none", **ASK)


async def test_what_the_stack_does_by_itself_is_not_asked_about(discovery: Discovery, script: Scripts) -> None:
    own = script("a", accepts=["m", "x"])
    script("b")
    config = {**TWO, "models": [{"identifier": "x", "provider_id": "a"}]}
    async with Stack.from_config(config, discovery=discovery):
        assert own.registered == ["x"]
    assert KEYS_PLUGIN.asked == []


async def test_forwarded_requests_need_permission_too(discovery: Discovery, scripted_backend: ScriptedHttp) -> None:
    scripted_backend.default = answer(200, REPLY)
    config = {"providers": {"inference": [served_by(scripted_backend)]}}
    async with served_stack(config, discovery) as (_, client):
        assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 401
        reply = await client.post("/v1/chat/completions", json=CHAT, headers=key("bob"))
        assert reply.json() == REPLY
        KEYS_PLUGIN.open_to_all.clear()
        assert (await client.post("/v1/chat/completions", json=CHAT, headers=key("bob"))).status_code == 403
        [received] = [one for one in scripted_backend.received if one.method == "POST"]
        assert "bob-key" not in str(received)


@pytest.mark.parametrize("entry", ["package_that_is_gone:X", "access_fake:MISSPELT"])
def test_a_required_plugin_that_does_not_load_stops_the_start(discovery: Discovery, tmp_path: Path, entry: str) -> None:
    install(tmp_path / "site-packages", "acme-broken", {"llamastack.required_plugins": {"broken": entry}})
    with pytest.raises(DiscoveryError, match=r"(?s)a required plugin cannot be used: .*(acme-broken 1.2.3|nonsense)"):
        Stack.from_config(TWO, discovery=discovery)


def test_access_in_another_group_stops_the_start(tmp_path: Path) -> None:
    site = tmp_path / "other"
    install(site, "acme-lax", {"llamastack.plugins": {"lax": "access_fake:KEYS_PLUGIN"}})
    with pytest.raises(DiscoveryError, match=r"'lax' \(acme-lax 1.2.3\) has llamastack_auth.*required_plugins"):
        Stack.from_config(TWO, discovery=scripted_discovery(site))


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that has the plugins."""
    site = tmp_path / "site"
    install(site, "acme-access", ACCESS)
    (site / "access_fake.py").write_text(Path(access_fake.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "run.yaml").write_text(
        "providers: {inference: [{provider_id: far, provider_type: 'remote::openai', "
        "config: {url: 'http://127.0.0.1:9/v1', api_key: none}}]}\nstore: {type: memory}\n"
    )
    return {**os.environ, "PYTHONPATH": str(site)}


def command(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    program = str(Path(sys.executable).with_name("llamastack"))
    return subprocess.run([program, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_brings_the_key_of_its_environment(
    tmp_path: Path, own_home: Path, installed: dict[str, str]
) -> None:
    """Of a real server, whose plugins come from a folder on its path."""
    with running_server(tmp_path / "run.yaml", home=own_home, environment=installed) as server:
        for given, code in (({}, 1), ({"LLAMASTACK_API_KEY": "wrong"}, 1), ({"LLAMASTACK_API_KEY": "ann-key"}, 0)):
            done = command("inspect", "--url", server.url, env={**os.environ, **given})
            assert done.returncode == code, done
            assert ("far" in done.stdout) is (code == 0)
            if code:
                assert "key is not known" in done.stderr or "who asks" in done.stderr
        assert server.stop() == 0
    assert "wrong" not in "".join(server.output)


def test_a_server_does_not_start_open(tmp_path: Path, own_home: Path, installed: dict[str, str]) -> None:
    (tmp_path / "site" / "access_fake.py").write_text("import a_package_that_is_gone")
    done = command("run", str(tmp_path / "run.yaml"), "--port", "0", env=installed)
    assert done.returncode == 1
    assert "a required plugin cannot be used: 'denying' (acme-access 1.2.3" in done.stderr
    assert "No module named 'a_package_that_is_gone'" in done.stderr
    assert "Traceback" not in done.stderr
    listed = command("plugins", "list", env=installed)
    assert listed.returncode == 0
    assert "a_package_that_is_gone" in listed.stdout

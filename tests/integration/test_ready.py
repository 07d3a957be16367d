"""`GET /ready`: what can be served now, for load balancers and orchestrators; and the probes that the docs show."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import access_fake
import anyio
import httpx
import pytest
import yaml
from access_fake import ACCESS, DENYING
from installed_fakes import install
from pages_of_docs import code_blocks, read, section
from scripted_stacks import Scripted, Scripts
from served_stack import served_stack

from llamastack.client import LlamaStackClient
from llamastack.provider.context import Principal, use_context
from llamastack.provider.errors import (
    NotFoundError,
    ObjectNotFoundError,
    PermissionDeniedError,
    ProviderUnavailableError,
)
from llamastack.stack import Stack
from llamastack.stack.discovery import Discovery
from llamastack_server.uvicorn_server import bind, serve, url_of

pytestmark = pytest.mark.anyio
SAFE = {"provider_id": "safe", "provider_type": "remote::sample"}


def config(*names: str, **more: Any) -> dict[str, Any]:
    """Scripted inference providers of these names, and a safety provider that is always healthy."""
    providers = [{"provider_id": name, "provider_type": "scripted", "config": {"script": name}} for name in names]
    return {"providers": {"inference": providers, "safety": [SAFE]}, "store": {"type": "memory"}, **more}


@asynccontextmanager
async def serving(discovery: Discovery, *names: str) -> AsyncIterator[httpx.AsyncClient]:
    async with served_stack(config(*names), discovery) as (_, client):
        yield client


async def test_one_healthy_provider_of_each_api_is_enough(discovery: Discovery, script: Scripts) -> None:
    script("a", fail_start=OSError("no route to the backend"))
    script("b", serves=["m"])
    async with serving(discovery, "a", "b") as client:
        reply = await client.get("/ready")
        assert reply.status_code == 200
        apis = reply.json()["apis"]
        assert {(api, p["provider_id"], p["status"]) for api, each in apis.items() for p in each} == {
            ("inference", "a", "down"),
            ("inference", "b", "healthy"),
            ("safety", "safe", "healthy"),
        }
        assert "no route to the backend" in apis["inference"][0]["reason"]
        assert (await client.head("/ready")).status_code == 200
        assert (await client.get("/health")).json()["status"] == "DEGRADED"


async def test_an_api_without_a_healthy_provider_is_a_503_that_names_it(discovery: Discovery, script: Scripts) -> None:
    script("a", fail_start=OSError("no route to the backend"))
    async with serving(discovery, "a") as client:
        for query in ("", "?api=inference"):
            reply = await client.get(f"/ready{query}")
            assert reply.status_code == 503
            error = reply.json()["error"]
            assert error["code"] == "provider_unavailable"
            assert error["message"].startswith("not ready: inference: 'a' is down: ")
            assert "no route to the backend" in error["message"]
            assert error["message"].endswith(". Ready: safety") is (query == "")
            [fault] = error["detail"]["errors"]
            assert (fault["loc"], fault["type"]) == (["inference", "a"], "down")
            assert "no route to the backend" in fault["msg"]
        assert (await client.get("/ready?api=safety")).status_code == 200
        health = await client.get("/health")
        assert (health.status_code, health.json()["status"]) == (200, "DEGRADED")


async def test_a_provider_that_still_starts_is_not_ready(discovery: Discovery, script: Scripts) -> None:
    script("a", hang_start=True)
    stack = Stack.from_config(config("a"), discovery=discovery)
    await stack.start(wait_s=0.01)
    try:
        with pytest.raises(ProviderUnavailableError, match=r"^not ready: inference: 'a' is starting"):
            await stack.inspect.ready(api="inference")
    finally:
        await stack.stop()


async def test_a_model(discovery: Discovery, script: Scripts) -> None:
    a = script("a", serves=["m"])
    script("b", fail_start=OSError("down"))
    async with serving(discovery, "a", "b") as client:
        ready = await client.get("/ready", params={"model": "m"})
        assert (ready.status_code, ready.json()) == (200, {"apis": {}, "model": "m"})
        both = await client.get("/ready", params={"model": "a/m", "api": "safety"})
        assert (both.status_code, [*both.json()["apis"]]) == (200, ["safety"])
        none = await client.get("/ready", params={"model": "none"})
        assert (none.status_code, none.json()["error"]["code"]) == (404, "object_not_found")
        assert none.json()["error"]["message"].startswith(
            "no model 'none' is served. Served: m. Note that provider 'b'"
        )
        api = await client.get("/ready", params={"model": "m", "api": "none"})
        assert (api.status_code, api.json()["error"]["param"]) == (404, "api")
        assert api.json()["error"]["message"] == "no provider serves API 'none'; APIs: inference, safety"
        a.fail_list = OSError("the backend is gone")
        with anyio.fail_after(20):
            await client.get("/ready", params={"model": "none"})  # asks the providers again
            while (down := await client.get("/ready", params={"model": "m"})).status_code == 200:
                await anyio.sleep(0.05)
                await client.get("/ready", params={"model": "none"})
        assert down.status_code == 503
        assert down.json()["error"]["message"].startswith("provider 'a' (scripted) is down: ")


async def test_a_stack_without_inference_has_no_model(discovery: Discovery) -> None:
    async with served_stack({"providers": {"safety": [SAFE]}, "store": {"type": "memory"}}, discovery) as (_, client):
        reply = await client.get("/ready", params={"model": "m"})
        assert reply.status_code == 404
        assert "no provider serves API 'inference'" in reply.json()["error"]["message"]
        assert (await client.get("/ready")).status_code == 200
        assert (await client.get("/ready?modle=m")).status_code == 400


async def test_the_client_has_it(discovery: Discovery, script: Scripts) -> None:
    script("a", serves=["m"])
    async with serving(discovery, "a") as http, LlamaStackClient(str(http.base_url)) as client:
        assert (await client.inspect.ready(model="m")).model == "m"
        with pytest.raises(NotFoundError):
            await client.inspect.ready(api="none")


# ---- with access control -----------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[None]:
    install(tmp_path / "site-packages", "acme-access", ACCESS)
    access_fake.forget()
    yield
    access_fake.forget()


async def test_the_anonymous_learn_no_names(discovery: Discovery, script: Scripts, keys: None) -> None:
    script("a", serves=["m"])
    script("b", serves=["secret"])
    script("c", fail_start=OSError("down"))
    async with serving(discovery, "a", "b", "c") as client:
        for headers in ({}, {"Authorization": "Bearer ann-key"}, {"Authorization": "Bearer wrong"}):
            assert (await client.get("/ready", headers=headers)).status_code == 200
            assert (await client.get("/ready?model=m", headers=headers)).status_code == 200
            for name in ("none", "c/none"):
                reply = await client.get("/ready", params={"model": name}, headers=headers)
                assert reply.status_code == 503
                error = reply.json()["error"]
                assert (error["code"], error["message"]) == ("provider_unavailable", "the model is not ready")
                assert error.keys() == {"code", "message", "request_id"}
        assert "secret" not in (await client.get("/ready")).text


async def test_the_anonymous_learn_of_a_model_that_it_is_down_and_not_why(
    discovery: Discovery, script: Scripts, keys: None
) -> None:
    a = script("a", serves=["m"])
    async with Stack.from_config(config("a"), discovery=discovery) as stack:
        assert (await stack.inspect.ready(model="m")).model == "m"
        a.fail_list = OSError("the backend is gone")
        [instance] = stack.instances["inference"]
        await instance.refresh(force=True)
        with pytest.raises(ProviderUnavailableError, match="^the model is not ready$") as raised:
            await stack.inspect.ready(model="m")
        assert raised.value.provider_id is None


async def test_a_principal_learns_what_it_may_see(discovery: Discovery, script: Scripts, keys: None) -> None:
    script("a", serves=["m"])
    script("b", serves=["secret"])
    async with Stack.from_config(config("a", "b"), discovery=discovery) as stack:
        with use_context(principal=Principal("bob", {"group": "users"})):
            assert (await stack.inspect.ready(model="m")).model == "m"
            with pytest.raises(ObjectNotFoundError, match="Served: m$"):
                await stack.inspect.ready(model="none")
            with pytest.raises(PermissionDeniedError, match="'bob' may not read 'secret' of models"):
                await stack.inspect.ready(model="secret")
        DENYING.fails = RuntimeError("the directory of users is down")
        assert (await stack.inspect.ready()).apis  # a monitor needs no directory


# ---- what the docs show -------------------------------------------------------------------------------------------


async def test_the_probes_of_the_docs_fit_a_running_server(discovery: Discovery, script: Scripts) -> None:
    part = section(read("docs/operations.md"), "Health checks")
    [code] = code_blocks(part, "yaml")
    [container] = yaml.safe_load(code)["spec"]["containers"]
    asked = {kind: probe["httpGet"]["path"] for kind, probe in container.items() if kind.endswith("Probe")}
    assert asked == {"startupProbe": "/ready", "livenessProbe": "/health", "readinessProbe": "/ready"}
    script("a", fail_start=OSError("down"))
    async with serving(discovery, "a") as client:
        statuses = {kind: (await client.get(path)).status_code for kind, path in asked.items()}
        assert statuses == {"startupProbe": 503, "livenessProbe": 200, "readinessProbe": 503}
    script("a")
    async with serving(discovery, "a") as client:
        assert {(await client.get(path)).status_code for path in asked.values()} == {200}


async def test_a_server_that_drains_refuses_connections(scripted: Scripted, script: Scripts) -> None:
    a = script("a", piece_delay_s=60)
    listening = bind("127.0.0.1", 0)
    url, ready, scope = url_of(listening), anyio.Event(), anyio.CancelScope()
    async with (
        scripted("a", server={"drain_timeout_s": 2}) as stack,
        httpx.AsyncClient(base_url=url, timeout=20) as client,
        anyio.create_task_group() as group,
    ):

        async def run() -> None:
            with scope:
                await serve(stack, listening, ready.set)

        async def hold() -> None:
            chat = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
            await client.post("/inference/chat_completion", json=chat)

        group.start_soon(run)
        await ready.wait()
        assert (await client.get("/ready")).status_code == 200
        group.start_soon(hold)
        with anyio.fail_after(20):
            while not a.in_flight:
                await anyio.sleep(0.01)
            scope.cancel()
            while True:
                try:
                    async with httpx.AsyncClient(base_url=url) as prober:
                        await prober.get("/ready")
                except httpx.ConnectError:
                    break
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    pass  # the connection was made just before the port closed
                await anyio.sleep(0.01)
        assert a.in_flight  # the request is still being served
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])))

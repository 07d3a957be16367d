"""What plugins add around a served stack: routes, files, forms of errors, middleware, lifespans, config sections."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from installed_fakes import entry_points_in, install
from pydantic import BaseModel, ConfigDict
from served_stack import served_stack

from llamastack import ConfigError, Stack
from llamastack.provider import NotFoundError, PermissionDeniedError, hookimpl
from llamastack.provider.config_sections import ConfigSection
from llamastack.provider.errors import LlamaStackError
from llamastack.provider.routes import (
    ACCESS_ORDER,
    HOST_CHECK_ORDER,
    Middleware,
    Receive,
    Route,
    RouteGroup,
    Scope,
    Send,
)
from llamastack.stack import discovery as discovery_module
from llamastack.stack.discovery import Discovery, DiscoveryError
from llamastack.stack.hook_calls import PluginError
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
CONFIG: dict[str, Any] = {"providers": {"inference": [{"provider_id": "a", "provider_type": "remote::sample"}]}}
Plugged = Callable[..., Discovery]


@pytest.fixture
def plugged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plugged:
    """What is installed, and plugins of these names with these hooks."""

    def make(**plugins: dict[str, Any]) -> Discovery:
        for name, hooks in plugins.items():
            module = ModuleType(f"hooks_of_{name}")
            for hook, function in hooks.items():
                setattr(module, f"llamastack_{hook}", hookimpl(specname=f"llamastack_{hook}")(function))
            monkeypatch.setitem(sys.modules, module.__name__, module)
            install(tmp_path / "site", name, {"llamastack.plugins": {name: module.__name__}})
        return Discovery(entry_points_in(tmp_path / "site"))

    return make


def texts(text: str) -> Any:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        body = text.format(**scope.get("path_params", {})).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": body})

    return answer


async def failing(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotFoundError("no such thing")


class Plain:
    """A form of errors."""

    def status(self, error: LlamaStackError) -> int:
        return 418

    def body(self, error: LlamaStackError) -> dict[str, object]:
        return {"oh": error.message}


async def test_routes_of_a_plugin_are_served(plugged: Plugged, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    files.joinpath("index.html").write_text("front")
    files.joinpath("a.txt").write_text("text")
    tmp_path.joinpath("secret.txt").write_text("secret")

    def routes(stack: Stack) -> list[RouteGroup]:
        assert stack.apis
        return [
            RouteGroup(
                [
                    Route("/mine/{name}", texts("one {name}"), ("GET", "DELETE")),
                    Route("/mine/all/{rest:path}", texts("all {rest}")),
                    Route("/mine/fails", failing),
                ],
                files={"/mine/files": files},
                prefix="/mine/",
                errors=Plain(),
                openapi=lambda: {
                    "paths": {"/mine/{name}": {"get": {"operationId": "mine"}}},
                    "tags": [{"name": "mine"}],
                },
            )
        ]

    async with served_stack(CONFIG, plugged(mine={"routes": routes})) as (_, client):
        assert (await client.get("/mine/x%2Fy")).text == "one x/y"
        assert (await client.delete("/mine/x")).text == "one x"
        assert (await client.head("/mine/x")).status_code == 200
        assert (await client.get("/mine/all/b/c")).text == "all b/c"
        assert (await client.get("/mine/files/a.txt")).text == "text"
        assert (await client.get("/mine/files/")).text == "front"
        # The form of errors counts for the server's own, too.
        for method, path, what in (
            ("GET", "/mine/fails", "no such thing"),
            ("GET", "/mine/a/b/c", "there is nothing at"),
            ("POST", "/mine/x", "does not take POST; allowed: GET, DELETE"),
            ("GET", "/mine/files/b.txt", "there is no file at"),
            ("GET", "/mine/files/%2e%2e/secret.txt", "there is no file at"),
            ("POST", "/mine/files/a.txt", "does not take POST; allowed: GET"),
        ):
            reply = await client.request(method, path)
            assert (reply.status_code, what in reply.json()["oh"]) == (418, True), (path, reply.text)
        assert (await client.get("/minenot")).status_code == 404
        document = (await client.get("/openapi.json")).json()
        assert document["paths"]["/mine/{name}"] == {"get": {"operationId": "mine"}}
        assert {"name": "mine"} in document["tags"]
        assert "/v1/chat/completions" in document["paths"]
        assert "/health" in document["paths"]


@pytest.mark.parametrize(
    ("routes", "names"),
    [
        ({"one": "/x", "two": "/x"}, ["GET /x", "plugin one:one", "plugin two:two"]),
        ({"one": "/x/{a}", "two": "/x/{b}"}, ["GET /x/{", "plugin one:one", "plugin two:two"]),
        ({"one": "/health"}, ["GET /health", "plugin one:one", "plugin llamastack-server:server"]),
        ({"one": "/v1/models"}, ["GET /v1/models", "plugin one:one", "plugin llamastack-openai-api:openai-api"]),
        ({"one": "/docs"}, ["GET /docs", "plugin one:one", "llamastack-server"]),
    ],
)
async def test_two_claims_of_one_route_name_both_plugins(
    plugged: Plugged, routes: dict[str, str], names: list[str]
) -> None:
    def giving(path: str) -> Any:
        return lambda stack: [RouteGroup([Route(path, texts(""))])]

    discovery = plugged(**{name: {"routes": giving(path)} for name, path in routes.items()})
    with pytest.raises((DiscoveryError, ExceptionGroup)) as raised:
        async with served_stack(CONFIG, discovery):
            pass
    error: BaseException = raised.value
    while isinstance(error, ExceptionGroup):
        [error] = error.exceptions
    assert isinstance(error, DiscoveryError)
    assert all(name in str(error) for name in names), str(error)


async def test_two_forms_of_errors_below_one_prefix_name_both_plugins(plugged: Plugged) -> None:
    def routes(stack: Stack) -> list[RouteGroup]:
        return [RouteGroup(prefix="/v1/", errors=Plain())]

    with pytest.raises(ExceptionGroup) as raised:
        async with served_stack(CONFIG, plugged(one={"routes": routes})):
            pass
    assert "errors below /v1/ is claimed by plugin" in repr(raised.value)


@pytest.mark.parametrize("hook", ["routes", "middleware"])
async def test_a_plugin_that_fails_stops_the_start_by_name(plugged: Plugged, hook: str) -> None:
    def fails(stack: Stack) -> list[Any]:
        raise OSError("no disk")

    with pytest.raises(ExceptionGroup) as raised:
        async with served_stack(CONFIG, plugged(bad={hook: fails})):
            pass
    assert isinstance(raised.value.exceptions[0], PluginError)
    assert str(raised.value.exceptions[0]) == f"plugin bad:bad fails in llamastack_{hook}: OSError: no disk"


def around(name: str, seen: list[str]) -> Any:
    def factory(app: Any) -> Any:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            seen.append(name)
            await app(scope, receive, send)

        return answer

    return factory


async def test_middleware_is_called_in_the_order_of_its_numbers(plugged: Plugged) -> None:
    seen: list[str] = []

    def giving(name: str, *orders: int) -> Any:
        return lambda: [Middleware(around(f"{name}{order}", seen), order) for order in orders]

    discovery = plugged(
        a={"middleware": giving("a", 900, 500, HOST_CHECK_ORDER - 1)}, b={"middleware": giving("b", 500, 10)}
    )
    async with served_stack(CONFIG, discovery) as (_, client):
        assert (await client.get("/health")).status_code == 200
        assert seen == ["b10", "a99", "b500", "a500", "a900"]
        seen.clear()
        assert (await client.get("/health", headers={"Host": "evil.example"})).status_code == 403
        assert seen == ["b10", "a99"]  # the server's own check stands at 100


async def test_the_servers_own_checks_are_middleware_of_its_plugin() -> None:
    stack = Stack.from_config(CONFIG)
    found = stack.hooks.collect("llamastack_middleware", stack, required=True)
    given = [(plugin, each.order) for plugin, each in found]
    assert given == [("llamastack-server:server", HOST_CHECK_ORDER), ("llamastack-server:server", ACCESS_ORDER)]


async def test_hosts_are_checked_where_the_servers_own_plugin_is_off(plugged: Plugged) -> None:
    discovery = Discovery(plugged()._entry_points, disabled=["llamastack-server"])
    async with served_stack(CONFIG, discovery) as (_, client):
        replies = [await client.get("/v1/models", headers={"Host": host}) for host in ("localhost", "evil.example")]
        assert [reply.status_code for reply in replies] == [200, 403]


async def test_middleware_refuses_in_the_form_of_the_path(plugged: Plugged, caplog: pytest.LogCaptureFixture) -> None:
    def factory(app: Any) -> Any:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["path"] == "/bug":
                raise KeyError("a bug")
            raise PermissionDeniedError("not you")

        return answer

    async with served_stack(CONFIG, plugged(guard={"middleware": lambda: [Middleware(factory)]})) as (_, client):
        native = await client.get("/health", headers={"X-Request-ID": "mine"})
        assert (native.status_code, native.headers["x-request-id"]) == (403, "mine")
        assert native.json()["error"]["code"] == "permission_denied"
        openai = await client.get("/v1/models")
        assert openai.json()["error"]["type"] == "permission_error"
        bug = await client.get("/bug")
        assert (bug.status_code, "KeyError" in bug.text, "a bug" in bug.text) == (500, True, False)


# ---- checks before the start -----------------------------------------------------------------------------------------


async def test_a_route_that_two_plugins_claim_is_found_when_the_config_is_checked(plugged: Plugged) -> None:
    routes = {"routes": lambda stack: [RouteGroup([Route("/same", texts("x"))])]}
    stack = Stack.from_config(CONFIG, discovery=plugged(one=routes, two=routes))
    with pytest.raises(DiscoveryError, match="GET /same is claimed by plugin .* and by plugin "):
        stack.check_sections()


async def test_a_route_of_a_stacks_api_is_claimed_before_it_starts(plugged: Plugged) -> None:
    stack = Stack.from_config(CONFIG, discovery=plugged(native={"routes": lambda stack: [taken_from(stack)]}))
    with pytest.raises(DiscoveryError, match="GET /models/list is claimed by plugin .* and by plugin "):
        stack.check_sections()


def taken_from(stack: Stack) -> RouteGroup:
    web = stack.models.methods["list_models"].definition.web  # type: ignore[attr-defined]
    return RouteGroup([Route(web.route, texts("x"), web.methods)])


def test_an_error_of_a_config_names_the_plugins_that_are_left_out(tmp_path: Path) -> None:
    install(tmp_path, "acme", {"llamastack.plugins": {"notes": "package_that_is_gone:x"}})
    config = {"providers": {"notes": [{"provider_id": "n", "provider_type": "acme"}]}}
    with pytest.raises(ConfigError) as error:
        Stack.from_config(config, discovery=Discovery(entry_points_in(tmp_path)))
    first, second = str(error.value).splitlines()
    assert "providers.notes: there is no such API" in first
    assert "a plugin is left out: 'notes' (acme 1.2.3, entry point package_that_is_gone:x) cannot be loaded" in second


def test_run_finds_it_before_a_provider_starts(
    plugged: Plugged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    routes = {"routes": lambda stack: [RouteGroup([Route("/health", texts("x"))])]}
    monkeypatch.setattr(discovery_module, "_default", plugged(one=routes))
    monkeypatch.setattr("llamastack.stack.supervisor.SupervisedProvider.run", None)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(CONFIG))
    for command in (["run", str(file), "--port", "0"], ["config", "validate", str(file)]):
        done = CliRunner().invoke(cli, command)
        assert (done.exit_code, "GET /health is claimed by plugin" in done.stderr) == (1, True), done.output


async def test_a_stack_that_was_looked_at_starts(plugged: Plugged) -> None:
    stack = Stack.from_config(CONFIG, discovery=plugged())
    with stack.assembled():
        assert "models" in stack.apis
        assert stack.api("models").methods
    with pytest.raises(LookupError, match="not running"):
        stack.api("models")
    async with stack:
        assert await stack.models.list_models()


# ---- lifespans -------------------------------------------------------------------------------------------------------


def lifespan(name: str, seen: list[str], *, enter: Exception | None = None, leave: Exception | None = None) -> Any:
    @asynccontextmanager
    async def hold(stack: Any) -> AsyncIterator[None]:
        if enter is not None:
            raise enter
        assert [m.identifier for m in await stack.models.list_models()] == ["sample-echo"]
        seen.append(f"enter {name}")
        yield
        assert [m.identifier for m in await stack.models.list_models()] == ["sample-echo"]
        seen.append(f"leave {name}")
        if leave is not None:
            raise leave

    return hold


async def test_lifespans_are_left_in_reverse_order_and_a_failure_there_is_logged(
    plugged: Plugged, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[str] = []
    discovery = plugged(
        a={"stack_lifespan": lifespan("a", seen)}, b={"stack_lifespan": lifespan("b", seen, leave=OSError("no disk"))}
    )
    stack = Stack.from_config(CONFIG, discovery=discovery)
    for _ in range(2):  # a stack that was stopped can be started anew
        async with stack:
            assert seen == ["enter b", "enter a"]
        assert seen == ["enter b", "enter a", "leave a", "leave b"]
        seen.clear()
    messages = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert messages == ["plugin b:b failed when its llamastack_stack_lifespan was left"] * 2


async def test_a_lifespan_that_fails_at_entry_stops_the_start(plugged: Plugged) -> None:
    seen: list[str] = []
    discovery = plugged(
        a={"stack_lifespan": lifespan("a", seen, enter=OSError("no disk"))}, b={"stack_lifespan": lifespan("b", seen)}
    )
    stack = Stack.from_config(CONFIG, discovery=discovery)
    with pytest.raises(PluginError, match="plugin a:a fails in llamastack_stack_lifespan: OSError: no disk"):
        await stack.start()
    assert seen == ["enter b", "leave b"]
    with pytest.raises(LookupError, match="the stack is not running"):
        stack.api("models")


# ---- config sections -------------------------------------------------------------------------------------------------


class Guard(BaseModel):
    model_config = ConfigDict(extra="forbid")

    strict: bool = False
    limit: int = 3


def sections(*names: str, check: Any = None) -> dict[str, Any]:
    return {"config_sections": lambda: [ConfigSection(name, Guard, "A guard", check) for name in names]}


def test_a_section_of_a_plugin_is_read_as_every_other_key(plugged: Plugged, tmp_path: Path) -> None:
    discovery = plugged(guard=sections("guard"))
    file = tmp_path / "run.yaml"
    providers = "providers: {inference: [{provider_id: a, provider_type: 'remote::sample'}]}\n"
    file.write_text(f"{providers}guard:\n  limit: 5\n")
    stack = Stack.from_config(file, discovery=discovery)
    assert stack.config.section("guard", Guard) == Guard(limit=5)
    assert Stack.from_config(CONFIG, discovery=discovery).config.section("guard", Guard) == Guard()
    file.write_text(f"{providers}guard:\n  limt: 5\n  strict: maybe\n")
    with pytest.raises(ConfigError) as raised:
        Stack.from_config(file, discovery=discovery)
    lines = str(raised.value).splitlines()
    assert any(":3: guard.limt: unknown field" in line for line in lines), lines
    assert any(":4: guard.strict:" in line for line in lines), lines
    file.write_text(f"{providers}guart: {{}}\n")
    with pytest.raises(ConfigError, match="run.yaml:2: guart: unknown field"):
        Stack.from_config(file, discovery=discovery)


@pytest.mark.parametrize(
    ("claims", "what"),
    [
        ({"a": "guard", "b": "guard"}, "config section 'guard' is claimed by plugin b:b and by a:a"),
        ({"a": "server"}, "config section 'server' is claimed by plugin"),
        ({"a": "providers"}, "config section 'providers', which is there already"),
        ({"a": "models"}, "config section 'models', which is there already"),
    ],
)
def test_two_claims_of_one_section_are_an_error(plugged: Plugged, claims: dict[str, str], what: str) -> None:
    with pytest.raises(DiscoveryError, match=what):
        Stack.from_config(CONFIG, discovery=plugged(**{name: sections(section) for name, section in claims.items()}))


def test_a_section_checks_what_no_model_can(plugged: Plugged) -> None:
    def check(stack: Stack) -> None:
        raise stack.config.error(("guard", "limit"), "must be even")

    stack = Stack.from_config({**CONFIG, "guard": {}}, discovery=plugged(guard=sections("guard", check=check)))
    with pytest.raises(ConfigError, match="guard.limit: must be even"):
        stack.check_sections()


def test_a_config_for_a_server_works_without_the_server(plugged: Plugged, tmp_path: Path) -> None:
    """In process the section is only carried along; whoever reads it checks it."""
    without = Discovery(plugged()._entry_points, disabled=["llamastack-server"])
    stack = Stack.from_config({**CONFIG, "server": {"port": "nonsense"}}, discovery=without)
    with pytest.raises(ConfigError, match="server.limit|server.port"):
        stack.config.section("server", Guard)
    with pytest.raises(ConfigError, match="servre"):
        Stack.from_config({**CONFIG, "servre": {}}, discovery=without)


async def test_surfaces_can_be_switched_off(plugged: Plugged) -> None:
    async def statuses(disabled: str) -> list[int]:
        discovery = Discovery(plugged()._entry_points, disabled=[disabled])
        async with served_stack(CONFIG, discovery) as (_, client):
            replies: list[httpx.Response] = [await client.get(path) for path in ("/health", "/v1/models", "/docs")]
            return [reply.status_code for reply in replies]

    assert await statuses("nothing") == [200, 200, 200]
    assert await statuses("openai-api") == [200, 404, 200]
    assert await statuses("llamastack-server") == [404, 200, 200]

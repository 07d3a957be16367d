"""A plugin whose APIs cannot be used is left out with its name and the cause; it stops nothing else."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import faulty_apis_fake
import httpx
import pytest
from click.testing import CliRunner
from faulty_apis_fake import FAULTY
from installed_fakes import entry_points_in, install
from running_server import running_server
from served_stack import served_stack

from llamastack import ConfigError, Stack
from llamastack.provider import hookimpl
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.provider.routes import Route, RouteGroup
from llamastack.stack import discovery as discovery_module
from llamastack.stack.discovery import Discovery, DiscoveryError
from llamastack.stack.plugins import Plugins
from llamastack_cli.group import cli

pytestmark = pytest.mark.anyio
PROVIDER = {"llamastack.providers.good": {"beeper": "faulty_apis_fake:SPEC"}}
CONFIG: Any = {"providers": {"good": [{"provider_id": "b", "provider_type": "beeper"}]}}
BUILT_IN = {api.name for api in BUILTIN_APIS}
FOUND_BY_SURFACES = [name for name, faulty in FAULTY.items() if faulty.surface is not None]


def plugin(name: str) -> str:
    return f"faulty_apis_fake:PLUGINS.{name}"


def installed(site: Path, plugins: Mapping[str, str], *, real: bool = True, group: str = "plugins") -> Discovery:
    """Plugins, each of a package of its own name, and a provider for the API of the good one."""
    for name, value in plugins.items():
        install(site, name, {f"llamastack.{group}": {name: value}})
    install(site, "beeper", PROVIDER)
    return Discovery(entry_points_in(site, real=real))


def causes(hooks: Plugins) -> dict[str, str]:
    return {broken.installed.name: broken.cause for broken in hooks.broken}


@pytest.mark.parametrize("name", FAULTY)
async def test_a_faulty_plugin_is_left_out_whole(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    found = installed(tmp_path, {"acme": plugin(name), "good": plugin("good")})
    async with Stack.from_config(CONFIG, discovery=found) as stack:
        apis = stack.hooks.apis()
        await stack.good.beep(text="still there")
    assert causes(stack.hooks).keys() == {"acme"}
    cause = causes(stack.hooks)["acme"]
    assert cause.startswith(f"'acme' (acme 1.2.3, entry point {plugin(name)}) adds APIs that cannot be used: ")
    assert FAULTY[name].says in cause
    assert (f"plugin {FAULTY[name].surface} refuses it: " in cause) == (FAULTY[name].surface is not None)
    assert apis.keys() - BUILT_IN == {"good", *(["jobs"] if "jobs" in apis else [])}
    assert not stack.hooks.manager.has_plugin("acme:acme")
    assert [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING] == [
        f"plugin left out: {cause}"
    ]
    assert "\n" not in cause


@pytest.mark.parametrize("name", [name for name in FAULTY if name not in FOUND_BY_SURFACES])
def test_without_surfaces_the_stack_itself_finds_what_it_could_not_use(tmp_path: Path, name: str) -> None:
    hooks = Plugins(installed(tmp_path, {"acme": plugin(name), "good": plugin("good")}, real=False))
    assert hooks.apis().keys() == {*BUILT_IN, "good"}
    assert FAULTY[name].says in causes(hooks)["acme"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("package_that_is_gone:X", "cannot be loaded: ModuleNotFoundError: "),
        ("exits_fake:X", "cannot be loaded: ImportError: importing exits_fake raises SystemExit: 7"),
        ("cancelled_fake:X", "cannot be loaded: ImportError: importing cancelled_fake raises CancelledError"),
        ("strange_fake:PLUGIN", "cannot be used: ZeroDivisionError: no attributes"),
    ],
)
def test_a_plugin_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, says: str) -> None:
    class Strange:
        def __getattr__(self, name: str) -> Any:
            raise ZeroDivisionError("no attributes")

    module = ModuleType("strange_fake")
    module.PLUGIN = Strange()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "strange_fake", module)
    tmp_path.joinpath("exits_fake.py").write_text("import sys\nsys.exit(7)\n")
    tmp_path.joinpath("cancelled_fake.py").write_text("import asyncio\nraise asyncio.CancelledError()\n")
    monkeypatch.syspath_prepend(tmp_path)
    hooks = Plugins(installed(tmp_path / "site", {"acme": value, "good": plugin("good")}))
    assert "good" in hooks.apis()
    assert f"'acme' (acme 1.2.3, entry point {value}) {says}" in causes(hooks)["acme"]


# ---- two plugins -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ("same", "API 'good' is there already: plugin b:b adds it"),
        ("near", "plugin llamastack-server:server refuses it: POST /good is claimed by good.beep and by near.beep"),
    ],
)
def test_of_two_claimants_the_first_by_name_keeps_it(tmp_path: Path, other: str, says: str) -> None:
    """Although pluggy calls the last one first."""
    hooks = Plugins(installed(tmp_path, {"b": plugin("good"), "c": plugin(other)}))
    assert hooks.apis()["good"].methods["beep"].web.route == "/good"
    assert causes(hooks).keys() == {"c"}
    assert says in causes(hooks)["c"]


def test_a_plugin_that_is_faulty_claims_nothing(tmp_path: Path) -> None:
    hooks = Plugins(installed(tmp_path, {"a": plugin("route_twice"), "b": plugin("near"), "c": plugin("good")}))
    assert "near" in hooks.apis()
    assert causes(hooks).keys() == {"a", "c"}


def test_a_required_plugin_goes_first_and_stops_the_start_when_it_is_faulty(tmp_path: Path) -> None:
    install(tmp_path, "z", {"llamastack.required_plugins": {"z": plugin("good")}})
    hooks = Plugins(installed(tmp_path, {"a": plugin("same")}))
    assert hooks.apis()["good"].methods["beep"].web.route == "/good"
    assert causes(hooks).keys() == {"a"}
    found = installed(tmp_path / "more", {"acme": plugin("untyped")}, group="required_plugins")
    with pytest.raises(DiscoveryError, match="a required plugin cannot be used: 'acme' .*'text' has no type"):
        Stack.from_config(CONFIG, discovery=found)


def test_a_second_plugin_of_the_same_name_takes_nothing_from_the_first(tmp_path: Path) -> None:
    install(
        tmp_path,
        "acme",
        {"llamastack.plugins": {"x": plugin("good")}, "llamastack.required_plugins": {"x": plugin("near")}},
    )
    hooks = Plugins(Discovery(entry_points_in(tmp_path, real=False)))
    assert "good" in hooks.apis()
    (broken,) = hooks.broken
    assert (broken.required, broken.installed.value) == (True, plugin("near"))
    assert broken.cause.endswith("is there already, as plugin acme:x")


def test_one_object_under_two_names_is_one_plugin(tmp_path: Path) -> None:
    hooks = Plugins(installed(tmp_path, {"a": plugin("good"), "b": plugin("good")}, real=False))
    assert "good" in hooks.apis()
    assert causes(hooks)["b"].endswith("is there already, as plugin a:a")


@pytest.mark.parametrize("error", [RuntimeError("oops"), SystemExit(3)])
def test_a_check_that_fails_is_the_fault_of_its_plugin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    class Checks:
        @hookimpl
        def llamastack_check_apis(self) -> None:
            raise error

    monkeypatch.setattr(faulty_apis_fake.PLUGINS, "checks", Checks(), raising=False)
    hooks = Plugins(installed(tmp_path, {"checks": plugin("checks"), "good": plugin("good")}, real=False))
    assert "good" in hooks.apis()
    assert causes(hooks).keys() == {"checks"}
    assert "fails in llamastack_check_apis" in causes(hooks)["checks"]


# ---- where it is seen ------------------------------------------------------------------------------------------------


def test_an_api_that_no_plugin_adds_any_more_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        Stack.from_config(CONFIG, discovery=installed(tmp_path, {"acme": plugin("takes_docs")}))
    said = str(refused.value)
    assert "no installed plugin adds API 'good' (its provider types: 'beeper' of beeper 1.2.3); allowed: inf" in said
    assert "a plugin is left out: 'acme' (acme 1.2.3" in said


def test_commands_name_an_api_that_no_plugin_adds_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed(tmp_path / "site", {"acme": plugin("takes_docs")})
    monkeypatch.setattr(discovery_module, "_default", found)
    listed = CliRunner().invoke(cli, ["providers", "list", "--api", "good", "--check", "--json"])
    assert listed.exit_code == 1
    assert [entry["reason"] for entry in json.loads(listed.stdout)] == ["broken: no installed plugin adds API 'good'"]
    described = CliRunner().invoke(cli, ["providers", "show", "beeper"])
    assert described.exit_code == 0
    assert "no installed plugin adds API 'good'" in described.stdout
    verified = CliRunner().invoke(cli, ["providers", "verify", "beeper", "--json"])
    assert verified.exit_code == 1
    (shown,) = json.loads(verified.stdout)
    (finding,) = [finding for finding in shown["findings"] if finding["check"] == "package.api"]
    assert "no installed plugin adds API 'good'" in finding["got"]
    assert "a plugin is left out: 'acme'" in finding["got"]
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(CONFIG))
    checks = json.loads(CliRunner().invoke(cli, ["doctor", str(file), "--json"]).stdout)["checks"]
    advice = {check["message"].partition(" (")[0]: check["advice"] for check in checks}
    assert "install the package that adds the API" in advice["no installed plugin adds API 'good'"]
    assert "LLAMASTACK_DISABLE_PLUGINS" in advice["a plugin is left out: 'acme'"]


async def test_what_was_registered_with_an_api_is_there_when_its_plugin_comes_back(tmp_path: Path) -> None:
    """Without the plugin, the stack serves everything else."""
    sample: Any = {"inference": [{"provider_id": "s", "provider_type": "remote::sample"}]}
    speech: Any = {"speech": [{"provider_id": "loud", "provider_type": "loudspeaker"}]}
    site = tmp_path / "site"
    install(site, "speaking", {"llamastack.providers.speech": {"loudspeaker": "plugin_fake:SPEC"}})
    without = Discovery(entry_points_in(site))
    install(tmp_path / "plugin", "speaks", {"llamastack.plugins": {"speaking": "plugin_fake:PLUGIN"}})
    complete = Discovery(entry_points_in(site, tmp_path / "plugin"))

    def stack(discovery: Discovery, **providers: Any) -> Stack:
        return Stack.from_config({"providers": providers}, discovery=discovery, folder=tmp_path / "state")

    async with stack(complete, **sample, **speech) as running:
        await running.voices.register_voice({"identifier": "carl"})
    async with stack(without, **sample) as running:
        assert await running.models.list_models()
    async with stack(complete, **sample, **speech) as running:
        assert (await running.voices.get_voice("carl")).identifier == "carl"


def test_a_route_of_an_api_and_one_of_a_plugin_name_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Routes:
        @hookimpl
        def llamastack_routes(self) -> list[RouteGroup]:
            return [RouteGroup([Route("/good", print, ("POST",))])]  # type: ignore[arg-type]

    monkeypatch.setattr(faulty_apis_fake.PLUGINS, "routes", Routes(), raising=False)
    stack = Stack.from_config(CONFIG, discovery=installed(tmp_path, {n: plugin(n) for n in ("good", "routes")}))
    with pytest.raises(DiscoveryError) as refused:
        stack.check_sections()
    claimants = {"plugin llamastack-server:server (API 'good')", "plugin routes:routes"}
    assert str(refused.value).startswith("POST /good is claimed by ")
    assert all(each in str(refused.value) for each in claimants)


@pytest.mark.parametrize(("name", "prefix"), [("any_path", "/"), ("any_in_v1", "/v1/")])
async def test_a_route_with_a_parameter_hides_no_fixed_route(tmp_path: Path, name: str, prefix: str) -> None:
    """The order of plugins does not matter: a fixed segment goes before a parameter."""
    found = installed(tmp_path, {"acme": plugin(name)})
    providers: Any = {**CONFIG["providers"], "inference": [{"provider_id": "s", "provider_type": "remote::sample"}]}
    async with served_stack({"providers": providers}, found) as (stack, http):
        assert causes(stack.hooks) == {}
        own = (await http.get(f"{prefix}anything")).json()
        for path in ("/", "/docs", "/openapi.json", "/health", "/ready", "/metrics", "/v1/models", "/v1/health"):
            answer = await http.get(path)
            assert answer.status_code == 200, path
            assert answer.content != b"null", path
        assert own is None  # what `beep` returns


def test_the_list_of_plugins_says_once_why_one_is_left_out(tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed(site, {"acme": plugin("takes_docs"), "gone": "package_that_is_gone:x", "good": plugin("good")})
    path = os.pathsep.join([str(site), str(Path(faulty_apis_fake.__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [str(Path(sys.executable).with_name("llamastack")), "plugins", "list"]
    environment = {**os.environ, "PYTHONPATH": path, "LLAMASTACK_HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60)
    assert "left out" not in done.stderr
    for cause in ("GET /docs is a route of llamastack-server", "No module named 'package_that_is_gone'"):
        assert cause in " ".join(done.stdout.split())


def test_doctor_and_the_list_of_plugins_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = installed(tmp_path / "site", {"acme": plugin("takes_v1_models"), "good": plugin("good")})
    monkeypatch.setattr(discovery_module, "_default", found)
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps(CONFIG))
    listed = json.loads(CliRunner().invoke(cli, ["plugins", "list", "--json"]).stdout)
    (faulty,) = [entry for entry in listed if entry["status"] == "faulty"]
    assert (faulty["name"], faulty["package"], faulty["version"]) == ("acme", "acme", "1.2.3")
    assert "GET /v1/models is a route of llamastack-openai-api" in faulty["reason"]
    done = CliRunner().invoke(cli, ["doctor", str(file), "--json"])
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["outcome"] == "FAIL"]
    assert (check["check"], check["about"]) == ("plugins", "acme")
    assert "GET /v1/models is a route of llamastack-openai-api" in check["message"]
    for arguments in (["--help"], ["good", "--help"], ["config", "schema"], ["config", "validate", str(file)]):
        done = CliRunner().invoke(cli, arguments)
        assert done.exit_code == 0, done.output


@pytest.mark.parametrize("name", ["takes_docs", "routed_by_nothing"])
def test_a_server_serves_everything_else(tmp_path: Path, name: str) -> None:
    site = tmp_path / "site"
    installed(site, {"acme": plugin(name), "good": plugin("good")})
    path = os.pathsep.join([str(site), str(Path(faulty_apis_fake.__file__).parent), os.environ.get("PYTHONPATH", "")])
    file = tmp_path / "run.yaml"
    file.write_text(
        json.dumps(
            {
                "providers": {
                    **CONFIG["providers"],
                    "inference": [{"provider_id": "s", "provider_type": "remote::sample"}],
                }
            }
        )
    )
    running = running_server(file, home=tmp_path, environment={"PYTHONPATH": path})
    with running as server, httpx.Client(base_url=server.url) as http:
        assert http.get("/ready").status_code == 200
        assert http.post("/good", json={"text": "hello"}).status_code == 200
        assert http.get("/models/list").status_code == 200
        assert http.get("/v1/models").status_code == 200
        assert "<html" in http.get("/docs").text
        paths = http.get("/openapi.json").json()["paths"]
        assert "/good" in paths
        assert "/whole" not in paths
    assert "".join(server.output).count("plugin left out: 'acme' (acme 1.2.3") == 1
    environment = {**os.environ, "PYTHONPATH": path, "LLAMASTACK_HOME": str(tmp_path)}
    command = str(Path(sys.executable).with_name("llamastack"))

    def run(*arguments: str) -> str:
        return subprocess.run(
            [command, *arguments], env=environment, check=True, capture_output=True, text=True, timeout=60
        ).stdout

    assert "good" in run("--help")
    (faulty,) = [entry for entry in json.loads(run("plugins", "list", "--json")) if entry["status"] == "faulty"]
    assert faulty["name"] == "acme"
    assert FAULTY[name].says in faulty["reason"]

"""Each package from its wheel, in a virtual environment with nothing but what it asks for, and what it does there."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from projects import CORE, KITS, ROOT, SURFACES, provider
from reportlab.pdfgen.canvas import Canvas
from running_server import running_server

# One process makes the environments, most of them out of another.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("each_wheel")]

# package: (the one whose environment it is added to, what is installed)
ADDED: Mapping[str, tuple[str | None, str]] = {
    "core": (None, "llamastack"),
    "adapters": ("core", "llamastack-adapters"),
    "memory-kit": ("adapters", "llamastack-memory-kit"),
    "memory-kit-sqlite": ("memory-kit", "llamastack-memory-kit[sqlite]"),
    "conformance": ("adapters", "llamastack-conformance"),
    "server": ("core", "llamastack-server"),
    "cli": ("core", "llamastack-cli"),
    "server-and-remote": ("server", "llamastack-provider-remote"),
    "all-of-server": ("server-and-remote", "llamastack[server]"),
    "meta-reference": ("cli", "llamastack-provider-meta-reference"),
    "meta-reference-telemetry": ("meta-reference", "llamastack-provider-meta-reference[telemetry]"),
}
# A server that does not answer: what is tried is the stack before it.
FAR = {
    "providers": {"inference": [{"provider_id": "far", "provider_type": "remote", "config": {"url": "http://[::1]:1"}}]}
}
INSTALLED = """
from importlib.metadata import distributions
print(*(distribution.name for distribution in distributions()))
"""
EVERY_MODULE = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
    if not module.name.endswith("__main__") and not module.name.startswith(tuple(sys.argv[2:])):
        importlib.import_module(module.name)
"""
READ = """
import sys
import anyio, httpx
from llamastack_memory_kit.documents import document_text

async def main():
    async with httpx.AsyncClient() as client:
        for document in sys.stdin.read().split():
            print(await document_text(document, client))

anyio.run(main)
"""
SERVE = """
import json, sys
import anyio, httpx
from llamastack import Stack
from llamastack_server.uvicorn_server import bind, serve, url_of

async def main():
    listening, ready = bind("127.0.0.1", 0), anyio.Event()
    async with Stack.from_config(json.loads(sys.argv[1])) as stack, anyio.create_task_group() as group:
        group.start_soon(serve, stack, listening, ready.set)
        await ready.wait()
        async with httpx.AsyncClient(base_url=url_of(listening)) as client:
            for path in ("/models/list", "/providers/list", "/v1/models"):
                print(path, (await client.get(path)).status_code)
        group.cancel_scope.cancel()

anyio.run(main)
"""
TRACE = """
import sys
from pathlib import Path
import anyio
from llamastack import Stack
from llamastack.api.telemetry import SpanStartPayload, StructuredLogEvent
from llamastack.stack.config import ConfigError

async def main():
    entry = {"provider_id": "traces", "provider_type": "meta-reference"}
    try:
        async with Stack.from_config({"providers": {"telemetry": [entry]}}, folder=Path(sys.argv[1])) as stack:
            payload = SpanStartPayload(name="a span")
            ids = {"trace_id": "t", "span_id": "s", "timestamp": "2026-01-02T03:04:05Z"}
            await stack.telemetry.log_event(event=StructuredLogEvent(**ids, payload=payload))
            print([trace.name for trace in (await stack.telemetry.list_traces()).data])
    except ConfigError as error:
        print(error)

anyio.run(main)
"""


@dataclass(frozen=True)
class Environments:
    """The environments of this module, each made when it is first asked for."""

    make_venv: Callable[..., Any]
    wheels: Path
    made: dict[str, Any]

    def __call__(self, package: str) -> Any:
        if package not in self.made:
            like, requirement = ADDED[package]
            venv = self.make_venv(package, self(like) if like else None)
            venv.install("-c", str(ROOT / "constraints.txt"), "--find-links", str(self.wheels), requirement)
            self.made[package] = venv
        return self.made[package]


@pytest.fixture(scope="module")
def environment(
    make_venv: Callable[..., Any],
    build_wheels: Callable[..., list[str]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Environments:
    providers = (provider("remote"), provider("meta-reference"))
    telemetry = ROOT / "plugins" / "kits" / "telemetry"
    wheels = build_wheels([CORE, *SURFACES, *KITS, telemetry, *providers])
    return Environments(make_venv, Path(wheels[0]).parent, {})


@pytest.mark.parametrize(
    ("package", "module", "absent"),
    [
        ("core", "llamastack", ("starlette", "uvicorn", "click", "rich", "aiohttp")),
        ("adapters", "llamastack_adapters", ("llamastack-server", "llamastack-cli", "click", "starlette")),
        ("memory-kit", "llamastack_memory_kit", ("llamastack-server", "llamastack-cli", "click", "starlette")),
        ("memory-kit-sqlite", "llamastack_memory_kit", ("llamastack-server", "llamastack-cli", "click", "starlette")),
        ("conformance", "llamastack_conformance", ("llamastack-server", "llamastack-cli", "rich", "starlette")),
        ("server", "llamastack_server", ("llamastack-cli", "llamastack-openai-api", "llamastack-adapters", "rich")),
        ("cli", "llamastack_cli", ("llamastack-server", "llamastack-adapters", "starlette", "uvicorn", "aiohttp")),
        ("server-and-remote", "llamastack_provider_remote", ("llamastack-cli", "llamastack-openai-api", "rich")),
        ("all-of-server", "llamastack_openai_api", ()),
    ],
)
def test_it_brings_what_it_imports_and_no_more(
    package: str, module: str, absent: tuple[str, ...], environment: Environments, tmp_path: Path
) -> None:
    venv = environment(package)
    left_out = [f"{module}.sqlite"] if package == "memory-kit" else []  # what needs an extra
    installed = venv.run("python", "-c", INSTALLED + EVERY_MODULE, module, *left_out, cwd=tmp_path).stdout.split()
    assert module.replace("_", "-") in installed
    assert not {*absent} & {*installed}
    assert (venv.bin / "llamastack").exists() == ("llamastack-cli" in installed)
    if package == "core":
        assert len(installed) <= 18


def test_the_memory_kit_reads_html_and_pdf(environment: Environments, tmp_path: Path) -> None:
    page = io.BytesIO()
    canvas = Canvas(page)
    canvas.drawString(72, 720, "Hello from a PDF")
    canvas.save()
    documents = {"text/html": b"<p>Hello from <b>HTML</b></p>", "application/pdf": page.getvalue()}
    urls = [f"data:{kind};base64,{base64.b64encode(raw).decode()}" for kind, raw in documents.items()]
    python = environment("memory-kit").python
    read = subprocess.run([python, "-c", READ], input=" ".join(urls), capture_output=True, text=True, cwd=tmp_path)
    assert read.stdout.splitlines() == ["Hello from HTML", "Hello from a PDF"], read.stderr


def test_the_conformance_suite_is_a_plugin_of_pytest(environment: Environments, tmp_path: Path) -> None:
    listed = environment("conformance").run("python", "-m", "pytest", "--llamastack-list", cwd=tmp_path).stdout
    assert "static.entry-point" in listed


def test_the_server_needs_no_command_line(environment: Environments, tmp_path: Path, own_home: Path) -> None:
    venv = environment("server-and-remote")
    assert not (venv.bin / "llamastack").exists()
    served = venv.run("python", "-c", SERVE, json.dumps(FAR), cwd=tmp_path).stdout
    assert served.splitlines() == ["/models/list 200", "/providers/list 200", "/v1/models 404"]


def test_the_command_line_needs_no_server(environment: Environments, tmp_path: Path, own_home: Path) -> None:
    venv = environment("cli")
    assert json.loads(venv.run("llamastack", "providers", "list", "--json", cwd=tmp_path).stdout) == []
    refused = venv.run("llamastack", "run", "run.yaml", check=False, cwd=tmp_path)
    assert refused.returncode == 2
    assert "No such command 'run': it comes with llamastack-server (pip install llamastack-server)" in refused.stderr


def test_the_extra_server_brings_the_openai_surface(environment: Environments, tmp_path: Path, own_home: Path) -> None:
    venv = environment("all-of-server")
    config = tmp_path / "run.json"
    config.write_text(json.dumps(FAR))
    with running_server(config, home=own_home, command=(str(venv.bin / "llamastack"),)) as server:
        assert httpx.get(f"{server.url}/v1/models").json() == {"object": "list", "data": []}
        assert server.stop() == 0


def test_an_extra_that_is_missing_is_named(environment: Environments, tmp_path: Path, own_home: Path) -> None:
    command = "pip install 'llamastack-provider-meta-reference[telemetry]'"
    for package, is_missing in (("meta-reference", True), ("meta-reference-telemetry", False)):
        venv = environment(package)
        venv.pip("check")

        def run(*arguments: str, check: bool = True, venv: Any = venv) -> str:
            return str(venv.run(*arguments, check=check, cwd=tmp_path).stdout)

        every = json.loads(run("llamastack", "providers", "list", "--json"))
        [listed] = [each for each in every if each["api"] == "telemetry"]
        every = json.loads(run("llamastack", "providers", "show", "meta-reference", "--json"))
        [shown] = [each for each in every if each["api"] == "telemetry"]
        assert listed["status"] == ("faulty" if is_missing else "ok")
        started = run("python", "-c", TRACE, str(tmp_path / package))
        table = run("llamastack", "providers", "list", "--check", check=False)
        shown_to_people = run("llamastack", "providers", "show", "meta-reference")
        said = [
            str(listed["reason"]),
            str(shown["missing"]),
            " ".join(table.split()),
            " ".join(shown_to_people.split()),
        ]
        assert [command in text for text in [*said, started]] == [is_missing] * 5
        assert started.startswith("config: providers.telemetry[0].provider_type" if is_missing else "['a span']"), (
            started
        )

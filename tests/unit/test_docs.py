"""The documentation says what the code says: tables, names, links; and its programs run."""

from __future__ import annotations

import ast
import inspect
import os
import re
import shlex
import subprocess
import sys
import tomllib
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import click
import jsonschema
import pytest
from installed_fakes import SCRIPTED, entry_points_in, install
from pages_of_docs import (
    DOCS,
    FENCE,
    OWN_PACKAGE,
    PAGES,
    PYPROJECTS,
    ROOT,
    code_blocks,
    first_cells,
    named,
    read,
    section,
)
from running_server import running_server
from scripted_fake import Script
from served_stack import served_stack
from workspace_tools import tool

from llamastack import Stack
from llamastack.provider import errors, hookspecs
from llamastack.provider.builtin_apis import BUILTIN_APIS
from llamastack.stack.config import run_config_model
from llamastack.stack.discovery import Discovery, default_discovery
from llamastack.stack.plugins import Plugins
from llamastack_cli.group import cli
from llamastack_conformance.catalogue import catalogue, check_ids
from llamastack_conformance.waivers import read_waivers

# ---- what is written by hand -----------------------------------------------------------------------------------------


def family(root: type[errors.LlamaStackError]) -> Iterator[type[errors.LlamaStackError]]:
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            yield child
            yield from family(child)


def test_every_error_is_in_the_table() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| `(\w+)` \|", section(read("docs/concepts.md"), "Errors"), re.MULTILINE)
    classes = list(family(errors.LlamaStackError))
    assert sorted(rows) == sorted((cls.code, str(cls.status), cls.__name__) for cls in classes)


def test_every_hook_and_its_arguments_are_documented() -> None:
    documented = re.findall(r"^### `(llamastack_\w+\([^)]*\))`$", read("docs/plugins-and-hooks.md"), re.MULTILINE)
    specs = [
        f"{name}({', '.join(inspect.signature(hook).parameters)})"
        for name, hook in vars(hookspecs).items()
        if hasattr(hook, f"{hookspecs.PROJECT}_spec")
    ]
    assert len(specs) >= 8
    assert sorted(documented) == sorted(specs)


def test_the_fields_of_a_finished_request_are_documented() -> None:
    part = read("docs/plugins-and-hooks.md").split("### `llamastack_request_finished(request)`")[1].split("\n##")[0]
    assert first_cells(part) == [*hookspecs.FinishedRequest._fields]


def test_every_environment_variable_is_documented() -> None:
    documented = set(first_cells(section(read("docs/operations.md"), "Environment variables")))
    used: set[str] = set()
    for folder in (ROOT / "core" / "src", *(ROOT / "plugins").glob("*/*/src")):
        for file in [*folder.rglob("*.py"), *folder.rglob("*.yaml")]:
            used |= set(re.findall(r"\bLLAMASTACK_[A-Z_]+\b", file.read_text(encoding="utf-8")))
    assert documented == used


def requirement_names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^A-Za-z0-9_.-]", requirement)[0] for requirement in requirements}


def dependencies() -> set[str]:
    found: set[str] = set()
    for file in PYPROJECTS:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        found |= requirement_names(data["build-system"]["requires"] + data["project"].get("dependencies", []))
        for extra in data["project"].get("optional-dependencies", {}).values():
            found |= requirement_names(extra)
    found |= requirement_names([line for line in read("requirements-dev.txt").splitlines() if not line.startswith("#")])
    models = re.search(r"^MODEL_PACKAGES := (.*)$", read("Makefile"), re.MULTILINE)
    assert models is not None
    found |= set(models[1].split("$(")[0].split())
    return {name for name in found if not OWN_PACKAGE.match(name)}


def test_every_dependency_has_its_reason() -> None:
    text = read("docs/dependencies.md")
    rows = first_cells(text)
    assert sorted(rows) == sorted(dependencies())
    assert len(rows) > 20


def test_every_package_is_in_the_readme() -> None:
    text = section(read("README.md"), "The packages")
    names = {tomllib.loads(file.read_text(encoding="utf-8"))["project"]["name"] for file in PYPROJECTS}
    rows = re.findall(r"^\| \[[^]]+\]\(([^)]+)/README\.md\) \| `([^`]+)` \|", text, re.MULTILINE)
    assert {name for _, name in rows} == names
    assert {folder for folder, _ in rows} == {named(file.parent) for file in PYPROJECTS}


def test_every_path_that_contributors_read_of_is_there() -> None:
    text = read("CONTRIBUTING.md")
    _, rows = text.split("Where things are:\n\n| what | where |\n|---|---|\n")
    paths = re.findall(r"`([^`]+)`", " ".join(re.findall(r"^\| .* \| (.*) \|$", rows.split("\n\n")[0], re.MULTILINE)))
    assert len(paths) > 30
    paths += re.findall(r"`([\w-]+/[\w./-]+\.\w+)`", text)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_make_target_that_is_named_is_there() -> None:
    targets = set(re.findall(r"^(\w[\w-]*):", read("Makefile"), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"(?:`|\$ )make (?:[A-Z]+=\S+ )*([a-z][\w-]*)", page.read_text(encoding="utf-8")):
            assert target in targets, f"{named(page)}: make {target}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_that_are_shown_are_there(page: Path) -> None:
    for line in re.findall(
        r"^\$ (?:\w+=\S+ )*llamastack( [^\n|<>&]*)?", page.read_text(encoding="utf-8"), re.MULTILINE
    ):
        if re.match(" (speech|voices) ", line):  # of the example of "Add an API", whose own test runs it
            continue
        command: click.Command = cli
        # Click keeps the help option of the first context for all later ones, those of other tests too.
        context = click.Context(
            cli, info_name="llamastack", help_option_names=cli.context_settings["help_option_names"]
        )
        options: set[str] = set()
        for word in shlex.split(line, comments=True):
            if word.startswith("--"):
                options.add(word.partition("=")[0])
            elif isinstance(command, click.Group):
                command = command.get_command(context, word) or pytest.fail(f"{named(page)}: llamastack{line}")
                context = click.Context(command, parent=context, info_name=word)
        known = {name for one in command.get_params(context) for name in (*one.opts, *one.secondary_opts)}
        assert options <= known, f"{named(page)}: llamastack{line}: {options - known}"


@pytest.mark.parametrize("variant", tool("rendered_template").variants())
def test_each_variant_of_the_template_renders(variant: str) -> None:
    """And the options that the table of variants shows lead to it."""
    files = tool("rendered_template").files(variant)
    api = variant.partition("-")[0]
    assert {"pyproject.toml", "run.yaml", f"src/llamastack_provider_acme/{api}.py"} <= files.keys()
    for path, text in files.items():
        if path.endswith(".py"):
            ast.parse(text)


def test_checks_that_are_shown_are_those_of_the_suite(tmp_path: Path) -> None:
    text = read("docs/providers.md")
    [waivers] = [code for code in code_blocks(text, "yaml") if code.startswith("# tests/waivers.yaml")]
    file = tmp_path / "waivers.yaml"
    file.write_text(waivers, encoding="utf-8")
    assert len(read_waivers(file, check_ids())) == 2
    [failure] = [code for code in code_blocks(text, "text") if "\nwanted:" in code]
    [check] = [check for check, apis in catalogue() if failure.startswith(f"{check.id} of ") and "inference" in apis]
    assert f"wanted: {check.wanted}\n" in failure
    assert f"mend:   {check.mend}\n" in failure
    options = set(re.findall(r"--llamastack-[a-z-]+", text))
    known = (ROOT / "plugins/kits/conformance/src/llamastack_conformance/options.py").read_text(encoding="utf-8")
    assert [option for option in options if f'"{option}"' not in known] == []


# ---- links and programs ----------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(FENCE, "", text)):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        file = page if not path else page.parent / path
        assert file.exists(), f"{named(page)}: {target}"
        # The documentation site has the files of docs/ only.
        assert page.parent != DOCS or file.resolve().is_relative_to(DOCS), f"{named(page)}: {target}"
        if anchor:
            assert anchor in anchors(file.read_text(encoding="utf-8")), f"{named(page)}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_files_that_are_named_are_there(page: Path) -> None:
    tops = "core|plugins|docs|tests|tools"
    rendered = tool("rendered_template").files("inference-openai") if page.name == "providers.md" else ()
    for path in re.findall(rf"`((?:{tops})/[\w./-]*)`", page.read_text(encoding="utf-8")):
        there = (ROOT / path).exists() or (page.parent / path).exists() or path in rendered
        assert there, f"{named(page)}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_blocks_compile(page: Path) -> None:
    for code in code_blocks(page.read_text(encoding="utf-8"), "python"):
        ast.parse(code)


def test_the_example_plugin_implements_real_hooks(capsys: pytest.CaptureFixture[str]) -> None:
    [code] = [c for c in code_blocks(read("docs/plugins-and-hooks.md"), "python") if "# llamastack_counter.py" in c]
    plugin = types.ModuleType("llamastack_counter")
    exec(compile(code, "llamastack_counter.py", "exec"), vars(plugin))
    hooks = Plugins(Discovery(list))
    hooks.manager.register(plugin)
    hooks.manager.check_pending()
    finished = hookspecs.FinishedRequest(request_id="1", method="GET", path="/health", status=200, duration_s=0.1)
    hooks.notify("llamastack_request_finished", finished)
    [(_, lifespan)] = hooks.collect("llamastack_stack_lifespan", None)

    async def run() -> None:
        async with lifespan:
            """The stack runs."""

    anyio.run(run)
    assert "{200: 1}" in capsys.readouterr().out
    assert [command.name for added in hooks.manager.hook.llamastack_cli_commands() for command in added] == ["hello"]


@pytest.mark.anyio
async def test_the_example_plugins_of_access_and_calls_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: Callable[..., Script]
) -> None:
    site = tmp_path / "examples"
    site.mkdir()
    for code in code_blocks(read("docs/plugins-and-hooks.md"), "python"):
        site.joinpath(code.splitlines()[0].removeprefix("# ")).write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(site)
    site = tmp_path / "installed"
    install(site, "keys", {"llamastack.required_plugins": {"keys": "llamastack_keys"}})
    install(site, "polite", {"llamastack.plugins": {"polite": "llamastack_polite"}})
    install(site, "scripted", SCRIPTED)
    monkeypatch.setenv("READER_KEY", "r-1")
    script("a")
    provider = {"provider_id": "a", "provider_type": "scripted", "config": {"script": "a"}}
    config = {"providers": {"inference": [provider]}, "store": {"type": "memory"}}
    async with served_stack(config, Discovery(entry_points_in(site))) as (_, client):

        async def status(path: str, body: object, key: str | None) -> int:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return (await client.post(path, json=body, headers=headers)).status_code

        for output, key, wanted in (("Hi", "r-1", 200), ("rude word", "r-1", 400), ("Hi", "x", 401), ("Hi", None, 401)):
            body = {"model": "m", "messages": [{"role": "user", "content": output}]}
            assert await status("/v1/chat/completions", body, key) == wanted
        assert await status("/models/register", {"model": {"identifier": "n"}}, "r-1") == 403
    assert list(sys.modules["llamastack_polite"].tokens) == ["m"]


def run(code: str, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder, timeout=100
    )
    assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def write_run_config(page: str, folder: Path) -> Path:
    [config] = [code for code in code_blocks(read(page), "yaml") if code.startswith("# run.yaml")]
    file = folder / "run.yaml"
    file.write_text(config, encoding="utf-8")
    return file


@pytest.mark.timeout(300)
@pytest.mark.parametrize("page", ["README.md", "core/README.md", "docs/quickstart.md"])
def test_the_programs_run(page: str, tmp_path: Path, own_home: Path) -> None:
    """With the real model: those in process on the page's run config, those over HTTP on a server of it."""
    config = write_run_config(page, tmp_path)
    programs = code_blocks(read(page), "python")
    over_http = [code for code in programs if "LlamaStackClient(" in code]
    in_process = [code for code in programs if "Stack.from_config(" in code]
    assert len(over_http) + len(in_process) == len(programs) > 0
    for code in in_process:
        assert len(run(code, tmp_path).split()) > 3
    if not over_http:
        return
    # The quickstart's server is that of `starter`, which its later programs replace.
    served = "starter" if page == "docs/quickstart.md" else config
    with running_server(served, home=own_home, environment={"LLAMASTACK_THREADS": "1"}) as server:
        for code in over_http:
            output = run(code.replace("http://127.0.0.1:8321", server.url), tmp_path)
            assert len(output.split()) > 3
            for comment in re.findall(r"print\(.*\)  # (.+)$", code, re.MULTILINE):
                assert comment in output
        for curl in re.findall(r"^\$ (curl .*?[^\\])$", read(page), re.MULTILINE | re.DOTALL):
            done = subprocess.run(
                ["bash", "-c", curl.replace("http://127.0.0.1:8321", server.url)],
                capture_output=True,
                text=True,
                check=False,
                env=dict(os.environ),
            )
            assert '"completion_message"' in done.stdout, f"{curl}\n{done.stdout}\n{done.stderr}"
        assert server.stop() == 0


RUN_CONFIGS = [
    pytest.param(code, id=f"{named(page)}-{place}")
    for page in PAGES
    for place, code in enumerate(code_blocks(page.read_text(encoding="utf-8"), "yaml"))
    if "remote::acme" not in code  # which nobody has
    and "provider_type: wordlist" not in code  # which the tutorial makes; its own test runs it
    and "provider_type: beeper" not in code  # of the examples; the test of their page runs it
    and "apiVersion:" not in code  # of Kubernetes; test_ready.py uses them
]


@pytest.mark.parametrize("config", RUN_CONFIGS)
def test_run_configs_are_valid(
    config: str, tmp_path: Path, discovery: Discovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the stack, and by the JSON Schema that `llamastack config schema` prints."""
    for name in re.findall(r"\$\{env\.(\w+)\}", config):
        monkeypatch.setenv(name, "set")
    file = tmp_path / "run.yaml"
    file.write_text(config, encoding="utf-8")
    stack = Stack.from_config(file, discovery=discovery)
    schema = run_config_model(
        {api.name: api for api in BUILTIN_APIS}, Plugins(default_discovery()).config_sections()
    ).model_json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(stack.config.value, schema, cls=jsonschema.Draft202012Validator)


def test_there_are_run_configs_to_check() -> None:
    assert len(RUN_CONFIGS) >= 4

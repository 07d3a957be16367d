"""docs/traces.md: its traces are those of a real server, its programs run, its table has every attribute."""

from __future__ import annotations

import logging
import re
import types
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from click.testing import CliRunner
from installed_fakes import entry_points_in, install
from pages_of_docs import code_blocks, first_cells, read, section
from running_server import running_server

from llamastack import LlamaStackClient, Stack
from llamastack.api import AgentConfig, UserMessage
from llamastack.stack.discovery import Discovery
from llamastack_cli.group import cli
from llamastack_telemetry import conventions

PAGE = read("docs/traces.md")
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
ASKED = [UserMessage(content="What is the capital of Italy?")]


def test_every_attribute_is_in_a_table() -> None:
    names = [value for name, value in vars(conventions).items() if name.isupper() and isinstance(value, str)]
    names.remove(conventions.SCHEMA_URL)
    assert len(names) > 20
    assert sorted(first_cells(section(PAGE, "Attributes"))) == sorted(names)


def shape(lines: list[str]) -> list[str]:
    """Lines of a trace without its times, ids and bars: the tree with its names, and the words after the bars."""
    return [re.sub(r"[\d.]+ ?(us|ms|s)?\b", "0", re.sub(r" {2,}", " ", re.sub("━+", "━", line))) for line in lines]


def drawn_on_the_page() -> list[list[str]]:
    """The lines of each trace, without the one about it."""
    [block] = [code for code in code_blocks(section(PAGE, "See traces"), "console") if "traces show" in code]
    return [
        part.splitlines()[2:] for part in re.split(r"\n(?=\$ )", block) if part.startswith("$ llamastack traces show")
    ]


@pytest.mark.timeout(300)
def test_traces_are_drawn_as_the_page_shows(tmp_path: Path, own_home: Path) -> None:
    [config] = [code for code in code_blocks(PAGE, "yaml") if code.startswith("# run.yaml")]
    file = tmp_path / "run.yaml"
    file.write_text(config, encoding="utf-8")
    wanted = drawn_on_the_page()
    assert [len(lines) for lines in wanted] == [3, 2]
    with running_server(file, home=own_home, environment={"LLAMASTACK_THREADS": "1"}) as server:
        model = anyio.run(turn, server.url)
        body = {
            "model": model,
            "messages": [{"role": "user", "content": ASKED[0].content}],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60).raise_for_status()
        found = anyio.run(traces_with, server.url, ["POST /agents/turn/create", "POST /v1/chat/completions"])
        for trace_id, lines in zip(found, wanted, strict=True):
            done = CliRunner(env={"COLUMNS": "100"}).invoke(cli, ["traces", "show", trace_id, "--url", server.url])
            assert done.exit_code == 0, done.output
            assert shape(done.stdout.splitlines()[1:]) == shape(lines)


async def turn(url: str) -> str:
    """A turn of an agent; gives the model's name."""
    async with LlamaStackClient(url) as client:
        [model] = await client.models.list_models()
        config = AgentConfig(model=model.identifier, instructions="Answer shortly.", enable_session_persistence=False)
        agent = await client.agents.create_agent(agent_config=config)
        session = await client.agents.create_agent_session(agent_id=agent.agent_id, session_name="s")
        turns: Any = await client.agents.create_agent_turn(
            agent_id=agent.agent_id, session_id=session.session_id, messages=ASKED, stream=True
        )
        async for _ in turns:
            pass
        return model.identifier


async def traces_with(url: str, names: list[str]) -> list[str]:
    """The ids of the traces whose roots have these names, when they are there with their calls."""
    async with LlamaStackClient(url) as client:
        with anyio.fail_after(30):
            while True:
                traces = (await client.telemetry.list_traces(limit=100)).data
                found = {trace.name: trace.trace_id for trace in traces if trace.spans > 1}
                if found.keys() >= {*names}:
                    return [found[name] for name in names]
                await anyio.sleep(0.05)


@pytest.mark.anyio
async def test_the_programs_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sink gets the span of the call that another program of the page makes in a trace of its own."""
    in_process, counting, sink = code_blocks(PAGE, "python")
    (tmp_path / "acme_slow_calls.py").write_text(sink, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    [entry_points] = code_blocks(PAGE, "toml")
    group, name, target = re.findall(r'"([^"]+)"\]\n(\S+) = "([^"]+)"', entry_points)[0]
    install(tmp_path / "site", "acme-slow-calls", {group: {name: target}})
    programs = types.ModuleType("programs_of_the_page")
    for code in (in_process.replace("SmolLM2-135M-Instruct", "sample-echo"), counting):
        exec(compile(code, "docs/traces.md", "exec"), vars(programs))
    run = {
        "providers": {
            "inference": [{"provider_id": "sample", "provider_type": "remote::sample"}],
            "telemetry": [{"provider_id": "slow", "provider_type": name, "config": {"threshold_s": 0}}],
        },
        "store": {"type": "memory"},
    }
    with caplog.at_level(logging.WARNING, "acme.slow_calls"):
        async with Stack.from_config(run, discovery=Discovery(entry_points_in(tmp_path / "site"))) as stack:
            await programs.ask(stack, f"00-{TRACE}-00f067aa0ba902b7-01")
        assert programs.lost(stack) == 0
    assert [record.getMessage() for record in caplog.records] == [f"trace {TRACE}: chat sample-echo took 0.0 s"]

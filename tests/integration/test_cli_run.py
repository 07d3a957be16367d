"""`llamastack run` as a process of its own, and the commands that talk to it."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from click.testing import CliRunner, Result
from installed_fakes import install

from llamastack_cli.group import cli

# One process starts the server.
pytestmark = pytest.mark.xdist_group("cli_run")

LLAMASTACK = [sys.executable, "-c", "from llamastack_cli import main; raise SystemExit(main())"]
NOBODY = "http://127.0.0.1:1"
CONFIG = f"""\
providers:
  inference:
  - {{provider_id: foo, provider_type: "remote::sample", config: {{models: [a, b]}}}}
  - {{provider_id: many, provider_type: "remote::sample", config: {{models: [m1, m2, m3, m4]}}}}
  - {{provider_id: far, provider_type: remote, config: {{url: "{NOBODY}"}}}}
  safety:
  - {{provider_id: words, provider_type: "remote::sample"}}
  memory:
  - {{provider_id: docs, provider_type: "remote::sample"}}
"""
# A provider that takes its time, as one does that downloads a model.
SLOW_FAKE = """\
import anyio
from pydantic import BaseModel
from llamastack.provider import InlineProviderSpec, Progress

class Config(BaseModel):
    seconds: float

class Slow:
    async def list_models(self): return []
    async def register_model(self, model): pass
    async def completion(self, **arguments): raise NotImplementedError
    chat_completion = embeddings = completion

async def make(config, deps):
    for step in range(3):
        deps.report_progress(Progress("fetching a model", step * 50, 100))
        await anyio.sleep(config.seconds / 2)
    return Slow()

SPEC = InlineProviderSpec(
    api="inference", provider_type="slow-fake", description="Slow",
    config_class="slow_fake:Config", factory="slow_fake:make",
)
"""


class Running:
    """A `llamastack run` process. lines: its stdout up to the ready line."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process = process
        self.log = log
        self.lines: list[str] = []
        self.url = ""

    def wait_until_ready(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            found = re.match(r"Serving on (http://\S+)   (?:\(2 workers\)   )?\(docs: /docs   OpenAI: /v1\)$", line)
            if found:
                self.url = found.group(1)
                return
        raise AssertionError(f"it ended:\n{self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


@contextmanager
def started(folder: Path, config: str, *options: str, path: Path | None = None) -> Iterator[Running]:
    file = folder / "run.yaml"
    file.write_text(config)
    log = folder / "stderr.txt"
    environment = {**os.environ, "LLAMASTACK_HOME": str(folder / "home"), "PYTHONPATH": str(path or "")}
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [*LLAMASTACK, "run", "run.yaml", "--port", "0", "--start-wait", "60", *options],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            cwd=folder,
            env=environment,
        )
        try:
            yield Running(process, log)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with started(tmp_path_factory.mktemp("served"), CONFIG) as running:
        running.wait_until_ready()
        yield running
        assert running.stop() == 0
        assert "Traceback" not in running.log.read_text()


@pytest.fixture
def call(server: Running) -> Callable[..., Result]:
    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(cli, arguments, input=stdin, env={"LLAMASTACK_URL": server.url})

    return run


def test_start_shows_every_provider(server: Running) -> None:
    shown = [line.split(maxsplit=4) for line in server.lines[:-1]]
    assert [line[:4] for line in shown] == [
        ["inference", "foo", "remote::sample", "healthy"],
        ["inference", "many", "remote::sample", "healthy"],
        ["inference", "far", "remote", "DOWN"],
        ["safety", "words", "remote::sample", "healthy"],
        ["memory", "docs", "remote::sample", "healthy"],
    ]
    assert [line[4] for line in shown[:2]] == ["a, b", "4 models"]
    assert NOBODY in shown[2][4]
    assert shown[2][4].endswith("(retrying in 1 s)")
    assert [line[4] for line in shown[3:]] == ["sample-words", "0 memory banks"]


def test_the_line_to_copy_works_as_it_is(server: Running) -> None:
    assert server.process.stdout is not None
    line = server.process.stdout.readline()
    assert line.startswith(f"Try: curl -s {server.url}/inference/chat_completion ")
    command = shlex.split(line.removeprefix("Try: "))
    assert command[:2] == ["curl", "-s"]
    reply = httpx.post(command[2], headers={"Content-Type": "application/json"}, content=command[-1])
    assert reply.json()["completion_message"]["content"] == "What is the capital of Italy?"


def test_models(call: Callable[..., Result]) -> None:
    listed = call("models", "list").stdout.splitlines()
    assert listed[0].split() == ["IDENTIFIER", "PROVIDER", "STATUS"]
    assert listed[1].split() == ["a", "foo", "ok"]
    done = call("models", "register", "a", "--provider-id", "foo", "--metadata", '{"k": [1]}')
    assert (done.exit_code, done.stdout) == (0, "registered model 'a' with provider 'foo'\n")
    assert json.loads(call("models", "get", "a", "--json").stdout)["metadata"] == {"k": [1]}
    assert 'metadata     {"k": [1]}' in call("models", "get", "foo/a").stdout
    assert {m["identifier"] for m in json.loads(call("models", "list", "--json").stdout)} >= {"a", "b", "m1"}
    assert json.loads(call("models", "unregister", "a", "--json").stdout) == {"unregistered": "a"}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["models", "get", "nope"], 1, "error: no model 'nope' is served. Served: a, b, m1"),
        (["models", "register", "x"], 1, "error: provider_id must be given, as there are several providers"),
        (["models", "register", "x", "--provider-id", "foo"], 1, "error: model 'x' is not served. Served: a, b"),
        (["models", "register", "x", "--provider-id", "far"], 1, "error: "),
        (["models", "register", "x", "--metadata", "{"], 2, "error: --metadata: is not JSON"),
        (["models", "register", "x", "--metadata", "[]"], 2, "error: metadata: Input should be an object"),
        (["models", "unregister", "b"], 1, "error: model 'b' is not registered; provider 'foo' serves it by itself"),
        (["shields", "register", "s"], 2, "error: type: required field is missing"),
        (["memory-banks", "register", "v", "--type", "odd"], 2, "error: Invalid value for '--type'"),
        (["memory-banks", "register", "v", "--type", "vector"], 2, "embedding_model: required field is missing"),
        (
            ["memory-banks", "register", "v", "--embedding-model", "e", "--chunk-size-in-tokens", "9"],
            1,
            "banks of type 'keyword', not 'vector'",
        ),
        (["chat", "hi", "--model", "nope"], 1, "error: no model 'nope' is served"),
        (["chat", ""], 2, "error: the message is empty"),
        (["chat", "hi", "--max-tokens", "0"], 2, "error: Invalid value for '--max-tokens'"),
    ],
)
def test_what_is_refused(call: Callable[..., Result], arguments: list[str], status: int, says: str) -> None:
    done = call(*arguments)
    assert done.exit_code == status
    assert says in done.stderr
    assert done.stdout == ""


def test_the_methods_of_apis(call: Callable[..., Result]) -> None:
    hello = json.dumps([{"role": "user", "content": "hello"}])
    asked = ("inference", "chat-completion", "--model", "a", "--messages", hello)
    done = call(*asked)
    assert done.exit_code == 0, done.stderr
    assert "hello" in json.loads(done.stdout)["completion_message"]["content"]
    events = [json.loads(line)["event"]["event_type"] for line in call(*asked, "--stream").stdout.splitlines()]
    assert (events[0], events[-1]) == ("start", "complete")
    assert call("memory-banks", "register", "kb", "--type", "keyword").exit_code == 0
    document = json.dumps([{"document_id": "d", "content": "a boat"}])
    assert call("memory", "insert-documents", "--bank-id", "kb", "--documents", document).stdout == ""
    found = call("memory", "query-documents", "--bank-id", "kb", "--query", "boat").stdout
    assert json.loads(found)["chunks"][0]["document_id"] == "d"
    call("memory-banks", "unregister", "kb")
    shown = call("safety", "run-shield", "--shield-type", "sample-words", "--messages", hello)
    assert shown.exit_code == 0, shown.stderr
    assert json.loads(shown.stdout) == {"violation": None}
    refused = call("inference", "completion", "--model", "nope", "--content", "x")
    assert (refused.exit_code, "no model 'nope' is served" in refused.stderr) == (1, True)


def test_memory_banks_and_shields(call: Callable[..., Result]) -> None:
    assert call("memory-banks", "list").stderr.startswith("no memory bank is served at http://")
    done = call("memory-banks", "register", "kb", "--type", "keyword")
    assert done.stdout == "registered memory bank 'kb' with provider 'docs'\n"
    assert call("memory-banks", "list").stdout.splitlines()[1].split() == ["kb", "docs", "keyword", "ok"]
    assert call("memory-banks", "unregister", "kb").stdout == "unregistered memory bank 'kb'\n"
    registered = call("shields", "register", "s", "--type", "words", "--params", '{"words": ["x"]}', "--json")
    assert json.loads(registered.stdout) == {
        "identifier": "s",
        "provider_id": "words",
        "type": "words",
        "params": {"words": ["x"]},
    }
    assert "sample-words" in call("shields", "list").stdout
    assert call("shields", "unregister", "s").exit_code == 0


def test_inspect(call: Callable[..., Result]) -> None:
    shown = call("inspect").stdout
    assert "Health: DEGRADED" in shown
    assert re.search(r"^inference +POST +/inference/chat_completion +remote::sample, remote$", shown, re.M)
    reported = json.loads(call("inspect", "--json").stdout)
    assert [p["provider_id"] for p in reported["providers"]["inference"]] == ["foo", "many", "far"]
    assert reported["health"]["status"] == "DEGRADED"
    assert reported["routes"]["inspect"]


def test_chat(call: Callable[..., Result]) -> None:
    done = call("chat", "hello", "there")
    assert done.stdout == "hello there\n"
    assert done.stderr == "model: a (6 are served; --model chooses)\n"
    assert call("chat", "--model", "b", stdin="from a pipe\n").stdout == "from a pipe\n"
    assert call("chat", "--model", "b", "-", stdin="grüße").stdout == "grüße\n"
    assert call("chat", "--model", "b", stdin="").exit_code == 2
    assert "stdin is not UTF-8" in call("chat", "--model", "b", stdin=b"\xff").stderr
    cut = call("chat", "--no-stream", "--system", "s", "--temperature", "0.5", "--max-tokens", "2", "one two three")
    assert cut.stdout == "one two \n"
    assert "(cut off: out of tokens)" in cut.stderr
    assert json.loads(call("chat", "--json", "hi").stdout) == {
        "model": "a",
        "completion_message": {
            "role": "assistant",
            "content": "hi",
            "stop_reason": "end_of_turn",
            "tool_calls": [],
        },
    }


def test_chat_passes_over_models_that_embed(call: Callable[..., Result]) -> None:
    call("models", "register", "a", "--provider-id", "foo", "--metadata", '{"embedding_dimension": 3}')
    try:
        assert call("chat", "hi").stderr == "model: b (5 are served; --model chooses)\n"
    finally:
        assert call("models", "unregister", "a").exit_code == 0


def test_a_conversation_on_a_terminal(server: Running) -> None:
    ours, theirs = pty.openpty()
    command = [*LLAMASTACK, "chat", "--url", server.url]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    os.write(ours, b"hello you\n\nagain\n/exit\n")
    try:
        output, reported = process.communicate(timeout=20)
    finally:
        os.close(ours)
    assert process.returncode == 0
    assert [
        line.removeprefix("> ").strip() for line in output.replace("> ", "\n").splitlines() if line.strip("> ")
    ] == [
        "hello you",
        "again",
    ]
    assert reported.startswith("model: a ")


@pytest.mark.parametrize("command", [["models", "list"], ["inspect", "--json"], ["chat", "hi"]])
def test_no_server_is_1_and_says_so(command: list[str]) -> None:
    done = CliRunner().invoke(cli, [*command, "--url", NOBODY])
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == f"error: no server answers at {NOBODY}: Connection refused (`llamastack run` starts one)\n"


def test_who_reads_half_is_no_error(server: Running) -> None:
    line = shlex.join([*LLAMASTACK, "inspect", "--url", server.url]) + " | true; echo ${PIPESTATUS[0]}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_requests_in_flight_finish(tmp_path: Path, number: int) -> None:
    config = 'providers:\n  inference:\n  - {provider_id: foo, provider_type: "remote::sample"}\n'
    answered: list[int] = []

    def ask(url: str) -> None:
        def body() -> Iterator[bytes]:
            yield b'{"model": "sample-echo", "messages": [{"role": "user", '
            time.sleep(1)
            yield b'"content": "hi"}]}'

        answered.append(httpx.post(f"{url}/inference/chat_completion", content=body()).status_code)

    with started(tmp_path, config) as running:
        running.wait_until_ready()
        asking = threading.Thread(target=ask, args=(running.url,))
        asking.start()
        time.sleep(0.4)
        assert running.stop(number) == 0
        asking.join()
    assert answered == [200]


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    install(site, "slow-fake", {"llamastack.providers.inference": {"slow-fake": "slow_fake:SPEC"}})
    site.joinpath("slow_fake.py").write_text(SLOW_FAKE)
    return site


def test_progress_is_told_at_start_and_end(tmp_path: Path, slow: Path) -> None:
    config = "providers:\n  inference:\n  - {provider_id: s, provider_type: slow-fake, config: {seconds: 0.2}}\n"
    with started(tmp_path, config, path=slow) as running:
        running.wait_until_ready()
        assert running.stop() == 0
    reported = [line for line in running.log.read_text().splitlines() if "fetching" in line]
    assert reported == ["inference s: fetching a model ...", "inference s: fetching a model: done"]


def test_a_signal_while_starting_stops_it_in_order(tmp_path: Path, slow: Path) -> None:
    config = "providers:\n  inference:\n  - {provider_id: s, provider_type: slow-fake, config: {seconds: 60}}\n"
    with started(tmp_path, config, path=slow) as running:
        while "fetching" not in running.log.read_text():
            assert running.process.poll() is None
            time.sleep(0.02)
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_stack_that_cannot_start_is_1(tmp_path: Path) -> None:
    with started(tmp_path, CONFIG + "on_provider_error: fail\n") as running:
        assert running.process.wait(20) == 1
    (line,) = [line for line in running.log.read_text().splitlines() if line.startswith("error: ")]
    assert line.startswith("error: provider 'far' (remote) is down: ")
    assert "Traceback" not in running.log.read_text()


def test_reload_serves_the_changed_config_on_the_same_port(tmp_path: Path) -> None:
    config = 'providers:\n  inference:\n  - {provider_id: foo, provider_type: "remote::sample"}\n'
    with started(tmp_path, config, "--reload") as running:
        running.wait_until_ready()
        url, file = running.url, tmp_path / "run.yaml"
        file.write_text(config.replace('sample"', 'sample", confg: {}'))
        while "unknown field" not in running.log.read_text():
            time.sleep(0.05)
        file.write_text(config.replace("foo", "bar"))
        running.wait_until_ready()
        assert running.url == url
        assert [line.split()[1] for line in running.lines if line.startswith("inference")] == ["foo", "bar"]
        assert running.stop() == 0
    assert "Traceback" not in running.log.read_text()


def test_a_log_that_nobody_reads_holds_up_no_request(tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text('providers: {inference: [{provider_id: s, provider_type: "remote::sample"}]}')
    environment = {**os.environ, "LLAMASTACK_HOME": str(tmp_path / "home")}
    command = [*LLAMASTACK, "run", str(config), "--port", "0", "--start-wait", "60"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        running = Running(process, tmp_path / "none")
        running.wait_until_ready()
        with httpx.Client(base_url=running.url) as client:
            for _ in range(2000):  # far more lines than a pipe holds
                assert client.get("/health").status_code == 200
        process.terminate()
        process.communicate(timeout=20)
        assert process.returncode == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_backend_that_never_answers_does_not_hold_up_the_server(tmp_path: Path, workers: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections, and nobody reads from them
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        config = CONFIG.partition("  memory:")[0].replace(
            "  safety:",
            f'  - {{provider_id: silent, provider_type: "remote::ollama", config: {{url: "{url}"}}}}\n  safety:',
        )
        with started(tmp_path, config, "--start-wait", "2", "--workers", str(workers)) as running:
            running.wait_until_ready()
            assert [line.split()[1::2] for line in running.lines if "silent" in line] == [["silent", "starting"]]
            with httpx.Client(base_url=running.url) as client:
                health = {each["provider_id"]: each["status"] for each in client.get("/health").json()["providers"]}
                assert (health["silent"], health["foo"]) == ("starting", "healthy")
                body = {"model": "x", "messages": [{"role": "user", "content": "Hi"}]}
                refused = client.post("/v1/chat/completions", json=body)
                assert refused.status_code == 503
                assert "provider 'silent' (remote::ollama) is starting" in refused.json()["error"]["message"]
            assert running.stop() == 0

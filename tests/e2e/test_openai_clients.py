"""Clients of OpenAI's API that no one here wrote, unmodified, against `/v1` of the real server with real models.

Each makes its calls twice: of a provider that knows only the native protocol, whose calls are translated, and of one
whose backend speaks OpenAI's API, to which they are forwarded.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from backends.llama_model import default_model
from backends.llama_server import CONTEXT_LENGTH, MODEL, LlamaServer
from backends.openai_front import OpenAIFront, events, openai_front, openai_list, refusal
from backends.serving import becomes
from running_server import RunningServer, running_server
from starlette.responses import JSONResponse, Response

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.xdist_group("openai_clients")]

SCRIPTS = Path(__file__).with_name("openai_clients")
BACKEND_KEY = "backend-key"
RUN_CONFIG = """
providers:
  inference:
  - provider_id: llama-cpp
    provider_type: llama-cpp
    config: {{models: [{default_model}], threads: 1, context_length: {context_length}}}
  - {{provider_id: embeddings, provider_type: sentence-embeddings, config: {{threads: 1}}}}
  - provider_id: far
    provider_type: remote::openai
    config: {{url: "{url}", api_key: {key}, models: {{far-model: {model}}}}}
  safety:
  - {{provider_id: sample, provider_type: "remote::sample", config: {{shields: {{spit: [spit]}}}}}}
"""
LANES: dict[str, dict[str, Any]] = {
    "translated": {
        "forwarded": False,
        "owner": "llama-cpp",
        "chat_model": MODEL,
        "embedding_model": "all-MiniLM-L6-v2",
        "dimension": 384,
    },
    "forwarded": {
        "forwarded": True,
        "owner": "far",
        "chat_model": "far-model",
        "embedding_model": "far-model",
        "dimension": 576,
    },
}
OPENAI = ["openai_chat", "openai_async", "openai_others", "openai_errors"]
Run = Callable[..., None]
Locked = Callable[[Path], Path]


@dataclass(frozen=True)
class Served:
    """The server, and the backend of its forwarded lane."""

    server: RunningServer
    front: OpenAIFront

    def lane(self, name: str) -> dict[str, Any]:
        """What the scripts must know of it; see openai_clients/checks.py."""
        common = {"url": f"{self.server.url}/v1", "context_length": CONTEXT_LENGTH, "shield": "spit"}
        return {**common, **LANES[name]}


@pytest.fixture(scope="module")
def served(llama: LlamaServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("openai-clients")
    # Not scripted, as the server asks for them whenever it likes.
    models = {"/v1/models": lambda request: JSONResponse(openai_list([MODEL]))}
    with openai_front(llama, keys={BACKEND_KEY}, holds_calls=True, routes=models) as (front, url):
        config = folder / "run.yaml"
        own_model = default_model().model_dump_json()
        config.write_text(
            RUN_CONFIG.format(
                url=url, key=BACKEND_KEY, model=MODEL, default_model=own_model, context_length=CONTEXT_LENGTH
            )
        )
        with running_server(config, home=folder / "home") as server:
            yield Served(server, front)
            assert server.stop() == 0
        output = "".join(server.output)
        assert "Traceback" not in output, output


@pytest.fixture
def run(served: Served, tmp_path: Path) -> Run:
    """Run a client's checks, in a process that has nothing of this one's environment."""
    variables = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(SCRIPTS),
        "OPENAI_API_KEY": "unused",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LANGSMITH_TRACING": "false",
        "LLM_USER_PATH": str(tmp_path / "llm"),
    }

    def check(*command: str | Path) -> None:
        done = subprocess.run(
            command, env=variables, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=240
        )
        shown = f"{done.stdout}\n{done.stderr}"
        assert done.returncode == 0, f"{shown}\n{''.join(served.server.output)}"
        assert re.search(r"^all \d+ checks passed$", done.stdout, re.MULTILINE), shown
        assert "reached out to" not in done.stderr, shown
        print(shown)

    return check


@pytest.mark.parametrize("lane", LANES)
def test_openai(lane: str, served: Served, run: Run, locked_python: Locked) -> None:
    front = served.front
    front.seen.clear()
    front.disconnects = 0
    run(locked_python(SCRIPTS / "clients.lock"), SCRIPTS / "run.py", json.dumps([served.lane(lane)]), *OPENAI)
    asked = {seen.path for seen in front.seen} - {"/v1/models"}
    if lane == "translated":
        assert not asked
    else:
        assert asked == {"/v1/chat/completions", "/v1/completions", "/v1/embeddings"}
        # Streams that are left, calls that are cancelled, and those that take too long: the backend is told of each.
        assert becomes(lambda: front.disconnects == 4 + 4 + 4), front.disconnects


@pytest.mark.parametrize(
    ("lock", "module"),
    [
        pytest.param("clients.lock", "langchain_calls", id="langchain-openai"),
        pytest.param("clients.lock", "litellm_calls", id="litellm"),
        pytest.param("clients.lock", "llm_calls", id="llm"),
        pytest.param("instructor.lock", "instructor_calls", id="instructor"),
    ],
)
def test_clients_over_openai(lock: str, module: str, served: Served, run: Run, locked_python: Locked) -> None:
    served.front.seen.clear()
    lanes = json.dumps([served.lane(name) for name in LANES])
    run(locked_python(SCRIPTS / lock), SCRIPTS / "run.py", lanes, module)
    assert "/v1/chat/completions" in {seen.path for seen in served.front.seen}


@pytest.mark.skipif(shutil.which("npm") is None, reason="needs node and npm")
@pytest.mark.parametrize("lane", LANES)
def test_node(lane: str, served: Served, run: Run, locked_node_modules: Locked, tmp_path: Path) -> None:
    # Packages are looked for beside the script.
    (tmp_path / "node_modules").symlink_to(locked_node_modules(SCRIPTS / "package-lock.json"))
    front = served.front
    front.disconnects = 0
    run("node", shutil.copy(SCRIPTS / "node_calls.mjs", tmp_path), json.dumps(served.lane(lane)))
    # As of the Python package.
    assert becomes(lambda: front.disconnects == (2 + 1 + 1 if lane == "forwarded" else 0)), front.disconnects


def test_a_backend_that_fails(served: Served, run: Run, locked_python: Locked) -> None:
    """What the openai package shows of it: the backend's own words, and no call more than the client makes."""
    half = [chunk("a"), chunk("b")]
    no_memory = {"error": {"message": "out of memory", "type": "server_error", "code": None, "param": None}}
    answers = [
        refusal(429, "slow down", code="rate_limit_exceeded", retry_after=0),
        None,
        refusal(429, "slow down", code="rate_limit_exceeded", retry_after=7),
        refusal(429, "You exceeded your current quota", code="insufficient_quota"),
        refusal(400, "not that", code="content_policy_violation"),
        JSONResponse(no_memory),
        Response("<html>", media_type="text/html"),
        events(*half, done=False),
        events(*half, json.dumps(no_memory), done=False),
    ]
    before = len(served.front.seen)
    served.front.answers.extend(answers)
    python = locked_python(SCRIPTS / "clients.lock")
    run(python, SCRIPTS / "run.py", json.dumps([served.lane("forwarded")]), "openai_faults")
    assert not served.front.answers
    calls = [seen for seen in served.front.seen[before:] if seen.path == "/v1/chat/completions"]
    assert len(calls) == len(answers)


def chunk(text: str) -> str:
    """One of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL}
    return json.dumps({**head, "choices": [choice]})

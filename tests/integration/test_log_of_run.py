"""The log of a real `llamastack run`, of one process and of several: every record in one form, nothing forged."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from installed_fakes import install
from running_server import RunningServer, running_server

TRACE = "a" * 32

# One process starts the servers.
pytestmark = pytest.mark.xdist_group("log_of_run")

LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) (\S+) ")
SPEC = """\
import logging
from llamastack.provider import InlineProviderSpec

logging.getLogger(__name__).info("imported")
SPEC = InlineProviderSpec(
    api="inference", provider_type="talkative", description="Logs in every way",
    config_class="llamastack_provider_talkative.config:Config", factory="code_elsewhere.made:make",
)
"""
CONFIG = "from pydantic import BaseModel\n\nclass Config(BaseModel):\n    pass\n"
CODE = """\
import logging
import threading
import warnings

import anyio.to_thread

from llamastack.api.models import Model
from llamastack.provider import BackendError

FORGED = "2026-01-01 00:00:00,000 INFO llamastack.access [x] GET /forged 200 1.0 ms"
_LOGGER = logging.getLogger("llamastack_provider_talkative.inference")

class Talkative:
    async def initialize(self):
        _LOGGER.info("it starts")
        logging.getLogger(__name__).info("code of another package")
        warnings.warn("an old way")
        logging.getLogger("some.library").warning("a library")
        logging.getLogger("some.library").info("chatter of a library")

    async def list_models(self):
        return [Model(identifier="m")]

    async def register_model(self, model):
        pass

    async def completion(self, **arguments):
        _LOGGER.info("a call")
        await anyio.to_thread.run_sync(_LOGGER.warning, "from a thread")
        _LOGGER.debug("a detail")
        if arguments["content"] == "fail":
            raise ValueError("unexpected\\n" + FORGED + "\\ud83d")
        raise BackendError("the backend said: \\x1b[2J\\r\\n" + FORGED + "\\u2028" + FORGED)

    chat_completion = embeddings = completion

async def make(config, deps):
    return Talkative()
"""


def installed(folder: Path, workers: int) -> dict[str, str]:
    """Install the provider and write `run.yaml`. Returns the environment of a server."""
    for file, text in {
        "llamastack_provider_talkative/__init__.py": SPEC,
        "llamastack_provider_talkative/config.py": CONFIG,
        "code_elsewhere/__init__.py": "",
        "code_elsewhere/made.py": CODE,
        "run.yaml": "providers:\n  inference:\n  - {provider_id: t, provider_type: talkative}\n"
        f"server: {{workers: {workers}}}\n",
    }.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    points = {"llamastack.providers.inference": {"talkative": "llamastack_provider_talkative:SPEC"}}
    install(folder, "llamastack-provider-talkative", points)
    return {"PYTHONPATH": str(folder), "LLAMASTACK_DEBUG": "1"}


def ask(server: RunningServer, content: str = "x", **headers: str) -> None:
    body = {"model": "m", "content": content}
    httpx.post(f"{server.url}/inference/completion", json=body, headers=headers)


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("talkative")
    environment = installed(folder, request.param)
    with running_server(folder / "run.yaml", home=folder / "home", environment=environment) as running:
        for number in range(40):
            ask(running, **{"X-Request-ID": f"call-{number}"})
        assert running.stop() == 0
        yield running


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def records(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """All that a server wrote to stderr with the log in JSON, each line read."""
    folder = tmp_path_factory.mktemp("json")
    environment = installed(folder, request.param) | {
        "LLAMASTACK_LOG_FORMAT": "json",
        "LLAMASTACK_LOG_CALLS": "1",
        "LLAMASTACK_LOG_LEVEL": "INFO,code_elsewhere=ERROR,llamastack_provider_talkative=DEBUG,some.library=INFO",
        "STDERR": str(folder / "stderr"),
    }
    command = ("sh", "-c", 'exec "$@" 2>"$STDERR"', "sh", str(Path(sys.executable).with_name("llamastack")))
    with running_server(folder / "run.yaml", home=folder / "home", environment=environment, command=command) as running:
        ask(running, **{"X-Request-ID": "traced", "traceparent": f"00-{TRACE}-{'b' * 16}-01"})
        for number in range(20):
            ask(running, **{"X-Request-ID": f"call-{number}"})
        ask(running, "fail", **{"X-Request-ID": "failed"})
        assert running.stop() == 0
    return [json.loads(line) for line in (folder / "stderr").read_text("ascii").splitlines()]


def lines_of(server: RunningServer, logger: str) -> list[str]:
    found = (LINE.match(line) for line in server.output)
    return [match.string for match in found if match is not None and match[2] == logger]


def most_within_a_window(lines: list[str]) -> int:
    """A slow machine takes longer for all requests than one window of 10 s, which begins with the first line in it."""
    begun, most, number = datetime.min, 0, 0
    for time in (datetime.fromisoformat(line[:23]) for line in lines):
        if time - begun > timedelta(seconds=9):  # a line is dated a moment before it is counted
            begun, number = time, 0
        number += 1
        most = max(most, number)
    return most


def test_a_provider_is_heard_from_its_first_moment_on(server: RunningServer) -> None:
    assert lines_of(server, "llamastack_provider_talkative")[0].endswith(" imported\n")
    for logger, says in {
        "llamastack_provider_talkative.inference": "it starts",
        "code_elsewhere.made": "code of another package",
        "some.library": "a library",
        "py.warnings": "UserWarning: an old way",
    }.items():
        assert sum(says in line for line in lines_of(server, logger)) in (1, 2)
    assert not [line for line in server.output if "chatter" in line]


def test_its_lines_have_the_id_of_the_request(server: RunningServer) -> None:
    lines = lines_of(server, "llamastack_provider_talkative.inference")
    assert len([line for line in lines if "[call-0] a call" in line]) == 1
    assert len([line for line in lines if "[call-0] from a thread" in line]) == 1


def test_no_line_is_forged(server: RunningServer) -> None:
    text = "".join(server.output)
    assert "\x1b" not in text
    assert "\u2028" not in text
    assert not [line for line in text.splitlines() if line.startswith("2026-01-01 00:00:00,000")]
    assert "\\x1b[2J\\r\\n2026-01-01" in text


def test_what_repeats_itself_is_counted_and_nothing_is_lost(server: RunningServer) -> None:
    lines = [line for line in lines_of(server, "llamastack.server") if "backend_error" in line]
    repeats = [int(found[1]) for line in lines if (found := re.search(r"repeated (\d+) times", line))]
    written = [line for line in lines if not re.search(r"repeated (\d+) times", line)]
    assert len(written) + sum(repeats) == 40
    for process in ("worker-1", "worker-2") if "worker-1" in "".join(written) else ("",):
        assert most_within_a_window([line for line in written if process in line]) <= 5
    assert len(lines_of(server, "llamastack.access")) == 40


# ---- in JSON ---------------------------------------------------------------------------------------------------------


def of_request(records: list[dict[str, Any]], own_id: str) -> dict[str, dict[str, Any]]:
    """The records of one request, by their messages."""
    return {record["message"]: record for record in records if record.get("request_id") == own_id}


def test_each_record_has_the_fields_of_all(records: list[dict[str, Any]]) -> None:
    for record in records:
        assert {"time", "level", "logger", "message"} <= record.keys()
        assert datetime.fromisoformat(record["time"]).utcoffset() == timedelta(0)
    workers = {record["worker"] for record in records if record["logger"] == "llamastack.access" and "worker" in record}
    several = any(record["logger"] == "llamastack.workers" for record in records)
    assert workers <= {"worker-1", "worker-2"}
    assert bool(workers) is several


def test_requests_and_calls_have_their_parts_as_fields(records: list[dict[str, Any]]) -> None:
    of_access = [record for record in records if record["logger"] == "llamastack.access" and "http_status" in record]
    assert len(of_access) == 22
    assert {(record["http_method"], record["path"]) for record in of_access} == {("POST", "/inference/completion")}
    assert Counter(record["http_status"] for record in of_access) == {502: 21, 500: 1}
    calls = [record for record in records if record.get("method") == "completion"]
    assert len(calls) == 22
    for call in calls:
        assert (call["api"], call["identifier"], call["provider_id"], call["status"]) == (
            "inference",
            "m",
            "t",
            "error",
        )
        assert call["duration_ms"] >= 0


def test_all_lines_of_a_traced_request_have_its_trace(records: list[dict[str, Any]]) -> None:
    found = of_request(records, "traced")
    assert {"a call", "from a thread", "a detail"} <= found.keys()
    assert len(found) >= 5
    assert {(record["trace_id"], record["span_id"]) for record in found.values()} == {(TRACE, "b" * 16)}
    assert "trace_id" not in of_request(records, "call-0")["a call"]


def test_a_traceback_is_in_the_record(records: list[dict[str, Any]]) -> None:
    (failed,) = [record for record in of_request(records, "failed").values() if "exception" in record]
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("\\ud83d")


def test_repetitions_are_counted_in_fields(records: list[dict[str, Any]]) -> None:
    lines = [
        record for record in records if record["logger"] == "llamastack.server" and "backend_error" in record["message"]
    ]
    assert sum(record.get("repeated", 1) for record in lines) == 21


def test_loggers_have_their_own_levels_in_every_process(records: list[dict[str, Any]]) -> None:
    written = Counter((record["logger"], record["level"]) for record in records)
    processes = written["llamastack.workers", "INFO"] or 1
    assert written["llamastack_provider_talkative.inference", "DEBUG"] == 22
    assert written["some.library", "INFO"] == processes
    assert not [logger for logger, _ in written if logger.startswith("code_elsewhere")]

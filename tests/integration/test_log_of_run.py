"""The log of a real `llamastack run`, of one process and of several: every record in one form, nothing forged."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timedelta

import httpx
import pytest
from installed_fakes import install
from running_server import RunningServer, running_server

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
        raise BackendError("the backend said: \\x1b[2J\\r\\n" + FORGED + "\\u2028" + FORGED)

    chat_completion = embeddings = completion

async def make(config, deps):
    return Talkative()
"""


@pytest.fixture(scope="module", params=[1, 2], ids=["one process", "two workers"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("talkative")
    for file, text in {
        "llamastack_provider_talkative/__init__.py": SPEC,
        "llamastack_provider_talkative/config.py": CONFIG,
        "code_elsewhere/__init__.py": "",
        "code_elsewhere/made.py": CODE,
        "run.yaml": "providers:\n  inference:\n  - {provider_id: t, provider_type: talkative}\n"
        f"server: {{workers: {request.param}}}\n",
    }.items():
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_text(text)
    points = {"llamastack.providers.inference": {"talkative": "llamastack_provider_talkative:SPEC"}}
    install(folder, "llamastack-provider-talkative", points)
    environment = {"PYTHONPATH": str(folder), "LLAMASTACK_DEBUG": "1"}
    with running_server(folder / "run.yaml", home=folder / "home", environment=environment) as running:
        for number in range(40):
            httpx.post(
                f"{running.url}/inference/completion",
                json={"model": "m", "content": "x"},
                headers={"X-Request-ID": f"call-{number}"},
            )
        assert running.stop() == 0
        yield running


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

"""The official Python client of release 0.0.41, unmodified, against the real server with real models."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from running_server import RunningServer, running_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HERE = Path(__file__).parent
Locked = Callable[[Path], Path]

RUN_CONFIG = """
image_name: e2e
providers:
  inference:
  - {provider_id: llama-cpp, provider_type: llama-cpp, config: {threads: 1}}
  - {provider_id: embeddings, provider_type: sentence-embeddings}
  memory:
  - {provider_id: qdrant, provider_type: "remote::qdrant", config: {location: ":memory:"}}
  safety:
  - {provider_id: sample, provider_type: "remote::sample"}
  agents:
  - {provider_id: sample, provider_type: "remote::sample"}
  telemetry:
  - {provider_id: sample, provider_type: "remote::sample"}
"""


def call(server: RunningServer, python: Path, script: str) -> None:
    done = subprocess.run([python, HERE / script, server.url], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{''.join(server.output)}"
    assert "all calls done" in done.stdout


def test_every_call_of_the_official_client(locked_python: Locked, tmp_path: Path, own_home: Path) -> None:
    python = locked_python(HERE / "official_client.lock")
    config = tmp_path / "run.yaml"
    config.write_text(RUN_CONFIG)
    with running_server(config, home=own_home) as server:
        call(server, python, "official_client_calls.py")
        assert server.stop() == 0


NEWER_CONFIG = """
image_name: e2e
providers:
  inference: [{provider_id: echo, provider_type: "remote::sample"}]
  safety: [{provider_id: words, provider_type: "remote::sample"}]
"""


def test_what_a_newer_client_asks_for_first(locked_python: Locked, tmp_path: Path, own_home: Path) -> None:
    """Release 0.2.12 asks below `/v1`."""
    python = locked_python(HERE / "newer_client.lock")
    config = tmp_path / "run.yaml"
    config.write_text(NEWER_CONFIG)
    with running_server(config, home=own_home) as server:
        call(server, python, "newer_client_calls.py")

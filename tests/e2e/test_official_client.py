"""The official Python client of release 0.0.41, unmodified, against the real server with real models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from running_server import running_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

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


def test_every_call_of_the_official_client(make_venv: Callable[[str], Any], tmp_path: Path, own_home: Path) -> None:
    venv = make_venv("official-client")
    venv.install("llama-stack-client==0.0.41", "httpx<0.28")
    config = tmp_path / "run.yaml"
    config.write_text(RUN_CONFIG)
    with running_server(config, home=own_home) as server:
        done = venv.run("python", str(Path(__file__).with_name("official_client_calls.py")), server.url, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{''.join(server.output)}"
        assert "all calls done" in done.stdout
        assert server.stop() == 0


NEWER_CONFIG = """
image_name: e2e
providers:
  inference: [{provider_id: echo, provider_type: "remote::sample"}]
  safety: [{provider_id: words, provider_type: "remote::sample"}]
"""


def test_what_a_newer_client_asks_for_first(make_venv: Callable[[str], Any], tmp_path: Path, own_home: Path) -> None:
    """Release 0.2.12 asks below `/v1`."""
    venv = make_venv("newer-client")
    venv.pip("install", "--quiet", "llama-stack-client==0.2.12", "fire", "requests")  # it does not name these two
    config = tmp_path / "run.yaml"
    config.write_text(NEWER_CONFIG)
    with running_server(config, home=own_home) as server:
        done = venv.run("python", str(Path(__file__).with_name("newer_client_calls.py")), server.url, check=False)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{''.join(server.output)}"
        assert "all calls done" in done.stdout

"""The packages of remote providers, from their wheels, together in one new virtual environment."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from backends.llama_server import MODEL
from backends.openai_front import OpenAIFront
from projects import ROOT, provider
from running_server import running_server

from llamastack_provider_openai.presets import PRESETS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PACKAGES = ("bedrock", "databricks", "fireworks", "ollama", "openai", "tgi", "together", "vllm")
RUN_CONFIG = """
providers:
  inference:
  - {{provider_id: one, provider_type: "remote::openai", config: {{url: "{url}", models: {{small: {model}}}}}}}
  - {{provider_id: two, provider_type: "remote::vllm", config: {{url: "{url}"}}}}
  - {{provider_id: gone, provider_type: "remote::ollama", config: {{url: "http://127.0.0.1:1"}}}}
"""


def test_they_live_together(
    make_venv: Callable[..., Any],
    server_venv: Any,
    build_wheels: Callable[..., list[str]],
    front: Callable[..., tuple[OpenAIFront, str]],
    tmp_path: Path,
    own_home: Path,
) -> None:
    wheels = build_wheels([*map(provider, PACKAGES)])
    venv = make_venv("remote", server_venv)
    venv.install("-c", str(ROOT / "constraints.txt"), *wheels)
    venv.pip("check")
    listed = json.loads(venv.run("llamastack", "providers", "list", "--check", "--json", cwd=tmp_path).stdout)
    status = {p["provider_type"]: p["status"] for p in listed if p["package"] != "llamastack"}
    assert status == dict.fromkeys(
        [
            "remote::bedrock",
            "remote::databricks",
            "remote::fireworks",
            "remote::hf::endpoint",
            "remote::hf::serverless",
            "remote::ollama",
            "remote::openai",
            "remote::tgi",
            "remote::together",
            "remote::vllm",
            "vllm",
            "remote::azure",
            *(preset.provider_type for preset in PRESETS),
        ],
        "ok",
    )

    _, url = front()
    config = tmp_path / "run.yaml"
    config.write_text(RUN_CONFIG.format(url=url, model=MODEL))
    with running_server(config, home=own_home, command=(str(venv.bin / "llamastack"),)) as server:
        for model in ("small", f"two/{MODEL}"):
            body = {"model": model, "messages": [{"role": "user", "content": "What is the capital of France?"}]}
            reply = httpx.post(f"{server.url}/inference/chat_completion", json=body, timeout=60).json()
            assert reply["completion_message"]["content"] == "The capital of France is Paris."
        assert server.stop() == 0
    shown = "".join(server.output)
    assert "connection refused at http://127.0.0.1:1" in shown
    assert "Traceback" not in shown

"""From wheels in a new virtual environment: discovered, instantiated twice, served, and gone after `pip uninstall`."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from projects import ROOT
from running_server import running_server

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "llamastack-provider-tiny"
version = "4.5.6"
dependencies = ["llamastack"]
[project.entry-points."llamastack.providers.inference"]
"remote::tiny" = "llamastack_provider_tiny:TINY"
[tool.hatch.build.targets.wheel]
packages = ["llamastack_provider_tiny"]
"""
SPEC = """
from llamastack.provider import Api, Capabilities, RemoteProviderSpec

TINY = RemoteProviderSpec(
    api=Api.inference,
    provider_type="remote::tiny",
    description="A third party's provider",
    config_class="llamastack_provider_tiny.inference:TinyConfig",
    factory="llamastack_provider_tiny.inference:get_adapter_impl",
    capabilities=Capabilities(completion="unsupported", embeddings="unsupported"),
)
"""
INFERENCE = """
from pydantic import BaseModel

from llamastack.api import ChatCompletionResponse, CompletionMessage, Inference, Model, StopReason
from llamastack.provider import Deps, ModelsProtocolPrivate, UnsupportedModelError


class TinyConfig(BaseModel):
    model: str


class TinyInference(Inference, ModelsProtocolPrivate):
    def __init__(self, config: TinyConfig) -> None:
        self.model = config.model

    async def list_models(self) -> list[Model]:
        return [Model(identifier=self.model)]

    async def register_model(self, model: Model) -> None:
        if model.identifier != self.model:
            raise UnsupportedModelError(model.identifier, available=[self.model])

    async def chat_completion(self, model, messages, **rest):
        message = CompletionMessage(content=f"tiny {self.model}", stop_reason=StopReason.end_of_turn)
        return ChatCompletionResponse(completion_message=message)


async def get_adapter_impl(config: TinyConfig, deps: Deps) -> TinyInference:
    return TinyInference(config)
"""
RUN_CONFIG = """
providers:
  inference:
  - {provider_id: one, provider_type: "remote::tiny", config: {model: first}}
  - {provider_id: two, provider_type: "remote::tiny", config: {model: second}}
"""


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        answer: dict[str, Any] = json.load(reply)
        return answer


def test_a_third_party_provider_from_its_wheel(
    make_venv: Callable[..., Any],
    server_venv: Any,
    build_wheels: Callable[..., list[str]],
    tmp_path: Path,
    own_home: Path,
) -> None:
    package = tmp_path / "tiny" / "llamastack_provider_tiny"
    package.mkdir(parents=True)
    package.parent.joinpath("pyproject.toml").write_text(PYPROJECT)
    package.joinpath("__init__.py").write_text(SPEC)
    package.joinpath("inference.py").write_text(INFERENCE)
    [tiny] = build_wheels([package.parent])
    venv = make_venv("third-party", server_venv)

    venv.install("-c", str(ROOT / "constraints.txt"), tiny)
    listed = json.loads(venv.run("llamastack", "providers", "list", "--json", cwd=tmp_path).stdout)
    found = {(p["api"], p["provider_type"], p["package"], p["version"]) for p in listed}
    assert ("inference", "remote::tiny", "llamastack-provider-tiny", "4.5.6") in found

    config = tmp_path / "run.yaml"
    config.write_text(RUN_CONFIG)
    with running_server(config, home=own_home, command=(str(venv.bin / "llamastack"),)) as server:
        for model in ("first", "second", "two/second"):
            body = {"model": model, "messages": [{"role": "user", "content": "Hi"}]}
            reply = post(f"{server.url}/inference/chat_completion", body)
            assert reply["completion_message"]["content"] == f"tiny {model.removeprefix('two/')}"
        assert server.stop() == 0

    venv.pip("uninstall", "--quiet", "--yes", "llamastack-provider-tiny")
    listed = json.loads(venv.run("llamastack", "providers", "list", "--json", cwd=tmp_path).stdout)
    assert "remote::tiny" not in [p["provider_type"] for p in listed]
    refused = venv.run("llamastack", "config", "validate", str(config), check=False, cwd=tmp_path)
    assert refused.returncode == 2
    assert "providers.inference[0].provider_type: 'remote::tiny' is not installed for API 'inference'" in refused.stderr
    assert "Traceback" not in refused.stderr

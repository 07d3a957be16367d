"""A real OpenAI-speaking server in a process of its own: llama.cpp's, with SmolLM2-135M-Instruct."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

MODEL = "SmolLM2-135M-Instruct"
SLOTS = 4
CONTEXT_LENGTH = 2048
_READY = "listening on "


@dataclass(frozen=True)
class LlamaServer:
    """url: of the server; the API is below `/v1`, and below no `/v1` too.

    embeddings_url: of a second engine in the same process, for embeddings alone: what a slot has generated before would
    show in the vectors that it computes.
    """

    url: str
    embeddings_url: str

    def working_on(self) -> int:
        """How many requests the engine is computing now."""
        slots = httpx.get(f"{self.url}/slots", timeout=10).json()
        return sum(slot["is_processing"] for slot in slots)

    def becomes_idle(self, within_s: float = 10.0) -> bool:
        """Wait until the engine computes nothing."""
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            if not self.working_on():
                return True
            time.sleep(0.02)
        return False


@contextmanager
def llama_server() -> Iterator[LlamaServer]:
    """Start one on a free port of 127.0.0.1. Raises RuntimeError with its output when it does not get ready."""
    from backends.llama_model import model_path  # not found where this file is the program

    process = subprocess.Popen(
        [sys.executable, __file__, str(model_path())],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdout is not None
    seen: list[str] = []
    reader: threading.Thread | None = None
    try:
        for line in process.stdout:
            if line.startswith(_READY):
                break
            seen.append(line)
        else:
            raise RuntimeError(f"llama.cpp's server did not get ready:\n{''.join(seen)}")
        # It logs on: somebody must read, or it stops when the pipe is full.
        reader = threading.Thread(target=process.stdout.read, daemon=True)
        reader.start()
        yield LlamaServer(*line.removeprefix(_READY).split())
    finally:
        process.terminate()
        process.wait(30)
        if reader is not None:
            reader.join(30)
        process.stdout.close()


def _server(model: str, *, slots: int, context_length: int, embedding: bool) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {MODEL}
    params.n_parallel = slots
    params.n_ctx = context_length * slots
    params.n_batch = params.n_ubatch = 256
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = False
    params.fit_params = False  # into the memory of GPUs
    params.embedding = embedding
    if embedding:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    template = Path(__file__).parents[2] / "plugins/providers/llama-cpp/src/llamastack_provider_llama_cpp/smollm2.jinja"
    params.chat_template = template.read_text(encoding="utf-8")
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.endpoint_slots = True
    params.ui = False
    params.verbosity = 1
    return xllamacpp.Server(params)


def _serve(model: str) -> None:
    generating = _server(model, slots=SLOTS, context_length=CONTEXT_LENGTH, embedding=False)
    embedding = _server(model, slots=1, context_length=256, embedding=True)
    print(_READY, generating.listening_address, embedding.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    _serve(sys.argv[1])

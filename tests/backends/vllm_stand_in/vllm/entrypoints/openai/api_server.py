"""A stand-in of vLLM's server, for tests of how it is started and stopped: its flags, its socket, its habits.

It follows what vLLM 0.32 was seen to do. It generates nothing itself: requests are handed on to the llama.cpp server
whose URLs are in the environment. `STAND_IN` holds faults: `crash` ends it at its first chat, `no-load` before it
listens, `deaf` makes it ignore SIGTERM, `child` starts a process that outlives it.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route


def main() -> None:
    parser = argparse.ArgumentParser(prog="vllm")
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--uds", required=True)
    parser.add_argument("--tensor-parallel-size", type=int)
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--gpu-memory-utilization", type=float)
    parser.add_argument("--tool-call-parser")
    parser.add_argument("--enable-auto-tool-choice", action="store_true")
    parser.add_argument("--chat-template")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--dtype")
    arguments = parser.parse_args()
    faults = os.environ.get("STAND_IN", "").split()
    sys.path.insert(0, os.environ["STAND_IN_TESTS"])
    from backends.llama_server import LlamaServer
    from backends.openai_front import OpenAIFront, open_http

    if "child" in faults:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        print(f"child {child.pid}", flush=True)
    if "deaf" in faults:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.3)
    if "no-load" in faults:
        print("INFO loading", "\nValueError: no room for the KV cache", flush=True)
        sys.exit(1)

    def listing(models: list[str]) -> object:
        entry = {"id": models[0], "object": "model", "owned_by": "vllm", "max_model_len": arguments.max_model_len}
        return {"object": "list", "data": [entry]}

    def chat(request: Request) -> Response:
        print("EngineCore died", flush=True)
        os._exit(0)

    front = OpenAIFront(
        LlamaServer(os.environ["STAND_IN_LLAMA"], os.environ["STAND_IN_EMBEDDER"]),
        models=[arguments.served_model_name],
        holds_calls=True,
        listing=listing,  # type: ignore[arg-type]
        routes={"/v1/chat/completions": chat} if "crash" in faults else {},
    )
    routes = [
        Route("/health", lambda _: JSONResponse(None)),
        Route("/{path:path}", front.handle, methods=["GET", "POST"]),
    ]
    config = uvicorn.Config(Starlette(routes=routes, lifespan=open_http), uds=arguments.uds, log_config=None)
    server = uvicorn.Server(config)
    if "deaf" in faults:
        server.capture_signals = __import__("contextlib").nullcontext  # type: ignore[method-assign]
    server.run()


if __name__ == "__main__":
    main()

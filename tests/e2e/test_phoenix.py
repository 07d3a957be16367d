"""Phoenix, a real backend of traces, gets them over HTTP and gRPC, and gives them back: `make phoenix`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from backends.otlp_receivers import free_port
from served_stack import served_stack

COMMAND = os.environ.get("PHOENIX_COMMAND")
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.anyio,
    pytest.mark.skipif(COMMAND is None, reason="`make phoenix` installs it: 850 MB"),
    pytest.mark.xdist_group("phoenix"),
]
CLIENT_SPAN = "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """Its URL, and its port of gRPC."""
    assert COMMAND is not None
    folder, port, grpc_port = tmp_path_factory.mktemp("phoenix"), free_port(), free_port()
    settings = {
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(port),
        "PHOENIX_GRPC_PORT": str(grpc_port),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    with (folder / "log").open("wb") as log:
        command = [str(Path(COMMAND).absolute()), "serve"]
        process = subprocess.Popen(command, env={**os.environ, **settings}, cwd=folder, stdout=log, stderr=log)
    try:
        yield f"http://127.0.0.1:{port}", grpc_port
    finally:
        process.terminate()
        process.wait(30)


async def answered(client: httpx.AsyncClient, path: str) -> list[dict[str, Any]]:
    with suppress(httpx.TransportError):
        reply = await client.get(path)
        if reply.is_success:
            found: list[dict[str, Any]] = reply.json()["data"]
            return found
    return []


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
async def test_phoenix_gives_the_spans_back(phoenix: tuple[str, int], protocol: str) -> None:
    url, grpc_port = phoenix
    project = protocol.partition("/")[0]
    trace_id = project.encode().hex().rjust(32, "1")
    config = {
        "providers": {
            "inference": [{"provider_id": "sample", "provider_type": "remote::sample"}],
            "telemetry": [
                {
                    "provider_id": "phoenix",
                    "provider_type": "remote::opentelemetry",
                    "config": {
                        "endpoint": f"http://127.0.0.1:{grpc_port}" if protocol == "grpc" else f"{url}/v1/traces",
                        "protocol": protocol,
                        "resource_attributes": {"openinference.project.name": project},
                    },
                }
            ],
        },
        "tracing": {"interval_s": 0.05},
        "store": {"type": "memory"},
    }
    async with httpx.AsyncClient(base_url=url, timeout=10) as reader:
        with anyio.fail_after(120):
            while not await answered(reader, "/v1/projects"):
                await anyio.sleep(0.5)
        async with served_stack(config) as (stack, client):
            [model, *_] = await stack.models.list_models()
            reply = await client.post(
                "/v1/chat/completions",
                json={"model": model.identifier, "messages": [{"role": "user", "content": "Hi"}], "temperature": 0.5},
                headers={"traceparent": f"00-{trace_id}-{CLIENT_SPAN}-01"},
            )
            assert reply.status_code == 200
            with anyio.fail_after(60):
                while len(found := await answered(reader, f"/v1/projects/{project}/spans")) < 2:
                    await anyio.sleep(0.2)
    call, request = sorted(found, key=lambda span: str(span["name"]).startswith("POST"))
    assert {span["context"]["trace_id"] for span in found} == {trace_id}
    assert call["parent_id"] == request["context"]["span_id"]
    assert request["parent_id"] == CLIENT_SPAN
    assert call["name"] == f"chat {model.identifier}"
    assert call["status_code"] == "OK"
    assert call["attributes"]["gen_ai.operation.name"] == "chat"
    assert call["attributes"]["gen_ai.request.model"] == model.identifier
    assert call["attributes"]["gen_ai.request.temperature"] == 0.5
    assert request["attributes"]["http.route"] == "/v1/chat/completions"

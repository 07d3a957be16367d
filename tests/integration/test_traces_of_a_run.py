"""A real `llamastack run` traces itself into a file and to a collector at once; both have the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from backends.openai_front import OpenAIFront
from backends.otlp_receivers import attributes_of, otel_tap
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from running_server import running_server

pytestmark = [pytest.mark.anyio, pytest.mark.xdist_group("traces_of_a_run")]

TRACE_ID, CLIENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
KINDS = {"server": Span.SPAN_KIND_SERVER, "client": Span.SPAN_KIND_CLIENT}


def run_config(folder: Path, backend: str, collector: str) -> Path:
    config = {
        "providers": {
            "inference": [
                {
                    "provider_id": "front",
                    "provider_type": "remote::openai",
                    "config": {"url": backend, "api_key": "unused"},
                }
            ],
            "telemetry": [
                {
                    "provider_id": "file",
                    "provider_type": "meta-reference",
                    "config": {"path": str(folder / "t.sqlite")},
                },
                {
                    "provider_id": "collector",
                    "provider_type": "remote::opentelemetry",
                    "config": {"endpoint": collector, "compression": "none"},
                },
            ],
        },
        "tracing": {"interval_s": 0.05},
    }
    file = folder / "run.yaml"
    file.write_text(json.dumps(config))  # which is YAML, too
    return file


async def kept_spans(client: httpx.AsyncClient) -> list[dict[str, Any]]:
    reply = await client.get("/telemetry/list_spans", params={"trace_id": TRACE_ID})
    found: list[dict[str, Any]] = reply.json()["data"] if reply.is_success else []
    return found


def microseconds(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime.fromisoformat("1970-01-01T00:00:00Z")) // timedelta(microseconds=1)


async def test_a_trace_is_the_same_in_the_file_and_at_the_collector(
    front: Callable[..., tuple[OpenAIFront, str]], tmp_path: Path
) -> None:
    backend, backend_url = front()
    async with otel_tap() as (collector, received):
        config = run_config(tmp_path, backend_url, collector)
        with running_server(config, home=tmp_path) as server:
            async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
                [model, *_] = (await client.get("/v1/models")).json()["data"]
                reply = await client.post(
                    "/v1/chat/completions",
                    json={"model": model["id"], "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4},
                    headers={"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-01"},
                )
                assert reply.status_code == 200, reply.text
                with anyio.fail_after(20):
                    while len(kept := await kept_spans(client)) < 2:
                        await anyio.sleep(0.05)
                    while len(sent := [s for s in received.spans if s.trace_id.hex() == TRACE_ID]) < 2:
                        await anyio.sleep(0.05)
    by_id = {span.span_id.hex(): span for span in sent}
    assert len(kept) == len(sent) == 2
    for span in kept:
        other = by_id[span["span_id"]]
        assert other.parent_span_id.hex() == span["parent_span_id"]
        assert (other.name, other.kind) == (span["name"], KINDS[span["kind"]])
        assert attributes_of(other.attributes) == span["attributes"]
        assert (other.status.code, span["status"]) == (Status.STATUS_CODE_OK, "ok")
        assert other.start_time_unix_nano // 1000 == microseconds(span["start_time"])
        assert other.end_time_unix_nano // 1000 == microseconds(span["end_time"])
    request, call = sorted(kept, key=lambda span: span["parent_span_id"] != CLIENT_SPAN)
    assert (request["kind"], request["parent_span_id"]) == ("server", CLIENT_SPAN)
    assert (call["kind"], call["parent_span_id"]) == ("client", request["span_id"])
    assert call["attributes"]["gen_ai.operation.name"] == "chat"
    [asked] = [each for each in backend.seen if each.path.endswith("/chat/completions")]
    assert asked.headers["traceparent"] == f"00-{TRACE_ID}-{call['span_id']}-01"

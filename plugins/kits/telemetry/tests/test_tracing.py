"""A stack that traces itself, in process."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from llamastack import Stack
from llamastack.api.common import UserMessage
from llamastack.provider import ObjectNotFoundError
from llamastack.provider.context import use_context

CLIENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
CONFIG = {
    "providers": {
        "inference": [{"provider_id": "sample", "provider_type": "remote::sample"}],
        "agents": [{"provider_id": "sample", "provider_type": "remote::sample"}],
        "telemetry": [{"provider_id": "traces", "provider_type": "meta-reference"}],
    },
    "tracing": {"interval_s": 0.01},
}


@pytest.mark.anyio
async def test_calls_of_a_trace_are_a_tree(tmp_path: Path) -> None:
    async with Stack.from_config(CONFIG, folder=tmp_path) as stack:
        [model, *_] = await stack.models.list_models()
        with use_context(traceparent=CLIENT):
            await stack.inference.chat_completion(model=model.identifier, messages=[UserMessage(content="Hi")])
            with pytest.raises(ObjectNotFoundError):
                await stack.inference.chat_completion(model="none", messages=[UserMessage(content="Hi")])
        with anyio.fail_after(10):
            while not (page := await stack.telemetry.list_traces()).data:
                await anyio.sleep(0.01)
        [trace] = page.data
        assert trace.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
        [span] = (await stack.telemetry.list_spans(trace_id=trace.trace_id)).data
    assert (span.name, span.parent_span_id) == (f"chat {model.identifier}", "00f067aa0ba902b7")
    assert span.attributes["gen_ai.request.model"] == model.identifier

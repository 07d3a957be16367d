"""The content of messages in spans: only where it is asked for, without secrets, and bounded."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from backends.scripted_http import HOLD, Received, ScriptedHttp, Steps, answer, scripted_http, served_by, sse
from installed_fakes import entry_points_in, install
from served_stack import served_stack
from telemetry_fake import FAKE_SINKS, FakeSink

from llamastack import ConfigError, Stack
from llamastack.api.common import SystemMessage, UserMessage
from llamastack.api.memory_banks import KeywordMemoryBank
from llamastack.provider.context import use_provider_data
from llamastack.stack.discovery import Discovery
from llamastack_telemetry import pipeline, pipeline_counts
from llamastack_telemetry.content_attributes import ContentWriter
from llamastack_telemetry.content_capture import RawContent
from llamastack_telemetry.content_messages import input_messages, output_messages
from llamastack_telemetry.spans import Attributes, FinishedSpan

pytestmark = pytest.mark.anyio
SAMPLE = {"provider_id": "sample", "provider_type": "remote::sample"}
CHAT = "/v1/chat/completions"
KEY = "sk-secret-of-the-backend-0123456789"
HELD = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}


def reply(request: Received) -> Steps:
    asked = request.json
    head: dict[str, Any] = {"id": "c-1", "created": 0, "model": "m"}
    if "prompt" in asked:
        return answer(200, {**head, "choices": [{"index": 0, "text": "forty-two", "finish_reason": "stop"}]})
    message = {"role": "assistant", "content": f"Bonjour with {KEY}", "tool_calls": [HELD]}
    if not asked.get("stream"):
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
        return answer(200, {**head, "choices": [choice]})
    deltas: list[dict[str, Any]] = [{"content": "Bon"}, {"content": "jour"}]
    chunks = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    if "hold" in json.dumps(asked):
        return sse(*chunks, HOLD)
    for arguments in ('{"city":', ' "Rome"}'):
        call = {**HELD, "index": 0, "function": {"name": "weather", "arguments": arguments}}
        chunks.append({**head, "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]})
    return sse(*chunks, {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, "[DONE]")


@pytest.fixture
def backend() -> Iterator[ScriptedHttp]:
    with scripted_http(models=["m"]) as made:
        made.routes["/chat/completions"] = reply
        made.routes["/completions"] = reply
        yield made


@pytest.fixture
def collector() -> Iterator[ScriptedHttp]:
    """It takes everything."""
    with scripted_http(default=answer(200, b"", content_type="application/x-protobuf")) as made:
        yield made


@asynccontextmanager
async def traced(
    backend: ScriptedHttp, folder: Path, **tracing: object
) -> AsyncIterator[tuple[Stack, httpx.AsyncClient, FakeSink]]:
    install(folder / "site", "llamastack-fake-sink", FAKE_SINKS)
    discovery = Discovery(entry_points_in(folder / "site"))
    config = {
        "providers": {
            "inference": [served_by(backend, api_key=KEY), SAMPLE],
            "memory": [SAMPLE],
            "telemetry": [{"provider_id": "fake", "provider_type": "fake-sink"}],
        },
        "tracing": {"interval_s": 0.01, **tracing},
    }
    async with served_stack(config, discovery) as (stack, client):
        sink = stack.instances["telemetry"][0].provider
        assert isinstance(sink, FakeSink)
        yield stack, client, sink


async def calls(sink: FakeSink, number: int = 1) -> list[FinishedSpan]:
    """The spans of as many calls of models."""
    with anyio.fail_after(10):
        while len(found := [span for span in sink.spans if "gen_ai.operation.name" in span.attributes]) < number:
            await anyio.sleep(0.005)
    return found


def content(span: FinishedSpan, name: str) -> Any:
    return json.loads(str(span.attributes[f"gen_ai.{name}.messages"]))


def asked(text: object, **more: object) -> dict[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": text}], **more}


TEXT = {"type": "text", "content": "Bonjour"}
CALL = {"type": "tool_call", "id": "call_1", "name": "weather", "arguments": '{"city": "Rome"}'}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_forwarded_chat_has_its_content(backend: ScriptedHttp, tmp_path: Path, stream: bool) -> None:
    async with traced(backend, tmp_path, content=True) as (_, client, sink):
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "QUJD" * 100}}
        messages = [
            {"role": "system", "content": "Be kind"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, image]},
            {"role": "assistant", "content": None, "tool_calls": [HELD]},
            {"role": "tool", "tool_call_id": "call_1", "content": "sunny"},
        ]
        await client.post(CHAT, json={"model": "m", "messages": messages, "stream": stream})
        [span] = await calls(sink)
    assert content(span, "input") == [
        {"role": "system", "parts": [{"type": "text", "content": "Be kind"}]},
        {
            "role": "user",
            "parts": [
                {"type": "text", "content": "Hi"},
                {"type": "blob", "modality": "image", "content": "[image/png, 300 bytes]"},
            ],
        },
        {"role": "assistant", "parts": [CALL]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "response": "sunny", "id": "call_1"}]},
    ]
    text = TEXT if stream else {"type": "text", "content": "Bonjour with ***"}
    assert content(span, "output") == [{"role": "assistant", "parts": [text, CALL], "finish_reason": "tool_calls"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_native_chat_has_its_content(backend: ScriptedHttp, tmp_path: Path, stream: bool) -> None:
    async with traced(backend, tmp_path, content=True) as (stack, _, sink):
        messages = [SystemMessage(content="Be kind"), UserMessage(content="Hi")]
        found: Any = await stack.inference.chat_completion(model="m", messages=messages, stream=stream)
        if stream:
            assert [piece async for piece in found]
        [span] = await calls(sink)
    assert content(span, "input") == [
        {"role": "system", "parts": [{"type": "text", "content": "Be kind"}]},
        {"role": "user", "parts": [{"type": "text", "content": "Hi"}]},
    ]
    [message] = content(span, "output")
    text, call = message["parts"]
    assert text["content"].startswith("Bonjour")
    assert (call["name"], call["arguments"]) == ("weather", {"city": "Rome"})


async def test_a_completion_has_its_content(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path, content=True) as (_, client, sink):
        await client.post("/v1/completions", json={"model": "m", "prompt": "The answer is"})
        [span] = await calls(sink)
    assert content(span, "input") == [{"role": "user", "parts": [{"type": "text", "content": "The answer is"}]}]
    assert content(span, "output")[0]["parts"] == [{"type": "text", "content": "forty-two"}]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_translated_chat_has_its_content(backend: ScriptedHttp, tmp_path: Path, stream: bool) -> None:
    async with traced(backend, tmp_path, content=True) as (stack, client, sink):
        model = next(each.identifier for each in await stack.models.list_models() if each.provider_id == "sample")
        sent = {**asked("Hi there", stream=stream), "model": model}
        reply = await client.post(CHAT, json=sent)
        assert reply.status_code == 200, reply.text
        [span] = await calls(sink)
    assert content(span, "input") == [{"role": "user", "parts": [{"type": "text", "content": "Hi there"}]}]
    [message] = content(span, "output")
    assert "Hi there" in message["parts"][0]["content"]


async def test_a_query_of_a_memory_bank_has_its_text(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path, content=True, redact=["red"]) as (stack, _, sink):
        bank = KeywordMemoryBank(identifier="bank", provider_id="sample")
        await stack.memory_banks.register_memory_bank(bank)
        await stack.memory.query_documents(bank_id="bank", query="what is red?")
        [span] = await calls(sink)
    assert span.attributes["gen_ai.retrieval.query.text"] == "what is ***?"


async def test_a_stream_that_is_cancelled_has_what_came(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path, content=True) as (_, client, sink):
        async with client.stream("POST", CHAT, json=asked("hold", stream=True)) as stream:
            read = b""
            async for piece in stream.aiter_bytes():
                read += piece
                if b"jour" in read:
                    break
        [span] = await calls(sink)
    assert span.attributes["llamastack.cancelled"] is True
    assert content(span, "output") == [{"role": "assistant", "parts": [TEXT], "finish_reason": "unknown"}]


async def test_secrets_and_what_patterns_find_are_struck_out(backend: ScriptedHttp, tmp_path: Path) -> None:
    redact = [r"\b\d{4}-\d{4}\b", "(?i)mr\\. (\\w+)"]
    async with traced(backend, tmp_path, content=True, redact=redact) as (stack, client, sink):
        own = "key-of-the-client-987654321"
        header = {"X-LlamaStack-ProviderData": json.dumps({"openai_api_key": own})}
        await client.post(CHAT, json=asked(f"{KEY} and {own} and 1234-5678 of Mr. Smith"), headers=header)
        with use_provider_data({"openai_api_key": own}):
            await stack.inference.chat_completion(model="m", messages=[UserMessage(content=f"Hi {own}")])
        spans = await calls(sink, 2)
    texts = [content(span, "input")[0]["parts"][0]["content"] for span in spans]
    assert texts == ["*** and *** and *** of ***", "Hi ***"]


async def test_long_content_is_cut_with_a_mark(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path, content=True, max_content_bytes=1000) as (_, client, sink):
        messages = [{"role": "user", "content": "é" * 900}, {"role": "user", "content": "never"}]
        await client.post(CHAT, json={"model": "m", "messages": messages})
        at_the_edge = "x" * 990 + KEY + "y" * 9000
        await client.post(CHAT, json=asked(at_the_edge))
        first, second = await calls(sink, 2)
    assert content(first, "input") == [
        {"role": "user", "parts": [{"type": "text", "content": "é" * 500 + "... [cut: 400 characters]"}]},
        {"role": "unknown", "parts": [{"type": "text", "content": "... [cut: 1 messages]"}]},
    ]
    text = content(second, "input")[0]["parts"][0]["content"]
    assert text.startswith("x" * 900)
    assert "... [cut: " in text
    assert "sk-" not in text


async def test_without_the_option_there_is_no_content(
    backend: ScriptedHttp, collector: ScriptedHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT", "true")
    for tracing, expected in (({}, True), ({"content": False}, False)):
        folder = tmp_path / str(expected)
        collector.received.clear()
        otlp = {"endpoint": f"{collector.url}/v1/traces", "compression": "none"}
        config = {
            "image_name": f"stack-{expected}",
            "providers": {
                "inference": [served_by(backend)],
                "telemetry": [
                    {"provider_id": "traces", "provider_type": "meta-reference"},
                    {"provider_id": "otlp", "provider_type": "remote::opentelemetry", "config": otlp},
                ],
            },
            "tracing": {"interval_s": 0.01, **tracing},
        }
        async with Stack.from_config(config, folder=folder) as stack:
            assert any("Capture" in name for name, _ in stack.hooks.manager.list_name_plugin()) is expected
            message = UserMessage(content="abracadabra")
            await stack.inference.chat_completion(model="m", messages=[message])
            found: Any = await stack.inference.chat_completion(model="m", messages=[message], stream=True)
            assert [piece async for piece in found]
        written = b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())
        sent = b"".join(request.body for request in collector.received)
        for text in (written, sent):
            assert b"chat m" in text
            assert (b"abracadabra" in text, b"Bonjour" in text) == (expected, expected)


async def test_a_pattern_that_takes_too_long_leaves_content_out(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path, content=True, redact=["(a|aa|a?)+$"]) as (_, client, sink):
        await client.post(CHAT, json=asked("a" * 5000 + "b"))
        await client.post(CHAT, json=asked("short"))
        spans = await calls(sink, 2)
    for span in spans:
        assert content(span, "input")[0]["parts"][0]["content"] == "[left out: tracing.redact takes too long]"


async def test_known_secrets_are_in_no_other_attribute(backend: ScriptedHttp, tmp_path: Path) -> None:
    async with traced(backend, tmp_path) as (_, client, sink):
        assert (await client.post(CHAT, json=asked("Hi", stop=[f"a{KEY}b", "end"]))).status_code == 200
        await client.get(f"/v1/models/{KEY}")
        [span] = await calls(sink)
        with anyio.fail_after(10):
            while len(sink.spans) < 3:
                await anyio.sleep(0.005)
    assert span.attributes["gen_ai.request.stop_sequences"] == ["a***b", "end"]
    paths = [each.attributes["url.path"] for each in sink.spans if each.kind == "server"]
    assert sorted(map(str, paths)) == [CHAT, "/v1/models/***"]
    assert KEY not in repr(sink.spans)


ODD_REQUESTS: list[object] = [
    {"messages": [{"role": "assistant", "tool_calls": 5, "content": "x"}]},
    {"messages": [{"role": 5, "content": {"type": 5, "text": [1]}}, 5, None]},
    {"messages": [{"role": "tool", "content": 5, "tool_call_id": {}}]},
    {"messages": [{"role": "assistant", "tool_calls": [5, {"function": 5}, {"function": {"arguments": {"a": 1}}}]}]},
    {"messages": 5},
    {"prompt": {"a": 1}},
    [],
    None,
]
ODD_REPLIES: list[object] = [
    {"choices": [{"message": 5}]},
    {"choices": [{"message": {"content": 5, "tool_calls": 5}}]},
    {"choices": {"a": 1}},
    {"choices": "abc"},
    {"completion_message": {"content": 5, "tool_calls": [None]}},
    5,
]
ODD_PIECES: list[object] = [
    {"choices": 5},
    {"choices": [{"index": [1], "delta": 5}]},
    {"choices": [{"index": "a", "delta": {"content": 5, "tool_calls": 5}}]},
    {"choices": [{"delta": {"tool_calls": [{"index": {}, "function": {"arguments": 5}}]}, "finish_reason": {}}]},
]


@pytest.mark.parametrize("odd", ODD_REQUESTS)
@pytest.mark.parametrize("method", ["chat_completion", "completion"])
def test_requests_of_any_form_can_be_read(odd: object, method: str) -> None:
    assert isinstance(input_messages(method, odd), list)


@pytest.mark.parametrize("odd", [*ODD_REPLIES, *ODD_PIECES])
def test_replies_of_any_form_can_be_read(odd: object) -> None:
    assert isinstance(output_messages(json.dumps(odd).encode()), list)
    assert isinstance(output_messages([b"data: " + json.dumps(odd).encode() + b"\n\n", odd]), list)


async def test_what_cannot_be_read_costs_its_span_the_content_and_no_more(
    backend: ScriptedHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    attributes = ContentWriter.attributes

    def sometimes(self: ContentWriter, raw: RawContent) -> Attributes:
        if raw.body is not None and b"odd" in raw.body:
            raise TypeError("an odd request")
        return attributes(self, raw)

    monkeypatch.setattr(ContentWriter, "attributes", sometimes)
    async with traced(backend, tmp_path, content=True) as (stack, client, sink):
        for text in ("a", "odd", "b"):
            assert (await client.post(CHAT, json=asked(text))).status_code == 200
        spans = await calls(sink, 3)
        counts = pipeline_counts(stack)
    dropped = [span.attributes.get("llamastack.content.dropped", False) for span in spans]
    assert dropped == [False, True, False]
    assert counts is not None
    assert sum(counts.dropped.values()) == 0
    assert "the content of a call could not be read" in caplog.text


async def test_the_end_does_not_wait_for_content(
    backend: ScriptedHttp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_LAST_CONTENT_S", 0.05)
    monkeypatch.setattr(ContentWriter, "attributes", lambda self, raw: time.sleep(0.5) or {})
    async with traced(backend, tmp_path, content=True) as (_, client, sink):
        for _ in range(3):
            await client.post(CHAT, json=asked("a"))
    found = [span for span in sink.spans if span.kind == "client"]
    assert len(found) == 3
    assert found[-1].attributes["llamastack.content.dropped"] is True


async def test_content_that_waits_is_bounded(backend: ScriptedHttp, tmp_path: Path) -> None:
    most = 1_048_576
    limits: dict[str, Any] = {"max_content_bytes": most, "max_waiting_content_bytes": most, "export_timeout_s": 0.2}
    async with traced(backend, tmp_path, content=True, **limits) as (_, client, sink):
        sink.hangs = True
        for number in range(4):
            await client.post(CHAT, json=asked(f"{number}" * 400_000))
        with anyio.fail_after(10):
            while not sink.attempts:
                await anyio.sleep(0.01)
        sink.hangs = False
        spans = await calls(sink, 4)
    kept = [str(span.attributes.get("gen_ai.input.messages", "")) for span in spans]
    assert 0 < sum(map(len, kept)) <= most
    assert [span.attributes.get("llamastack.content.dropped", False) for span in spans] == [not each for each in kept]
    assert "" in kept


@pytest.mark.parametrize(
    ("tracing", "expected"),
    [
        ({"redact": ["ok", "(unclosed"]}, "tracing.redact[1]: is not a regular expression: "),
        ({"redact": [""]}, "tracing.redact[0]: must be a regular expression of 1 to 1000 characters"),
        ({"max_content_bytes": 1}, "tracing.max_content_bytes: "),
    ],
)
def test_bad_settings_are_refused(tracing: dict[str, object], expected: str) -> None:
    config = {"providers": {"inference": [{"provider_id": "s", "provider_type": "remote::sample"}]}, "tracing": tracing}
    with pytest.raises(ConfigError) as raised:
        Stack.from_config(config)
    assert expected in str(raised.value)

"""Every odd reply, whole and streamed, on every path: in process, over HTTP, on /v1 translated and forwarded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from backends.llama_model import default_model
from backends.scripted_http import ScriptedHttp, answer, served_by, sse
from odd_replies import DONE, FINISH_REASONS, ODD_REPLIES, OddReply, event
from served_stack import served_stack

from llamastack import LlamaStackClient, Stack
from llamastack.api import (
    ChatCompletionResponse,
    JsonSchemaResponseFormat,
    StopDetail,
    ToolCall,
    ToolCallDelta,
    ToolDefinition,
    UserMessage,
)
from llamastack.provider.errors import LlamaStackError

pytestmark = pytest.mark.anyio
TOOLS = [ToolDefinition(tool_name=name) for name in "fg"]
ASK = [UserMessage(content="Hi")]
WORKSPACE = {"state": {"ready": "READY"}, "task": "llm/v1/chat"}

ADAPTERS: dict[str, dict[str, Any]] = {
    "remote::openai": {"api_key": "k"},
    "remote::vllm": {},
    "remote::together": {"api_key": "k"},
    "remote::fireworks": {"api_key": "k"},
    "remote::databricks": {"api_token": "k", "endpoints": ["m"], "path": ""},
    "remote::tgi": {"path": ""},
}


@dataclass
class Outcome:
    """What a client learns of a reply."""

    text: str = ""
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    end: str | None = None
    filtered: bool = False
    refusal: str | None = None
    usage: tuple[int, int] | None = None
    error: str | None = None


def prepared(backend: ScriptedHttp) -> ScriptedHttp:
    """A backend that every adapter takes for its own."""
    backend.routes["/info"] = answer(200, {"model_id": "m", "max_total_tokens": 4096})
    backend.routes["/serving-endpoints/m"] = answer(200, WORKSPACE)
    backend.lists = True
    return backend


def script(backend: ScriptedHttp, odd: OddReply, *, stream: bool) -> bool:
    """Let the backend answer so next; False where there is no such form of it."""
    if stream:
        steps = sse(*odd.events)
        backend.routes["/chat/completions"] = steps
        return bool(odd.events)
    backend.routes["/chat/completions"] = answer(200, odd.whole)
    return odd.whole is not None


# ---- natively --------------------------------------------------------------------------------------------------------


def of_reply(reply: ChatCompletionResponse) -> Outcome:
    message = reply.completion_message
    return Outcome(
        text=str(message.content),
        calls=[(str(call.tool_name), call.arguments) for call in message.tool_calls],
        ids=[call.call_id for call in message.tool_calls],
        failed=[(str(delta.tool_name), str(delta.content)) for delta in reply.failed_tool_calls or ()],
        end=message.stop_reason.value,
        filtered=reply.stop_detail is StopDetail.content_filter,
        refusal=reply.refusal,
        usage=reply.usage and (reply.usage.prompt_tokens, reply.usage.completion_tokens),
    )


async def of_events(events: AsyncIterator[Any]) -> Outcome:
    outcome = Outcome()
    async for chunk in events:
        event = chunk.event
        if isinstance(event.delta, ToolCallDelta):
            if isinstance(event.delta.content, ToolCall):
                outcome.calls.append((str(event.delta.content.tool_name), event.delta.content.arguments))
                outcome.ids.append(event.delta.content.call_id)
            elif event.delta.parse_status == "failure":
                outcome.failed.append((str(event.delta.tool_name), event.delta.content))
        else:
            outcome.text += event.delta
            if event.refusal:
                outcome.refusal = (outcome.refusal or "") + event.delta
        if event.stop_reason is not None:
            outcome.end = event.stop_reason.value
            outcome.filtered = event.stop_detail is StopDetail.content_filter
            outcome.usage = event.usage and (event.usage.prompt_tokens, event.usage.completion_tokens)
    return outcome


async def natively(inference: Any, model: str, odd: OddReply, *, stream: bool) -> Outcome:
    asked: dict[str, Any] = {"tools": TOOLS} if odd.calls or odd.failed else {}
    if "response_format" in odd.asked:
        asked = {"response_format": JsonSchemaResponseFormat(json_schema={"type": "object"})}
    try:
        reply = await inference.chat_completion(model=model, messages=ASK, stream=stream, **asked)
        return await of_events(reply) if stream else of_reply(reply)
    except LlamaStackError as error:
        return Outcome(error=error.message)


def wrong_natively(odd: OddReply, outcome: Outcome) -> str | None:
    if odd.error is not None and not odd.failed:
        return (
            None if outcome.error is not None and odd.error in outcome.error else f"no error {odd.error!r}: {outcome}"
        )
    usage = odd.usage if odd.usage is not None else outcome.usage
    wanted = Outcome(
        odd.text,
        list(odd.calls),
        outcome.ids,
        list(odd.failed),
        odd.stop,
        odd.finish == "content_filter",
        odd.refusal,
        usage,
    )
    if outcome != wanted:
        return f"{outcome} is not {wanted}"
    return wrong_ids(odd, outcome)


def wrong_ids(odd: OddReply, outcome: Outcome) -> str | None:
    if (
        not all(outcome.ids)
        or len(set(outcome.ids)) < len(outcome.ids)
        or (odd.ids is not None and list(odd.ids) != outcome.ids)
    ):
        return f"ids {outcome.ids}"
    return None


def all_of(rows: Any, adapter: str) -> list[OddReply]:
    # The SDK of the one reads `content` as text and knows no `refusal` nor `function_call`, nor a chat that is a text.
    odd_there = (
        "parts",
        "refusal",
        "function_call",
        "all was filtered out",
        "{'type': 'stop'}",
        "a text where a message is",
    )
    return [odd for odd in rows if adapter != "remote::tgi" or not any(word in odd.name for word in odd_there)]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_natively_in_process(scripted_backend: ScriptedHttp, adapter: str, stream: bool) -> None:
    backend = prepared(scripted_backend)
    wrong = {}
    async with Stack.from_config(
        {"providers": {"inference": [served_by(backend, adapter, **ADAPTERS[adapter])]}}
    ) as stack:
        for odd in all_of(ODD_REPLIES, adapter):
            if adapter == "remote::tgi" and odd.asked:
                continue
            if script(backend, odd, stream=stream):
                outcome = await natively(stack.inference, "p/m", odd, stream=stream)
                if problem := wrong_natively(odd, outcome):
                    wrong[odd.name] = problem
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())


async def test_a_whole_answer_to_a_stream_is_told_like_both(scripted_backend: ScriptedHttp) -> None:
    wrong = {}
    async with Stack.from_config({"providers": {"inference": [served_by(prepared(scripted_backend))]}}) as stack:
        for odd in ODD_REPLIES:
            # With an error of its own, the reply may end before its text.
            if script(scripted_backend, odd, stream=False) and odd.error is None:
                outcome = await natively(stack.inference, "p/m", odd, stream=True)
                if problem := wrong_natively(odd, outcome):
                    wrong[odd.name] = problem
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())


# ---- /v1 -------------------------------------------------------------------------------------------------------------


def assembled(calls: dict[int, dict[str, str]], outcome: Outcome) -> None:
    for call in calls.values():
        try:
            arguments = json.loads(call["arguments"])
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            outcome.calls.append((call["name"], arguments))
            outcome.ids.append(call["id"])
        else:
            outcome.failed.append((call["name"], call["arguments"]))


def of_chunks(lines: list[str]) -> Outcome:
    outcome, calls = Outcome(), dict[int, dict[str, str]]()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    for chunk in (json.loads(item) for item in data if item != "[DONE]"):
        if "error" in chunk:
            return Outcome(error=chunk["error"]["message"])
        outcome.usage = numbers(chunk) or outcome.usage
        for choice in chunk["choices"]:
            delta = choice["delta"]
            outcome.text += delta.get("content") or ""
            outcome.refusal = (outcome.refusal or "") + delta["refusal"] if delta.get("refusal") else outcome.refusal
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part["index"], {"id": "", "name": "", "arguments": ""})
                call["id"] += part.get("id") or ""
                for name in ("name", "arguments"):
                    call[name] += part["function"].get(name) or ""
            outcome.end = choice["finish_reason"] or outcome.end
    assert data[-1] == "[DONE]"
    assembled(calls, outcome)
    return outcome


def of_completion(body: dict[str, Any]) -> Outcome:
    [choice] = body["choices"]
    message = choice["message"]
    outcome = Outcome(
        text=message["content"] or "", refusal=message.get("refusal"), end=choice["finish_reason"], usage=numbers(body)
    )
    assembled({n: {"id": c["id"], **c["function"]} for n, c in enumerate(message.get("tool_calls") or ())}, outcome)
    return outcome


def numbers(body: Mapping[str, Any]) -> tuple[int, int] | None:
    usage = body.get("usage")
    return (usage["prompt_tokens"], usage["completion_tokens"]) if usage else None


async def on_v1(client: httpx.AsyncClient, model: str, odd: OddReply, *, stream: bool) -> Outcome:
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if odd.calls or odd.failed:
        body["tools"] = [{"type": "function", "function": {"name": name}} for name in "fg"]
    if "response_format" in odd.asked:
        body["response_format"] = {"type": "json_object"}
    response = await client.post("/v1/chat/completions", json=body)
    if response.status_code != 200:
        return Outcome(error=response.json()["error"]["message"])
    return of_chunks(response.text.split("\n")) if stream else of_completion(response.json())


def wrong_on_v1(odd: OddReply, outcome: Outcome) -> str | None:
    if odd.error is not None:
        return (
            None if outcome.error is not None and odd.error in outcome.error else f"no error {odd.error!r}: {outcome}"
        )
    wanted = Outcome(
        text="" if odd.refusal else odd.text,
        calls=list(odd.calls),
        ids=outcome.ids,
        failed=[] if odd.left_out else list(odd.failed),
        end=odd.finish,
        refusal=odd.refusal,
        usage=odd.usage if odd.usage is not None else outcome.usage,
    )
    if outcome != wanted:
        return f"{outcome} is not {wanted}"
    return wrong_ids(odd, outcome)


@asynccontextmanager
async def near_and_far(
    backend: ScriptedHttp, adapter: str
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """A server before the backend, and one before that server, which can only translate."""
    config = {"providers": {"inference": [served_by(prepared(backend), adapter, **ADAPTERS[adapter])]}}
    async with AsyncExitStack() as opened:
        _, far = await opened.enter_async_context(served_stack(config))
        passing = {"provider_id": "r", "provider_type": "remote", "config": {"url": str(far.base_url)}}
        _, near = await opened.enter_async_context(served_stack({"providers": {"inference": [passing]}}))
        yield far, near


@pytest.mark.parametrize("stream", [False, True])
async def test_natively_over_http_and_translated(scripted_backend: ScriptedHttp, stream: bool) -> None:
    wrong = {}
    async with (
        near_and_far(scripted_backend, "remote::openai") as (_far, near),
        LlamaStackClient(str(near.base_url)) as client,
    ):
        for odd in ODD_REPLIES:
            if script(scripted_backend, odd, stream=stream):
                if problem := wrong_natively(odd, await natively(client.inference, "r/m", odd, stream=stream)):
                    wrong[f"natively: {odd.name}"] = problem
                if problem := wrong_on_v1(odd, await on_v1(near, "r/m", odd, stream=stream)):
                    wrong[f"translated: {odd.name}"] = problem
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())


@pytest.mark.parametrize("stream", [False, True])
async def test_translated_before_text_generation_inference(scripted_backend: ScriptedHttp, stream: bool) -> None:
    wrong = {}
    config = {"providers": {"inference": [served_by(prepared(scripted_backend), "remote::tgi", path="")]}}
    async with served_stack(config) as (_, client):
        for odd in all_of(ODD_REPLIES, "remote::tgi"):
            if odd.asked or not script(scripted_backend, odd, stream=stream):
                continue
            if problem := wrong_on_v1(odd, await on_v1(client, "p/m", odd, stream=stream)):
                wrong[odd.name] = problem
    assert not wrong, "\n".join(f"{name}: {problem}" for name, problem in wrong.items())


@pytest.mark.parametrize("stream", [False, True])
async def test_forwarded_replies_are_told_as_they_come(scripted_backend: ScriptedHttp, stream: bool) -> None:
    async with near_and_far(scripted_backend, "remote::openai") as (far, _near):
        for odd in FINISH_REASONS:
            if odd.error is None and odd.finish in ("stop", "length", "content_filter") and "None" not in odd.name:
                assert script(scripted_backend, odd, stream=stream)
                outcome = await on_v1(far, "p/m", odd, stream=stream)
                assert (outcome.text, outcome.error) == (odd.text, None), odd.name


# ---- text completions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("adapter", [name for name in ADAPTERS if name != "remote::tgi"])
async def test_text_completions(scripted_backend: ScriptedHttp, adapter: str, stream: bool) -> None:
    backend = prepared(scripted_backend)
    wrong = {}

    def chunk(odd: OddReply, given: Mapping[str, Any]) -> dict[str, Any]:
        [choice] = given["choices"]
        return {"choices": [{"text": choice["delta"].get("content") or "", "finish_reason": choice["finish_reason"]}]}

    async with Stack.from_config(
        {"providers": {"inference": [served_by(backend, adapter, **ADAPTERS[adapter])]}}
    ) as stack:
        for odd in FINISH_REASONS:
            if "tool_calls" in odd.name:
                continue
            assert odd.whole is not None
            [choice] = odd.whole["choices"]
            made = {"text": "Hello", "finish_reason": choice["finish_reason"]}
            events = [one if isinstance(one, str) else chunk(odd, one) for one in odd.events]
            backend.routes["/completions"] = sse(*events) if stream else answer(200, {"choices": [made]})
            try:
                reply: Any = await stack.inference.completion(model="p/m", content="x", stream=stream)
                if stream:
                    pieces = [piece async for piece in reply]
                    outcome = ("".join(piece.delta for piece in pieces), pieces[-1].stop_reason, pieces[-1].stop_detail)
                else:
                    outcome = (
                        reply.completion_message.content,
                        reply.completion_message.stop_reason,
                        reply.stop_detail,
                    )
            except LlamaStackError as error:
                if odd.error is None or odd.error not in error.message:
                    wrong[odd.name] = error.message
                continue
            if outcome != (odd.text, odd.stop, "content_filter" if odd.finish == "content_filter" else None):
                wrong[odd.name] = str(outcome)
    assert not wrong


# ---- usage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", ADAPTERS)
async def test_streams_are_asked_for_their_usage(scripted_backend: ScriptedHttp, adapter: str) -> None:
    backend = prepared(scripted_backend)
    [odd] = [odd for odd in ODD_REPLIES if odd.name == "usage after the end"]
    for wanted in (True, False):
        config = {**ADAPTERS[adapter], "stream_usage": wanted}
        async with Stack.from_config({"providers": {"inference": [served_by(backend, adapter, **config)]}}) as stack:
            for stream in (False, True):
                assert script(backend, odd, stream=stream)
                assert (await natively(stack.inference, "p/m", odd, stream=stream)).usage == (5, 2)
                sent = backend.last("/chat/completions").json.get("stream_options")
                assert sent == ({"include_usage": True} if stream and wanted else None)


async def test_a_backend_that_refuses_to_be_asked_for_the_usage(
    scripted_backend: ScriptedHttp, caplog: pytest.LogCaptureFixture
) -> None:
    backend = prepared(scripted_backend)
    refusal = answer(422, {"detail": [{"loc": ["body", "stream_options"], "msg": "Extra inputs are not permitted"}]})
    stream = sse(event(content="Hi"), event("stop"), DONE)
    backend.routes["/chat/completions"] = lambda seen: refusal if "stream_options" in seen.json else stream
    async with Stack.from_config({"providers": {"inference": [served_by(backend)]}}) as stack:
        for _ in range(2):
            reply: Any = await stack.inference.chat_completion(model="p/m", messages=ASK, stream=True)
            assert (await of_events(reply)).text == "Hi"
    assert ["stream_options" in seen.json for seen in backend.calls()] == [True, False, False]
    assert len([record for record in caplog.records if "streams have no usage" in record.getMessage()]) == 1


async def test_another_refusal_is_told(scripted_backend: ScriptedHttp) -> None:
    backend = prepared(scripted_backend)
    backend.routes["/chat/completions"] = answer(400, {"error": {"message": "no such role", "param": "messages"}})
    async with Stack.from_config({"providers": {"inference": [served_by(backend)]}}) as stack:
        with pytest.raises(LlamaStackError, match="no such role"):
            await stack.inference.chat_completion(model="p/m", messages=ASK, stream=True)
    assert len(backend.calls()) == 1


# ---- the starter's own model -----------------------------------------------------------------------------------------


async def test_a_call_of_a_real_model_that_runs_out_of_tokens() -> None:
    config = {"models": [default_model().model_dump(mode="json")], "threads": 1, "context_length": 1024}
    provider = {"provider_id": "p", "provider_type": "llama-cpp", "config": config}
    parameters = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    body = {
        "model": "SmolLM2-135M-Instruct",
        "messages": [{"role": "user", "content": "What is the weather in Paris?"}],
        "tools": [{"type": "function", "function": {"name": "get_weather", "parameters": parameters}}],
        "tool_choice": "required",
        "max_tokens": 8,
    }
    async with served_stack({"providers": {"inference": [provider]}}) as (_, client):
        whole = of_completion((await client.post("/v1/chat/completions", json=body)).json())
        asked = {**body, "stream": True, "stream_options": {"include_usage": True}}
        streamed = of_chunks((await client.post("/v1/chat/completions", json=asked)).text.split("\n"))
        assert whole == streamed
        assert (whole.end, whole.calls, whole.failed, whole.error) == ("length", [], [], None)
        assert whole.usage is not None
        assert whole.usage[1] == 8
        body["max_tokens"] = 100
        whole = of_completion((await client.post("/v1/chat/completions", json=body)).json())
        assert (whole.end, [name for name, _ in whole.calls]) == ("tool_calls", ["get_weather"])

"""Errors of backends in every form and place, on every path: in process, over HTTP, on /v1 translated and forwarded."""

from __future__ import annotations

import json
from typing import Any

import pytest
from backends.scripted_http import CLOSE, RESET, ScriptedHttp, answer, chunked, sse
from openai_bodies import data_of
from paths_to_backends import ASK, ASKED, BODY, WHOLE, chunk, paths_to

pytestmark = pytest.mark.anyio


ERRORS: list[tuple[dict[str, Any], int]] = [
    ({"code": "rate_limit_exceeded", "type": "requests"}, 429),
    ({"code": "429"}, 429),
    ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, 429),
    ({"status": "RESOURCE_EXHAUSTED"}, 429),
    ({"code": "context_length_exceeded", "type": "invalid_request_error"}, 400),
    ({"code": "insufficient_quota", "type": "insufficient_quota"}, 429),
    ({"code": "invalid_api_key"}, 401),
    ({"code": "model_not_found"}, 404),
    ({"type": "overloaded_error"}, 503),
    ({"code": "server_error", "type": "server_error"}, 502),
    ({"code": 503}, 503),
    ({"code": None, "type": None}, 502),
]


def forms_of(error: dict[str, Any]) -> list[Any]:
    """The forms in which backends send an error; Google's gateways put it into a list."""
    return [
        {"error": error},
        [{"error": error}],
        {"type": "error", "error": error},
        {"object": "error", **error},
        {"error": {"error": error}},
        {"errors": [error]},
        {"choices": [{"index": 0, "message": {}, "finish_reason": "error", "error": error}]},
    ]


# ---- an error is told with its status, wherever it stands ------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_instead_of_an_answer(scripted_backend: ScriptedHttp, stream: bool) -> None:
    wrong: list[str] = []
    async with paths_to(scripted_backend) as paths:
        for words, status in ERRORS:
            for body in forms_of({"message": "told so", **words}):
                types = (
                    ("application/json", None, "text/plain", "text/event-stream") if stream else ("application/json",)
                )
                for kind in types:
                    for path, outcome in (
                        await paths.all_of(answer(200, body, content_type=kind), stream=stream)
                    ).items():
                        if outcome.status != status or "told so" not in outcome.message:
                            wrong.append(f"{path}: {body} as {kind}: {outcome}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("before", [(), (b": processing\n\n",), (b"data:\n\n", b"data: \r\n\r\n", b": a\n: b\n\n")])
async def test_an_error_as_the_first_event(scripted_backend: ScriptedHttp, before: tuple[bytes, ...]) -> None:
    wrong: list[str] = []
    async with paths_to(scripted_backend) as paths:
        for words, status in ERRORS:
            for body in forms_of({"message": "told so", **words}):
                data = b"event: error\ndata:" + json.dumps(body).encode() + b"\n\n"
                for steps in (sse(*before, data), sse(*before, 0.01, body, "[DONE]"), chunked(b"".join(before) + data)):
                    for path, outcome in (await paths.all_of(steps, stream=True)).items():
                        if outcome.status != status or "told so" not in outcome.message:
                            wrong.append(f"{path}: {body}: {outcome}")
    assert not wrong, "\n".join(wrong)


async def test_an_error_in_mid_stream(scripted_backend: ScriptedHttp) -> None:
    async with paths_to(scripted_backend) as paths:
        for words, status in ERRORS:
            body = {"error": {"message": "told so", **words}}
            outcome = await paths.all_of(sse(chunk("Hel"), body, "[DONE]"), stream=True)
            assert outcome.pop("natively").status == status
            for path, seen in outcome.items():
                assert (seen.status, seen.text, "told so" in seen.message) == (200, "Hel", True), path


@pytest.mark.parametrize("stream", [False, True])
async def test_an_error_in_a_list(scripted_backend: ScriptedHttp, stream: bool) -> None:
    body = [{"error": {"code": 429, "message": "told so", "status": "RESOURCE_EXHAUSTED"}}]
    async with paths_to(scripted_backend) as paths:
        answers = (sse(body), answer(200, body)) if stream else (answer(200, body),)
        for steps in answers:
            for path, outcome in (await paths.all_of(steps, stream=stream)).items():
                assert (outcome.status, "told so" in outcome.message) == (429, True), path


async def test_an_error_event_that_is_a_text(scripted_backend: ScriptedHttp) -> None:
    failed = b"event: error\ndata: told so\n\n"
    async with paths_to(scripted_backend) as paths:
        for path, outcome in (await paths.all_of(sse(failed, "[DONE]"), stream=True)).items():
            assert (outcome.status, "told so" in outcome.message) == (502, True), path
        told_late = await paths.all_of(sse(chunk("Hel"), failed, "[DONE]"), stream=True)
        for path, outcome in told_late.items():
            assert (outcome.text, "told so" in outcome.message) == ("Hel", True), path


@pytest.mark.parametrize("before", [{}, None, {"choices": []}, {"type": "ping"}])
async def test_an_error_after_events_that_say_nothing(scripted_backend: ScriptedHttp, before: Any) -> None:
    async with paths_to(scripted_backend) as paths:
        outcome = await paths.all_of(sse(before, {"error": {"message": "told so", "code": 429}}), stream=True)
        assert [outcome[path].status for path in ("natively", "over_http")] == [429, 429]
        assert all("told so" in one.message for one in outcome.values())


@pytest.mark.parametrize("route", ["chat/completions", "completions"])
@pytest.mark.parametrize("model", ["p/m", "r/m"])
async def test_what_is_too_long_is_named_alike_whole_and_streamed(
    scripted_backend: ScriptedHttp, route: str, model: str
) -> None:
    body = {"error": {"message": "the maximum context length is 10", "code": 400}}
    field = "prompt" if route == "completions" else "messages"
    request = {"model": model, "messages": ASKED} if field == "messages" else {"model": model, "prompt": "Hi"}
    async with paths_to(scripted_backend) as paths:
        client = paths.far if model == "p/m" else paths.near
        for steps in (answer(200, body), answer(400, body), sse(body)):
            for stream in (False, True):
                if stream or steps != sse(body):
                    scripted_backend.routes[f"/{route}"] = steps
                    reply = await client.post(f"/v1/{route}", json={**request, "stream": stream})
                    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)
        if field == "messages":
            scripted_backend.routes[f"/{route}"] = sse(chunk("Hel"), body)
            reply = await client.post(f"/v1/{route}", json={**request, "stream": True})
            assert [one["error"]["param"] for one in data_of(reply.text) if "error" in one] == [field]


async def test_the_status_of_an_answer_counts_before_its_words(scripted_backend: ScriptedHttp) -> None:
    async with paths_to(scripted_backend) as paths:
        for stream in (False, True):
            for status, words, told_as in (
                (400, {"code": "bad"}, 400),
                (429, {"code": "server_error"}, 429),
                (529, {"type": "overloaded_error"}, 503),
                (500, {"code": "rate_limit_exceeded"}, 429),
            ):
                steps = answer(status, {"error": {"message": "told so", **words}})
                for path, outcome in (await paths.all_of(steps, stream=stream)).items():
                    assert (outcome.status, "told so" in outcome.message) == (told_as, True), path


async def test_a_lone_surrogate_in_an_error_becomes_the_replacement_character(scripted_backend: ScriptedHttp) -> None:
    body = b'{"error": {"message": "bad text: \\ud83d here", "code": "a\\udc00", "param": "x\\ud800"}}'
    async with paths_to(scripted_backend) as paths:
        for stream, steps in (
            (False, answer(400, body)),
            (True, answer(400, body)),
            (True, sse(chunk("Hel"), body.decode())),
            (False, answer(200, body)),
        ):
            for path, outcome in (await paths.all_of(steps, stream=stream)).items():
                assert "bad text: \ufffd here" in outcome.message, (path, outcome)


async def test_a_lone_surrogate_in_a_request_is_told_in_our_form(scripted_backend: ScriptedHttp) -> None:
    async with paths_to(scripted_backend) as paths:
        for route in ("/v1/chat/completions", "/inference/chat_completion", "/v1/embeddings"):
            body = b'{"model": "x\\ud83d", "input": "a", "messages": [{"role": "user", "content": "Hi"}]}'
            reply = await paths.far.post(route, content=body)
            assert 400 <= reply.status_code < 500, reply.text
            assert reply.json()["error"]["message"]


# ---- what differs a little ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/json; charset=utf-8", None, "text/event-stream"])
async def test_a_whole_answer_to_a_stream_is_one_piece_and_the_end(
    scripted_backend: ScriptedHttp, kind: str | None
) -> None:
    async with paths_to(scripted_backend) as paths:
        for body in (json.dumps(WHOLE), json.dumps(WHOLE, indent=1), "\n " + json.dumps(WHOLE)):
            for path, outcome in (await paths.all_of(answer(200, body, content_type=kind), stream=True)).items():
                assert (outcome.status, outcome.text, outcome.message) == (200, "Hello", ""), path
                assert outcome.finish in ("stop", "end_of_turn"), path


async def test_a_whole_answer_with_tool_calls_and_usage_becomes_chunks(scripted_backend: ScriptedHttp) -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "call_2"}]}
    whole = {**WHOLE, "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    scripted_backend.routes["/chat/completions"] = answer(200, whole)
    async with paths_to(scripted_backend) as paths:
        for options in ({}, {"stream_options": {"include_usage": True}}):
            body = {**BODY, "model": "p/m", "stream": True, **options}
            *chunks, done = data_of((await paths.far.post("/v1/chat/completions", json=body)).text)
            assert done == "[DONE]"
            assert {piece["object"] for piece in chunks} == {"chat.completion.chunk"}
            tool_calls = chunks[0]["choices"][0]["delta"]["tool_calls"]
            assert tool_calls == [{"index": 0, **call}, {"index": 1, **call, "id": "call_2"}]
            assert chunks[1]["choices"][0]["finish_reason"] == "tool_calls"
            assert chunks[-1]["usage"] == WHOLE["usage"]
            assert (chunks[-1]["choices"] == []) is bool(options)
        reply = [
            piece async for piece in await paths.stack.inference.chat_completion(model="p/m", messages=ASK, stream=True)
        ]
        assert reply[-1].event.usage.prompt_tokens == 3
    text = {"id": "c", "object": "text_completion", "choices": [{"index": 0, "text": "Hello", "finish_reason": "stop"}]}
    scripted_backend.routes["/completions"] = answer(200, text)
    async with paths_to(scripted_backend) as paths:
        body = {"prompt": "x", "model": "p/m", "stream": True}
        *chunks, done = data_of((await paths.far.post("/v1/completions", json=body)).text)
        assert "".join(piece["choices"][0]["text"] for piece in chunks) == "Hello"
        pieces = [p async for p in await paths.stack.inference.completion(model="p/m", content="x", stream=True)]
        assert "".join(piece.delta for piece in pieces) == "Hello"


async def test_events_without_data_are_dropped_wherever_the_bytes_are_cut(scripted_backend: ScriptedHttp) -> None:
    keep_alive = b"data:\n\ndata: \n\ndata:\r\n\r\n: a comment\n\n"
    stream = b"".join(
        keep_alive + b"data: " + json.dumps(piece).encode() + b"\n\n"
        for piece in (chunk("Hel"), chunk("lo"), chunk(finish="stop"))
    )
    stream += keep_alive + b"data: [DONE]\n\n"
    async with paths_to(scripted_backend) as paths:
        for size in (len(stream), 1, 3, 7, 40):
            cut = [stream[start : start + size] for start in range(0, len(stream), size)]
            for path, outcome in (await paths.all_of(chunked(*cut), stream=True)).items():
                assert (outcome.status, outcome.text, outcome.message) == (200, "Hello", ""), (path, size)


@pytest.mark.parametrize("finish", ["null", '""'])
async def test_a_connection_that_ends_before_any_reason_is_no_end(scripted_backend: ScriptedHttp, finish: str) -> None:
    piece = json.dumps(chunk("Hel")).replace('"finish_reason": null', f'"finish_reason" : {finish}')
    async with paths_to(scripted_backend) as paths:
        for end in (CLOSE, RESET, 0.0):
            for path, outcome in (await paths.all_of(sse(piece, piece, 0.05, end), stream=True)).items():
                assert outcome.text == "HelHel", path
                assert outcome.message, (path, end)
                assert outcome.finish is None, path


async def test_a_comment_reaches_the_client_when_the_backend_takes_its_time(
    scripted_backend: ScriptedHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llamastack_adapters.openai_dialect.streams._HELD_S", 0.05)
    steps = sse(b": one\n\n", 0.1, b": two\n\n", chunk("Hello"), chunk(finish="stop"), "[DONE]")
    scripted_backend.routes["/chat/completions"] = steps
    async with paths_to(scripted_backend) as paths:
        reply = await paths.far.post("/v1/chat/completions", json={**BODY, "model": "p/m", "stream": True})
        assert reply.text.startswith(": one\n\n: two\n\ndata: {")

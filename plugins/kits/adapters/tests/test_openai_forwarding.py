"""The OpenAI dialect where requests and streams are forwarded as they are."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable

import anyio
import httpx
import pytest

from llamastack.provider.errors import BackendError, InvalidRequestError, LlamaStackError
from llamastack_adapters.non_streaming_replies import events_of
from llamastack_adapters.openai_dialect import (
    Dialect,
    OpenAIRequest,
)
from llamastack_adapters.openai_dialect.streams import forwarded

pytestmark = pytest.mark.anyio


# ---- forwarded -------------------------------------------------------------------------------------------------------

CHUNK = b'data: {"choices":[{"index":0,"delta":{"content":"x"},"finish_reason":null}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason": "stop"}]}\n\n'
DONE = b"data: [DONE]\n\n"
FAILED = b'data: {"error":{"message":"no memory","code":503}}\n\n'


async def through(*blocks: bytes) -> list[bytes]:
    return [block async for block in forwarded(several(blocks), "p")]


async def several(blocks: tuple[bytes, ...]) -> AsyncIterator[bytes]:
    for block in blocks:
        yield block


async def test_blocks_are_forwarded_as_they_are() -> None:
    blocks = [CHUNK, CHUNK + FINISH, DONE]
    assert await through(*blocks) == blocks
    assert await through(CHUNK + FINISH + DONE) == [CHUNK + FINISH, DONE]
    windows = (CHUNK + FINISH + DONE).replace(b"\n", b"\r\n")
    assert await through(windows) == [windows.removesuffix(DONE.replace(b"\n", b"\r\n")), b"data: [DONE]\r\n\r\n"]
    with_name = b"event: end\n" + DONE
    assert await through(CHUNK + FINISH + with_name) == [CHUNK + FINISH + with_name]


@pytest.mark.parametrize("done", [b"data:  [DONE]\n\n", b"data: [DONE] \n\n", b"data:\t[DONE] \r\n\r\n"])
async def test_a_word_for_the_end_that_clients_do_not_know_is_put_right(done: bytes) -> None:
    assert await through(CHUNK + FINISH + done) == [CHUNK + FINISH, DONE]
    assert await through(CHUNK, FINISH, done) == [CHUNK, FINISH, DONE]


async def test_the_reason_may_be_in_several_lines() -> None:
    lines = CHUNK.replace(b'"finish_reason":null', b'\ndata: "finish_reason"\ndata: :\r\ndata: "stop"')
    assert await through(lines) == [lines, DONE]


async def test_events_that_say_nothing_are_not_forwarded() -> None:
    for nothing in (b"data: null\n\n", b'data: ""\r\n\r\n', b"data:\n\n"):
        assert await through(nothing + CHUNK, nothing, FINISH + nothing, DONE) == [CHUNK, FINISH, DONE]


async def test_a_whole_reply_as_the_first_event_is_forwarded_as_a_stream() -> None:
    whole = b'data: {"choices":[{"index":0,"message":{"content":"x"},"finish_reason":"stop"}]}\n\n'
    [quoting, done] = await through(whole, DONE)
    assert b'"delta":{"content":"x"}' in quoting
    assert done == DONE
    text = CHUNK.replace(b'"delta":{"content":"x"}', b'"text":"\\"message\\""')
    assert await through(text + FAILED.replace(b"error", b"warning"), FINISH, DONE) == [
        text + FAILED.replace(b"error", b"warning"),
        FINISH,
        DONE,
    ]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\u0085"])
async def test_a_whole_reply_becomes_events_of_one_line_for_every_client(mark: str) -> None:
    """httpx.Response.iter_lines, by which many clients read events, ends a line at these characters, too."""
    text = f"a{mark}b"
    answer = {"choices": [{"index": 0, "message": {"content": text}, "finish_reason": "stop"}]}
    first_event = b"data: %b\n\n" % json.dumps(answer, ensure_ascii=False).encode()
    for blocks in ([events_of(answer, usage_apart=False)], await through(first_event, DONE)):
        lines = httpx.Response(200, content=b"".join(blocks)).iter_lines()
        first, *_, done = [line.removeprefix("data: ") for line in lines if line]
        assert json.loads(first)["choices"][0]["delta"]["content"] == text
        assert done == "[DONE]"


async def test_a_stream_of_nothing_but_its_end_fails() -> None:
    for first in (DONE, b": hello\n\n" + DONE, b"event: end\n" + DONE):
        with pytest.raises(BackendError, match="before the reply was complete"):
            await through(first)


async def test_text_that_speaks_of_errors_is_text() -> None:
    quoting = CHUNK.replace(b'"x"', rb'"{\"error\": \"x\"}"')
    null = CHUNK.replace(b'"choices"', b'"error":null,"choices"')
    assert await through(quoting, null, FINISH, DONE) == [quoting, null, FINISH, DONE]


async def test_a_stream_without_a_word_for_its_end_gets_one() -> None:
    assert await through(CHUNK, FINISH) == [CHUNK, FINISH, DONE]
    usage = b'data: {"choices":[],"usage":{"prompt_tokens":1}}\n\n'
    assert await through(CHUNK, FINISH, usage) == [CHUNK, FINISH, usage, DONE]


async def test_a_stream_that_is_cut_short_fails() -> None:
    with pytest.raises(BackendError, match="before the reply was complete"):
        await through(CHUNK, CHUNK)
    with pytest.raises(BackendError, match="before the reply was complete"):
        await through()
    with pytest.raises(BackendError, match="before the reply was complete"):
        await through(CHUNK.replace(b'"x"', b'"[DONE]"'))


async def test_a_stream_ends_with_its_word_for_the_end_whatever_the_backend_does_then() -> None:
    async def fails() -> None:
        raise httpx.ReadError("reset")

    async def blocks(then: Callable[[], Awaitable[None]]) -> AsyncIterator[bytes]:
        yield CHUNK + FINISH
        yield DONE
        yield b": more\n\n"
        await then()

    async def floods() -> AsyncIterator[bytes]:
        yield CHUNK + FINISH
        yield DONE
        while True:
            yield b": more\n\n"

    with anyio.fail_after(30):
        assert [block async for block in forwarded(floods(), "p")] == [CHUNK + FINISH, DONE]
    # Not said twice, though it is not the last that the backend says.
    more = CHUNK + FINISH + DONE + b": more\n\n"
    assert await through(more) == [more]
    for then in (fails, anyio.sleep_forever):
        assert [block async for block in forwarded(blocks(then), "p")] == [CHUNK + FINISH, DONE]


@pytest.mark.parametrize(
    "failed",
    [
        b'data: {"object":"error","message":"no memory","code":503}\n\n',
        b'event: error\ndata: {"error":{"message":"no memory","code":503}}\n\n',
        b'data: {"error":{"message":"no memory","code":503}}\r\n\r\n',
    ],
)
async def test_every_form_of_an_error_in_a_stream(failed: bytes) -> None:
    with pytest.raises(LlamaStackError, match="no memory"):
        await through(CHUNK, failed, DONE)


async def test_an_error_in_a_stream_is_raised_after_what_came_before_it() -> None:
    came = []
    with pytest.raises(LlamaStackError, match="no memory") as failure:
        async for block in forwarded(several((CHUNK + CHUNK + FAILED + DONE,)), "p"):
            came.append(block)
    assert came == [CHUNK + CHUNK]
    assert (failure.value.status, failure.value.provider_id) == (503, "p")


def test_the_fields_that_a_dialect_has_in_openais_form() -> None:
    plain = {"model", "messages", "seed", "logprobs", "response_format"}
    assert Dialect("p").speaks(plain)
    assert not Dialect("p", top_logprobs=False).speaks(plain)
    assert not Dialect("p", seed=None).speaks({"seed"})
    renaming = Dialect("p", max_tokens="max_completion_tokens")
    assert renaming.speaks({"max_tokens"})
    assert renaming.renamed({"max_tokens", "seed"}) == {"max_tokens": "max_completion_tokens"}
    assert renaming.renamed({"max_completion_tokens"}) == {}
    with pytest.raises(InvalidRequestError, match="give one of them"):
        renaming.renamed({"max_tokens", "max_completion_tokens"})
    assert not Dialect("p", response_format=lambda schema: schema).speaks({"response_format"})
    assert Dialect("p", top_logprobs=False, seed=None, response_format=None).speaks({"model", "messages", "top_p"})


def test_a_body_is_made_anew_only_for_another_name() -> None:
    body = b'{"model": "far/m",  "seed": 123456789012345678901234567890}'
    request = OpenAIRequest("chat/completions", "m", body, {"model", "seed"}, stream=False, named="far/m")
    assert request.body_for("far/m") is body
    assert request.body_for('m "2"') == rb'{"model": "m \"2\"",  "seed": 123456789012345678901234567890}'


@pytest.mark.parametrize(
    ("body", "made"),
    [
        (
            rb'{"tools":[{"model":"a"}], "x":1.10, "model" : "a"}',
            rb'{"tools":[{"model":"a"}], "x":1.10, "model" : "new"}',
        ),
        (
            rb'{"model":"a","note":"\"model\": \"a\"","y":[1e3]}',
            rb'{"model":"new","note":"\"model\": \"a\"","y":[1e3]}',
        ),
        (rb'{"mod\u0065l":"a","x":{"model":"a"}}', rb'{"mod\u0065l":"new","x":{"model":"a"}}'),
    ],
)
def test_only_the_models_name_is_changed_in_a_body(body: bytes, made: bytes) -> None:
    assert OpenAIRequest("completions", "m", body, {"model"}, stream=False, named="a").body_for("new") == made

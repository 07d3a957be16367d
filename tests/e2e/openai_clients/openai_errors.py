"""How the openai package shows what goes wrong: its error classes, retries, time limits, streams that are left."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import openai
from checks import LONG, SETTINGS, WEATHER_TOOL, check, check_where_translated, equal, raised, user
from openai import DefaultHttpxClient, OpenAI

sent: list[Any] = []
# With retries, as the package has them: of what is refused, none may be made.
client = OpenAI(
    base_url=SETTINGS.url,
    api_key="unused",
    timeout=60,
    http_client=DefaultHttpxClient(event_hooks={"request": [sent.append]}),
)
create = client.chat.completions.create
ASKED: dict[str, Any] = {"model": SETTINGS.chat_model, "temperature": 0, "max_tokens": 2, "messages": user()}
PROMPT: dict[str, Any] = {"model": SETTINGS.chat_model, "prompt": "a", "max_tokens": 1}


def refused(
    kind: type[openai.APIStatusError],
    call: Callable[..., Any],
    *,
    code: str | None,
    param: str | None = None,
    **asked: Any,
) -> openai.APIStatusError:
    """The error, which is of this kind, in OpenAI's words, and was not tried again."""
    sent.clear()
    error: openai.APIStatusError = raised(kind, lambda: call(**asked))
    equal((error.type, error.code, error.param), ("invalid_request_error", code, param))
    assert error.request_id, "no request id"
    assert isinstance(error.body, dict), error.body
    assert error.body["message"], error.body
    equal(error.response.headers["content-type"].partition(";")[0], "application/json")
    equal(len(sent), 1)
    return error


def refused_as_bad(param: str, code: str = "invalid_value", **asked: Any) -> openai.APIStatusError:
    return refused(openai.BadRequestError, create, code=code, param=param, **(ASKED | asked))


@check
def unknown_models() -> None:
    not_found: dict[str, Any] = {"code": "model_not_found", "param": "model"}
    refused(openai.NotFoundError, create, **not_found, **(ASKED | {"model": "nope", "stream": True}))
    refused(openai.NotFoundError, client.completions.create, **not_found, model="nope", prompt="a")
    refused(openai.NotFoundError, client.embeddings.create, **not_found, model="nope", input="a")
    refused(openai.NotFoundError, client.moderations.create, **not_found, model="nope", input="a")
    refused(openai.NotFoundError, lambda: client.models.retrieve("nope"), **not_found)
    error = refused(openai.NotFoundError, create, **not_found, **(ASKED | {"model": "nope"}))
    assert "nope" in error.message
    assert SETTINGS.chat_model in error.message  # what is served


@check_where_translated
def wrong_values() -> None:
    """What is forwarded is judged by the backend."""
    refused_as_bad("temperature", temperature=-1)
    refused_as_bad("temperature", temperature="1")
    refused_as_bad("top_p", top_p=1.5)
    refused_as_bad("top_p", top_p=1.5, stream=True)
    refused_as_bad("n", n=0)
    refused_as_bad("messages", messages=[])
    refused_as_bad("messages[0].role", messages=[{"role": "nobody", "content": "a"}])
    refused_as_bad("messages[0].content", messages=[{"role": "user", "content": 5}])
    refused_as_bad("max_tokens", max_tokens=-1)
    refused_as_bad("max_tokens", max_tokens=0)
    refused_as_bad("tools[0].function.name", "missing_required_parameter", tools=[{"type": "function", "function": {}}])
    wrong: dict[str, Any] = {"encoding_format": "hex", "model": SETTINGS.embedding_model, "input": "a"}
    refused(openai.BadRequestError, client.embeddings.create, code="invalid_value", param="encoding_format", **wrong)
    refused(openai.BadRequestError, client.moderations.create, code="invalid_value", param="input", input=[])


@check
def missing_values() -> None:
    # Without a model nobody knows where to forward it; the messages are for the backend to judge.
    for name in ("model",) if SETTINGS.forwarded else ("messages", "model"):
        body = {key: value for key, value in ASKED.items() if key != name}
        post: dict[str, Any] = {"path": "/chat/completions", "body": body, "cast_to": object}
        refused(openai.BadRequestError, client.post, code="missing_required_parameter", param=name, **post)


@check
def not_json() -> None:
    for body in (b"{", b"[]", b"null", b"\xff"):
        post: dict[str, Any] = {"path": "/chat/completions", "content": body, "cast_to": object}
        refused(openai.BadRequestError, client.post, code=None, **post)


@check_where_translated
def unsupported() -> None:
    """The model's provider cannot take them: it is said by name, and at once."""
    refused_as_bad("temperature", temperature=3)
    word = "unsupported_parameter"
    refused_as_bad("modalities", word, modalities=["text", "audio"])
    refused_as_bad("audio", word, audio={"voice": "alloy", "format": "wav"})
    refused_as_bad("response_format.type", word, response_format={"type": "poem"})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    refused_as_bad("messages", word, messages=[{"role": "user", "content": [image]}])
    refused_as_bad("logprobs", word, tools=[WEATHER_TOOL], logprobs=True)
    error = refused_as_bad("functions", word, functions=[{"name": "a"}])
    assert "'tools'" in error.message, error.message
    refused_as_bad("no_such_thing", "unknown_parameter", extra_body={"no_such_thing": 1})
    embedding: dict[str, Any] = {"model": SETTINGS.embedding_model, "input": "a"}
    calls: list[tuple[Callable[..., Any], str, dict[str, Any]]] = [
        (client.completions.create, "suffix", PROMPT | {"suffix": "b"}),
        (client.completions.create, "echo", PROMPT | {"echo": True}),
        (client.completions.create, "best_of", PROMPT | {"best_of": 2}),
        (client.completions.create, "prompt", PROMPT | {"prompt": [1, 2]}),
        (client.embeddings.create, "input", embedding | {"input": [1]}),
    ]
    for call, param, asked in calls:
        refused(openai.BadRequestError, call, code=word, param=param, **asked)
    wrong_size = {"code": "invalid_value", "param": "dimensions", "dimensions": 8}
    refused(openai.BadRequestError, client.embeddings.create, **wrong_size, **embedding)


@check_where_translated
def another_kind_of_model() -> None:
    word = "unsupported_model"
    model = SETTINGS.embedding_model
    refused_as_bad("model", word, model=model)
    refused_as_bad("model", word, model=model, stream=True)
    refused(openai.BadRequestError, client.completions.create, code=word, param="model", **(PROMPT | {"model": model}))
    asked: dict[str, Any] = {"model": SETTINGS.chat_model, "input": "a"}
    error = refused(
        openai.BadRequestError, client.embeddings.create, code="unsupported_parameter", param="model", **asked
    )
    assert "embedding: true" in error.message, error.message  # what would have to be set


@check
def context_length() -> None:
    text = "word " * (SETTINGS.context_length + 100)
    for stream in (False, True):
        error = refused_as_bad("messages", "context_length_exceeded", messages=user(text), stream=stream)
        assert str(SETTINGS.context_length) in error.message, error.message
    asked = PROMPT | {"prompt": text}
    refused(openai.BadRequestError, client.completions.create, code="context_length_exceeded", param="prompt", **asked)


@check
def nothing_there() -> None:
    asked: dict[str, Any] = {"model": SETTINGS.chat_model, "input": "a"}
    refused(openai.NotFoundError, client.responses.create, code="not_found", **asked)
    with DefaultHttpxClient() as http:
        raw = http.get(f"{SETTINGS.url}/chat/completions")
    equal((raw.status_code, raw.headers["allow"]), (405, "POST"))
    equal(raw.json()["error"]["type"], "invalid_request_error")


@check
def keys() -> None:
    """A client's key is for this server, which asks for none; backends get those of the config, or of a header."""
    asked: dict[str, Any] = ASKED | {"max_tokens": 1}
    assert client.with_options(api_key="sk-another").chat.completions.create(**asked).choices
    if SETTINGS.forwarded:
        header = {"X-LlamaStack-ProviderData": json.dumps({"openai_api_key": "sk-wrong"})}
        for stream in (False, True):
            error = refused(
                openai.AuthenticationError,
                create,
                code="invalid_api_key",
                param="X-LlamaStack-ProviderData.openai_api_key",
                **(asked | {"extra_headers": header, "stream": stream}),
            )
            assert "sk-wrong" not in str(error.body), error.body


@check
def left_streams() -> None:
    """A stream that is left frees the model at once."""
    started = time.monotonic()
    for _ in range(4):
        with create(stream=True, **LONG) as events:
            pieces = [chunk for _, chunk in zip(range(3), events, strict=False)]
        equal([chunk.choices[0].finish_reason for chunk in pieces], [None] * 3)
    equal(create(**ASKED).choices[0].finish_reason, "length")
    assert time.monotonic() - started < 12, time.monotonic() - started


@check
def time_limits() -> None:
    """A client that waits no longer frees the model at once."""
    impatient = client.with_options(timeout=0.2, max_retries=0)
    started = time.monotonic()
    for _ in range(4):
        raised(openai.APITimeoutError, lambda: impatient.chat.completions.create(**LONG))
    equal(create(**ASKED).choices[0].finish_reason, "length")
    assert time.monotonic() - started < 10, time.monotonic() - started

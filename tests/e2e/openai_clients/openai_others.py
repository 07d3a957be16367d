"""Models, completions, embeddings and moderations of the openai package."""

from __future__ import annotations

import base64
import struct
from operator import mul
from typing import Any

from checks import SETTINGS, check, check_where_translated, equal
from openai import OpenAI

client = OpenAI(base_url=SETTINGS.url, api_key="unused", timeout=60, max_retries=0)
PROMPT = "The capital of France is"
GREEDY: dict[str, Any] = {"model": SETTINGS.chat_model, "prompt": PROMPT, "temperature": 0, "max_tokens": 6}
TEXTS = ["A llama spits.", "Paris is a city.", "An alpaca spits."]


@check
def models() -> None:
    listed = list(client.models.list())
    names = [model.id for model in listed]
    equal(sorted(set(names)), sorted(names))
    # One that two providers serve: the second is listed by its whole name.
    assert {SETTINGS.chat_model, SETTINGS.embedding_model, "far/SmolLM2-135M-Instruct"} <= set(names), names
    equal({model.owned_by for model in listed if model.id == SETTINGS.chat_model}, {SETTINGS.owner})
    for model in listed:
        equal(model.object, "model")
        assert isinstance(model.created, int), model
        assert model.owned_by, model
        equal(client.models.retrieve(model.id), model)


@check
def a_model_by_its_provider() -> None:
    """The name of a model may have slashes, as those of Hugging Face do."""
    full = f"{SETTINGS.owner}/{SETTINGS.chat_model}"
    found = client.models.retrieve(full)
    equal((found.id, found.owned_by), (full, SETTINGS.owner))
    reply = client.completions.create(**(GREEDY | {"model": full, "max_tokens": 1}))
    assert reply.choices[0].text


@check
def completion() -> None:
    reply = client.completions.create(**GREEDY)
    equal(reply.object, "text_completion")
    assert reply.id, reply
    (choice,) = reply.choices
    equal((choice.index, choice.finish_reason, choice.logprobs), (0, "length", None))
    assert choice.text
    assert not choice.text.startswith(PROMPT)
    assert reply.usage is not None
    assert reply.usage.prompt_tokens > 0
    equal(reply.usage.completion_tokens, 6)

    chunks = list(client.completions.create(stream=True, stream_options={"include_usage": True}, **GREEDY))
    usage = chunks[-1].usage
    assert usage is not None
    if not SETTINGS.forwarded:  # llama.cpp's server counts in the chunk that ends the text
        equal(chunks.pop().choices, [])
    equal((usage.prompt_tokens, usage.completion_tokens), (reply.usage.prompt_tokens, 6))
    equal({c.object for c in chunks}, {"text_completion"})
    equal(len({c.id for c in chunks}), 1)
    equal("".join(c.choices[0].text for c in chunks), choice.text)
    equal([c.choices[0].finish_reason for c in chunks], [None] * (len(chunks) - 1) + ["length"])

    word = choice.text.split()[1]
    stopped = client.completions.create(stop=[word], **GREEDY).choices[0]
    equal((stopped.text, stopped.finish_reason), (choice.text[: choice.text.index(word)], "stop"))


@check_where_translated
def completion_by_default() -> None:
    """16 tokens, as OpenAI has it."""
    reply = client.completions.create(model=SETTINGS.chat_model, prompt="One, two, three, four,", temperature=0)
    assert reply.usage is not None
    equal((reply.usage.completion_tokens, reply.choices[0].finish_reason), (16, "length"))


@check_where_translated
def completion_logprobs() -> None:
    """Only there: llama.cpp's server has them in the form of chats."""
    reply = client.completions.create(logprobs=2, **GREEDY)
    logprobs = reply.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens
    equal("".join(logprobs.tokens), reply.choices[0].text)
    assert logprobs.token_logprobs
    assert logprobs.top_logprobs
    assert logprobs.text_offset
    for each in (logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, logprobs.text_offset):
        equal(len(each), 6)
    equal({len(top) for top in logprobs.top_logprobs}, {2})
    for token, logprob, top in zip(logprobs.tokens, logprobs.token_logprobs, logprobs.top_logprobs, strict=True):
        equal(top[token], logprob)
    start = logprobs.text_offset[0]
    for token, at in zip(logprobs.tokens, logprobs.text_offset, strict=True):
        assert reply.choices[0].text[at - start :].startswith(token), (token, at)


@check
def several_completions() -> None:
    prompts = [PROMPT, "One, two,"]
    asked: dict[str, Any] = GREEDY | {"max_tokens": 2, "prompt": prompts}
    reply = client.completions.create(**asked)
    equal([c.index for c in reply.choices], [0, 1])
    alone = [client.completions.create(**(asked | {"prompt": prompt})) for prompt in prompts]
    equal([c.text for c in reply.choices], [one.choices[0].text for one in alone])
    if not SETTINGS.forwarded:  # llama.cpp's server counts the first prompt alone
        assert reply.usage is not None
        equal(reply.usage.prompt_tokens, sum(one.usage.prompt_tokens for one in alone if one.usage))
        equal(reply.usage.completion_tokens, 4)
        both = client.completions.create(n=2, **asked)
        equal([c.index for c in both.choices], [0, 1, 2, 3])
        first, second = reply.choices
        equal([c.text for c in both.choices], [first.text, first.text, second.text, second.text])


@check
def embeddings() -> None:
    reply = client.embeddings.create(model=SETTINGS.embedding_model, input=TEXTS)  # base64, unless one asks otherwise
    equal(reply.object, "list")
    equal([(e.object, e.index) for e in reply.data], [("embedding", place) for place in range(3)])
    equal({len(e.embedding) for e in reply.data}, {SETTINGS.dimension})
    floats = client.embeddings.create(model=SETTINGS.embedding_model, input=TEXTS, encoding_format="float")
    for one, other in zip(reply.data, floats.data, strict=True):
        assert max(abs(a - b) for a, b in zip(one.embedding, other.embedding, strict=True)) < 1e-6
    for usage in (reply.usage, floats.usage):
        assert usage.prompt_tokens > 0, usage
        equal(usage.total_tokens, usage.prompt_tokens)
    llama, paris, alpaca = (e.embedding for e in reply.data)
    assert sum(map(mul, llama, alpaca)) > sum(map(mul, llama, paris))
    single = client.embeddings.create(model=SETTINGS.embedding_model, input=TEXTS[0])
    equal(len(single.data), 1)
    assert 0 < single.usage.prompt_tokens < reply.usage.prompt_tokens, single.usage
    assert max(abs(a - b) for a, b in zip(single.data[0].embedding, llama, strict=True)) < 1e-2


@check
def encoding_on_the_wire() -> None:
    asked: dict[str, Any] = {"model": SETTINGS.embedding_model, "input": TEXTS[0]}
    encoded = client.embeddings.with_raw_response.create(**asked, encoding_format="base64").http_response.json()
    text = encoded["data"][0]["embedding"]
    assert isinstance(text, str), type(text)
    values = struct.unpack(f"<{SETTINGS.dimension}f", base64.b64decode(text))
    plain: Any = client.post("/embeddings", body=asked, cast_to=object)
    numbers = plain["data"][0]["embedding"]
    assert isinstance(numbers, list), "numbers are the default of the API"
    assert max(abs(a - b) for a, b in zip(values, numbers, strict=True)) < 1e-6
    assert any(values)


@check
def moderations() -> None:
    reply = client.moderations.create(model=SETTINGS.shield, input=["Llamas spit.", "Llamas hum."])
    assert reply.id.startswith("modr-"), reply.id
    equal(reply.model, SETTINGS.shield)
    equal([result.flagged for result in reply.results], [True, False])
    single = client.moderations.create(input="Llamas hum.")  # the only shield
    equal([result.flagged for result in single.results], [False])
    parts: list[Any] = [{"type": "text", "text": "Llamas"}, {"type": "text", "text": "spit."}]
    equal([result.flagged for result in client.moderations.create(input=parts).results], [True])

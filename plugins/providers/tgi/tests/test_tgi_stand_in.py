"""The stand-in, asked by Hugging Face's own clients: what the other tests rest on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from backends.llama_server import MODEL
from backends.tgi import TGIStandIn, endpoint
from huggingface_hub import AsyncInferenceClient, HfApi, InferenceClient, close_session
from huggingface_hub.errors import HfHubHTTPError, ValidationError

pytestmark = pytest.mark.anyio

CAPITAL = [{"role": "user", "content": "What is the capital of France?"}]
ANSWER = "The capital of France is Paris."
PROMPT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
            "required": ["city"],
        },
    },
}
SCHEMA = {"type": "object", "properties": {"sunny": {"type": "boolean"}}, "required": ["sunny"]}
Make = Callable[..., tuple[TGIStandIn, str]]


@pytest.fixture
def client(usual_tgi: tuple[TGIStandIn, str]) -> Iterator[InferenceClient]:
    _, url = usual_tgi
    with InferenceClient(url, provider="hf-inference", token="hf_test") as client:
        yield client
    close_session()


def test_what_it_serves(client: InferenceClient) -> None:
    info = client.get_endpoint_info()
    assert info["model_id"] == MODEL
    assert (info["max_input_tokens"], info["max_total_tokens"]) == (1024, 2048)
    assert client.health_check()
    models = httpx.get(f"{client.model}/v1/models").json()
    assert [model["id"] for model in models["data"]] == [MODEL]


def test_text_whole(client: InferenceClient) -> None:
    assert client.text_generation(PROMPT, max_new_tokens=20, return_full_text=False) == ANSWER
    assert client.text_generation(PROMPT, max_new_tokens=20) == PROMPT + ANSWER
    given = client.text_generation(PROMPT, details=True, return_full_text=False, max_new_tokens=20, top_n_tokens=2)
    details = given.details
    assert details is not None
    assert details.finish_reason == "eos_token"
    assert "".join(token.text for token in details.tokens if not token.special) == ANSWER
    assert details.tokens[-1].special
    assert details.generated_tokens == len(details.tokens) == len(details.top_tokens or ())
    assert all(token.logprob <= 0 for token in details.tokens)
    assert details.top_tokens is not None
    assert details.top_tokens[0][0]["text"] == "The"
    direct = httpx.post(f"{client.model}/generate", json={"inputs": PROMPT, "parameters": {"max_new_tokens": 20}})
    assert direct.json() == {"generated_text": ANSWER}


def test_text_ends_with_its_limit_or_its_stop_text(client: InferenceClient) -> None:
    short = client.text_generation(PROMPT, details=True, return_full_text=False, max_new_tokens=3)
    assert short.generated_text == "The capital of"
    assert short.details is not None
    assert short.details.finish_reason == "length"
    stopped = client.text_generation(PROMPT, details=True, return_full_text=False, max_new_tokens=20, stop=[" France"])
    assert stopped.generated_text == "The capital of France"
    assert stopped.details is not None
    assert stopped.details.finish_reason == "stop_sequence"


def test_text_streamed(client: InferenceClient) -> None:
    pieces = list(
        client.text_generation(PROMPT, details=True, stream=True, return_full_text=False, max_new_tokens=20, seed=7)
    )
    assert [piece.index for piece in pieces] == list(range(1, len(pieces) + 1))
    assert "".join(piece.token.text for piece in pieces if not piece.token.special) == ANSWER
    assert [piece.generated_text for piece in pieces if piece.generated_text] == [ANSWER]
    details = pieces[-1].details
    assert details is not None
    assert (details.finish_reason, details.generated_tokens, details.seed) == ("eos_token", len(pieces), 7)
    assert details.input_length == 16


def test_sampling_is_repeatable_by_its_seed(client: InferenceClient) -> None:
    def sample(seed: int, **more: Any) -> str:
        return client.text_generation(
            "Once upon a time", do_sample=True, temperature=1.5, max_new_tokens=12, seed=seed, **more
        )

    assert sample(1) == sample(1) != sample(2)
    assert sample(1, top_k=1) == sample(2, top_k=1)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"temperature": 0.0}, "`temperature` must be strictly positive"),
        ({"top_p": 1.0}, "`top_p` must be > 0.0 and < 1.0"),
        ({"top_k": 0}, "`top_k` must be strictly positive"),
        ({"repetition_penalty": 0.0}, "`repetition_penalty` must be strictly positive"),
        ({"stop": list("abcde")}, "`stop` supports up to 4 stop sequences. Given: 5"),
        ({"top_n_tokens": 6}, "`top_n_tokens` must be >= 0 and <= 5. Given: 6"),
        ({"max_new_tokens": 0}, "`max_new_tokens` must be strictly positive"),
        ({"max_new_tokens": 4000}, "must be <= 2048. Given: 16 `inputs` tokens and 4000 `max_new_tokens`"),
        ({"grammar": {"type": "json", "value": {"type": "object"}}}, "must have a 'properties' field"),
    ],
)
def test_what_it_refuses(client: InferenceClient, parameters: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValidationError) as refused:
        client.text_generation(PROMPT, details=True, **parameters)
    assert expected in str(refused.value)
    assert isinstance(refused.value.__cause__, HfHubHTTPError)
    assert refused.value.__cause__.response.status_code == 422
    # In a stream the status has been sent already.
    with pytest.raises(ValidationError) as refused:
        list(client.text_generation(PROMPT, details=True, stream=True, **parameters))
    assert expected in str(refused.value)


def test_what_it_cannot_read(client: InferenceClient) -> None:
    for body in ({}, {"inputs": ["a"]}, {"inputs": "a", "parameters": {"grammar": {"type": "xml", "value": ""}}}):
        answer = httpx.post(f"{client.model}/generate", json=body)
        assert answer.status_code == 422
        assert answer.text.startswith("Failed to deserialize the JSON body")


def test_long_inputs(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="`inputs` must have less than 1024 tokens. Given: 12"):
        client.text_generation("a b " * 600, max_new_tokens=1)


def test_grammar(client: InferenceClient) -> None:
    for value in (SCHEMA, json.dumps(SCHEMA)):
        grammar = {"type": "json", "value": value}
        text = client.text_generation(PROMPT, grammar=grammar, max_new_tokens=30, return_full_text=False)
        assert set(json.loads(text)) == {"sunny"}


def test_chat_whole(client: InferenceClient) -> None:
    reply = client.chat_completion(CAPITAL, max_tokens=20, temperature=0, logprobs=True, top_logprobs=2)
    choice = reply.choices[0]
    assert choice.message.content == ANSWER
    assert choice.finish_reason == "stop"
    assert choice.logprobs is not None
    assert choice.logprobs.content[0].token == "The"
    assert [top.token for top in choice.logprobs.content[0].top_logprobs] == ["The", "L"]
    parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of France?"}]
    joined = client.chat_completion([{"role": "user", "content": parts}], max_tokens=20, temperature=0)
    assert joined.choices[0].message.content == ANSWER
    stopped = client.chat_completion(CAPITAL, max_tokens=20, temperature=0, stop=[" of"])
    assert stopped.choices[0].message.content == "The capital of"
    assert stopped.choices[0].finish_reason == "stop_sequence"


def test_chat_repetition_penalty_is_presence_penalty_and_two(client: InferenceClient) -> None:
    def chat(penalty: float | None) -> str | None:
        reply = client.chat_completion(CAPITAL, max_tokens=20, temperature=0, presence_penalty=penalty)
        return reply.choices[0].message.content

    assert chat(-1.0) == chat(None) == ANSWER
    assert chat(1.0) != ANSWER
    with pytest.raises(HfHubHTTPError, match="`repetition_penalty` must be strictly positive"):
        chat(-2.0)


def test_chat_json(client: InferenceClient) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "weather", "schema": SCHEMA}}
    reply = client.chat_completion(CAPITAL, response_format=wanted, max_tokens=30, temperature=0)
    assert set(json.loads(reply.choices[0].message.content)) == {"sunny"}
    with pytest.raises(HfHubHTTPError, match="mutually exclusive"):
        client.chat_completion(CAPITAL, response_format=wanted, tools=[WEATHER])


@pytest.mark.parametrize("choice", ["required", {"function": {"name": "weather"}}])
def test_chat_tools(client: InferenceClient, choice: Any) -> None:
    given: Any = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 60, "temperature": 0}
    reply = client.chat_completion(CAPITAL, **given)
    calls = reply.choices[0].message.tool_calls
    assert calls is not None
    assert calls[0].function.name == "weather"
    assert json.loads(calls[0].function.arguments)["city"] in ("Paris", "Rome")
    assert reply.choices[0].finish_reason == "stop"
    deltas = [chunk.choices[0].delta.tool_calls[0] for chunk in client.chat_completion(CAPITAL, stream=True, **given)]
    assert [delta.function.name for delta in deltas if delta.function.name] == ["weather"]
    assert json.loads("".join(d.function.arguments for d in deltas)) == json.loads(calls[0].function.arguments)


def test_chat_tools_of_version_2(tgi: Make) -> None:
    _, url = tgi(version=2)
    given: Any = {"tools": [WEATHER], "max_tokens": 60, "temperature": 0}
    with InferenceClient(url, token="hf_test") as client:
        reply = client.chat_completion(CAPITAL, tool_choice={"function": {"name": "weather"}}, **given)
        calls = reply.choices[0].message.tool_calls
        assert calls is not None
        assert set(calls[0].function.arguments) == {"city"}
        with pytest.raises(HfHubHTTPError, match="Tool with name required not found"):
            client.chat_completion(CAPITAL, tool_choice="required", **given)
    close_session()


def test_chat_without_a_tool(client: InferenceClient) -> None:
    given: Any = {"tools": [WEATHER], "tool_choice": "none", "max_tokens": 20, "temperature": 0}
    assert client.chat_completion(CAPITAL, **given).choices[0].message.content == ANSWER


def test_tokenize(client: InferenceClient) -> None:
    tokens = httpx.post(f"{client.model}/tokenize", json={"inputs": "Hello, world"}).json()
    assert "".join(token["text"] for token in tokens) == "Hello, world"
    assert [(token["start"], token["stop"]) for token in tokens][-1] == (6, 12)


def test_keys(tgi: Make) -> None:
    _, url = tgi(keys={"hf_good"})
    with InferenceClient(url, provider="hf-inference", token="hf_bad") as client:
        assert client.get_endpoint_info()["model_id"] == MODEL  # which it tells everybody
        with pytest.raises(HfHubHTTPError, match="401"):
            client.chat_completion(CAPITAL)
    close_session()


async def test_the_async_client(tgi: Make) -> None:
    stand_in, url = tgi()
    async with AsyncInferenceClient(url, provider="hf-inference", token="hf_test") as client:
        assert (await client.get_endpoint_info())["model_id"] == MODEL
        assert await client.text_generation(PROMPT, max_new_tokens=20, return_full_text=False) == ANSWER
        pieces = await client.text_generation(PROMPT, max_new_tokens=20, return_full_text=False, stream=True)
        assert "".join([piece async for piece in pieces]) == ANSWER + "<|im_end|>"
        reply = await client.chat_completion(CAPITAL, max_tokens=20, temperature=0)
        assert reply.choices[0].message.content == ANSWER
        chunks = await client.chat_completion(CAPITAL, max_tokens=20, temperature=0, stream=True)
        parts = [chunk.choices[0].delta.content async for chunk in chunks]
        assert "".join(part or "" for part in parts) == ANSWER
        with pytest.raises(ValidationError, match="strictly positive"):
            await anext(await client.text_generation(PROMPT, temperature=0.0, stream=True, details=True))
    assert stand_in.last("/").headers["authorization"] == "Bearer hf_test"


def test_endpoints_and_the_hub(tgi: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    described = endpoint("http://127.0.0.1:1", state="paused", message="Paused by its owner")
    _, url = tgi(keys={"hf_good"}, endpoints={"somebody/mine": described}, offers={"a/b": {"hf-inference": "live"}})
    monkeypatch.setattr("huggingface_hub.constants.INFERENCE_ENDPOINTS_ENDPOINT", f"{url}/v2")
    api = HfApi(endpoint=url, token="hf_good")
    found = api.get_inference_endpoint("mine")
    assert (found.namespace, found.status, found.repository) == ("somebody", "paused", MODEL)
    with pytest.raises(HfHubHTTPError, match="404"):
        api.get_inference_endpoint("other")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(endpoint=url, token="hf_bad").get_inference_endpoint("mine", namespace="somebody")
    offers = api.model_info("a/b", expand=["inferenceProviderMapping"]).inference_provider_mapping
    assert [(offer.provider, offer.status) for offer in offers or ()] == [("hf-inference", "live")]
    close_session()

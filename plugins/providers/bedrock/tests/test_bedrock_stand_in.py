"""The stand-in for Bedrock, measured by the vendor's own client for Python: boto3, synchronous, over urllib3."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import boto3
import pytest
from backends.bedrock import (
    ACCESS_KEY,
    COHERE_EMBED,
    EU_SONNET,
    HAIKU,
    LLAMA,
    OWN_PROFILE,
    REGION,
    SECRET,
    SONNET,
    TITAN_EMBED,
    BedrockFront,
)
from backends.bedrock_wire import Secret, error, event, exception, stream_of
from botocore.config import Config
from botocore.exceptions import ClientError, EventStreamError

CAPITAL = [{"role": "user", "content": [{"text": "What is the capital of France?"}]}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Rome"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOLS = {"tools": [{"toolSpec": {"name": "weather", "description": "Tells it", "inputSchema": {"json": SCHEMA}}}]}
FEW = {"temperature": 0.0, "maxTokens": 8}
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.fixture(scope="module")
def session() -> Any:
    """One for all: it keeps the descriptions of the services, which take long to read."""
    return boto3.session.Session()


@pytest.fixture
def clients(session: Any) -> Iterator[Callable[..., Any]]:
    """Make a client of boto3: `clients("bedrock-runtime", url)`."""
    with ExitStack() as opened:

        def make(service: str, url: str, key: str = ACCESS_KEY, secret: str = SECRET, token: str | None = None) -> Any:
            keys = {"aws_access_key_id": key, "aws_secret_access_key": secret, "aws_session_token": token}
            config = Config(retries={"total_max_attempts": 1})
            client = session.client(service, REGION, endpoint_url=url, config=config, **keys)
            opened.callback(client.close)
            return client

        yield make


@pytest.fixture
def front(bedrock: Callable[..., tuple[BedrockFront, str]]) -> tuple[BedrockFront, str]:
    return bedrock()


@pytest.fixture
def runtime(front: tuple[BedrockFront, str], clients: Callable[..., Any]) -> Any:
    return clients("bedrock-runtime", front[1])


def code_of(caught: pytest.ExceptionInfo[ClientError]) -> tuple[int, str]:
    response = caught.value.response
    return response["ResponseMetadata"]["HTTPStatusCode"], response["Error"]["Code"]


def text_of(reply: Any) -> str:
    return "".join(block["text"] for block in reply["output"]["message"]["content"])


def test_converse(runtime: Any) -> None:
    for model in (HAIKU, EU_SONNET, OWN_PROFILE, f"arn:aws:bedrock:{REGION}::foundation-model/{LLAMA}"):
        reply = runtime.converse(modelId=model, messages=CAPITAL, inferenceConfig={"temperature": 0.0, "maxTokens": 24})
        assert text_of(reply) == "The capital of France is Paris."
        assert reply["output"]["message"]["role"] == "assistant"
        assert reply["stopReason"] == "end_turn"
        usage = reply["usage"]
        assert usage["inputTokens"] > 5 < usage["outputTokens"]
        assert usage["totalTokens"] == usage["inputTokens"] + usage["outputTokens"]
        assert reply["metrics"]["latencyMs"] > 0


def test_converse_ends_as_it_was_told(runtime: Any) -> None:
    config = {"temperature": 0.0, "maxTokens": 3}
    short = runtime.converse(modelId=HAIKU, messages=CAPITAL, inferenceConfig=config)
    assert (text_of(short), short["stopReason"]) == ("The capital of", "max_tokens")
    config = {"temperature": 0.0, "stopSequences": ["France"]}
    stopped = runtime.converse(modelId=HAIKU, messages=CAPITAL, inferenceConfig=config)
    assert (text_of(stopped), stopped["stopReason"]) == ("The capital of ", "stop_sequence")


def test_converse_stream(runtime: Any) -> None:
    reply = runtime.converse_stream(modelId=HAIKU, messages=CAPITAL, inferenceConfig={"temperature": 0.0})
    events = list(reply["stream"])
    assert events[0] == {"messageStart": {"role": "assistant"}}
    deltas = [e["contentBlockDelta"] for e in events if "contentBlockDelta" in e]
    assert "".join(d["delta"]["text"] for d in deltas) == "The capital of France is Paris."
    assert len(deltas) > 3
    assert [next(iter(e)) for e in events[-3:]] == ["contentBlockStop", "messageStop", "metadata"]
    assert events[-2]["messageStop"]["stopReason"] == "end_turn"
    assert events[-1]["metadata"]["usage"]["outputTokens"] > 3


def test_tools_forced(runtime: Any) -> None:
    config: Any = {**TOOLS, "toolChoice": {"any": {}}}
    reply = runtime.converse(modelId=HAIKU, messages=CAPITAL, toolConfig=config, inferenceConfig={"temperature": 0.0})
    assert reply["stopReason"] == "tool_use"
    [block] = reply["output"]["message"]["content"]
    assert block["toolUse"]["name"] == "weather"
    assert block["toolUse"]["input"] in ({"city": "Paris"}, {"city": "Rome"})

    stream = runtime.converse_stream(modelId=HAIKU, messages=CAPITAL, toolConfig=config)["stream"]
    events = list(stream)
    [start] = [e["contentBlockStart"]["start"]["toolUse"] for e in events if "contentBlockStart" in e]
    assert start["name"] == "weather"
    pieces = [e["contentBlockDelta"]["delta"]["toolUse"]["input"] for e in events if "contentBlockDelta" in e]
    assert len(pieces) > 1
    assert json.loads("".join(pieces)).keys() == {"city"}
    assert events[-2]["messageStop"]["stopReason"] == "tool_use"


def test_a_whole_conversation_is_taken(runtime: Any, front: tuple[BedrockFront, str]) -> None:
    image = {"image": {"format": "png", "source": {"bytes": PNG}}}
    use = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Paris"}}}
    result = {"toolResult": {"toolUseId": "t1", "content": [{"text": "sunny"}]}}
    messages = [
        {"role": "user", "content": [{"text": "Look:"}, image]},
        {"role": "assistant", "content": [use]},
        {"role": "user", "content": [result, {"text": "And?"}]},
    ]
    reply = runtime.converse(
        modelId=HAIKU, system=[{"text": "Be kind."}], messages=messages, toolConfig=TOOLS, inferenceConfig=FEW
    )
    assert text_of(reply)
    sent = front[0].last("Converse").body["messages"]
    assert base64.b64decode(sent[0]["content"][1]["image"]["source"]["bytes"]) == PNG


def test_a_json_schema_is_kept_to(runtime: Any) -> None:
    structure = {"jsonSchema": {"schema": json.dumps(SCHEMA), "name": "answer"}}
    output = {"textFormat": {"type": "json_schema", "structure": structure}}
    reply = runtime.converse(modelId=HAIKU, messages=CAPITAL, outputConfig=output)
    assert json.loads(text_of(reply)) in ({"city": "Paris"}, {"city": "Rome"})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"modelId": "no.such-model"}, "model identifier is invalid"),
    ({"modelId": SONNET}, "on-demand throughput isn't supported"),
    ({"modelId": TITAN_EMBED}, "doesn't support the model"),
    ({"messages": [{"role": "assistant", "content": [{"text": "x"}]}]}, "must start with a user message"),
    ({"messages": [*CAPITAL, *CAPITAL]}, "must alternate"),
    ({"messages": [{"role": "user", "content": [{"text": " "}]}]}, "messages.0.content.0 is blank"),
    ({"inferenceConfig": {"temperature": 1.5}}, "inferenceConfig.temperature"),
    ({"messages": [{"role": "user", "content": [{"text": "hello " * 3000}]}]}, "Input is too long"),
    (
        {"messages": [{"role": "user", "content": [{"image": {"format": "gif", "source": {"bytes": PNG}}}]}]},
        "is no gif",
    ),
    (
        {
            "messages": [
                *CAPITAL,
                {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}]},
            ]
        },
        "toolConfig field must be defined",
    ),
    (
        {
            "messages": [
                *CAPITAL,
                {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "f", "input": {}}}]},
                *CAPITAL,
            ],
            "toolConfig": TOOLS,
        },
        "Expected toolResult blocks",
    ),
]


def test_what_bedrock_refuses(runtime: Any) -> None:
    for arguments, words in REFUSED:
        with pytest.raises(runtime.exceptions.ValidationException, match=words) as caught:
            runtime.converse(**{"modelId": HAIKU, "messages": CAPITAL, **arguments})
        assert code_of(caught) == (400, "ValidationException")


def test_lists(front: tuple[BedrockFront, str], clients: Callable[..., Any]) -> None:
    control = clients("bedrock", front[1])
    summaries = {m["modelId"]: m for m in control.list_foundation_models()["modelSummaries"]}
    assert summaries[HAIKU]["inputModalities"] == ["TEXT", "IMAGE"]
    assert summaries["anthropic.claude-v2"]["modelLifecycle"]["status"] == "LEGACY"
    some = control.list_foundation_models(byProvider="Meta", byOutputModality="TEXT", byInferenceType="ON_DEMAND")
    assert [m["modelId"] for m in some["modelSummaries"]] == [LLAMA]

    pages = list(control.get_paginator("list_inference_profiles").paginate())
    assert len(pages) == 2
    assert [p["inferenceProfileSummaries"][0]["inferenceProfileId"] for p in pages] == [EU_SONNET, f"eu.{LLAMA}"]
    [own] = control.list_inference_profiles(typeEquals="APPLICATION")["inferenceProfileSummaries"]
    assert own["inferenceProfileArn"] == OWN_PROFILE


def test_invoke_embeds(runtime: Any) -> None:
    def invoke(model: str, **body: Any) -> Any:
        return json.loads(runtime.invoke_model(modelId=model, body=json.dumps(body))["body"].read())

    titan = invoke(TITAN_EMBED, inputText="a llama")
    assert titan["embedding"] == titan["embeddingsByType"]["float"]
    assert titan["inputTextTokenCount"] > 1
    plain = invoke(COHERE_EMBED, texts=["a llama", "rain"], input_type="search_document")
    assert plain["response_type"] == "embeddings_floats"
    typed = invoke(COHERE_EMBED, texts=["a llama", "rain"], input_type="search_query", embedding_types=["float"])
    assert typed["embeddings"]["float"] == plain["embeddings"]
    assert plain["embeddings"][0] == pytest.approx(titan["embedding"], abs=1e-5)
    for model, body in ((TITAN_EMBED, {"inputText": ""}), (COHERE_EMBED, {"texts": ["x"]}), (TITAN_EMBED, {"x": 1})):
        with pytest.raises(runtime.exceptions.ValidationException, match="Malformed input request"):
            invoke(model, **body)


@pytest.mark.parametrize("service", ["bedrock", "bedrock-runtime"])
def test_credentials_are_checked(
    bedrock: Callable[..., tuple[BedrockFront, str]], clients: Callable[..., Any], service: str
) -> None:
    keys = {
        ACCESS_KEY: Secret(SECRET),
        "ASIASESSION": Secret(SECRET, "session/token=="),
        "ASIAOVER": Secret(SECRET, "old", expired=True),
    }
    _, url = bedrock(keys=keys)

    def call(*credentials: str) -> Any:
        client = clients(service, url, *credentials)
        if service == "bedrock":
            return client.list_inference_profiles(maxResults=5, typeEquals="APPLICATION")
        return client.converse(modelId=OWN_PROFILE, messages=CAPITAL, inferenceConfig={"maxTokens": 1})

    for credentials, code in (
        (("AKIAUNKNOWN", SECRET), "UnrecognizedClientException"),
        ((ACCESS_KEY, "another secret"), "InvalidSignatureException"),
        ((ACCESS_KEY, SECRET, "a token"), "UnrecognizedClientException"),
        (("ASIASESSION", SECRET, "another token"), "UnrecognizedClientException"),
        (("ASIAOVER", SECRET, "old"), "ExpiredTokenException"),
    ):
        with pytest.raises(ClientError) as caught:
            call(*credentials)
        assert code_of(caught) == (403, code)
    assert call(ACCESS_KEY, SECRET)
    assert call("ASIASESSION", SECRET, "session/token==")


def test_another_region_and_another_body_are_not_signed_for(front: tuple[BedrockFront, str], runtime: Any) -> None:
    def changed(request: Any, **_: Any) -> None:
        request.body = request.body.replace(b"France", b"Italia")

    runtime.meta.events.register("before-send.bedrock-runtime.Converse", changed)
    with pytest.raises(ClientError) as caught:
        runtime.converse(modelId=HAIKU, messages=CAPITAL)
    assert code_of(caught) == (403, "InvalidSignatureException")
    runtime.meta.events.unregister("before-send.bedrock-runtime.Converse", changed)
    front[0].region = "us-east-1"
    with pytest.raises(ClientError) as caught:
        runtime.converse(modelId=HAIKU, messages=CAPITAL)
    assert code_of(caught) == (403, "InvalidSignatureException")


def test_scripted_faults(front: tuple[BedrockFront, str], runtime: Any) -> None:
    front[0].answers.append(error(429, "ThrottlingException", "Too many requests", retry_after="3"))
    with pytest.raises(runtime.exceptions.ThrottlingException, match="Too many requests") as caught:
        runtime.converse(modelId=HAIKU, messages=CAPITAL)
    assert caught.value.response["ResponseMetadata"]["HTTPHeaders"]["retry-after"] == "3"
    front[0].answers.append(
        stream_of(event("messageStart", {"role": "assistant"}), exception("modelStreamErrorException", "It broke"))
    )
    stream = iter(runtime.converse_stream(modelId=HAIKU, messages=CAPITAL)["stream"])
    assert next(stream) == {"messageStart": {"role": "assistant"}}
    with pytest.raises(EventStreamError, match="It broke") as broken:
        next(stream)
    assert broken.value.response["Error"]["Code"] == "modelStreamErrorException"

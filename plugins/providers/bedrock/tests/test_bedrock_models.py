"""What the provider serves, and its embedding models."""

from __future__ import annotations

from collections.abc import Callable
from operator import mul
from typing import Any

import pytest
from backends.bedrock import COHERE_EMBED, EU_SONNET, HAIKU, LLAMA, OWN_PROFILE, TITAN_EMBED
from backends.bedrock_wire import error
from starlette.responses import JSONResponse

from llamastack.api import ImageMedia, Model
from llamastack.provider import (
    BackendError,
    InvalidRequestError,
    LlamaStackError,
    NotSupportedError,
    PermissionDeniedError,
    UnsupportedModelError,
)

pytestmark = pytest.mark.anyio


# ---- what is served --------------------------------------------------------------------------------------------------


async def test_it_serves_what_can_be_called_and_its_aliases(running: Any) -> None:
    models = {model.identifier: model for model in await running.stack.models.list_models()}
    assert list(models) == [
        HAIKU,
        LLAMA,
        TITAN_EMBED,
        COHERE_EMBED,
        EU_SONNET,
        f"eu.{LLAMA}",
        OWN_PROFILE,
        "small",
    ]
    assert models[HAIKU].metadata == {
        "type": "foundation_model",
        "provider": "Anthropic",
        "input_modalities": ["text", "image"],
        "output_modalities": ["text"],
        "streaming": True,
    }
    assert models[EU_SONNET].metadata["type"] == "inference_profile"
    assert models[OWN_PROFILE].metadata["model"] == HAIKU
    assert models["small"].metadata["alias_of"] == HAIKU
    await running.chat(model="small")
    assert running.front.last("Converse").model == HAIKU
    for name in (EU_SONNET, OWN_PROFILE, f"p/{LLAMA}"):
        reply = await running.chat(model=name)
        assert reply.completion_message.content == "The capital of"
        assert running.front.last("Converse").model == name.removeprefix("p/")


async def test_registering(running: Any) -> None:
    await running.stack.models.register_model(Model(identifier=LLAMA, provider_id="p"))
    with pytest.raises(UnsupportedModelError, match="'anthropic.claude-v2' is not served"):
        await running.stack.models.register_model(Model(identifier="anthropic.claude-v2", provider_id="p"))


async def test_every_page_of_profiles_is_read(started: Callable[..., Any]) -> None:
    async with started(front={"page_size": 1}) as running:
        await running.stack.models.list_models()
        tokens = [s.query.get("nextToken") for s in running.front.seen if s.operation == "ListInferenceProfiles"]
        assert tokens[0] is None
        assert tokens[1]
    assert {s.query["type"] for s in running.front.seen if s.operation == "ListInferenceProfiles"} == {
        "SYSTEM_DEFINED",
        "APPLICATION",
    }


async def test_who_may_not_list_can_name_the_models(started: Callable[..., Any]) -> None:
    denied = error(403, "AccessDeniedException", "User is not authorized to perform: bedrock:ListFoundationModels")
    async with started(front={"listing": denied}, models={"small": HAIKU}) as running:
        assert [m.identifier for m in await running.stack.models.list_models()] == [HAIKU, "small"]
        reply = await running.chat(model="small")
        assert reply.completion_message.content == "The capital of"
    async with started(front={"listing": denied}) as running:
        with pytest.raises(LlamaStackError, match="not authorized to perform: bedrock:ListFoundationModels"):
            await running.chat()


# ---- embeddings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [TITAN_EMBED, COHERE_EMBED])
async def test_embeddings(running: Any, model: str) -> None:
    texts = ["A llama eats grass.", "The llama is eating some grass.", "Interest rates rose again."]
    vectors = (await running.stack.inference.embeddings(model=model, contents=texts)).embeddings
    assert len(vectors) == 3

    def likeness(one: list[float], other: list[float]) -> float:
        return sum(map(mul, one, other)) / (sum(map(mul, one, one)) * sum(map(mul, other, other))) ** 0.5

    assert likeness(vectors[0], vectors[1]) > likeness(vectors[0], vectors[2])
    alone = (await running.stack.inference.embeddings(model=model, contents=texts[2:])).embeddings
    assert likeness(alone[0], vectors[2]) > 0.999


async def test_many_embeddings_keep_their_order(running: Any) -> None:
    texts = [f"{number}" for number in range(97)]
    many = (await running.stack.inference.embeddings(model=COHERE_EMBED, contents=texts)).embeddings
    assert [len(s.body["texts"]) for s in running.front.seen if s.operation == "InvokeModel"] in ([96, 1], [1, 96])
    few = (await running.stack.inference.embeddings(model=TITAN_EMBED, contents=texts[93:])).embeddings
    assert running.front.count("InvokeModel") == 6
    for one, other in zip(many[93:], few, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


async def test_embeddings_that_are_refused(running: Any) -> None:
    embeddings = running.stack.inference.embeddings
    with pytest.raises(NotSupportedError, match="embeddings by") as unknown:
        await embeddings(model=LLAMA, contents=["x"])
    assert unknown.value.param == "model"
    with pytest.raises(NotSupportedError) as image:
        await embeddings(model=TITAN_EMBED, contents=["x", ImageMedia(image="data:image/png;base64,AAAA")])
    assert image.value.param == "contents[1]"
    running.front.answers += [error(403, "AccessDeniedException", "No access to the model.")]
    with pytest.raises(PermissionDeniedError, match="No access to the model"):
        await embeddings(model=COHERE_EMBED, contents=["x"])
    running.front.answers.append(JSONResponse({"embeddings": {"float": [[1.0]]}}))
    with pytest.raises(BackendError, match="1 embeddings for 2 contents"):
        await embeddings(model=COHERE_EMBED, contents=["x", "y"])
    running.front.answers.append(JSONResponse({"vectors": []}))
    with pytest.raises(BackendError, match="cannot be understood"):
        await embeddings(model=COHERE_EMBED, contents=["x", "y"])
    # Last: the other two calls are given up, and may come in at the stand-in or not.
    with pytest.raises(InvalidRequestError, match="Malformed input request"):
        await embeddings(model=TITAN_EMBED, contents=["x", "", "y"])

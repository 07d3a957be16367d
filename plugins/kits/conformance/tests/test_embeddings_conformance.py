"""The embeddings for tests: they pass the suite, and texts that share words are near."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest

from llamastack.api.common import ImageMedia
from llamastack.provider import Deps
from llamastack.provider.errors import InvalidRequestError
from llamastack_conformance import InferenceConformance
from llamastack_conformance.embedding.config import TestEmbeddingsConfig
from llamastack_conformance.embedding.hashed_words import IDENTIFIER, get_provider_impl


class TestTestEmbeddingsConformance(InferenceConformance):
    provider_type = "test-embeddings"
    config: ClassVar[dict[str, Any]] = {
        "providers": {"inference": [{"provider_id": "embed", "provider_type": "test-embeddings"}]}
    }


def _cosine(one: list[float], other: list[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.anyio
async def test_texts_that_share_words_are_near() -> None:
    provider = await get_provider_impl(TestEmbeddingsConfig(), Deps(provider_id="embed"))
    texts = [
        "Llamas graze in Peru.",
        "llamas graze",
        "A boat at sea",
        "",
        "🦙 🦙",
        *(f"w{n} x{n} y{n}" for n in range(500)),
    ]
    made = (await provider.embeddings(IDENTIFIER, [*texts])).embeddings
    assert all(abs(_cosine(vector, vector) - 1) < 1e-9 for vector in made)
    likeness = [_cosine(made[1], vector) for vector in made]
    assert likeness[0] > 0.5
    assert max(likeness[2:]) < 0.4
    again = (await provider.embeddings(IDENTIFIER, [texts[0]])).embeddings
    assert again == made[:1]
    assert made[0][:4] == (await provider.embeddings(IDENTIFIER, [["Llamas graze", "in Peru."]])).embeddings[0][:4]


@pytest.mark.anyio
async def test_an_image_is_refused() -> None:
    provider = await get_provider_impl(TestEmbeddingsConfig(dimension=16), Deps(provider_id="embed"))
    with pytest.raises(InvalidRequestError) as caught:
        await provider.embeddings(IDENTIFIER, ["text", ImageMedia(image="data:image/png;base64,AA==")])
    assert caught.value.param == "contents[1]"
    assert len((await provider.embeddings(IDENTIFIER, ["text"])).embeddings[0]) == 16
